"""What OpenAPI says of one operation beyond its signature: texts, examples, headers, and every error that it can answer with."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from litestar.handlers import HTTPRouteHandler

from api.documents import descriptions, examples
from api.problems import MEDIA_TYPE, TITLES

Json = dict[str, Any]

SCHEMA_REFERENCE: Final = "#/components/schemas/"
BINARY: Final = {"type": "string", "format": "binary"}
FORM: Final = "multipart/form-data"

WITHOUT_COMMAND_HEADERS: Final = {"sessions"}  # their results hold tokens, which are not kept for a repeat
WITHOUT_MIN_POSITION: Final = {"usersMe", "imagesBlob", "auditState"}  # they read the log, or show what is needed at once
TAGS_WITHOUT_MIN_POSITION: Final = {"events", "health"}
WITHOUT_IF_MATCH: Final = {"devicesReport"}  # a sign of life does not depend on other changes
POST_WITH_IF_MATCH: Final = {"classificationsCancel"}

SUCCESS: Final = {200: "Success", 201: "Created", 204: "Done"}
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
EVERY_OPERATION: Final = {422}  # `as_of`, where it is not supported
WITH_TOKEN: Final = {401, 403}
WITH_BODY: Final = {400, 408, 413, 415}
OTHER_REFUSALS: Final[Mapping[str, set[int]]] = {
    "auditImages": {404},
    "classificationsRun": {404},
    "imagesBlob": {403, 416},
    "imagesUpload": {404},
    "sessionsLogin": {401, 429},
    "sessionsLoginByForm": {401, 429},
    "sessionsLogout": {401, 403, 429},
    "sessionsRefresh": {401, 403, 429},
    "sessionsRegister": {409, 429},
}
"""By operation id, what does not follow from method, path and security."""

RETRY_AFTER: Final = {"description": "After how many seconds to try again", "schema": {"type": "integer"}}
HEADERS: Final = {
    "Content-Range": {"description": "Which bytes of the file these are", "schema": {"type": "string"}},
    "ETag": {"description": "Version of the resource, for `If-Match`", "schema": {"type": "string"}},
    "Link": {"description": 'Address of the next page, with `rel="next"`', "schema": {"type": "string"}},
    "Set-Cookie": {"description": "The refresh token, for browsers of the same site", "schema": {"type": "string"}},
    "X-As-Of-Position": {"description": "Position of the log that the page shows", "schema": {"type": "integer"}},
    "X-Event-Position": {"description": "Position of the change in the log", "schema": {"type": "integer"}},
    "X-Next-Cursor": {"description": "Cursor of the next page, if there is one", "schema": {"type": "string"}},
    "X-Total-Count": {"description": "How many entries all pages have, if counting is cheap", "schema": {"type": "integer"}},
}
VERSIONED: Final = {"usersMe", "usersOne", "datasetsOne", "imagesOne", "modelsOne", "classificationsOne", "devicesOne"}
OTHER_HEADERS: Final[Mapping[str, tuple[str, ...]]] = {
    "auditTrail": ("X-Next-Cursor",),
    "auditImages": ("X-As-Of-Position", "X-Next-Cursor"),
    "auditResults": ("X-As-Of-Position", "X-Next-Cursor"),
    "imagesBlob": ("ETag",),
    "sessionsLogin": ("Set-Cookie",),
    "sessionsLoginByForm": ("Set-Cookie",),
    "sessionsLogout": ("Set-Cookie",),
    "sessionsRefresh": ("Set-Cookie",),
    "sessionsRegister": ("ETag", "X-Event-Position"),
}

UPLOAD: Final = {
    "type": "object",
    "title": "ImageUpload",
    "description": "A file, and where it belongs.",
    "properties": {
        name: schema | {"description": descriptions.UPLOAD[name]}
        for name, schema in {
            "dataset_id": {"type": "string", "format": "uuid"},
            "device_id": {"type": "string", "format": "uuid"},
            "path": {"type": "string"},
            "file": BINARY,
        }.items()
    },
    "required": ["dataset_id", "file"],
}


class Operation(NamedTuple):
    """A handler under one path and method, and its place in the document."""

    id: str
    path: str
    method: str
    handler: HTTPRouteHandler
    body: Json

    @property
    def tag(self) -> str:
        return str(self.body["tags"][0])

    @property
    def is_open(self) -> bool:
        return bool(self.handler.opt.get("exclude_from_auth"))

    @property
    def is_command(self) -> bool:
        return self.method != "GET" and self.tag not in WITHOUT_COMMAND_HEADERS

    @property
    def takes_if_match(self) -> bool:
        by_method = self.is_command and self.method != "POST" and self.id not in WITHOUT_IF_MATCH
        return by_method or self.id in POST_WITH_IF_MATCH

    @property
    def takes_min_position(self) -> bool:
        return self.method == "GET" and self.tag not in TAGS_WITHOUT_MIN_POSITION and self.id not in WITHOUT_MIN_POSITION


def complete(operation: Operation) -> None:
    """Change `operation.body` into what the document shows."""
    body = operation.body
    body["operationId"] = operation.id
    if operation.is_open:
        body["security"] = []
    if scope := operation.handler.opt.get("scope"):
        body["description"] += f"\n\nA service needs a token with the scope `{scope}`."
    body["parameters"] = [*(_described(operation, one) for one in body.get("parameters", [])), *_shared_parameters(operation)]
    _complete_request(operation)
    _complete_responses(operation)


def refusals(operation: Operation) -> set[int]:
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


def components() -> Json:
    """The parts of the document that operations refer to, except schemas."""
    return {"parameters": SHARED_PARAMETERS, "responses": _problem_responses()}


# ---- parameters --------------------------------------------------------------------------------------------------------------------
def _header(name: str, description: str, **schema: Any) -> Json:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"} | schema}


SHARED_PARAMETERS: Final = {
    "IdempotencyKey": _header("Idempotency-Key", "A repeat with the same key is the same command", minLength=1, maxLength=255),
    "IfMatch": _header("If-Match", 'The `ETag` of the version to change, such as `"3"`. If there is a newer version, the answer is 412'),
    "Prefer": _header("Prefer", "`respond-async`: answer before queries show the change"),
    "MinPosition": {
        "name": "min_position",
        "in": "query",
        "required": False,
        "description": "Wait until queries show the change at this position (`X-Event-Position`)",
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
    return [{"$ref": f"#/components/parameters/{name}"} for name, is_taken in names.items() if is_taken]


def _described(operation: Operation, parameter: Json) -> Json:
    name = parameter["name"]
    description = descriptions.OTHER_PARAMETERS.get(operation.id, {}).get(name) or descriptions.PARAMETERS[name]
    described = parameter | {"description": description}
    if parameter["in"] == "path":
        described["example"] = examples.OTHER_PARAMETERS.get(operation.id, {}).get(name) or examples.PARAMETERS[name]
    return described


# ---- bodies ------------------------------------------------------------------------------------------------------------------------
def _complete_request(operation: Operation) -> None:
    if operation.id == "imagesUpload":
        content = {"schema": UPLOAD, "example": examples.UPLOAD}
        operation.body["requestBody"] = {"required": True, "content": {FORM: content}}
    elif (request := operation.body.get("requestBody")) is not None:
        request["required"] = not operation.handler.parsed_fn_signature.parameters["data"].has_default
        for content in request["content"].values():
            content["schema"] = _without_null(content["schema"])
            content["example"] = _example(content["schema"])


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
    others = {str(one): {"$ref": f"#/components/responses/{REFUSALS[one][0]}"} for one in sorted(refusals(operation))}
    operation.body["responses"] = {
        status: success,
        **_other_answers(operation, success),
        **others,
        "4XX": {"$ref": "#/components/responses/RefusedBefore"},
        "default": {"$ref": "#/components/responses/Problem"},
    }


def _other_answers(operation: Operation, success: Json) -> Json:
    if operation.id == "imagesBlob":
        success["content"] = {"image/*": {"schema": BINARY}}
        part = success | {"description": "The part that `Range` names", "headers": success["headers"] | _headers("Content-Range")}
        return {"206": part, "304": {"description": "The client has the file already", "headers": success["headers"]}}
    if operation.tag == "health" and operation.handler.handler_name == "ready":
        return {"503": success | {"description": "Postgres is unavailable, so that nothing works"}}
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


def _problem_responses() -> Json:
    content = {"schema": {"$ref": f"{SCHEMA_REFERENCE}Problem"}}
    common = {
        "Problem": {"description": "Any other error, such as 500 and 503", "content": {MEDIA_TYPE: content}},
        "RefusedBefore": {"description": BEFORE_ROUTES, "content": {MEDIA_TYPE: content}},
    }
    return common | {
        name: {
            "description": description,
            "content": {MEDIA_TYPE: content | {"example": examples.problem_example(status)}},
            **({"headers": {"Retry-After": RETRY_AFTER}} if status == 429 else {}),
        }
        for status, (name, description) in REFUSALS.items()
    }


# ---- schemas -----------------------------------------------------------------------------------------------------------------------
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
                },
                "required": ["loc", "msg"],
            },
        },
    },
    "required": ["type", "title", "status", "detail", "code"],
}


def described_schemas(schemas: Mapping[str, Json]) -> Json:
    """The schemas with a description of each property, and of those whose structs have none."""
    return {name: _described_schema(name, schema) for name, schema in schemas.items()} | {"Problem": PROBLEM}


def _described_schema(name: str, schema: Json) -> Json:
    described = schema | ({"description": descriptions.SCHEMAS[name]} if name in descriptions.SCHEMAS else {})
    if "properties" in schema:
        texts = descriptions.PROPERTIES[name]
        described["properties"] = {key: value | {"description": texts[key]} for key, value in schema["properties"].items()}
    return described
