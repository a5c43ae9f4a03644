"""The OpenAPI document, generated from the routes."""

import json
from collections.abc import Callable
from functools import cache
from importlib.metadata import version as installed
from typing import Any, Final

from litestar import Litestar
from litestar.di import Provide
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Contact, License
from litestar.routes import HTTPRoute

from api.problems import MEDIA_TYPE, TITLES
from api.routes import ROUTES
from domain.values import MAX_PATH_LENGTH

DEPENDENCIES: Final = ("context", "wait_slots", "feed_slots", "store_slots", "live_hub")
DESCRIPTION: Final = """\
Upload micrographs, run models over an image or a whole dataset, watch the results arrive, and prove years later what was seen.

**Signing in.** `POST /api/auth/login` answers with an access token; send it as `Authorization: Bearer TOKEN`. It ends after ten
minutes: `POST /api/auth/refresh` gives another for the refresh token, which is used up by that.

**Lists** are bare arrays, a page each: `Link` and `X-Next-Cursor` lead on, `X-Total-Count` counts where that is cheap.

**Changes** answer once they can be read, with `X-Event-Position` and the new `ETag`. `If-Match` guards a change, `Idempotency-Key`
makes a repeated POST the same command, `Prefer: respond-async` does not wait. `?min_position=` makes a query wait for a position.

**Errors** are RFC 9457 problems: `code` is stable, `detail` is a sentence for people, `errors` names the fields.

**While it happens**: the WebSocket `/api/ws` tells what happens as far as one may see it; `GET /api/events` is the whole log."""

TAGS: Final = {
    "sessions": "Register, sign in, refresh, sign out",
    "users": "Accounts and roles",
    "datasets": "Groups of images, and who may see them",
    "images": "Micrographs: upload, look at, download",
    "devices": "Microscopes and cameras",
    "models": "What can be run",
    "classifications": "Jobs: a model over an image or a dataset",
    "results": "What the models saw",
    "events": "The event stream, and its schemas",
    "audit": "What happened to a thing, and how it stood",
    "health": "Whether it lives, and all that it needs",
}
VERBS: Final = {"list": "List", "get": "Read", "create": "Create", "describe": "Change", "update": "Change", "remove": "Delete"}
PUBLISHED_NAMES: Final = {  # of schemas whose classes were renamed: clients generate code from the published ones
    "DependencyHealth": "Dependency",
    "FeedEvent": "Followed",
    "FeedPage": "Feed",
    "JobStatus": "Phase",
    "NamedBody": "Named",
    "application_history_lists_as_of_Result": "application_past_Result",
}
WITHOUT_IDEMPOTENCY_KEY: Final = {"sessions"}  # their results hold tokens, which are not kept for a repeat
WITHOUT_MIN_POSITION: Final = {"events", "health"}  # they read the log, or nothing
UPLOAD_PATH: Final = """\
The file's path below the folder that is uploaded: relative, with "/" (a backslash is taken as one), without ".." and empty parts. Its \
last part becomes the file name. May be left out."""
UPLOAD_FILE: Final = """\
JPEG, PNG or TIFF, with a file name: raw UTF-8 as browsers send it, or `filename*` (RFC 5987), which wins. The name is kept in NFC, \
without folders, at most 255 characters long."""
UPLOAD: Final = {
    "type": "object",
    "properties": {
        "dataset_id": {"type": "string", "format": "uuid"},
        "device_id": {"type": "string", "format": "uuid", "description": "may be left out"},
        "path": {"type": "string", "maxLength": MAX_PATH_LENGTH, "description": UPLOAD_PATH, "examples": ["A1/img.tif"]},
        "file": {"type": "string", "contentMediaType": "application/octet-stream", "description": UPLOAD_FILE},
    },
    "required": ["dataset_id", "file"],
}
STREAMED_BODIES: Final = {"/api/images/upload": {"multipart/form-data": {"schema": UPLOAD}}}

PROBLEM: Final = {
    "type": "object",
    "description": "RFC 9457. `instance` is the request's id, under which the log has more.",
    "properties": {
        "type": {"type": "string", "examples": ["urn:bioscope:problem:not_found"]},
        "title": {"type": "string", "examples": ["Not found"]},
        "status": {"type": "integer", "enum": sorted(TITLES)},
        "detail": {"type": "string", "description": "a sentence for people"},
        "code": {"type": "string", "description": "stable", "examples": ["not_found"]},
        "instance": {"type": "string"},
        "reason": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"loc": {"type": "array", "items": {"type": ["string", "integer"]}}, "msg": {"type": "string"}},
                "required": ["loc", "msg"],
            },
        },
    },
    "required": ["type", "title", "status", "detail", "code"],
}


