"""Errors as RFC 9457 problems: one table maps codes to statuses, and nothing of the inside is told."""

import re
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ExceptionHandlersMap

from domain.errors import DomainError, FieldError, Invalid

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
STATUS = {
    "malformed": 400,
    "not_authenticated": 401,
    "refresh_token_reused": 401,
    "forbidden": 403,
    "not_found": 404,
    "closed": 404,
    "too_slow": 408,
    "conflict": 409,
    "conflicted": 409,
    "taken": 409,
    "last_administrator": 409,
    "version_mismatch": 412,
    "image_too_large": 413,
    "body_too_large": 413,
    "unsupported_image": 415,
    "unsupported_media_type": 415,
    "wrong_host": 421,
    "as_of_not_available": 422,
    "damaged_image": 422,
    "invalid": 422,
    "idempotency_key_reused": 422,
    "too_many": 429,
    "headers_too_large": 431,
    "corrupted": 500,
    "not_recorded": 500,
    "unavailable": 503,
    "upgrade_needed": 503,
    "upgrade_under_way": 503,
}
TITLES = {
    400: ("malformed", "Malformed request"),
    401: ("not_authenticated", "Not authenticated"),
    403: ("forbidden", "Forbidden"),
    404: ("not_found", "Not found"),
    405: ("method_not_allowed", "Method not allowed"),
    408: ("too_slow", "The request took too long to arrive"),
    409: ("conflict", "Conflict"),
    412: ("version_mismatch", "Changed in the meantime"),
    413: ("too_large", "Too large"),
    414: ("address_too_long", "The address is too long"),
    415: ("unsupported_media_type", "Unsupported media type"),
    416: ("no_such_range", "No such part of the file"),
    421: ("wrong_host", "Not a host that we serve"),
    422: ("invalid", "Invalid"),
    429: ("too_many", "Too many requests"),
    431: ("headers_too_large", "The headers are too large"),
    500: ("internal_error", "Internal error"),
    503: ("unavailable", "Unavailable"),
}
FIELD = re.compile(r"(?:unknown|required) field `([^`]+)`")
PLACE = re.compile(r" - at `\$\.?([^`]*)`$")


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a client gets instead of an answer. `code` is stable, `detail` is for people, `instance` is the request's id."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str = ""
    errors: list[dict[str, Any]] = []
    reason: str = ""


class BodyTooLarge(DomainError):
    """A JSON body over its limit."""

    code = "body_too_large"


class AsOfNotAvailable(Invalid):
    """This route shows what is there now."""

    code = "as_of_not_available"

    def __init__(self) -> None:
        said = "is not available here: ask /api/audit/ID/state, /api/audit/DATASET/images or /api/audit/IMAGE-OR-JOB/results"
        super().__init__(f"as_of {said}", errors=[{"loc": ["query", "as_of"], "msg": said}])


class UnsupportedMediaType(DomainError):
    """The body is of a type that this route does not take."""

    code = "unsupported_media_type"


class TooSlow(DomainError):
    """A piece of a body did not come in time."""

    code = "too_slow"


def problem(status: int, detail: str, *, code: str = "", request_id: str = "", **more: Any) -> Problem:
    usual, title = TITLES.get(status, TITLES[500 if status >= 500 else 400])
    code = code or usual
    return Problem(type=f"urn:bioscope:problem:{code}", title=title, status=status, detail=detail, code=code, instance=request_id, **more)


def of_domain_error(error: DomainError, request_id: str) -> tuple[Problem, dict[str, str]]:
    """The problem, and the headers that go with it."""
    status = STATUS.get(error.code, 400)
    errors = [dict(one) for one in error.errors] if isinstance(error, Invalid) else []
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return problem(status, error.detail, code=error.code, request_id=request_id, errors=errors, reason=error.reason), headers


def id_of(request: Request[Any, Any, Any]) -> str:
    return str(request.scope.get("state", {}).get("request_id", ""))


def _answer(said: Problem, headers: dict[str, str] | None = None) -> Response[Any]:
    return Response(said, status_code=said.status, media_type=MEDIA_TYPE, headers=headers or {})


def _domain_error(request: Request[Any, Any, Any], error: DomainError) -> Response[Any]:
    return _answer(*of_domain_error(error, id_of(request)))


def _validation(request: Request[Any, Any, Any], error: ValidationException) -> Response[Any]:
    """Values of the wrong type or shape, named without being echoed."""
    extra = error.extra if isinstance(error.extra, list) else []
    errors = [_named(one) for one in extra if isinstance(one, dict)]
    detail = "; ".join(f"{'.'.join(map(str, one['loc'][1:])) or one['loc'][0]}: {one['msg']}" for one in errors) or "The request is invalid"
    return _domain_error(request, Invalid(detail, errors=errors))


def _named(one: dict[str, Any]) -> FieldError:
    message = str(one.get("message", "is invalid"))
    if message == "'data'":
        return {"loc": ["body"], "msg": "is missing: send a JSON object"}
    place = PLACE.search(message)
    field = FIELD.search(message)
    key = str(one.get("key") or "")
    path = [part for part in (place[1].split(".") if place else key.split(".")) if part and part != "data"]
    if field and (not path or path[-1] != field[1]):
        path.append(field[1])
    source = str(getattr(one.get("source"), "value", one.get("source")) or "body")
    return {"loc": [source, *path], "msg": PLACE.sub("", message)}


def _http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    headers = {name: value for name, value in (error.headers or {}).items() if name.lower() in {"allow", "retry-after"}}
    detail = {404: "Not Found", 405: "Method Not Allowed", 400: "The request could not be read: its body is not valid JSON"}
    said = problem(
        error.status_code, detail.get(error.status_code, TITLES.get(error.status_code, TITLES[400])[1]), request_id=id_of(request)
    )
    return _answer(said, headers)


def _unforeseen(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    log.error("unforeseen error", request_id=id_of(request), exc_info=error)
    return _answer(problem(500, "Something went wrong on our side. It was logged under this request's id", request_id=id_of(request)))


HANDLERS: ExceptionHandlersMap = {
    DomainError: _domain_error,
    ValidationException: _validation,
    HTTPException: _http_error,
    Exception: _unforeseen,
}
