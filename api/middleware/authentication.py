"""Authenticates requests to every route without `opt=OPEN`. Keys may only be used for routes that name one of their scopes."""

import asyncio
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.datastructures import Headers
from litestar.middleware.authentication import AbstractAuthenticationMiddleware, AuthenticationResult
from litestar.types import ASGIApp

from api.access_notes import notes_of
from api.app_context import app_context
from api.clock import utc_now
from api.middleware.client_address import peer_of
from application.authentication import PENDING, IdentityCache, read_credential
from application.key_text import PresentedKey
from application.limits.connection_slots import RECOGNISED, network_of
from application.services import Services
from domain.access import Actor, Scope, require_scope
from domain.errors import DomainError, Forbidden, NotAuthenticated

OPEN = {"exclude_from_auth": True}
FOR_PENDING = {"pending": True}
"""The `opt` of a route that a registration may call, too, before its address is verified."""
NOT_VERIFIED: Final = (
    "Your e-mail address is not verified yet: open the link in the mail that was sent to it, or request another one with "
    "POST /api/auth/verification"
)
SIGNED_ADDRESSES: Final = "/api/blobs/"


def for_services(scope: Scope) -> dict[str, Any]:
    """The `opt` of a route that keys with this scope may call too."""
    return {"scope": scope}


class Authentication(AbstractAuthenticationMiddleware):
    """Accepts only `Authorization: Bearer`. Raises NotAuthenticated, and Forbidden for a key without the scope of the route."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app, exclude_http_methods=["OPTIONS"])

    async def authenticate_request(self, connection: ASGIConnection[Any, Any, Any, Any]) -> AuthenticationResult:
        token = bearer(connection.headers)
        if token is None:
            raise NotAuthenticated("Not authenticated")
        app = app_context(connection.scope)
        credential = read_credential(token, app.services.access_tokens, at=utc_now())
        identity = app.identities.cached(credential)
        if identity is None:
            network = network_of(peer_of(connection.scope, app.options.trusted_proxies))
            identity = await asyncio.to_thread(app.identities.authenticate, credential, network=network)
        notes_of(connection.scope).actor = identity.actor
        if identity.actor.uses_key:
            require_scope(identity.actor, connection.route_handler.opt.get("scope"))
        if not connection.route_handler.opt.get("pending"):
            require_verified(identity.actor)
        mark_recognised(connection.scope)
        return AuthenticationResult(user=identity.actor, auth=identity)


def has_credential(scope: Any, services: Services, identities: IdentityCache) -> bool:
    """Whether a request has a token or signed address that we issued and that has not expired, or a key that was accepted lately.

    Permissions are checked later.
    """
    try:
        if (token := bearer(Headers.from_scope(scope))) is not None:
            credential = read_credential(token, services.access_tokens, at=utc_now())
            return identities.keys.recognises(credential) if isinstance(credential, PresentedKey) else True
        if scope["path"].startswith(SIGNED_ADDRESSES):
            services.unseal_address(scope["path"].removeprefix(SIGNED_ADDRESSES))
            return True
    except DomainError:
        return False
    return False


def mark_recognised(scope: Any) -> None:
    """Mark the connection as a user's for the HTTP server, which closes connections of anonymous clients first."""
    if (mark := (scope.get("extensions") or {}).get(RECOGNISED)) is not None:
        mark()


def bearer(headers: Headers) -> str | None:
    """The token of the Authorization header. Raises NotAuthenticated for several such headers."""
    sent = headers.getall("authorization", [])
    if len(sent) > 1:
        raise NotAuthenticated("Send one Authorization header, not several")
    scheme, _, token = "".join(sent).partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def require_verified(actor: Actor) -> None:
    """Raises Forbidden for a registration whose address is not verified yet."""
    if actor.kind == PENDING:
        raise Forbidden(NOT_VERIFIED, reason="not_verified")
