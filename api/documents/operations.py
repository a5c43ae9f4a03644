"""What the OpenAPI document says of an operation beyond the signature of its handler: texts, examples, headers and errors."""

from collections.abc import Mapping
from inspect import cleandoc
from typing import Any, Final

from api.documents import descriptions, examples, refusals
from api.documents.operation import Json, Operation

SCHEMA_REFERENCE: Final = "#/components/schemas/"
BINARY: Final = {"type": "string", "format": "binary"}
FORM: Final = "multipart/form-data"
ZIP: Final = "application/zip"
JSON: Final = "application/json"
OCTETS: Final = "application/octet-stream"
DESCRIPTIONS: Final = "api/documents/descriptions.py"
EXAMPLES: Final = "api/documents/examples.py"

SUCCESS: Final = {200: "Success", 201: "Created", 202: "Accepted: the work goes on", 204: "Done"}
INFER: Final = {"inferenceInfer", "inferenceInfer2"}
INFERENCE_READY: Final = {"inferenceReady", "inferenceModelReady", "inferenceModelReady2"}
HEADERS: Final = {
    "Content-Range": {"description": "Which bytes of the file these are", "schema": {"type": "string"}},
    "ETag": {"description": "Version of the resource, for `If-Match`", "schema": {"type": "string"}},
    "Inference-Header-Content-Length": {
        "description": "Length of the JSON at the beginning of the body, if raw tensors follow it",
        "schema": {"type": "integer"},
    },
    "Location": {"description": "Path at which the work can be followed", "schema": {"type": "string"}},
    "Link": {"description": 'Address of the next page, with `rel="next"`', "schema": {"type": "string"}},
    "Set-Cookie": {"description": "The refresh token, for browsers of the same site", "schema": {"type": "string"}},
    "X-As-Of-Position": {"description": "Position of the log that the page shows", "schema": {"type": "integer"}},
    "X-Event-Position": {"description": "Position of the change in the log", "schema": {"type": "integer"}},
    "X-Next-Cursor": {"description": "Cursor of the next page, if there is one", "schema": {"type": "string"}},
    "X-Total-Count": {"description": "How many entries all pages have, if counting is cheap", "schema": {"type": "integer"}},
}
VERSIONED: Final = {
    "usersMe",
    "usersOne",
    "datasetsOne",
    "imagesOne",
    "modelsOne",
    "classificationsOne",
    "devicesOne",
    "modelsCheck",
    "policiesOne",
    "serviceAccountsOne",
    "teamsOne",
}
OTHER_HEADERS: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(
        ("accountsVerify", "accountsResetPassword", "accountsConfirmEmail", "accountsAcceptInvitation", "accountsSetUp"), ("ETag",)
    ),
    "auditListed": ("X-Next-Cursor",),
    "auditTrail": ("X-Next-Cursor",),
    "auditImages": ("X-As-Of-Position", "X-Next-Cursor"),
    "auditResults": ("X-As-Of-Position", "X-Next-Cursor"),
    "imagesBlob": ("ETag",),
    **dict.fromkeys(INFER, ("Inference-Header-Content-Length",)),
    "modelsAdd": ("Location",),
    "modelsTest": ("Location",),
    "modelsPackage": ("ETag",),
    "modelsHistory": ("X-Next-Cursor",),
    "policiesHistory": ("X-Next-Cursor",),
    "sessionsLogin": ("Set-Cookie",),
    "sessionsLoginByForm": ("Set-Cookie",),
    "sessionsLogout": ("Set-Cookie",),
    "sessionsRefresh": ("Set-Cookie",),
    "sessionsRegister": ("ETag",),
}

UPLOAD: Final = {
    "type": "object",
    "description": "A file, and where it belongs.",
    "properties": {
        name: schema | {"description": descriptions.UPLOAD[name], "examples": [examples.UPLOAD.get(name, "")]}
        for name, schema in {
            "dataset_id": {"type": "string", "format": "uuid"},
            "device_id": {"type": "string", "format": "uuid"},
            "path": {"type": "string"},
        }.items()
    }
    | {"file": BINARY | {"description": descriptions.UPLOAD["file"]}},
    "required": ["dataset_id", "file"],
}


