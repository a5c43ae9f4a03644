"""Converts errors to problems (RFC 9457). One table maps codes to statuses. Internal details are never shown."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.handlers import BaseRouteHandler
from litestar.types import ExceptionHandlersMap
from litestar.typing import FieldDefinition

from api.access_notes import note_error
from api.allowed_values import fields_at, parameter_of, public_name, sentence
from api.field_messages import UnknownField, missing_field, unknown_field
from domain.errors import DomainError, FieldError, Invalid

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
PROTOCOL_PATH = "/api/v2"  # of the Open Inference Protocol
STATUS = {
    "malformed": 400,
    "invalid_link": 400,
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
    "input_mismatch": 422,
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
    408: ("too_slow", "Request timeout"),
    409: ("conflict", "Conflict"),
    412: ("version_mismatch", "Version mismatch"),
    413: ("too_large", "Too large"),
    414: ("address_too_long", "The address is too long"),
    415: ("unsupported_media_type", "Unsupported media type"),
    416: ("no_such_range", "Range not satisfiable"),
    421: ("wrong_host", "Unknown host name"),
    422: ("invalid", "Invalid"),
    429: ("too_many", "Too many requests"),
    431: ("headers_too_large", "The headers are too large"),
    500: ("internal_error", "Internal error"),
    503: ("unavailable", "Unavailable"),
}
TITLES_OF_CODES = {"invalid_link": "Invalid link"}
PATH_PART = re.compile(r"[A-Za-z0-9_-]{1,40}(\[\d{1,9}\]){0,4}")
ANY_KEY = "[...]"  # of a mapping, in paths of msgspec


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of every error response. `code` is stable, `detail` is for people, `instance` is the request's id."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str = ""
    errors: list[dict[str, Any]] = []
    reason: str = ""


class ProtocolError(msgspec.Struct, frozen=True):
    """The body of an error response of the Open Inference Protocol: a sentence for people."""

    error: str


class Malformed(DomainError):
    """The body cannot be parsed. `errors` name the fields that cause it, where they are known."""

    code = "malformed"

    def __init__(self, detail: str, *, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.errors = errors


class BodyTooLarge(DomainError):
    """The body is larger than its limit."""

    code = "body_too_large"


class AsOfNotAvailable(Invalid):
    """The route shows the present only."""

    code = "as_of_not_available"

    def __init__(self) -> None:
        message = "is not available on this route; use /api/audit/ID/state, /api/audit/DATASET/images or /api/audit/IMAGE-OR-JOB/results"
        super().__init__(f"as_of {message}", errors=[{"loc": ["query", "as_of"], "msg": message}])


class UnsupportedMediaType(DomainError):
    """The body has a media type that this route does not accept."""

    code = "unsupported_media_type"


class TooSlow(DomainError):
    """A piece of a body did not arrive in time."""

    code = "too_slow"


def problem(
    status: int, detail: str, *, code: str = "", request_id: str = "", errors: list[dict[str, Any]] | None = None, reason: str = ""
) -> Problem:
    default_code, title = TITLES.get(status, TITLES[500 if status >= 500 else 400])
    code = code or default_code
    return Problem(
        type=f"urn:bioscope:problem:{code}",
        title=TITLES_OF_CODES.get(code, title),
        status=status,
        detail=detail,
        code=code,
        instance=request_id,
        errors=errors or [],
        reason=reason,
    )


def of_domain_error(error: DomainError, request_id: str) -> tuple[Problem, dict[str, str]]:
    """The problem of an error, and the headers of its response."""
    status = STATUS.get(error.code, 400)
    errors = [dict(error_field) for error_field in error.errors] if isinstance(error, Invalid | Malformed) else []
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return problem(status, error.detail, code=error.code, request_id=request_id, errors=errors, reason=error.reason), headers


def encoded(body: Problem, path: str) -> tuple[Any, str]:
    """The body of the response to `path` with this error, and its media type."""
    if path == PROTOCOL_PATH or path.startswith(f"{PROTOCOL_PATH}/"):
        return ProtocolError(body.detail), "application/json"
    return body, MEDIA_TYPE


def request_id_of(request: Request[Any, Any, Any]) -> str:
    return str(request.scope.get("state", {}).get("request_id", ""))


def _respond(request: Request[Any, Any, Any], body: Problem, headers: dict[str, str] | None = None) -> Response[Any]:
    content, media_type = encoded(body, request.scope["path"])
    return Response(content, status_code=body.status, media_type=media_type, headers=headers or {})


def _on_domain_error(request: Request[Any, Any, Any], error: DomainError) -> Response[Any]:
    note_error(request.scope, error)
    return _respond(request, *of_domain_error(error, request_id_of(request)))


def _on_validation_error(request: Request[Any, Any, Any], error: ValidationException) -> Response[Any]:
    """Name the invalid fields. No value is repeated but one that is none of the allowed words."""
    extra = error.extra if isinstance(error.extra, list) else []
    errors = [_field_error(item, request.route_handler) for item in extra if isinstance(item, dict)]
    detail = "; ".join(f"{'.'.join(map(str, item['loc'][1:])) or item['loc'][0]}: {item['msg']}" for item in errors)
    return _on_domain_error(request, Invalid(detail or "The request is invalid", errors=errors))


def _field_error(item: dict[str, Any], handler: BaseRouteHandler) -> FieldError:
    message = str(item.get("message", "is invalid"))
    if message == "'data'":
        return {"loc": ["body"], "msg": "is missing: send a JSON object"}
    key, body = str(item.get("key") or ""), parameter_of(handler, "data")
    source = _source(item, body)
    if source != "body":
        parameter = parameter_of(handler, key)
        return {"loc": [source, public_name(parameter, key)], "msg": sentence(message, parameter)}
    path = [part for part in key.replace(ANY_KEY, "").split(".") if part and part != "data"]
    if (unknown := unknown_field(message)) is not None:
        return _unknown_field_error(unknown, body, path)
    return {"loc": ["body", *path, *filter(None, [missing_field(message)])], "msg": sentence(message, body, path)}


def _source(item: dict[str, Any], body: FieldDefinition | None) -> str:
    """Where the field was sent. Litestar takes each parameter whose name begins with `data` for the body."""
    source = item.get("source") or "body"
    return "query" if source == "body" and body is None else str(getattr(source, "value", source))


def _unknown_field_error(unknown: UnknownField, body: FieldDefinition | None, path: list[str]) -> FieldError:
    """The path can have parts of the field's name, which the client chose: it counts only if it leads to an object."""
    fields = fields_at(body, path) if all(map(PATH_PART.fullmatch, path)) else None
    if fields is None:
        path, fields = [], fields_at(body, ()) or ()
    known = f"; the fields are {', '.join(fields)}" if fields else ""
    if unknown.name:
        return {"loc": ["body", *path, unknown.name], "msg": f"is not known{known}"}
    return {"loc": ["body", *path], "msg": f"has a field that is not known{known}"}


def on_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    headers = {name: value for name, value in (error.headers or {}).items() if name.lower() in {"allow", "retry-after"}}
    details = {404: "Not Found", 405: "Method Not Allowed", 400: "The body is not valid JSON"}
    detail = details.get(error.status_code, TITLES.get(error.status_code, TITLES[400])[1])
    return _respond(request, problem(error.status_code, detail, request_id=request_id_of(request)), headers)


def _on_unexpected_error(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    request_id = request_id_of(request)
    log.error("unexpected error", request_id=request_id, exc_info=error)
    return _respond(request, problem(500, "Internal error. The server's log has details under this request's id", request_id=request_id))


HANDLERS: ExceptionHandlersMap = {
    DomainError: _on_domain_error,
    ValidationException: _on_validation_error,
    HTTPException: on_http_error,
    Exception: _on_unexpected_error,
}
