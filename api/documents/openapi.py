"""What describes the API: OpenAPI, generated from the routes, and two pages that show it. Nothing is loaded from anywhere else."""

import asyncio
import hashlib
from collections.abc import Callable
from functools import cache
from importlib.metadata import version as installed
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple, ParamSpec

import msgspec
from litestar import Litestar, Response, get
from litestar.di import NamedDependency, Provide
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Contact, License
from litestar.params import FromPath
from litestar.routes import HTTPRoute

from api.middleware.authentication import OPEN
from api.problems import MEDIA_TYPE, TITLES
from api.request import RequestContext
from api.routes import ROUTES
from application import event_schemas
from domain.errors import NotFound
from domain.values import MAX_PATH_LENGTH

P = ParamSpec("P")
DOCUMENT_LOCK: Final = Lock()
DESCRIPTION: Final = """\
Upload micrographs, run models over an image or a whole dataset, watch the results arrive, and prove years later what was seen.

**Signing in.** `POST /api/auth/login` answers with an access token; send it as `Authorization: Bearer TOKEN`. It ends after ten
minutes: `POST /api/auth/refresh` gives another for the refresh token, which is used up by that.

**Lists** are bare arrays, a page each: `SignedLink` and `X-Next-Cursor` lead on, `X-Total-Count` counts where that is cheap.

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
VERBS: Final = {"listed": "List", "one": "Read", "create": "Create", "describe": "Change", "update": "Change", "remove": "Delete"}
NOT_KEYED: Final = {"sessions"}  # its answers hold tokens: none is kept for a repeat
NOT_AWAITED: Final = {"events", "health"}  # they read the log, or nothing
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
READ_AS_STREAMS: Final = {"/api/images/upload": {"multipart/form-data": {"schema": UPLOAD}}}

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
    """OpenAPI 3.1 of all routes. Takes a second. Not to be changed by who gets it."""
    app = Litestar(
        route_handlers=ROUTES,
        dependencies={name: Provide(_nothing()) for name in ("call", "waits", "watching")},
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
    told = app.openapi_schema.to_schema()
    names: set[str] = set()
    for route in sorted((one for one in app.routes if isinstance(one, HTTPRoute)), key=lambda one: one.path_format):
        for method, (handler, _) in route.route_handler_map.items():
            if (operation := told["paths"].get(route.path_format, {}).get(method.lower())) is not None:
                _complete(operation, method, route.path_format, handler, names)
    told["components"]["schemas"]["Problem"] = PROBLEM
    told["components"] |= SHARED
    return told | {"security": [{"bearer": []}], "tags": [{"name": name, "description": what} for name, what in TAGS.items()]}


def _nothing() -> Callable[[], Any]:
    """In place of what a route is given when it runs; each another, as Litestar wants it."""

    async def nothing() -> None: ...

    return nothing


def _complete(operation: dict[str, Any], method: str, path: str, handler: Any, names: set[str]) -> None:
    """What holds for all routes and stands in none: errors, headers, who may ask."""
    tag, name = operation["tags"][0], handler.handler_name
    operation["summary"] = VERBS.get(name, name.replace("_", " ").capitalize())
    operation["operationId"] = _unique(tag + name.title().replace("_", ""), names)
    if handler.opt.get("exclude_from_auth"):
        operation["security"] = []
    if path in READ_AS_STREAMS:
        operation["requestBody"] = {"required": True, "content": READ_AS_STREAMS[path]}
    shared = _parameters(method, tag)
    operation["parameters"] = [*operation.get("parameters", []), *({"$ref": f"#/components/parameters/{one}"} for one in shared)]
    responses = operation["responses"]
    responses.pop("400", None)
    if "Prefer" in shared:
        for status in responses:
            responses[status].setdefault("headers", {})["X-Event-Position"] = POSITION
    responses["default"] = {"$ref": "#/components/responses/Problem"}


def _parameters(method: str, tag: str) -> list[str]:
    if method == "GET":
        return [] if tag in NOT_AWAITED else ["MinPosition"]
    if tag in NOT_KEYED:
        return []
    return [*(["IdempotencyKey"] if method == "POST" else ["IfMatch"]), "Prefer"]


def _unique(name: str, names: set[str]) -> str:
    number = 1
    wanted = name
    while wanted in names:
        number += 1
        wanted = f"{name}{number}"
    names.add(wanted)
    return wanted


# ---- pages -------------------------------------------------------------------------------------------------------------------------
ASSETS_AT: Final = "/api/docs/assets"
OWN_LOGO: Final = b"https://cdn.redoc.ly/redoc/logo-mini.svg", f"{ASSETS_AT}/redoc.svg".encode()  # no page loads anything from elsewhere
REDOC_STYLES: Final = (
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='",  # nothing: an element that a script fills rule by rule
    "'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='",  # of its scroll bar
)
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src {styles}; img-src 'self' data:; font-src 'self'; connect-src 'self';"
    " worker-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>BioScopeAI Core: API</title>
<link rel="icon" href="{at}/icon.svg" type="image/svg+xml">
{styles}
</head>
<body><main id="page"></main>{scripts}</body>
</html>
"""
ICON: Final = b"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><circle cx="16" cy="16" r="13" fill="none"\
 stroke="#3b5b8c" stroke-width="3"/><circle cx="16" cy="16" r="5" fill="#3b5b8c"/></svg>"""
