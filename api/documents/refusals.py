"""The errors in the OpenAPI document: which ones each operation can answer with, and what they look like."""

from collections.abc import Mapping
from typing import Final

from api.documents import examples
from api.documents.operation import Json, Operation
from api.problems import MEDIA_TYPE, TITLES

REFUSALS: Final = {
    400: ("Malformed", "The body is not valid JSON, or the form is damaged."),
    401: ("NotAuthenticated", "The token or the password is missing, wrong or expired."),
    403: ("Forbidden", "The account or service may not do this. `detail` names the role, grant or scope that is needed."),
    404: ("NotFound", "It does not exist, or you may not see it."),
    408: ("TooSlow", "The body did not arrive in time."),
    409: ("Conflict", "The present state does not allow it. `detail` says why."),
    412: ("VersionMismatch", "`If-Match` names a version that is not the newest one. Read it again."),
    413: ("TooLarge", "The body or the image is too large."),
    415: ("UnsupportedMediaType", "The `Content-Type` or the type of the image is not supported."),
    416: ("NoSuchRange", "The file does not have the bytes that `Range` names."),
    422: ("Invalid", "A value is invalid. `errors` names the fields."),
    429: ("TooMany", "A limit of calls was exceeded. `Retry-After` says when to try again."),
}
"""The 4xx answers of single operations: the name and description of each component."""

BEFORE_ROUTES: Final = "Refused before the operation: 414 (long query), 415 (`Content-Encoding`), 421 (unknown host) or 431 (long headers)."
PROTOCOL_ERROR: Final = "Refused, in the form of the Open Inference Protocol. After 429 and 503, `Retry-After` says when to try again."
OTHERS: Final = "Any other error, such as 500 and 503"
EVERY_OPERATION: Final = {422}  # `as_of`, where it is not supported
WITH_TOKEN: Final = {401, 403}
WITH_BODY: Final = {400, 408, 413, 415}
OTHER_REFUSALS: Final[Mapping[str, set[int]]] = {
    "accountsAcceptInvitation": {403, 409, 429},
    "accountsConfirmEmail": {409},
    "accountsForgotPassword": {429},
    "accountsRequestVerification": {429},
    "accountsSetUp": {409, 429},
    "accountsVerify": {403, 409, 429},
    "classificationsRun": {404},
    "eventsLive": {429},
    "imagesBlob": {403, 416},
    "inferenceInfer": {409, 429},
    "inferenceInfer2": {409, 429},
    "inferenceModel": {409},
    "inferenceModel2": {409},
    "inferenceModelReady": {409},
    "inferenceModelReady2": {409},
    "imagesUpload": {404},
    "modelsAdd": {429},
    "modelsPackage": {409},
    "modelsTest": {429},
    "resultsExport": {429},
    "sessionsLogin": {401, 429},
    "sessionsLoginByForm": {401, 429},
    "sessionsLogout": {401, 403, 429},
    "sessionsRefresh": {401, 403, 429},
    "sessionsRegister": {403, 409, 429},
}
"""By operation id, what does not follow from method, path and security."""

RETRY_AFTER: Final = {"description": "After how many seconds to try again", "schema": {"type": "integer"}}
PROBLEM: Final = {
    "type": "object",
    "title": "Problem",
    "description": "An error (RFC 9457).",
    "properties": {
        "type": {"type": "string", "description": "`urn:bioscope:problem:` and the code"},
        "title": {"type": "string", "description": "Title of the status"},
        "status": {"type": "integer", "enum": sorted(TITLES), "description": "Status of the answer"},
        "detail": {"type": "string", "description": "What is wrong, as a sentence"},
        "code": {"type": "string", "description": "Stable code of the error. Programs depend on it"},
        "instance": {"type": "string", "description": "Id of the request, under which the server's log has more"},
        "reason": {"type": "string", "description": "Stable word that says more than the code"},
        "errors": {
            "type": "array",
            "description": "Each invalid value",
            "items": {
                "type": "object",
                "title": "InvalidValue",
                "description": "One invalid value.",
                "properties": {
                    "loc": {
                        "type": "array",
                        "description": "Where it is: `body`, `query`, `path` or `header`, then names and indexes",
                        "items": {"type": ["string", "integer"]},
                    },
                    "msg": {"type": "string", "description": "What is wrong with it"},
                    "axis": {
                        "type": "string",
                        "description": "Where an image does not fit a model, such as `channel` (with `input_mismatch`)",
                    },
                    "expected": {"type": "string", "description": "What the model takes there (with `input_mismatch`)"},
                    "found": {"type": "string", "description": "What the image has there (with `input_mismatch`)"},
                },
                "required": ["loc", "msg"],
            },
        },
    },
    "required": ["type", "title", "status", "detail", "code"],
}


def refusals_of(operation: Operation) -> set[int]:
    """Every 4xx status that the operation itself can answer with."""
    found = EVERY_OPERATION | OTHER_REFUSALS.get(operation.id, set())
    if not operation.is_open:
        found |= WITH_TOKEN
    if "{" in operation.path:
        found |= {404}
    if operation.method != "GET":
        found |= WITH_BODY
    if operation.is_command:
        found |= {409}
        if "{" in operation.path:
            found |= {429}
    if operation.takes_if_match:
        found |= {412}
    return found


def references_of(operation: Operation) -> Json:
    """The error responses of an operation, by status."""
    if operation.tag == "inference":
        refused = {"$ref": "#/components/responses/ProtocolError"}
        return {str(status): refused for status in sorted(refusals_of(operation))} | {"4XX": refused, "default": refused}
    own = {str(status): {"$ref": f"#/components/responses/{REFUSALS[status][0]}"} for status in sorted(refusals_of(operation))}
    return own | {"4XX": {"$ref": "#/components/responses/RefusedBefore"}, "default": {"$ref": "#/components/responses/Problem"}}


def responses() -> Json:
    content = {"schema": {"$ref": "#/components/schemas/Problem"}}
    common = {
        "Problem": {"description": OTHERS, "content": {MEDIA_TYPE: content | {"example": examples.problem_example(503)}}},
        "RefusedBefore": {"description": BEFORE_ROUTES, "content": {MEDIA_TYPE: content | {"example": examples.problem_example(421)}}},
    }
    protocol = {"schema": {"$ref": "#/components/schemas/ProtocolError"}, "example": examples.SCHEMAS["ProtocolError"]}
    common["ProtocolError"] = {"description": PROTOCOL_ERROR, "content": {"application/json": protocol}}
    return common | {
        name: {
            "description": description,
            "content": {MEDIA_TYPE: content | {"example": examples.problem_example(status)}},
            **({"headers": {"Retry-After": RETRY_AFTER}} if status == 429 else {}),
        }
        for status, (name, description) in REFUSALS.items()
    }
