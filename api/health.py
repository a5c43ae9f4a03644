"""Health checks: whether the process runs, and whether its dependencies are available."""

from typing import Any

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency

from api.middleware.authentication import OPEN
from api.request import RequestContext
from application.services import DependencyHealth

ESSENTIAL = {"postgres"}  # without it, neither commands nor queries work


class Alive(msgspec.Struct, frozen=True):
    """The process runs."""

    status: str = "ok"


class Ready(msgspec.Struct, frozen=True):
    """The state of everything that the API depends on."""

    status: str
    dependencies: list[DependencyHealth]


@get(["/api/health", "/health", "/health/live", "/api/health/live"], opt=OPEN, tags=["health"], summary="Check the process")
async def live() -> Alive:
    """Answer if the process runs. Nothing else is checked."""
    return Alive()


@get(["/health/ready", "/api/health/ready"], opt=OPEN, tags=["health"], summary="Check the dependencies")
async def ready(context: NamedDependency[RequestContext]) -> Response[Ready]:
    """Name the dependencies that are unavailable.

    The status is 503 only without Postgres. Without another dependency, some operations are slower or unavailable.
    """
    dependencies = await context.services.health.examine()
    unavailable = {dependency.name for dependency in dependencies if not dependency.ok}
    body = Ready("degraded" if unavailable else "ok", dependencies)
    return Response(body, status_code=503 if unavailable & ESSENTIAL else 200)


@get("/metrics", opt=OPEN, include_in_schema=False)
async def metrics(context: NamedDependency[RequestContext]) -> Response[Any]:
    """Prometheus text format, for requests from this machine that came through no proxy."""
    if "x-forwarded-for" in context.request.headers or context.address not in {"127.0.0.1", "::1"}:
        return Response(None, status_code=404)
    return Response(context.services.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")
