"""The start page: for people who open the address of the server, and a pointer for programs."""

from typing import Any

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency

from api.middleware.authentication import OPEN
from api.pages.rendering import rendered
from api.pages.visits import visitor
from api.request import RequestContext

NAME = "BioScopeAI Core"


class Pointer(msgspec.Struct, frozen=True):
    """What a program finds at the address of the server."""

    name: str
    documentation: str
    openapi: str
    health: str


@get("/", opt=OPEN, include_in_schema=False)
async def home(context: NamedDependency[RequestContext]) -> Response[Any]:
    """A page for browsers, JSON for every other client."""
    varies = {"Vary": "Accept"}
    if "text/html" not in context.request.headers.get("accept", ""):
        base = context.options.base_url
        body = Pointer(NAME, documentation=f"{base}/docs", openapi=f"{base}/api/openapi.json", health=f"{base}/health/ready")
        return Response(body, media_type="application/json", headers=varies)
    person = await visitor(context)
    return rendered("home.html", context.options, headers=varies, is_signed_in=person is not None, mode=context.options.registration)
