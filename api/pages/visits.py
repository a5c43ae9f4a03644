"""The signed-in state of a browser: a cookie that only the pages accept, and only for requests from their own forms."""

import asyncio
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from litestar.datastructures import Cookie

from api.app_context import AppContext
from api.clock import utc_now
from api.middleware.authentication import mark_recognised
from api.options import WebOptions
from api.request import RequestContext
from application.authentication import Identity
from domain.errors import DomainError, Forbidden, NotAuthenticated

NAME: Final = "bioscope_page"
MAX_AGE: Final = timedelta(hours=12)
REFUSED: Final = "This form was not sent from a page of this site. Open the page here, and send it again"


class SignedOut(DomainError):
    """Nobody is signed in, or the session has ended. The browser is sent to the page for signing in."""

    code = "not_authenticated"

    def __init__(self) -> None:
        super().__init__("Sign in first")


class NotVerified(DomainError):
    """The person's e-mail address is not verified yet. The browser is sent to the page that says so."""

    code = "forbidden"

    def __init__(self) -> None:
        super().__init__("Verify your e-mail address first")


def cookie_name(options: WebOptions) -> str:
    """Browsers set a name with a prefix only over TLS, and one with `__Host-` only for this very host and all of its paths."""
    if not options.secure_cookies:
        return NAME
    return f"__Secure-{NAME}" if options.base_path else f"__Host-{NAME}"


def session_cookie(context: RequestContext, session_id: UUID) -> Cookie:
    return _cookie(context.options, context.services.page_tokens.issue(session_id), seconds=int(max_age(context.options).total_seconds()))


def expired_cookie(options: WebOptions) -> Cookie:
    return _cookie(options, "", seconds=0)


def _cookie(options: WebOptions, value: str, *, seconds: int) -> Cookie:
    return Cookie(
        key=cookie_name(options),
        value=value,
        max_age=seconds,
        path=options.base_path or "/",
        httponly=True,
        samesite="strict",
        secure=options.secure_cookies,
    )


def max_age(options: WebOptions) -> timedelta:
    """How long after the sign-in the cookie is accepted. It is never longer than an unused refresh token of the session."""
    return min(MAX_AGE, timedelta(seconds=options.refresh_ttl))


async def visitor(context: RequestContext) -> RequestContext | None:
    """The request as that of the person who is signed in, or None. Raises Unavailable."""
    if (token := context.request.cookies.get(cookie_name(context.options))) is None:
        return None
    try:
        session_id = context.services.page_tokens.session_of(token)
        identity = context.identities.cached_in(session_id)
        if identity is None:
            identity = await asyncio.to_thread(context.identities.signed_in, session_id)
    except NotAuthenticated:
        return None
    if _has_expired(identity, context.options):
        return None
    context.request.scope["user"] = identity.actor  # for the log of requests
    mark_recognised(context.request.scope)
    return RequestContext(context.request, identity)


def has_page_token(scope: Any, context: AppContext) -> bool:
    """Whether a request for a page has the cookie of a session that was accepted lately: a cookie itself never expires. Does not block."""
    if scope["path"].startswith("/api/"):
        return False
    header = next((value for name, value in scope["headers"] if name == b"cookie"), b"").decode("latin-1")
    cookies = dict(cookie.strip().partition("=")[::2] for cookie in header.split(";"))
    token = cookies.get(cookie_name(context.options), "")
    try:
        return context.identities.recognises(context.services.page_tokens.session_of(token))
    except NotAuthenticated:
        return False


def _has_expired(identity: Identity, options: WebOptions) -> bool:
    return identity.signed_in_at is None or utc_now() - identity.signed_in_at >= max_age(options)


def require_own_form(context: RequestContext) -> None:
    """Raises Forbidden unless a page of this site sent the request. Every browser says so with each form."""
    headers = context.request.headers
    site = headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        raise Forbidden(REFUSED)
    origin = headers.get("origin", "")
    if origin != context.options.origin and origin.partition("://")[2] != headers.get("host"):
        raise Forbidden(REFUSED)
