"""Errors of the pages, as pages: what happened, and what to do."""

from collections.abc import Callable
from typing import Any, Final

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.types import ExceptionHandlersMap

from api.access_notes import note_error
from api.app_context import app_context
from api.pages.forms import Link, retry_header
from api.pages.rendering import redirect, rendered
from api.pages.visits import NotVerified, SignedOut, expired_cookie
from api.problems import STATUS, request_id_of
from domain.errors import DomainError, InvalidLink

log = structlog.get_logger()

HOME: Final = Link("To the start page", "/")
AnyRequest = Request[Any, Any, Any]
Responder = Callable[[AnyRequest, HTTPException], Response[Any]]
NEXT: Final = {
    "/account/verify": Link("Sign in, and send the mail again", "/sign-in"),
    "/account/reset": Link("Request a new link", "/forgot-password"),
    "/account/email": Link("Sign in, and change the address again", "/sign-in"),
}
TITLES: Final = {
    400: "This did not work",
    403: "This is not allowed",
    404: "There is no such page",
    405: "This did not work",
    408: "This took too long",
    413: "This is too large",
    429: "Too many attempts",
    503: "Not available right now",
}
ENDED: Final = {
    "/account/invitation": "This invitation is invalid, was used already, or has expired. Ask the person who invited you to send it again",
    "/setup": "This address is invalid or was used already. Until there is an administrator, the server prints the right one at its start",
}


def problem_page(
    request: AnyRequest, *, status: int, detail: str, title: str = "", link: Link = HOME, headers: dict[str, str] | None = None
) -> Response[str]:
    title = title or TITLES.get(status, TITLES[503 if status >= 500 else 400])
    options = app_context(request.scope).options
    return rendered("message.html", options, status=status, headers=headers, title=title, text=(detail,), link=link)


def unknown_page(otherwise: Responder) -> Responder:
    """The handler of addresses without a route: a page for browsers. Addresses of the API, and other clients, get that of `otherwise`."""

    def on_not_found(request: AnyRequest, error: HTTPException) -> Response[Any]:
        if str(request.scope["path"]).startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
            return otherwise(request, error)
        return problem_page(request, status=404, detail="Check the address, or begin at the start page", headers={"Vary": "Accept"})

    return on_not_found


def on_domain_error(request: AnyRequest, error: DomainError) -> Response[Any]:
    note_error(request.scope, error)
    status = STATUS.get(error.code, 400)
    if isinstance(error, InvalidLink):
        path = str(request.scope["path"])
        detail, link = ENDED.get(path, error.detail), NEXT.get(path, HOME)
        return problem_page(request, status=status, title="This link does not work", detail=detail, link=link)
    return problem_page(request, status=status, detail=error.detail, headers=retry_header(error))


def on_signed_out(request: AnyRequest, _: SignedOut) -> Response[Any]:
    options = app_context(request.scope).options
    cookie = expired_cookie(options)
    had_session = cookie.key in request.cookies
    return redirect(options, "/sign-in?after=ended", cookies=[cookie]) if had_session else redirect(options, "/sign-in")


def on_not_verified(request: AnyRequest, _: NotVerified) -> Response[Any]:
    return redirect(app_context(request.scope).options, "/account")


def on_http_error(request: AnyRequest, error: HTTPException) -> Response[Any]:
    headers = {name: value for name, value in (error.headers or {}).items() if name.lower() == "allow"}
    return problem_page(request, status=error.status_code, detail="This address cannot be used in this way", headers=headers)


def on_unexpected_error(request: AnyRequest, error: Exception) -> Response[Any]:
    request_id = request_id_of(request)
    log.error("unexpected error", request_id=request_id, exc_info=error)
    return problem_page(request, status=500, detail=f"Internal error. The server's log has details under the id {request_id}")


HANDLERS: Final[ExceptionHandlersMap] = {
    SignedOut: on_signed_out,
    NotVerified: on_not_verified,
    DomainError: on_domain_error,
    HTTPException: on_http_error,
    Exception: on_unexpected_error,
}
"""The handlers of errors for the routes of pages."""
