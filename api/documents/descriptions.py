"""The meaning of each parameter and property in the OpenAPI document. Operations and most schemas are described by docstrings."""

from collections.abc import Mapping
from typing import Final

from application.history.event_meanings import FIELDS
from domain.classification import JobStatus
from domain.declaration import MAX_LABELS
from domain.model import MAX_REASON
from domain.values import (
    MAX_DESCRIPTION,
    MAX_FILENAME,
    MAX_LABEL,
    MAX_NAME,
    MAX_PASSWORD_CHARACTERS,
    MAX_PATH_LENGTH,
    MIN_PASSWORD_CHARACTERS,
)

Texts = Mapping[str, str]


def _of_events(struct: str) -> Texts:
    """The fields of a struct that events contain."""
    return {name: text.removesuffix(".") for name, text in FIELDS[struct].items()}


PARAMETERS: Final[Texts] = {
    "about": "Id of a user, session, dataset, image, device, model or job",
    "after": "Position in the log. Only what follows it is returned",
    "alias": "Alias, such as `production`: begins with a letter, at most 50 of a-z, 0-9, - and _",
    "analyzed": "Only images with this mark",
    "as_of": "Position in the log, or a time with its offset such as `2026-03-01T12:00:00Z`. Default: now",
    "created_by": "Only jobs that this account started",
    "created_from": "Only images uploaded at this time or later",
    "created_to": "Only images uploaded at this time or earlier",
    "check_id": "Id of the check",
    "cursor": "`X-Next-Cursor` of the previous page",
    "dataset_id": "Id of the dataset",
    "device_id": "Id of the device",
    "expires_in": "For how many seconds the address must work. Less may be granted",
    "filename": "Name of the file, as the check shows it",
    "image_id": "Id of the image",
    "is_online": "Only devices that are online, or only those that are not",
    "job_id": "Id of the classification",
    "kind": "Event type, such as `ImageUploaded`",
    "limit": "How many entries to return at most",
    "location": "Only devices with exactly this location",
    "name": "Name of the model",
    "name_or_id": "Name or id of the model",
    "number": "Number of the version",
    "order_by": "`uploaded_at`, `created_at` (the same) or `filename`; a `-` before it reverses the order",
    "page": "Number of the page, starting with 1. A `cursor` takes precedence",
    "page_size": "How many entries to return at most",
    "q": "Only images with this text in their file name or path. Case and Unicode form do not matter",
    "result_id": "Id of the result",
    "retired": "Whether retired models are listed too",
    "sealed": "Whether private fields are encrypted, as in Kafka. Services always get them encrypted",
    "status_filter": f"Only jobs with this status: {', '.join(f'`{status}`' for status in JobStatus)}",
    "token": "The last part of a signed address",
    "uploaded_by": "Only images that this account uploaded",
    "user_id": "Id of the account",
    "version": "Version of the schema. Default: the newest one",
    "wait": "For how many seconds to wait if there are no events yet",
}
"""By name, on all operations that take the parameter and are not in OTHER_PARAMETERS."""

OTHER_PARAMETERS: Final[Mapping[str, Texts]] = {
    "auditImages": {"about": "Id of the dataset", "limit": "How many uploads to look at for one page"},
    "auditResults": {"about": "Id of the image or job"},
    "classificationsListed": {
        "dataset_id": "Only jobs over this dataset, or over an image in it",
        "image_id": "Only jobs over this single image",
    },
    "eventsSchema": {"sealed": "Whether private fields are described as encrypted"},
    "imagesListed": {"dataset_id": "Only images in this dataset", "device_id": "Only images from this device"},
    "resultsListed": {"classification_id": "Only results of this job", "image_id": "Only results of this image"},
}
"""By operation id."""

