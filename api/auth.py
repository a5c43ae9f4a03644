"""Who calls: every route asks, unless it says `opt={"exclude_from_auth": True}`."""

import asyncio
from typing import Any

from litestar.connection import ASGIConnection
from litestar.middleware.authentication import AbstractAuthenticationMiddleware, AuthenticationResult
from litestar.types import ASGIApp

from api.calls import now
from application.context import Services
from application.identity import Identities
from domain.errors import NotAuthenticated

OPEN = {"exclude_from_auth": True}


class Authentication(AbstractAuthenticationMiddleware):
    """Believes `Authorization: Bearer` and nothing else. Raises NotAuthenticated."""

    def __init__(self, app: ASGIApp, *, services: Services, identities: Identities) -> None:
        super().__init__(app, exclude_http_methods=["OPTIONS"])
        self._tokens, self._identities = services.access_tokens, identities

    async def authenticate_request(self, connection: ASGIConnection[Any, Any, Any, Any]) -> AuthenticationResult:
        token = bearer(connection.headers.get("authorization"))
        if token is None:
            raise NotAuthenticated("Not authenticated")
        claims = self._tokens.verify(token, at=now())
        identity = self._identities.remembered(claims)
        if identity is None:
            identity = await asyncio.to_thread(self._identities.identified, claims)
        return AuthenticationResult(user=identity.actor, auth=identity)


def bearer(header: str | None) -> str | None:
    """The token of an Authorization header."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
