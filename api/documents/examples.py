"""One example of each request and response body in the OpenAPI document. Together they are one story, with the same ids throughout."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from api.problems import problem
from application.history import event_schemas
from application.history.event_meanings import MEANINGS
from application.key_text import KeySecret

USER: Final = "5f0c1c0e-7d0c-4c57-9a59-7f2f7f1f6a01"
COLLEAGUE: Final = "c2a7b8de-0a43-4f0e-8f0b-1d2a5c6e7f02"
TEAM: Final = "6e1f2a3b-4c5d-4e6f-8a7b-9c0d1e2f3a0e"
DATASET: Final = "0b9bb4ae-1c4f-4e3e-9a54-5f0c0a3d7c03"
IMAGE: Final = "9d8f2f36-6a0b-4d55-8b6e-2e9a4b7c1d04"
DEVICE: Final = "e1b6a0a4-3f5c-4d11-9f2f-8c7d6e5f4a05"
MODEL: Final = "3a4f7c1d-8e2b-5b6c-9d0e-1f2a3b4c5d06"
JOB: Final = "7c6d5e4f-1a2b-4c3d-8e9f-0a1b2c3d4e07"
RETRY: Final = "8d7e6f5a-2b3c-4d4e-9f0a-1b2c3d4e5f0a"
RESULT: Final = "f4e3d2c1-b0a9-5888-9776-65544332210a"
FAILURE: Final = "1d2c3b4a-5968-5776-8594-a3b2c1d0e0fb"
EVENT: Final = "b2a7c4d6-e8f0-4a1b-8c2d-3e4f5a6b7c0c"
CHECK: Final = "d4e5f6a7-b8c9-4d0e-9f1a-2b3c4d5e6f08"
CHECK_AGAIN: Final = "e5f6a7b8-c9d0-4e1f-8a2b-3c4d5e6f7a09"
KEY: Final = "f6a7b8c9-d0e1-4f2a-9b3c-4d5e6f7a8b0e"
SERVICE: Final = "a7b8c9d0-e1f2-4a3b-8c4d-5e6f7a8b9c0f"
SERVICE_KEY: Final = "b8c9d0e1-f2a3-4b4c-9d5e-6f7a8b9c0d10"
COMMAND: Final = "a1b2c3d4-e5f6-4a7b-8c9d-0e1f2a3b4c0d"
SESSION: Final = "c3d4e5f6-a7b8-4c9d-8e0f-2a3b4c5d6e0e"
SESSION_OF_COLLEAGUE: Final = "d5e6f7a8-b9c0-4d1e-8f2a-3b4c5d6e7f0f"
SHA256_OF_IMAGE: Final = "8d1f6c4be2a97035d6e08c1f7b2a94e35c60d7f8a1b29e43076c5d8f1e2a3b4c"
SHA256_OF_MODEL: Final = "2b7e151628aed2a6abf7158809cf4f3c762e7160f38b4da56a784d9045190cfe"
SHA256_OF_DECLARATION: Final = "1acabf58bce99a263de44fd1112d75df809a5cad834d8b39b442fc81648dcf70"
SHA256_OF_PACKAGE: Final = "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9"
HASH: Final = "c0ffee254729296a45a3885639ac7e10f9d54979c0ffee254729296a45a38856"
ACCESS_TOKEN: Final = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiI1ZjBjMWMwZSJ9.c2lnbmF0dXJl"  # noqa: S105 - signed by nobody
REFRESH_TOKEN: Final = "q3Hn0vUu4m0Jr5mE1xY7kzT2bW8cQdL6sAfGhPiOjNy"  # noqa: S105 - issued by nobody
API_KEY: Final = KeySecret(bytes(32)).text(UUID(KEY))  # without a secret
INVITATION: Final = "f6a7b8c9-d0e1-4f2a-8b3c-4d5e6f7a8b0e"
VERIFICATION_TOKEN: Final = "bsl_AFY1n7oWcQ2b"  # noqa: S105 - issued by nobody
RESET_TOKEN: Final = "bsl_AVt0kGq4ZsXe"  # noqa: S105 - issued by nobody
EMAIL_TOKEN: Final = "bsl_AmR7hYd2NwPu"  # noqa: S105 - issued by nobody
INVITATION_TOKEN: Final = "bsl_A3xK9vBf6LjC"  # noqa: S105 - issued by nobody
BOOTSTRAP_TOKEN: Final = "bsb_c0T8mEi5HgSa"  # noqa: S105 - issued by nobody
SIGNED_TOKEN: Final = "AZbX3kY4v1Q7sT2uW5zR8nM0pL6jH9gF"  # noqa: S105 - issued by nobody
EMAIL: Final = "ada@example.org"
EMAIL_OF_COLLEAGUE: Final = "rosalind@example.org"
PASSWORD: Final = "correct horse battery 9"  # noqa: S105 - of an example
MORNING: Final = "2026-03-02T09:00:00Z"
UPLOADED: Final = "2026-03-02T09:30:00.250000Z"
CLASSIFIED: Final = "2026-03-02T09:31:00.500000Z"
FILENAME: Final = "cell.jpg"
PATH: Final = f"A1/{FILENAME}"

SCORES: Final = {"lymphocyte": 0.94, "neutrophil": 0.06}
WARNING: Final = {"code": "transparency_on_white", "detail": "Transparent pixels are shown and classified on white"}
RULES: Final = {
    "review_below": 0.8,
    "review_below_for": {"neutrophil": 0.95},
    "label_at": {},
    "applies_at": None,
    "applies_at_for": {},
    "review_outside": None,
}
POLICY: Final = {
    "scope": "dataset",
    "target_id": DATASET,
    "dataset_id": DATASET,
    "rules": RULES,
    "set_by": USER,
    "set_by_username": "ada",
    "set_at": "2026-03-02T10:00:00Z",
    "applied_at": "2026-03-02T10:00:00.400000Z",
}
CLEAR: Final = {"label": "lymphocyte", "confidence": 0.94, "verdict": "clear"}
PROFILE: Final = {
    "id": USER,
    "email": EMAIL,
    "username": "ada",
    "first_name": "Ada",
    "last_name": "Byron",
    "role": "researcher",
    "status": "active",
    "institution": "Institute of Haematology",
    "department": None,
    "phone": None,
    "pending_email": None,
}
INVITED: Final = {
    "id": INVITATION,
    "email": "grace@example.org",
    "role": "researcher",
    "status": "open",
    "invited_by": USER,
    "invited_at": MORNING,
    "sent_at": MORNING,
    "expires_at": "2026-03-09T09:00:00Z",
    "user_id": None,
}
PERSON: Final = {"username": "grace", "first_name": "Grace", "last_name": "Hopper", "password": PASSWORD}
FILTER: Final = {
    "path": "slide-7/*.tif",
    "uploaded_from": "2026-03-01T00:00:00Z",
    "uploaded_before": None,
    "device_id": None,
    "label": None,
    "verdict": None,
    "without_result": True,
}
CLASSIFICATION: Final = {
    "id": JOB,
    "dataset_id": DATASET,
    "image_id": None,
    "model_name": "pbc8",
    "status": "completed",
    "created_by_id": USER,
    "created_at": "2026-03-02T09:30:59Z",
    "updated_at": CLASSIFIED,
    "model_id": MODEL,
    "model_version": 1,
    "model_sha256": SHA256_OF_MODEL,
    "threshold": 0.6309,
    "planned": True,
    "images": 2,
    "succeeded": 1,
    "failed": 1,
    "reason": None,
    "planes": None,
    "listed": 0,
    "filter": FILTER,
    "external": False,
    "priority": "normal",
    "deadline": "2026-03-02T18:00:00Z",
    "top_k": None,
    "fresh": False,
    "retry_of": None,
    "started_at": "2026-03-02T09:30:59Z",
    "last_result_at": CLASSIFIED,
    "rate": 2.0,
    "remaining_seconds": None,
}
FAILED: Final = {
    "id": FAILURE,
    "image_id": "d0e1f2a3-b4c5-4d6e-8f7a-8b9c0d1e2f0e",
    "reason": "damaged_image",
    "detail": "The image file ends too early.",
    "created_at": CLASSIFIED,
}
FOUND: Final = {
    "id": RESULT,
    "image_id": IMAGE,
    "classification_id": JOB,
    "label": "lymphocyte",
    "labels": ["lymphocyte"],
    "confidence": 0.94,
    "model_name": "pbc8",
    "created_at": CLASSIFIED,
    "verdict": "clear",
    "scores": SCORES,
    "warnings": [],
    "model_version": 1,
    "dataset_id": DATASET,
    "value": None,
    "path": PATH,
    "filename": FILENAME,
    "result_version": 1,
    "is_newest": True,
    "reused": None,
}
NOT_IN_THE_PAST: Final = {"labels", "created_at", "warnings", "dataset_id", "path", "filename", "result_version", "is_newest", "reused"}
DECLARED: Final = {
    "labels": ["bone_cells", "rbc", "vascular_fragments", "other"],
    "label_texts": {"rbc": "red blood cells"},
    "description": "The classifier service of the imaging group",
    "review_below": 0.7,
}
MODEL_VERSION: Final = {
    "number": 1,
    "description": "Eight classes of normal peripheral blood cells, and other. Not for diagnosis.",
    "release": "1.2.0",
    "kind": "logits",
    "unit": None,
    "label_threshold": None,
    "labels": list(SCORES),
    "label_texts": {},
    "review_below": 0.6309,
    "sha256": SHA256_OF_MODEL,
    "size": 4_701_234,
    "digest": "c0535e4be2b79ffd93291305436bf889314e4a3faec05ecffcbb7df31ad9e51a",
    "package": "ec2738feb2bbb0bc783eb4667903391416372ba6ed8b8dddbebbdb37e5102473",
    "added_at": "2026-02-01T08:00:00Z",
    "added_by": USER,
    "added_by_username": "ada",
    "checks": [
        {
            "environment": {"cpu": "AMD EPYC 7763 (avx2, fma)", "runtime": "onnxruntime 1.23.2", "provider": "CPUExecutionProvider"},
            "at": "2026-02-01T08:00:00Z",
            "report": {
                "environment": {"cpu": "AMD EPYC 7763 (avx2, fma)", "runtime": "onnxruntime 1.23.2", "provider": "CPUExecutionProvider"},
                "largest_difference": 0.000012,
                "tolerance": 0.001,
                "load_seconds": 0.12,
                "run_seconds": 0.004,
                "memory_bytes": 31_457_280,
                "nodes": 124,
                "opset": 18,
                "files": 5,
                "size": 4_801_020,
                "notes": [],
            },
            "code": None,
            "detail": None,
        }
    ],
}
DATASET_CREATED: Final = {
    "position": 12,
    "type": "DatasetCreated",
    "stream": DATASET,
    "version": 1,
    "actor": {"id": USER, "kind": "user", "role": "researcher"},
}
CREATED_DATA: Final = {"at": MORNING, "by": USER, "name": "Blood smears", "description": "Ward 3, March", "owner_id": USER}

PASSED_CHECK: Final = {
    "id": CHECK,
    "status": "passed",
    "requested_by_id": USER,
    "requested_at": "2026-03-02T09:20:00Z",
    "sha256": SHA256_OF_PACKAGE,
    "filename": "cells.zip",
    "size": 5_104_233,
    "model_id": MODEL,
    "model_name": "pbc8",
    "number": 2,
    "answered_at": "2026-03-02T09:20:03Z",
    "report": {
        "environment": {"cpu": "x86_64 Xeon avx2", "runtime": "onnxruntime 1.30.0", "provider": "CPUExecutionProvider"},
        "largest_difference": 0.000002,
        "tolerance": 0.001,
        "load_seconds": 0.21,
        "run_seconds": 0.012,
        "memory_bytes": 21_340_160,
        "nodes": 122,
        "opset": 17,
        "files": 6,
        "size": 5_312_001,
        "notes": [],
    },
    "code": None,
    "detail": None,
    "file": None,
    "field": None,
}
PENDING_CHECK: Final = {
    name: value if name in {"id", "requested_by_id", "requested_at", "sha256", "filename", "size"} else None
    for name, value in PASSED_CHECK.items()
} | {"status": "pending"}

TINY_PNG: Final = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAAAAABX3VL4AAAADklEQVR4nGNsYGBiYAAAApIAhPd8o1gAAAAASUVORK5CYII="
ABOUT_TEAM: Final = {"id": TEAM, "name": "Haematology", "owner_id": USER, "owner_username": "ada", "created_at": MORNING}

SCHEMAS: Final[Mapping[str, Any]] = {
    "AcceptInvitation": {"token": INVITATION_TOKEN, **PERSON},
    "AccountId": {"id": "c9d0e1f2-a3b4-4c5d-8e6f-7a8b9c0d1e11"},
    "ConfirmEmail": {"token": EMAIL_TOKEN},
    "ForgotPassword": {"email": EMAIL},
    "Invitation": INVITED,
    "Invite": {"email": "grace@example.org", "role": "researcher"},
    "MailRequested": {"detail": "If the address is known here, a mail is on its way to it. Its link works for 30 minutes"},
    "RequestVerification": {"email": EMAIL},
    "ResetPassword": {"token": RESET_TOKEN, "password": "another horse battery 9"},
    "SetUp": {"token": BOOTSTRAP_TOKEN, "email": "root@example.org", **PERSON, "username": "root"},
    "Verify": {"token": VERIFICATION_TOKEN, "password": PASSWORD, "username": "barbara"},
    "Address": {"url": f"http://127.0.0.1:8000/api/blobs/{SIGNED_TOKEN}", "expires_in": 3600, "filename": FILENAME},
    "Alive": {"status": "ok"},
    "Classification": CLASSIFICATION,
    "AddMember": {"email": EMAIL_OF_COLLEAGUE},
    "CreatedTeam": {"id": TEAM, "name": "Haematology"},
    "CreateTeam": {"name": "Haematology"},
    "RenameTeam": {"name": "Blood laboratory"},
    "Team": ABOUT_TEAM | {"members": 2},
    "TeamWithMembers": ABOUT_TEAM | {"members": [{"user_id": USER, "username": "ada"}, {"user_id": COLLEAGUE, "username": "grace"}]},
    "TransferDataset": {"user_id": COLLEAGUE},
    "CreateDataset": {"name": "Blood smears", "description": "Ward 3, March"},
    "Dataset": {
        "id": DATASET,
        "name": "Blood smears",
        "description": "Ward 3, March",
        "owner_username": "ada",
        "created_at": MORNING,
        "owner_id": USER,
        "grant": "owner",
    },
    "DescribeDataset": {"description": "Wards 3 and 4, March"},
    "DescribeDevice": {"location": "Room 2.17", "firmware_version": "4.2.1"},
    "DescribeImage": {"filename": "lymphocyte.jpg"},
    "Described": {"type": "DatasetDeleted", "noun": "dataset", "meaning": MEANINGS["DatasetDeleted"], "versions": [1]},
    "Device": {
        "id": DEVICE,
        "name": "Slide scanner",
        "hostname": "scanner-1.example.org",
        "location": "Room 2.17",
        "firmware_version": "4.2.0",
        "is_online": True,
        "last_seen": "2026-03-02T09:29:30Z",
        "registered_at": "2026-02-01T08:00:00Z",
    },
    "Entry": {**DATASET_CREATED, "at": MORNING, "sentence": "ada created the dataset Blood smears", "data": CREATED_DATA},
    "ExportedResult": {**FOUND, "label_text": "Lymphocyte", "unit": ""},
    "Failure": FAILED,
    "Filter": FILTER,
    "Feed": {
        "events": [
            {
                **DATASET_CREATED,
                "id": EVENT,
                "schema_version": 1,
                "time": MORNING,
                "correlation_id": COMMAND,
                "causation_id": COMMAND,
                "traceparent": None,
                "hash": HASH,
                "data": CREATED_DATA,
            }
        ],
        "next": 12,
    },
    "Heads": {
        "public_keys": ["11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="],
        "heads": [
            {
                "position": 12,
                "hash": HASH,
                "signed_text": f"12:{HASH}:2026-03-02T09:01:00+00:00",
                "signature": "5VZDAMNgrHKQhuLMgG6CioSHfx645dl02HPgZSJJAVVfuIIVkKM7rMYeOXAc+bRr0lv18FlbviRlUUFDjnoQCw==",
            }
        ],
    },
    "Image": {
        "id": IMAGE,
        "filename": FILENAME,
        "analyzed": True,
        "dataset_id": DATASET,
        "uploaded_by_id": USER,
        "device_id": None,
        "filepath": f"sha256/{SHA256_OF_IMAGE}",
        "uploaded_at": UPLOADED,
        "status": "accepted",
        "reason": None,
        "detail": None,
        "media_type": "image/jpeg",
        "size": 15_204,
        "width": 360,
        "height": 363,
        "bands": 3,
        "dtype": "uint8",
        "pages": 1,
        "axes": "YXS",
        "pixel_size_um": 0.25,
        "warnings": [WARNING],
        "sha256": SHA256_OF_IMAGE,
        "thumbnail": f"/api/images/{IMAGE}/thumbnail",
        "path": PATH,
    },
    "Login": {"email": EMAIL, "password": PASSWORD},
    "LoginForm": {"username": EMAIL, "password": PASSWORD},
    "ModelCheck": PASSED_CHECK,
    "Model": {
        "id": MODEL,
        "name": "pbc8",
        "description": "Eight classes of normal peripheral blood cells, and other. Not for diagnosis.",
        "production": 1,
        "labels": list(SCORES),
        "review_below": 0.6309,
        "sha256": SHA256_OF_MODEL,
        "aliases": {"production": 1},
        "versions": [MODEL_VERSION],
        "promoters": [{"user_id": COLLEAGUE, "username": "grace"}],
        "promoter_teams": [{"team_id": TEAM, "name": "Haematology"}],
        "created_at": "2026-02-01T08:00:00Z",
        "retired": False,
    },
    "ModelChange": {
        "position": 23,
        "at": CLASSIFIED,
        "type": "ModelAliasMoved",
        "by": USER,
        "by_username": "ada",
        "number": 1,
        "alias": "production",
        "user_id": None,
        "username": None,
        "team_id": None,
        "team": None,
        "reason": "Validated on the slides of March",
    },
    "InferenceRequest": {
        "id": "A1-7",
        "parameters": {"threshold": 0.8},
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [TINY_PNG]}],
        "outputs": [{"name": "label"}, {"name": "confidence"}, {"name": "verdict"}],
    },
    "InferenceResponse": {
        "model_name": "pbc8",
        "model_version": "1",
        "id": "A1-7",
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [1], "parameters": {}, "data": ["lymphocyte"]},
            {"name": "confidence", "datatype": "FP32", "shape": [1], "parameters": {}, "data": [0.94]},
            {"name": "verdict", "datatype": "BYTES", "shape": [1], "parameters": {}, "data": ["clear"]},
        ],
    },
    "ModelMetadata": {
        "name": "pbc8",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": "label", "datatype": "BYTES", "shape": [-1]}, {"name": "scores", "datatype": "FP32", "shape": [-1, 9]}],
    },
    "ModelReady": {"name": "pbc8", "ready": True},
    "DeclareModel": {"name": "vesicles"} | DECLARED,
    "MoveAlias": {"version": 1, "reason": "Validated on the slides of March"},
    "AnswerCount": {"label": "lymphocyte", "verdict": "clear", "count": 1},
    "OpenSession": {
        "id": SESSION,
        "device": "Firefox on Windows",
        "address": "192.0.2.17",
        "started_at": MORNING,
        "last_used_at": UPLOADED,
        "is_current": True,
    },
    "Policy": POLICY,
    "PolicyChange": {
        "position": 31,
        "at": "2026-03-02T10:00:00Z",
        "by": USER,
        "by_username": "ada",
        "rules": RULES,
        "reason": "Neutrophils are to be seen by a person",
    },
    "PolicyPreview": {
        "results": 1,
        "complete": True,
        "of_each_dataset": None,
        "changed": 0,
        "before": [{"label": "lymphocyte", "verdict": "clear", "count": 1}],
        "after": [{"label": "lymphocyte", "verdict": "clear", "count": 1}],
    },
    "PreviewPolicy": {"rules": RULES},
    "ProtocolError": {"error": "Model cells not found"},
    "Ready": {"status": "ok", "dependencies": [{"name": "postgres", "ok": True, "detail": "answers", "lag": None, "silent_models": []}]},
    "RefreshToken": {"refresh_token": REFRESH_TOKEN},
    "RegisterDevice": {"name": "Slide scanner", "hostname": "scanner-1.example.org", "location": "Room 2.16", "firmware_version": "4.2.0"},
    "Registered": {"id": USER, "email": EMAIL},
    "Registration": {"email": EMAIL, "username": "ada", "first_name": "Ada", "last_name": "Byron", "password": PASSWORD},
    "ServerLive": {"live": True},
    "ServerMetadata": {"name": "bioscope", "version": "0.2.0", "extensions": ["binary_tensor_data"]},
    "ServerReady": {"ready": True},
    "ReportDevice": {"is_online": True},
    "Requested": {"id": JOB, "status": "pending"},
    "ResultAnswer": CLEAR,
    "ResultPolicy": {"answer": CLEAR, "original": CLEAR, "policy": POLICY},
    "Retry": {"id": RETRY, "status": "pending", "retry_of": JOB},
    "RetireModel": {"reason": "Replaced by another model"},
    "Rules": RULES,
    "RunClassification": {"dataset_id": DATASET, "filter": FILTER, "model_name": "pbc8@production", "priority": "high"},
    "SetPolicy": {"rules": RULES, "reason": "Neutrophils are to be seen by a person"},
    "Share": {"kind": "user", "user_id": USER, "username": "ada", "team_id": None, "name": "ada", "grant": "owner"},
    "ShareByAddress": {"email": EMAIL_OF_COLLEAGUE, "grant": "viewer"},
    "ShareDataset": {"grant": "analyst"},
    "ResultStatistics": {
        "from": "2026-03-02",
        "to": "2026-03-02",
        "group_by": ["model", "label"],
        "groups": [
            {
                "model_name": "pbc8",
                "model_version": None,
                "dataset_id": None,
                "dataset_name": None,
                "device_id": None,
                "day": None,
                "label": "lymphocyte",
                "verdict": None,
                "count": 1,
                "verdicts": {"clear": 1, "needs_review": 0, "out_of_domain": 0},
                "average_confidence": 0.94,
                "confidence_histogram": [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0],
                "measured": 0,
                "average_value": None,
            }
        ],
    },
    "Statistics": {
        "classified_last_24_hours": 1,
        "average_confidence": 0.94,
        "last_10_results": [FOUND],
        "hourly_counts": [{"hour": "2026-03-02T09:00:00Z", "count": 1}],
    },
    "Tokens": {"access_token": ACCESS_TOKEN, "token_type": "bearer", "refresh_token": REFRESH_TOKEN, "expires_in": 3600},
    "CreateServiceAccount": {"name": "slide-scanner-1", "description": "Uploads the slides of room 2.16"},
    "IssueKey": {"name": "uploads", "scopes": ["images:read", "images:write"], "days": 90},
    "IssuedKey": {"id": KEY, "key": API_KEY, "expires_at": "2026-05-31T09:00:00Z"},
    "Key": {
        "id": KEY,
        "name": "uploads",
        "owner_id": USER,
        "owner_kind": "user",
        "scopes": ["images:read", "images:write"],
        "dataset_ids": None,
        "status": "working",
        "issued_by": USER,
        "issued_at": MORNING,
        "expires_at": "2026-05-31T09:00:00Z",
        "previous_until": None,
        "last_used_at": None,
        "last_used_from": None,
    },
    "RotateKey": {"days": 90, "overlap_hours": 24},
    "ServiceAccount": {
        "id": SERVICE,
        "name": "slide-scanner-1",
        "description": "Uploads the slides of room 2.16",
        "created_at": MORNING,
    },
    "UpdateUser": {"institution": "Institute of Haematology", "department": None},
    "Uploaded": {"id": IMAGE, "filename": FILENAME, "analyzed": False},
    "User": PROFILE,
    "Watched": {**CLASSIFICATION, "failures": [FAILED]},
    "api_results_Result": FOUND,
    "application_past_Result": {
        **{name: value for name, value in FOUND.items() if name not in NOT_IN_THE_PAST},
        "position": 21,
        "outdated": False,
    },
    "TrailItem": {
        "at": MORNING,
        "kind": "download",
        "outcome": "allowed",
        "sentence": f"ada downloaded {FILENAME} (dataset Blood smears)",
        "position": 7,
        "actor": {"kind": "user", "id": USER, "name": "ada"},
        "key": None,
        "object": IMAGE,
        "dataset": DATASET,
        "type": "",
        "route": "GET /api/images/{image_id}/download",
        "request_id": "3f2b8e6c0d5a4c1e9b7a6d5c4b3a2f10",
        "address": "192.0.2.7",
        "count": 1,
    },
    "WithdrawPolicy": {"reason": "The model in production is better now"},
}
"""Of a body, by the name of its schema. A list has one entry."""

RESPONSES: Final[Mapping[str, Any]] = {
    "auditImages": [
        {
            "id": IMAGE,
            "version": 2,
            "dataset_id": DATASET,
            "device_id": None,
            "filename": FILENAME,
            "sha256": SHA256_OF_IMAGE,
            "size": 15_204,
            "media_type": "image/jpeg",
            "uploaded_by": USER,
            "uploaded_at": UPLOADED,
            "path": PATH,
            "analyzed": False,
            "accepted": True,
            "rejected": None,
            "deleted": False,
            "inspection": {
                "width": 360,
                "height": 363,
                "bands": 3,
                "dtype": "uint8",
                "pages": 1,
                "axes": "YXS",
                "pixel_size_um": 0.25,
                "reader": 2,
                "warnings": [WARNING],
            },
            "outdated": [],
        }
    ],
    "auditState": {
        "id": DATASET,
        "version": 1,
        "name": "Blood smears",
        "description": "Ward 3, March",
        "owner_id": USER,
        "created_at": MORNING,
        "grants": {},
        "deleted": False,
    },
    "datasetsCreate": {"id": DATASET, "name": "Blood smears"},
    "serviceAccountsCreate": {"id": SERVICE, "name": "slide-scanner-1"},
    "serviceAccountsIssueKey": {"id": SERVICE_KEY, "key": API_KEY, "expires_at": "2026-05-31T09:00:00Z"},
    "devicesRegister": {"id": DEVICE, "name": "Slide scanner"},
    "modelsAdd": PENDING_CHECK,
    "modelsDeclare": MODEL_VERSION
    | DECLARED
    | {
        "release": None,
        "kind": "external",
        "size": 0,
        "package": None,
        "digest": SHA256_OF_DECLARATION,
        "sha256": SHA256_OF_DECLARATION,
        "added_at": CLASSIFIED,
        "checks": [],
    },
    "modelsTest": PENDING_CHECK | {"id": CHECK_AGAIN, "filename": None, "size": None, "model_id": MODEL, "model_name": "pbc8", "number": 2},
    "eventsSchema": event_schemas.schema("DatasetDeleted"),
}
"""By operation id, where the schema of the body does not say enough."""

PARAMETERS: Final[Mapping[str, str]] = {
    "about": DATASET,
    "check_id": CHECK,
    "invitation_id": INVITATION,
    "alias": "production",
    "dataset_id": DATASET,
    "device_id": DEVICE,
    "image_id": IMAGE,
    "job_id": JOB,
    "key_id": KEY,
    "kind": "DatasetDeleted",
    "name": "pbc8",
    "name_or_id": "pbc8",
    "number": "2",
    "policy_scope": "dataset",
    "result_id": RESULT,
    "service_id": SERVICE,
    "session_id": SESSION,
    "target_id": DATASET,
    "token": SIGNED_TOKEN,
    "team_id": TEAM,
    "user_id": USER,
    "version": "production",
}
"""Of parameters in a path, by name."""

OTHER_PARAMETERS: Final[Mapping[str, Mapping[str, str]]] = {
    "auditResults": {"about": IMAGE},
    "teamsAdd": {"user_id": COLLEAGUE},
    "teamsRemoveMember": {"user_id": COLLEAGUE},
    "datasetsShare": {"user_id": COLLEAGUE},
    "datasetsWithdraw": {"user_id": COLLEAGUE},
    "modelsAddPromoter": {"user_id": COLLEAGUE},
    "modelsRemovePromoter": {"user_id": COLLEAGUE},
    "sessionsEndAllOfUser": {"user_id": COLLEAGUE},
    "sessionsEndOfUser": {"user_id": COLLEAGUE, "session_id": SESSION_OF_COLLEAGUE},
    "usersRemove": {"user_id": COLLEAGUE},
}
"""By operation id."""

EVENT_STREAM: Final = f"""\
retry: 1000

