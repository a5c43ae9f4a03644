"""Bodies looked at before anything parses them: the right type, not too large, not too deep, text that Postgres can hold."""

from typing import Any

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from api.problems import BodyTooLarge, UnsupportedMediaType
from domain.errors import DomainError

FORM = "application/x-www-form-urlencoded"
JSON_MOST = 1024**2
FORM_MOST = 64 * 1024
DEPTH_MOST = 64


class Malformed(DomainError):
    """The body is not JSON, or none that we take."""

    code = "malformed"


class Bodies:
    """Middleware: a route takes JSON unless its `opt` says `body="form"` or `body="stream"` (then it reads for itself)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["route_handler"].opt.get("body", "json") if scope["type"] == ScopeType.HTTP else "stream"
        if kind == "stream" or scope.get("method") in {"GET", "OPTIONS"}:
            await self._app(scope, receive, send)
            return
        body = await whole(receive, most=JSON_MOST if kind == "json" else FORM_MOST)
        if body and kind == "json":
            check_json(media_type_of(scope), body)
        if kind == "form" and media_type_of(scope) != FORM:
            raise UnsupportedMediaType(f"Send the body as {FORM}")
        await self._app(scope, replayed(body, receive), send)


async def whole(receive: Receive, *, most: int) -> bytes:
    """Raises BodyTooLarge."""
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise BodyTooLarge(f"The body is larger than {most:,} bytes, which is the most that is taken here")
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)


def replayed(body: bytes, receive: Receive) -> Receive:
    """What was read is read again; then whatever comes."""
    waiting = [body]

    async def again() -> Any:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return again


def media_type_of(scope: Any) -> str:
    found = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    return str(found.split(b";")[0].strip().lower().decode("latin-1"))


def check_json(media_type: str, body: bytes) -> None:
    """Raises UnsupportedMediaType, Malformed."""
    if media_type != "application/json":
        raise UnsupportedMediaType("Send the body as application/json")
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Malformed("The body is not valid JSON in UTF-8") from None
    _check(found)


def _check(found: object, depth: int = 0) -> None:
    if depth > DEPTH_MOST:
        raise Malformed(f"The JSON is nested more than {DEPTH_MOST} deep")
    match found:
        case str() if "\0" in found or any("\ud800" <= sign <= "\udfff" for sign in found):
            raise Malformed("Text must not contain NUL or lone surrogates")
        case dict():
            for name, value in found.items():
                _check(name)
                _check(value, depth + 1)
        case list():
            for value in found:
                _check(value, depth + 1)
