"""Renders the templates of the pages. Every value is escaped."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import Response, get

from api.middleware.authentication import OPEN
from api.options import WebOptions

FOLDER: Final = Path(__file__).parent
TEMPLATES: Final = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    auto_reload=False,
    trim_blocks=True,
    lstrip_blocks=True,
)
POLICY: Final = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers would send a form without its origin
    "Cross-Origin-Opener-Policy": "same-origin",
}
TEMPLATES.filters["sentence"] = lambda text: text if text.endswith((".", "?")) else f"{text}."
STYLES_PATH: Final = "/pages.css"


def rendered(
    template: str, options: WebOptions, *, status: int = 200, headers: dict[str, str] | None = None, **values: Any
) -> Response[str]:
    """A page from `template`, which gets `values`, and `base`, the path in front of all links."""
    text = TEMPLATES.get_template(template).render(base=options.base_path, styles=f"{STYLES_PATH}?{styles_tag()}", **values)
    return Response(text, status_code=status, media_type="text/html", headers=HEADERS | (headers or {}))


def redirect(options: WebOptions, path: str, **more: Any) -> Response[Any]:
    """Continue at another page, which the browser loads with GET."""
    return Response(b"", status_code=303, media_type="text/plain", headers={"Location": f"{options.base_path}{path}"}, **more)


@cache
def styles_content() -> bytes:
    return (FOLDER / "assets" / "pages.css").read_bytes()


@cache
def styles_tag() -> str:
    return hashlib.sha256(styles_content()).hexdigest()[:16]


@get(STYLES_PATH, opt=OPEN, include_in_schema=False)
async def styles() -> Response[bytes]:
    caching = {"Cache-Control": "public, max-age=31536000, immutable", "ETag": f'"{styles_tag()}"'}
    return Response(styles_content(), media_type="text/css", headers=caching)
