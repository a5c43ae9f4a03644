"""What all requests to an application share. The outermost middleware puts it into the ASGI scope of each one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from api.options import WebOptions
from application.authentication import IdentityCache
from application.limits.connection_slots import ConnectionSlots
from application.services import Services

APP_CONTEXT: Final = "bioscope"  # in the scope of a request
RESOURCES: Final = (
    "wait_slots",
    "feed_slots",
    "store_slots",
    "check_slots",
    "export_slots",
    "live_hub",
    "prediction_slots",
    "past_models",
)
"""The names of `AppContext.resources`, which handlers have as parameters."""


@dataclass(frozen=True)
class AppContext:
    """`resources` are what some routes need, by name."""

    services: Services
    options: WebOptions
    identities: IdentityCache
    anonymous_bodies: ConnectionSlots
    resources: Mapping[str, object]


def app_context(scope: Any) -> AppContext:
    """That of the application to which the request or the WebSocket was sent."""
    found: AppContext = scope[APP_CONTEXT]
    return found