START_SWAGGER: Final = b"""SwaggerUIBundle({url: "/api/openapi.json", dom_id: "#page", deepLinking: true, docExpansion: "list",
  displayRequestDuration: true, validatorUrl: null, presets: [SwaggerUIBundle.presets.apis]});
"""
START_REDOC: Final = b"""Redoc.init("/api/openapi.json", {hideDownloadButton: false, nativeScrollbars: true,
  theme: {typography: {fontFamily: "system-ui, sans-serif", headings: {fontFamily: "system-ui, sans-serif"}}}},
  document.getElementById("page"));
"""
PLAIN: Final = b"body { margin: 0; font-family: system-ui, sans-serif }\n"
SCRIPT, STYLE, SVG = "text/javascript", "text/css", "image/svg+xml"


class Asset(NamedTuple):
    """`content` is bytes, or (package, path) of a file in an installed wheel."""

    media_type: str
    content: bytes | tuple[str, str]


ASSETS: Final = {
    "icon.svg": Asset(SVG, ICON),
    "plain.css": Asset(STYLE, PLAIN),
    "swagger-start.js": Asset(SCRIPT, START_SWAGGER),
    "swagger-ui.css": Asset(STYLE, ("flask_openapi3_swagger", "templates/swagger/css/swagger-ui.css")),
    "swagger-ui.js": Asset(SCRIPT, ("flask_openapi3_swagger", "templates/swagger/js/swagger-ui-bundle.js")),
    "redoc-start.js": Asset(SCRIPT, START_REDOC),
    "redoc.svg": Asset(SVG, ("flask_openapi3_redoc", "templates/redoc/images/redoc.svg")),
    "redoc.js": Asset(SCRIPT, ("flask_openapi3_redoc", "templates/redoc/js/redoc.standalone.js")),
}


class Served(NamedTuple):
    content: bytes
    tag: str


@cache
def asset(name: str) -> Served:
    """Raises NotFound for every name but those listed above."""
    if name not in ASSETS:
        raise NotFound("Not Found")
    content = ASSETS[name].content
    found = content if isinstance(content, bytes) else _in_wheel(*content)
    return Served(found, hashlib.sha256(found).hexdigest()[:16])


def _in_wheel(package: str, path: str) -> bytes:
    """The package itself is not imported: it would bring a web framework with it."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / path).read_bytes().replace(*OWN_LOGO)


def page(styles: tuple[str, ...], scripts: tuple[str, ...], *, policy: str) -> Response[str]:
    """Each asset under an address that changes with it, so that it can be kept."""
    linked = "\n".join(f'<link rel="stylesheet" href="{_address(name)}">' for name in styles)
    run = "".join(f'<script src="{_address(name)}"></script>' for name in scripts)
    text = PAGE.format(at=ASSETS_AT, styles=linked, scripts=run)
    return Response(text, media_type="text/html", headers={"Content-Security-Policy": policy})


def _address(name: str) -> str:
    return f"{ASSETS_AT}/{name}?{asset(name).tag}"


@get("/api/openapi.json", opt=OPEN, include_in_schema=False)
async def openapi(call: NamedDependency[RequestContext]) -> Response[bytes]:
    return Response(await asyncio.to_thread(_made_once, _openapi, call.services.options.base_path), media_type="application/json")


@get("/api/asyncapi.json", opt=OPEN, include_in_schema=False)
async def asyncapi() -> Response[bytes]:
    return Response(await asyncio.to_thread(_made_once, _asyncapi), media_type="application/json")


def _made_once(document: Callable[P, bytes], *given: P.args, **more: P.kwargs) -> bytes:
    """Many who ask at once, after a start, wait for the first: each would take a second of the processor."""
    with DOCUMENT_LOCK:
        return document(*given, **more)


@cache
def _openapi(base_path: str) -> bytes:
    return msgspec.json.encode(document() | {"servers": [{"url": base_path or "/"}]})


@cache
def _asyncapi() -> bytes:
    return msgspec.json.encode(event_schemas.document())


@get(["/docs", "/api/docs"], opt=OPEN, include_in_schema=False)
async def swagger() -> Response[str]:
    """To try things out."""
    return page(("plain.css", "swagger-ui.css"), ("swagger-ui.js", "swagger-start.js"), policy=POLICY.format(styles="'self'"))


@get(["/redoc", "/api/redoc"], opt=OPEN, include_in_schema=False)
async def redoc() -> Response[str]:
    """To read."""
    return page(("plain.css",), ("redoc.js", "redoc-start.js"), policy=POLICY.format(styles=" ".join(("'self'", *REDOC_STYLES))))


@get(f"{ASSETS_AT}/{{name:str}}", opt=OPEN, include_in_schema=False)
async def served(name: FromPath[str]) -> Response[bytes]:
    found = await asyncio.to_thread(asset, name)
    kept = {"Cache-Control": "public, max-age=31536000, immutable", "ETag": f'"{found.tag}"'}
    return Response(found.content, media_type=ASSETS[name].media_type, headers=kept)


PAGES: Final[tuple[Any, ...]] = (openapi, asyncapi, swagger, redoc, served)