def complete(operation: Operation) -> None:
    """Change `operation.body` into what the document shows."""
    body = operation.body
    body["operationId"] = operation.id
    if operation.is_open:
        body["security"] = []
    if scope := operation.handler.opt.get("scope"):
        body["description"] += f"\n\nA key needs the scope `{scope}`."
    body["parameters"] = [*(_described(operation, one) for one in body.get("parameters", [])), *_shared_parameters(operation)]
    _complete_request(operation)
    _complete_responses(operation)


def components() -> Json:
    """The parts of the document that operations refer to, except schemas."""
    return {"parameters": SHARED_PARAMETERS, "responses": refusals.responses()}


# ---- parameters --------------------------------------------------------------------------------------------------------------------
def _header(name: str, description: str, **schema: Any) -> Json:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"} | schema}


SHARED_PARAMETERS: Final = {
    "IdempotencyKey": _header("Idempotency-Key", "A repeat with the same key is the same command", minLength=1, maxLength=255),
    "IfMatch": _header("If-Match", 'The `ETag` of the version to change, such as `"3"`. If there is a newer version, the answer is 412'),
    "JsonLength": _header(
        "Inference-Header-Content-Length", "Length of the JSON at the beginning of the body, if raw tensors follow it", type="integer"
    ),
    "Prefer": _header("Prefer", "`respond-async`: answer before queries show the change"),
    "MinPosition": {
        "name": "min_position",
        "in": "query",
        "required": False,
        "description": "Wait until queries show the change at this position (`X-Event-Position`). 422 if the log has not reached it",
        "schema": {"type": "integer", "minimum": 0},
    },
}


def _shared_parameters(operation: Operation) -> list[Json]:
    names = {
        "IdempotencyKey": operation.is_command and operation.method == "POST",
        "IfMatch": operation.takes_if_match,
        "Prefer": operation.is_command,
        "MinPosition": operation.takes_min_position,
    }
    if operation.id in INFER:
        return [{"$ref": "#/components/parameters/JsonLength"}]
    return [{"$ref": f"#/components/parameters/{name}"} for name, is_taken in names.items() if is_taken]


def _described(operation: Operation, parameter: Json) -> Json:
    name = parameter["name"]
    what = f"the parameter {name} of {operation.id}"
    own = descriptions.OTHER_PARAMETERS.get(operation.id, {})
    described = parameter | {
        "description": _entry({**descriptions.PARAMETERS, **own}, name, f"describe {what}", DESCRIPTIONS, "PARAMETERS")
    }
    if parameter["in"] == "path":
        own = examples.OTHER_PARAMETERS.get(operation.id, {})
        described["example"] = _entry({**examples.PARAMETERS, **own}, name, f"add an example of {what}", EXAMPLES, "PARAMETERS")
    return described


# ---- bodies ------------------------------------------------------------------------------------------------------------------------
def _complete_request(operation: Operation) -> None:
    if operation.id == "imagesUpload":
        content = {"schema": UPLOAD, "example": examples.UPLOAD}
        operation.body["requestBody"] = {"required": True, "content": {FORM: content}}
    elif operation.id == "modelsAdd":
        content = {"schema": BINARY}
        operation.body["requestBody"] = {"required": True, "content": {OCTETS: content, ZIP: content}}
    elif operation.id in INFER:
        content = {"schema": {"$ref": f"{SCHEMA_REFERENCE}InferenceRequest"}, "example": examples.SCHEMAS["InferenceRequest"]}
        operation.body["requestBody"] = {"required": True, "content": {JSON: content, OCTETS: {"schema": BINARY}}}
    elif (request := operation.body.get("requestBody")) is not None:
        request["required"] = not operation.handler.parsed_fn_signature.parameters["data"].has_default
        for content in request["content"].values():
            content["schema"] = _without_null(content["schema"])
            content["example"] = _example(content["schema"])
            if content["example"] is None:
                raise LookupError(f"add an example of the body of {operation.id} in {EXAMPLES}, SCHEMAS")


