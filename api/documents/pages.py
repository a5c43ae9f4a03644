"""The pages that show the API's documents, and the documents themselves. Nothing is loaded from another site."""

import asyncio
import hashlib
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple, ParamSpec

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from api.documents import asyncapi, openapi
from api.middleware.authentication import OPEN
from api.request import RequestContext
from domain.errors import NotFound

P = ParamSpec("P")
DOCUMENT_LOCK: Final = Lock()
ASSETS_PATH: Final = "/api/docs/assets"
FOREIGN_LOGO: Final = b"https://cdn.redoc.ly/redoc/logo-mini.svg"
REDOC_STYLES: Final = (
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='",  # an empty element that a script fills rule by rule
    "'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='",  # its scroll bar
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
<link rel="icon" href="{icon}" type="image/svg+xml">
{styles}
</head>
<body><main id="page"></main>{scripts}</body>
</html>
"""
ICON: Final = b"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><circle cx="16" cy="16" r="13" fill="none"\
 stroke="#3b5b8c" stroke-width="3"/><circle cx="16" cy="16" r="5" fill="#3b5b8c"/></svg>"""
BASE: Final = b"{base}"  # in an asset: the base path
START_SWAGGER: Final = b"""SwaggerUIBundle({url: "{base}/api/openapi.json", dom_id: "#page", deepLinking: true, docExpansion: "list",
  displayRequestDuration: true, validatorUrl: null, presets: [SwaggerUIBundle.presets.apis]});
"""
START_REDOC: Final = b"""Redoc.init("{base}/api/openapi.json", {hideDownloadButton: false, nativeScrollbars: true,
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


class AssetContent(NamedTuple):
    data: bytes
    tag: str


@cache
def asset_content(name: str, base_path: str = "") -> AssetContent:
    """An asset whose addresses are below `base_path`. Raises NotFound for a name that is not in ASSETS."""
    if name not in ASSETS:
        raise NotFound("Not Found")
    content, base = ASSETS[name].content, base_path.encode()
    if isinstance(content, bytes):
        data = content.replace(BASE, base)
    else:
        data = _read_from_wheel(*content).replace(FOREIGN_LOGO, base + f"{ASSETS_PATH}/redoc.svg".encode())
    return AssetContent(data, hashlib.sha256(data).hexdigest()[:16])


def _read_from_wheel(package: str, path: str) -> bytes:
    """Read a file without importing its package, which would import a web framework."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / path).read_bytes()


def page(styles: tuple[str, ...], scripts: tuple[str, ...], *, policy: str, base_path: str) -> Response[str]:
    """Assets are linked under a URL that changes with their content, so that they can be cached."""
    links = "\n".join(f'<link rel="stylesheet" href="{_url(name, base_path)}">' for name in styles)
    script_tags = "".join(f'<script src="{_url(name, base_path)}"></script>' for name in scripts)
    text = PAGE.format(icon=_url("icon.svg", base_path), styles=links, scripts=script_tags)
    return Response(text, media_type="text/html", headers={"Content-Security-Policy": policy})


def _url(name: str, base_path: str) -> str:
    return f"{base_path}{ASSETS_PATH}/{name}?{asset_content(name, base_path).tag}"


@get("/api/openapi.json", opt=OPEN, include_in_schema=False)
async def openapi_document(context: NamedDependency[RequestContext]) -> Response[bytes]:
    return Response(await asyncio.to_thread(_build_once, _openapi, context.options.base_path), media_type="application/json")


@get("/api/asyncapi.json", opt=OPEN, include_in_schema=False)
async def asyncapi_document(context: NamedDependency[RequestContext]) -> Response[bytes]:
    return Response(await asyncio.to_thread(_build_once, _asyncapi, context.options.base_url), media_type="application/json")


def _build_once(build: Callable[P, bytes], *args: P.args, **kwargs: P.kwargs) -> bytes:
    """Let concurrent first requests wait for one build, which takes a second of CPU time; later ones get the cached bytes."""
    with DOCUMENT_LOCK:
        return build(*args, **kwargs)


@cache
def _openapi(base_path: str) -> bytes:
    return msgspec.json.encode(openapi.document(base_path))


@cache
def _asyncapi(base_url: str) -> bytes:
    return msgspec.json.encode(asyncapi.document(base_url))


@get(["/docs", "/api/docs"], opt=OPEN, include_in_schema=False)
async def swagger(context: NamedDependency[RequestContext]) -> Response[str]:
    policy, base = POLICY.format(styles="'self'"), context.options.base_path
    return page(("plain.css", "swagger-ui.css"), ("swagger-ui.js", "swagger-start.js"), policy=policy, base_path=base)


@get(["/redoc", "/api/redoc"], opt=OPEN, include_in_schema=False)
async def redoc(context: NamedDependency[RequestContext]) -> Response[str]:
    policy, base = POLICY.format(styles=" ".join(("'self'", *REDOC_STYLES))), context.options.base_path
    return page(("plain.css",), ("redoc.js", "redoc-start.js"), policy=policy, base_path=base)


@get(f"{ASSETS_PATH}/{{name:str}}", opt=OPEN, include_in_schema=False)
async def asset(context: NamedDependency[RequestContext], name: FromPath[str]) -> Response[bytes]:
    content = await asyncio.to_thread(asset_content, name, context.options.base_path)
    caching = {"Cache-Control": "public, max-age=31536000, immutable", "ETag": f'"{content.tag}"'}
    return Response(content.data, media_type=ASSETS[name].media_type, headers=caching)


PAGES: Final[tuple[Any, ...]] = (openapi_document, asyncapi_document, swagger, redoc, asset)
