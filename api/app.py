"""The web application, put together."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, Request
from litestar.di import Provide
from litestar.middleware import DefineMiddleware

from api.documents import openapi
from api.live.connection import LiveHub
from api.middleware.admission import Admission
from api.middleware.authentication import Authentication, has_credential
from api.middleware.body_limits import BodyLimits
from api.middleware.outer import OuterMiddleware
from api.problems import HANDLERS
from api.request import RequestContext, require_context
from api.routes import ROUTES
from api.wait_slots import WaitSlots
from application.authentication import IdentityCache
from application.services import Services

COMMAND_THREADS = 64  # commands that wait for the log at once
MAX_STORING_THREADS = 32  # of which may wait for the file store: it may be slow, and the others are not to be


def create_app(services: Services) -> OuterMiddleware:
    """An ASGI application over `services`."""
    identities = IdentityCache(services.log)
    watching = LiveHub(services, identities)
    options, admission = services.options, Admission()
    waits = WaitSlots(services.visible, admission, slots=options.max_preview_waits, seconds=options.preview_wait_seconds)

    async def call(request: Request[Any, Any, Any]) -> RequestContext:
        return RequestContext(request, services, identities, request.scope.get("auth"))

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        threads = ThreadPoolExecutor(COMMAND_THREADS, thread_name_prefix="command")
        asyncio.get_running_loop().set_default_executor(threads)
        app.state.storing = asyncio.Semaphore(MAX_STORING_THREADS)
        async with services.opened():
            try:
                yield
            finally:
                waits.close()

    app = Litestar(
        route_handlers=[*ROUTES, *(openapi.PAGES if options.docs else ())],
        dependencies={
            "call": Provide(call),
            "waits": Provide(lambda: waits, sync_to_thread=False),
            "watching": Provide(lambda: watching, sync_to_thread=False),
        },
        guards=[require_context],
        middleware=[
            DefineMiddleware(Authentication, services=services, identities=identities),
            DefineMiddleware(BodyLimits, options=options),
        ],
        exception_handlers=HANDLERS,
        lifespan=[lifespan],
        openapi_config=None,
        logging_config=None,  # the process has its own
        request_max_body_size=None,
    )
    return OuterMiddleware(
        app,
        options,
        services.observed,
        lifespan=app.lifespan,
        admission=admission,
        has_credential=lambda scope: has_credential(scope, services),
        drain=waits.close,
    )