def _complete_responses(operation: Operation) -> None:
    status = str(operation.handler.status_code)
    success = operation.body["responses"][status] | {"description": SUCCESS[operation.handler.status_code]}
    if operation.handler.status_code == 204:
        del success["content"]
    for content in success.get("content", {}).values():
        example = examples.RESPONSES.get(operation.id) or _example(content["schema"])
        if example is not None:
            content["example"] = example
    if headers := _response_headers(operation):
        success["headers"] = {name: HEADERS[name] for name in headers}
    answers = {status: success} | _other_answers(operation, success)
    operation.body["responses"] = answers | refusals.references_of(operation)


def _other_answers(operation: Operation, success: Json) -> Json:
    if operation.id == "imagesBlob":
        success["content"] = {media_type: {"schema": BINARY} for media_type in ("image/*", OCTETS)}
        part = success | {"description": "The part that `Range` names", "headers": success["headers"] | _headers("Content-Range")}
        return {"206": part, "304": {"description": "The client has the file already", "headers": success["headers"]}}
    if operation.id == "modelsPackage":
        success["content"] = {"application/zip": {"schema": BINARY}}
    if operation.id == "resultsExport":
        success["content"] |= {"text/csv": {"schema": BINARY}}
    if operation.id in INFER:
        success["content"][OCTETS] = {"schema": BINARY}
    if operation.id in INFERENCE_READY:
        return {"503": success | {"description": "This installation answers no predictions"}}
    if operation.tag == "health" and operation.handler.handler_name == "ready":
        return {"503": success | {"description": "Postgres is unavailable, so that nothing works"}}
    if operation.id == "eventsLive":
        success["content"] = {"text/event-stream": {"schema": {"type": "string"}, "example": examples.EVENT_STREAM}}
    if operation.id == "eventsSchema":
        success["content"] = {"application/schema+json": next(iter(success["content"].values()))}
    return {}


def _response_headers(operation: Operation) -> list[str]:
    names = set(OTHER_HEADERS.get(operation.id, ()))
    if operation.is_command:
        names |= {"X-Event-Position"} if operation.handler.status_code == 204 else {"ETag", "X-Event-Position"}
    if operation.id in VERSIONED:
        names |= {"ETag"}
    if "cursor" in operation.handler.parsed_fn_signature.parameters:
        names |= {"Link", "X-Next-Cursor", "X-Total-Count"}
    return sorted(names)


def _headers(*names: str) -> Json:
    return {name: HEADERS[name] for name in names}


def _without_null(schema: Json) -> Json:
    """The schema of a body that may be left out, without the null that stands for none."""
    return next((one for one in schema.get("oneOf", ()) if "$ref" in one), schema)


def _example(schema: Json) -> Any:
    """None where there is none."""
    if schema.get("type") == "array":
        item = _example(schema["items"])
        return None if item is None else [item]
    return examples.SCHEMAS.get(schema.get("$ref", "").removeprefix(SCHEMA_REFERENCE))


# ---- schemas -----------------------------------------------------------------------------------------------------------------------
def described_schemas(schemas: Mapping[str, Json], docstrings: Mapping[str, str]) -> Json:
    """The schemas with descriptions of themselves and of each property."""
    described = {name: _described_schema(name, schema, docstrings) for name, schema in schemas.items()}
    return described | {"Problem": refusals.PROBLEM}


def _described_schema(name: str, schema: Json, docstrings: Mapping[str, str]) -> Json:
    text = _entry({**docstrings, **descriptions.SCHEMAS}, name, f"describe the schema {name}", DESCRIPTIONS, "SCHEMAS")
    described = schema | {"description": cleandoc(text)}
    if "properties" in schema:
        texts = descriptions.PROPERTIES.get(name, {})
        described["properties"] = {
            key: value
            | {"description": _entry(texts, key, f"describe the property {key} of the schema {name}", DESCRIPTIONS, "PROPERTIES")}
            for key, value in schema["properties"].items()
        }
    return described


def _entry(entries: Mapping[str, str], name: str, advice: str, module: str, mapping: str) -> str:
    """The text of that name. Raises LookupError, which says where to add it, if it is missing or empty."""
    if not (text := entries.get(name)):
        raise LookupError(f"{advice} in {module}, {mapping}")
    return text