SCHEMAS: Final[Texts] = {
    "CheckReport": "What a check of a model package measured.",
    "Dependency": "Something that the API depends on.",
    "Environment": "Where a check ran. Results can differ between environments.",
    "Failure": "An image for which a job has no result.",
    "Feed": "Events without a gap between them.",
    "Followed": "One event.",
    "Grant": "What an account may do with one dataset. Each grant includes those before it: `viewer` reads, `analyst` uploads and runs "
    "models, `editor` changes and deletes images, `owner` shares and deletes the dataset.",
    "Head": "A signed head: the log had this hash at this position.",
    "Heads": "Signed heads, and the keys to verify them.",
    "HourlyCount": "How many results an hour had.",
    "ImageWarning": "Something in the file that was ignored, assumed or converted.",
    "Login": "The credentials of an account.",
    "Named": "The id and name of something new.",
    "OutputKind": "What the numbers of a model mean: `softmax` and `logits` one of its labels, `multi_label` any number of them, "
    "`regression` a quantity, `external` what another program answers.",
    "Phase": "The status of a job: `pending` until its images are listed, `running` until each has a result or a failure.",
    "Projection": "One plane that is made of all focal planes.",
    "RefreshToken": "A refresh token, unless it is sent as a header or cookie.",
    "Registered": "The new account.",
    "Registration": "A new account.",
    "Role": "What an account may do in the whole installation. Each role includes those before it.",
    "Share": "What an account may do with a dataset.",
    "Verdict": "How far to trust a result: `clear`, `needs_review` (its confidence is below the threshold) or `out_of_domain` (the image "
    "differs from those that the model was trained with).",
    "application_past_Result": "What a model found in one image, and where the log holds it.",
    "domain_user_Status": "The status of an account. Only an `active` account can sign in.",
}
"""Descriptions of schemas whose structs belong to other layers."""

EVENT_ID: Final = "Id of the event"
JOB: Final = "Id of the classification"
NAME: Final = f"1 to {MAX_NAME} characters"
SHA256: Final = "SHA-256, in hexadecimal"

ADDRESS: Final[Texts] = {
    "url": "Address of the file. It needs no header",
    "expires_in": "For how many seconds it works at least",
    "filename": "File name of the image",
}
CLASSIFICATION: Final[Texts] = {
    "id": JOB,
    "dataset_id": "Dataset that the job covers, or that holds its single image",
    "image_id": "Image, if the job covers a single one",
    "model_name": "Name of the model",
    "status": "Status of the job",
    "created_by_id": "Account that started the job",
    "created_at": "When it was started (UTC)",
    "updated_at": "When it changed last (UTC)",
    "model_id": "Id of the model",
    "model_version": "Number of the model version",
    "model_sha256": f"{SHA256}, of the model file",
    "threshold": "Results with a lower confidence need a review, 0 to 1",
    "planned": "Whether `images` is final",
    "images": "How many images the job covers",
    "succeeded": "How many images have a result",
    "failed": "How many images have a failure",
    "reason": "Why the job failed",
    "planes": "Planes and channels that the caller chose; null if the model chooses",
}
RESULT: Final[Texts] = {
    "id": "Id of the result",
    "image_id": "Id of the image",
    "classification_id": JOB,
    "label": "The most likely label, `none` if no label of several applies, or the name of a quantity that was measured",
    "confidence": "Score of the label, 0 to 1. 0 for a quantity, which has no probability",
    "model_name": "Name of the model",
    "verdict": "How far to trust the result",
    "scores": "Score of each label, 0 to 1. They add up to 1 if exactly one label applies. For a quantity: where `value` lies in its range",
    "model_version": "Number of the model version",
    "value": "The number that was measured; null for labels",
}
EVENT: Final[Texts] = {
    "position": "Position in the log: 1, 2, 3, ... without a gap",
    "type": "Event type",
    "stream": "Id of the user, session, dataset, image, device, model or job that the event belongs to",
    "version": "Version of the stream after the event",
    "actor": "Who caused the event: `id`, `kind` (`user`, `service` or `system`) and others",
}
PROFILE: Final[Texts] = {
    "email": "E-mail address, 5 to 100 characters",
    "first_name": "First name, 1 to 50 characters",
    "last_name": "Last name, 1 to 50 characters",
    "institution": "Institution, at most 50 characters",
    "department": "Department, at most 50 characters",
    "phone": "Telephone number, at most 20 characters",
}
USERNAME: Final = "User name, 3 to 50 characters. Other users see it"
NEW_PASSWORD: Final = f"{MIN_PASSWORD_CHARACTERS} to {MAX_PASSWORD_CHARACTERS} characters of any kind, and not easily guessed"
DEVICE: Final[Texts] = {
    "name": f"Name, {NAME}",
    "hostname": f"Host name, {NAME}. No two devices have the same",
    "location": "Place, at most 255 characters",
    "firmware_version": "Version of the firmware, at most 50 characters",
}