data: {{"type":"authenticated","user":"{USER}","expires_at":"2026-03-02T10:30:00Z"}}

id: 21
data: {{"type":"event","position":21,"at":"{UPLOADED}","event":"ImageUploaded","stream":"{IMAGE}","actor":"{USER}",\
"dataset":"{DATASET}","subjects":["{IMAGE}","{DATASET}"]}}

id: 21
data: {{"type":"caught_up","position":21}}

"""

UPLOAD: Final[Mapping[str, str]] = {"dataset_id": DATASET, "path": PATH}
"""The parts of an upload beside the file and the parts that are rarely needed."""

PROBLEM_DETAILS: Final[Mapping[int, str]] = {
    400: "The body is not valid JSON in UTF-8",
    401: "Not authenticated",
    403: "Insufficient permissions: this needs the role analyst or higher",
    404: "Dataset not found",
    408: "The body did not arrive within 5 seconds; send it again",
    409: "Email already used",
    412: "This has changed: it stands at version 4, not 3. Load it again",
    413: "The body is larger than 1,048,576 bytes, which is the most that is taken here",
    415: "Send the body as application/json in UTF-8",
    416: "The file has 15,204 bytes, and none of those that were asked for",
    421: "This host is not served here",
    422: "name must have 1 to 255 characters, has 0",
    429: "Too many attempts; try again in 38 s",
    503: "The file store is slow; try again",
}


def problem_example(status: int) -> dict[str, Any]:
    """An error response with that status."""
    body = problem(status, PROBLEM_DETAILS[status], request_id="37bc25b9511b42d28aadf6de2c0e71b8")
    example: dict[str, Any] = {name: getattr(body, name) for name in ("type", "title", "status", "detail", "code", "instance")}
    if status == 422:
        example["errors"] = [{"loc": ["body", "name"], "msg": "must have 1 to 255 characters, has 0"}]
    return example
