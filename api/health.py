"""Health checks: whether the process runs, and whether its dependencies are available."""

import asyncio
from typing import Any

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency

from api.middleware.authentication import OPEN, bearer, mark_recognised
from api.request import RequestContext
from application.key_text import read_key
from application.services import DependencyHealth
from domain.access import Role, Scope, require_role_or_scope

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

    The status is 503 only without Postgres. Without another dependency, some operations are slower or unavailable. Models are named only
    in answers to requests from the machine of the API that came through no proxy.
    """
    dependencies = await context.services.health.examine()
    if not _is_from_this_machine(context):
        dependencies = [msgspec.structs.replace(dependency, silent_models=()) for dependency in dependencies]
    unavailable = {dependency.name for dependency in dependencies if not dependency.ok}
    body = Ready("degraded" if unavailable else "ok", dependencies)
    return Response(body, status_code=503 if unavailable & ESSENTIAL else 200)


@get("/metrics", opt=OPEN, include_in_schema=False)
async def metrics(context: NamedDependency[RequestContext]) -> Response[Any]:
    """Prometheus text format, for requests from this machine that came through no proxy, and for keys with the scope `metrics:read`."""
    if not _is_from_this_machine(context) and not await _may_read_metrics(context):
        return Response(None, status_code=404)
    return Response(context.services.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _may_read_metrics(context: RequestContext) -> bool:
    """Whether a request has a key with the right scope. Raises NotAuthenticated, Forbidden, TooMany, Unavailable for any other key."""
    key = read_key(bearer(context.request.headers) or "")
    if key is None:
        return False
    identity = await asyncio.to_thread(context.identities.authenticate, key, network=context.network)
    require_role_or_scope(identity.actor, Role.ADMIN, Scope.METRICS_READ)
    mark_recognised(context.request.scope)
    return True


def _is_from_this_machine(context: RequestContext) -> bool:
    """Whether an operator on this machine asks, and no proxy for somebody else."""
    return "x-forwarded-for" not in context.request.headers and context.address in {"127.0.0.1", "::1"}
