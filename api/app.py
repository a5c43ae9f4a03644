"""Assembles the web application."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import Any, Final

from litestar import Litestar, Request
from litestar.di import Provide
from litestar.exceptions import NotFoundException
from litestar.types import Scope

from api.app_context import RESOURCES, AppContext, app_context
from api.check_slots import CheckSlots
from api.documents import pages
from api.events import FeedSlots
from api.export_slots import ExportSlots
from api.kserve.slots import PredictionSlots
from api.live.hub import LiveHub
from api.middleware.access_recording import AccessRecorder
from api.middleware.admission import Admission
from api.middleware.allowed_methods import AllowedMethods
from api.middleware.authentication import Authentication, has_credential
from api.middleware.body_limits import BodyLimits
from api.middleware.outer import OuterMiddleware
from api.options import WebOptions
from api.pages.problems import unknown_page
from api.pages.routes import ROUTER
from api.pages.visits import has_page_token
from api.problems import HANDLERS, on_http_error
from api.request import RequestContext, reject_unprintable_address, reject_unsupported_as_of
from api.routes import ROUTES
from api.wait_slots import WaitSlots
from application.authentication import IdentityCache
from application.history.past_models import PastModels
from application.key_identities import KeyIdentities
from application.limits.connection_slots import ConnectionSlots
from application.services import Services

COMMAND_THREADS: Final = 64  # commands that can wait for the log at the same time


def create_app(services: Services, options: WebOptions) -> OuterMiddleware:
    """An ASGI application over `services`."""
    keys = KeyIdentities(services.log, services.key_uses, count_refusal=services.sign_in_limits.unknown_key)
    identities = IdentityCache(services.log, keys)
    admission = Admission(options.admission)
    wait_slots = WaitSlots(services.read_position, admission, slots=options.max_preview_waits, seconds=options.preview_wait_seconds)
    accesses = AccessRecorder(services.access_trail, options.trusted_proxies)
    live_hub = LiveHub(services, options, identities, admission, accesses)
    resources = {
        "wait_slots": wait_slots,
        "feed_slots": FeedSlots(options.feed),
        "store_slots": asyncio.Semaphore(options.uploads.concurrent_stores),
        "check_slots": CheckSlots(),
        "export_slots": ExportSlots(options.exports_per_account),
        "live_hub": live_hub,
        "prediction_slots": PredictionSlots(options.predictions, admission),
        "past_models": PastModels(services.log),
    }

    def drain() -> None:
        wait_slots.close()
        live_hub.stopping.set()

    context = AppContext(
        services=services,
        options=options,
        identities=identities,
        anonymous_bodies=ConnectionSlots(total=options.anonymous_bodies, each=options.anonymous_bodies_per_address),
        resources=resources,
    )
    return OuterMiddleware(
        router(),
        context,
        allowed_methods=AllowedMethods(router()),
        lifespan=partial(_lifespan, services, drain),
        admission=admission,
        has_credential=lambda scope: has_credential(scope, services, identities) or has_page_token(scope, context),
        drain=drain,
        accesses=accesses,
    )


@cache
def router() -> Litestar:
    """All routes. They are the same for every application: what differs comes with the request, as its `AppContext`."""
    return Litestar(
        route_handlers=[*ROUTES, *pages.PAGES, ROUTER],
        dependencies={"context": Provide(_context)} | {name: _resource(name) for name in RESOURCES},
        guards=[reject_unprintable_address, reject_unsupported_as_of],
        middleware=[Authentication, BodyLimits],
        exception_handlers={**HANDLERS, NotFoundException: unknown_page(on_http_error)},
        openapi_config=None,
        logging_config=None,  # the process configures its logging itself
        request_max_body_size=None,
    )


async def _context(request: Request[Any, Any, Any]) -> RequestContext:
    return RequestContext(request, request.scope.get("auth"))


def _resource(name: str) -> Provide:
    def resource(scope: Scope) -> Any:
        return app_context(scope).resources[name]

    return Provide(resource, sync_to_thread=False)


@asynccontextmanager
async def _lifespan(services: Services, drain: Callable[[], None]) -> AsyncIterator[None]:
    threads = ThreadPoolExecutor(COMMAND_THREADS, thread_name_prefix="command")
    asyncio.get_running_loop().set_default_executor(threads)
    async with services.lifespan():
        try:
            yield
        finally:
            drain()