PROPERTIES: Final[Mapping[str, Texts]] = {
    "Address": ADDRESS,
    "Alive": {"status": "Always `ok`"},
    "Classification": CLASSIFICATION,
    "CheckReport": _of_events("CheckReport"),
    "CreateDataset": {"name": f"Name, {NAME}", "description": f"Description, at most {MAX_DESCRIPTION} characters"},
    "Dataset": {
        "id": "Id of the dataset",
        "name": "Name",
        "description": "Description",
        "owner_username": "User name of the owner, if the account exists",
        "created_at": "When it was created (UTC)",
        "owner_id": "Account that owns it",
        "grant": "What you may do with it",
    },
    "Dependency": {
        "name": "Name of the dependency",
        "ok": "Whether it is available",
        "detail": "What is wrong, or how it is",
        "lag": "How many events it is behind, if it can be",
    },
    "DescribeDataset": {"name": f"New name, {NAME}", "description": f"New description, at most {MAX_DESCRIPTION} characters"},
    "DescribeDevice": {name: f"New value. {text}" for name, text in DEVICE.items()},
    "DescribeImage": {
        "filename": f"New file name, 1 to {MAX_FILENAME} characters",
        "analyzed": "New value of the mark",
        "device_id": "Device that took the image",
    },
    "Described": {
        "type": "Name of the event type",
        "noun": "What it happens to",
        "meaning": "What it means",
        "versions": "Versions of its schema that the log may hold",
    },
    "Device": {
        "id": "Id of the device",
        **DEVICE,
        "is_online": "Whether it is online",
        "last_seen": "When it last reported that it is online (UTC)",
        "registered_at": "When it was registered (UTC)",
    },
    "Entry": {
        **EVENT,
        "at": "When it happened (UTC)",
        "sentence": "The event as a sentence, with the present names",
        "data": "Data of the event. Private fields are in clear, unless their key was destroyed",
    },
    "Environment": _of_events("Environment"),
    "Failure": {
        "id": "Id of the failure",
        "image_id": "Id of the image",
        "reason": "Stable code of the reason",
        "detail": "The reason as a sentence",
        "created_at": "When it was recorded (UTC)",
    },
    "Feed": {"events": "Events, in the order of their positions", "next": "Value of `after` for the next request"},
    "Followed": {
        **EVENT,
        "id": EVENT_ID,
        "schema_version": "Version of the schema of `data`",
        "time": "When it was recorded (UTC)",
        "correlation_id": "First command that led to the event",
        "causation_id": "Command or event that led to it directly",
        "traceparent": "W3C trace context of the request",
        "hash": f"{SHA256}, over the event and the hash of the previous event",
        "data": "Data of the event, as the schema of its type describes it",
    },
    "Head": {
        "position": "Last position of the log when it was signed",
        "hash": "Hash of the event at this position, in hexadecimal",
        "signed_text": "The text that was signed: `POSITION:HASH:TIME`",
        "signature": "Ed25519 signature of `signed_text`, in base64",
    },
    "Heads": {"public_keys": "Ed25519 keys in base64, the newest first", "heads": "Signed heads, oldest first"},
    "HourlyCount": {"hour": "Start of the hour (UTC)", "count": "Number of results"},
    "Image": {
        "id": "Id of the image",
        "filename": "File name",
        "analyzed": "Whether a job has a result for it, or an editor marked it",
        "dataset_id": "Dataset that holds it",
        "uploaded_by_id": "Account that uploaded it",
        "device_id": "Device that took it",
        "filepath": "Name of the file in the blob store",
        "uploaded_at": "When it was uploaded (UTC)",
        "status": "State of its inspection",
        "reason": "Stable code of the reason for a rejection",
        "detail": "Reason for a rejection, as a sentence",
        "media_type": "Media type of the file",
        "size": "Size of the file, in bytes",
        "width": "Width in pixels. Until the inspection, as the file's header claims",
        "height": "Height in pixels. Until the inspection, as the file's header claims",
        "bands": "Number of values of a pixel",
        "dtype": "Type of a value, such as `uint8`",
        "pages": "Number of pages or planes in the file",
        "axes": "Order of the axes, such as `YXS`",
        "pixel_size_um": "Edge of a pixel, in micrometres",
        "warnings": "What was ignored, assumed or converted",
        "sha256": f"{SHA256}, of the file",
        "thumbnail": "Path that returns the address of the thumbnail, if there is one",
        "path": "Path of the file below the folder that was uploaded",
    },
    "ImageWarning": {"code": "Stable code", "detail": "The warning as a sentence"},
    "Login": {"email": "E-mail address of the account", "password": "Password of the account"},
    "LoginForm": {"username": "E-mail address of the account", "password": "Password of the account"},
    "ModelCheck": {
        "id": "Id of the check",
        "status": "`pending`, `passed` or `failed`",
        "requested_by_id": "Account that asked for it",
        "requested_at": "When it was asked for (UTC)",
        "sha256": f"{SHA256}, of the package",
        "filename": "Name of the uploaded file; null for the test of a version",
        "size": "Size of the uploaded file, in bytes; null for the test of a version",
        "model_id": "Id of the model, once it is known",
        "model_name": "Name of the model, once it is known",
        "number": "Number of the version: the new one, or a known one with the same digest",
        "answered_at": "When it passed or failed (UTC)",
        "report": "What it measured, if it passed",
        "code": "Why it failed: a code of docs/models/format.md",
        "detail": "The reason as a sentence",
        "file": "File of the package that is at fault, if it is one",
        "field": "Field of that file, such as `inputs[0].axes[2].size`",
    },
    "VersionCheck": {
        "environment": "Where it ran; null if it failed before the network ran",
        "at": "When it passed or failed (UTC)",
        "report": "What it measured, if it passed",
        "code": "Why it failed: a code of docs/models/format.md",
        "detail": "The reason as a sentence",
    },
    "Model": {
        "id": "Id of the model",
        "name": "Name, as a run takes it",
        "description": "Description of the version in production, or else of the newest one",
        "production": "Number of the version that a run uses",
        "labels": "Labels of the version in production",
        "review_below": "Default threshold of the version in production, 0 to 1",
        "sha256": f"{SHA256}, of the model file in production",
        "aliases": "Number of a version by alias, such as `production`",
        "versions": "All versions, oldest first",
        "promoters": "Accounts that may move its aliases and retire it, besides administrators",
        "created_at": "When it was added (UTC)",
        "retired": "Whether it accepts no new jobs",
    },
    "ModelVersion": {
        "number": "Number of the version: 1, 2, 3, ...",
        "description": "What it does, as its manifest states",
        "release": "Version that its manifest states",
        "kind": "What its numbers mean",
        "unit": "Unit of the number that a `regression` gives",
        "label_threshold": "Score from which a label of `multi_label` applies, 0 to 1. Null for other kinds",
        "labels": "Labels, in the order of the model's output",
        "label_texts": "Labels in words, for the labels that have them",
        "review_below": "Default threshold, 0 to 1: results with a lower confidence need a review",
        "sha256": f"{SHA256}, of the model file; of the declaration, for an external classifier",
        "size": "Size of the model file, in bytes; 0 for an external classifier",
        "digest": f"{SHA256}, of all that determines a result. Null for versions of release 0.2.0",
        "package": f"{SHA256}, of the package. Null where a version was added without one",
        "added_at": "When it was added (UTC)",
        "added_by": "Account that uploaded its package or declared it. Null if it came with a release",
        "added_by_username": "User name of this account",
        "checks": "Newest check in each environment, oldest first",
    },
    "ModelChange": {
        "position": "Position in the log",
        "at": "When it happened (UTC)",
        "type": "Event type, such as `ModelAliasMoved`",
        "by": "Account or part of the system that did it",
        "by_username": "User name of this account. Null for the system",
        "number": "Number of the version that was added, or to which the alias points",
        "alias": "Alias that was moved",
        "user_id": "Account that became a promoter, or is none any more",
        "username": "User name of that account",
        "reason": "Why an alias was moved or the model retired, in the words of that account",
    },
    "DeclareModel": {
        "name": "Name of the model: 1 to 64 of a-z, 0-9, `-` and `_`",
        "labels": f"All labels that the program can answer, 1 to {MAX_LABELS}, each with at most {MAX_LABEL} characters",
        "label_texts": "Labels in words, for those that have any",
        "description": "What the program does",
        "review_below": "Default threshold, 0 to 1: results with a lower confidence need a review",
    },
    "MoveAlias": {"version": "Number of the version", "reason": f"Why, 1 to {MAX_REASON} characters"},
    "Named": {"id": "Its id", "name": "Its name"},
    "Planes": {
        "z": "Focal plane, or `max` or `mean` of all of them. A file with pages of unknown meaning has them as focal planes",
        "c": "Channels, in the order in which the model gets them; all different",
        "t": "Point in time",
    },
    "Promoter": {"user_id": "Id of the account", "username": "User name, if the account exists"},
    "Ready": {"status": "`ok`, or `degraded` if a dependency is unavailable", "dependencies": "Each dependency"},
    "RefreshToken": {"refresh_token": "Refresh token of the last answer"},
    "RegisterDevice": DEVICE,
    "Registered": {"id": "Id of the account", "email": "E-mail address"},
    "Registration": {
        **{name: PROFILE[name] for name in ("email", "first_name", "last_name")},
        "username": USERNAME,
        "password": f"Password, {NEW_PASSWORD}",
    },
    "ReportDevice": {"is_online": "Whether the device is online"},
    "Requested": {"id": JOB, "status": "Status of the job"},
    "RetireModel": {"reason": f"Why, 1 to {MAX_REASON} characters"},
    "RunClassification": {
        "image_id": "Image to classify",
        "dataset_id": "Dataset to classify",
        "model_name": "Name of the model. Default: that of the installation",
        "threshold": "Results with a lower confidence need a review, 0 to 1. Default: that of the version",
        "model_version": "Number of a version, such as 2 or `2`, or an alias such as `candidate`. Default: `production`",
        "planes": "Planes and channels to use, the same of each image. Default: the model chooses",
    },
    "Share": {"user_id": "Id of the account", "username": "User name, if the account exists", "grant": "What the account may do"},
    "ShareDataset": {"grant": "What the account may do"},
    "Statistics": {
        "classified_last_24_hours": "Number of results in the last 24 hours",
        "average_confidence": "Mean confidence of those of these results that have a label, not a quantity; 0 if there are none",
        "last_10_results": "The newest results",
        "hourly_counts": "Results of the present hour and of the 24 hours before it, oldest first",
    },
    "Tokens": {
        "access_token": "Token for `Authorization: Bearer`",
        "token_type": "Always `bearer`",
        "refresh_token": "Token for the next pair of tokens. It can be used once",
        "expires_in": "For how many seconds the access token is valid",
    },
    "UpdateUser": {
        **PROFILE,
        "password": f"New password for your own account: {NEW_PASSWORD}",
        "current_password": "Present password. Needed for a new one unless you signed in within the last 15 minutes",
        "role": "New role. For administrators",
        "status": "New status. For administrators",
    },
    "Uploaded": {"id": "Id of the image", "filename": "File name as it is stored", "analyzed": "Always false for a new image"},
    "User": {
        "id": "Id of the account",
        **{name: text.partition(",")[0] for name, text in PROFILE.items()},
        "username": "User name",
        "role": "Role",
        "status": "Status",
    },
    "Watched": {**CLASSIFICATION, "failures": "The first failures of a job that has ended. `/failures` lists all"},
    "api_results_Result": {
        **RESULT,
        "created_at": "When it was recorded (UTC)",
        "warnings": "What was ignored, assumed or converted in the image file",
        "dataset_id": "Dataset that holds the image",
    },
    "application_past_Result": {
        **RESULT,
        "position": "Position of the event that holds it",
        "outdated": "Whether a newer reader had found other pixels in the file by then",
    },
}
"""By schema and property."""

UPLOAD: Final[Texts] = {
    "dataset_id": "Dataset to add the image to",
    "device_id": "Device that took the image. Optional, may be empty",
    "path": f"Path of the file below the folder that is uploaded, at most {MAX_PATH_LENGTH} characters. Optional. It is relative, with `/` "
    "or `\\` between its parts, and has no `..` or empty part. Its last part becomes the file name",
    "file": "JPEG, PNG or TIFF, with a file name: UTF-8 as browsers send it, or `filename*` (RFC 5987), which takes precedence. "
    f"Of a name, at most {MAX_FILENAME} characters without folders are stored",
}
"""The parts of the form that uploads an image."""