def _header(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"} | schema}


PARAMETERS: Final = {
    "IdempotencyKey": _header("Idempotency-Key", "The same key makes a repeat the same command", minLength=1, maxLength=255),
    "IfMatch": _header("If-Match", 'The ETag that must still hold, like `"3"`; else 412'),
    "Prefer": _header("Prefer", "`respond-async`: answer before the change can be read"),
    "MinPosition": {
        "name": "min_position",
        "in": "query",
        "required": False,
        "description": "Not before the read models have reached this `X-Event-Position`",
        "schema": {"type": "integer", "minimum": 0},
    },
}
POSITION: Final = {"description": "From which position on it can be read", "schema": {"type": "integer"}}
SHARED: Final = {
    "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
    "responses": {
        "Problem": {
            "description": "It was refused, or failed",
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    },
    "parameters": PARAMETERS,
}


@cache
def document() -> dict[str, Any]:
    """OpenAPI 3.1 of all routes. Takes a second; callers must not change it."""
    app = Litestar(
        route_handlers=ROUTES,
        dependencies={name: Provide(_placeholder()) for name in DEPENDENCIES},
        openapi_config=OpenAPIConfig(
            title="BioScopeAI Core",
            version=installed("bioscope"),
            description=DESCRIPTION,
            license=License(name="MIT", identifier="MIT"),
            contact=Contact(name="BioScopeAI"),
            use_handler_docstrings=True,
        ),
        logging_config=None,
    )
    schema = _with_published_names(app.openapi_schema.to_schema())
    operation_ids: set[str] = set()
    for route in sorted((route for route in app.routes if isinstance(route, HTTPRoute)), key=lambda route: route.path_format):
        for method, (handler, _) in route.route_handler_map.items():
            if (operation := schema["paths"].get(route.path_format, {}).get(method.lower())) is not None:
                _complete(operation, method, route.path_format, handler, operation_ids)
    schema["components"]["schemas"]["Problem"] = PROBLEM
    schema["components"] |= SHARED
    schema["paths"] = dict(sorted(schema["paths"].items()))
    tags = [{"name": name, "description": description} for name, description in TAGS.items()]
    return schema | {"security": [{"bearer": []}], "tags": tags}


def _placeholder() -> Callable[[], Any]:
    """Stands for a dependency of the routes; Litestar needs a different one for each."""

    async def placeholder() -> None: ...

    return placeholder


def _with_published_names(schema: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(schema)
    for name, published in PUBLISHED_NAMES.items():
        text = text.replace(f'"#/components/schemas/{name}"', f'"#/components/schemas/{published}"')
    schema = json.loads(text)
    schemas = {PUBLISHED_NAMES.get(name, name): definition for name, definition in schema["components"]["schemas"].items()}
    for definition in schemas.values():
        definition["title"] = PUBLISHED_NAMES.get(definition["title"], definition["title"])
    schema["components"]["schemas"] = dict(sorted(schemas.items()))
    return schema


def _complete(operation: dict[str, Any], method: str, path: str, handler: Any, operation_ids: set[str]) -> None:
    """Add what is common to all routes: errors, headers, security. A handler may set its own operation id and summary."""
    tag, name = operation["tags"][0], handler.handler_name
    operation["summary"] = handler.summary or VERBS.get(name.partition("_")[0], name.replace("_", " ").capitalize())
    operation["operationId"] = _unique(handler.operation_id or tag + name.title().replace("_", ""), operation_ids)
    if handler.opt.get("exclude_from_auth"):
        operation["security"] = []
    if path in STREAMED_BODIES:
        operation["requestBody"] = {"required": True, "content": STREAMED_BODIES[path]}
    shared = _parameters(method, tag)
    operation["parameters"] = [
        *operation.get("parameters", []),
        *({"$ref": f"#/components/parameters/{parameter}"} for parameter in shared),
    ]
    responses = operation["responses"]
    responses.pop("400", None)
    if "Prefer" in shared:
        for status in responses:
            responses[status].setdefault("headers", {})["X-Event-Position"] = POSITION
    responses["default"] = {"$ref": "#/components/responses/Problem"}


def _parameters(method: str, tag: str) -> list[str]:
    if method == "GET":
        return [] if tag in WITHOUT_MIN_POSITION else ["MinPosition"]
    if tag in WITHOUT_IDEMPOTENCY_KEY:
        return []
    return [*(["IdempotencyKey"] if method == "POST" else ["IfMatch"]), "Prefer"]


def _unique(name: str, names: set[str]) -> str:
    """`name`, or the first of `name2`, `name3`, ... that is not among `names`, to which it is added."""
    unique, number = name, 1
    while unique in names:
        number += 1
        unique = f"{name}{number}"
    names.add(unique)
    return unique
