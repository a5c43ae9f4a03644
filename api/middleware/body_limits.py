"""Checks request bodies before anything parses them: media type, size, depth of nesting, and text that Postgres can store.

On routes without authentication, a body must also be small and arrive soon, and an address may have few unfinished ones.
"""

import asyncio
import re
from array import array
from collections.abc import Callable
from itertools import accumulate
from typing import Any, Final

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from api.app_context import app_context
from api.middleware.body_timeout import expire
from api.middleware.client_address import peer_of
from api.middleware.unstorable_text import place_of_unstorable, unreadable_field
from api.problems import BodyTooLarge, Malformed, TooSlow, UnsupportedMediaType
from application.limits.connection_slots import network_of
from domain.errors import FieldError, TooMany

FORM = "application/x-www-form-urlencoded"
MAX_JSON_BYTES = 1024**2
MAX_FORM_BYTES = 64 * 1024
MAX_DEPTH = 64
UTF_8: Final = frozenset({b"", b"utf-8", b"utf8"})

CHARSET: Final = re.compile(rb";\s*charset\s*=\s*\"?([^\s;\"]*)", re.IGNORECASE)
ESCAPED_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")  # an even number of backslashes before it are characters of their own
TEXT: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # as signed numbers: +1 opens a level, -1 closes it


class BodyLimits:
    """Middleware. A route takes JSON, unless its `opt` is `body="form"`, or `body="stream"` for a body that the route reads itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        opt = scope["route_handler"].opt
        kind = opt.get("body", "json") if scope["type"] == ScopeType.HTTP else "stream"
        if kind == "stream" or scope.get("method") in {"GET", "OPTIONS"}:
            await self._app(scope, receive, send)
            return
        maximum = MAX_JSON_BYTES if kind == "json" else MAX_FORM_BYTES
        is_anonymous = opt.get("exclude_from_auth")
        body = await (_read_anonymous(scope, receive, maximum) if is_anonymous else read_body(receive, maximum=maximum))
        if body and kind == "json":
            check_json(content_type_of(scope), body)
        if kind == "form":
            check_form(media_type_of(scope), body)
        await self._app(scope, replay_body(body, receive), send)


async def _read_anonymous(scope: Scope, receive: Receive, maximum: int) -> bytes:
    """Raises BodyTooLarge, TooSlow, and TooMany if a newer body has taken its slot."""
    app = app_context(scope)
    slot = None
    try:
        async with asyncio.timeout(app.options.anonymous_body_seconds) as timeout:
            address = network_of(peer_of(scope, app.options.trusted_proxies))
            slot = app.anonymous_bodies.acquire(address, lambda: expire(timeout))
            return await read_body(receive, maximum=min(maximum, app.options.anonymous_body_max_bytes))
    except TimeoutError:
        if slot is not None and slot.is_lost:
            raise TooMany("Too many unfinished requests from this address", retry_after=1) from None
        raise TooSlow(f"The body did not arrive within {app.options.anonymous_body_seconds:g} seconds; send it again") from None
    finally:
        if slot is not None:
            slot.release()


async def read_body(receive: Receive, *, maximum: int, reserve: Callable[[int], None] | None = None) -> bytes:
    """`reserve` is called with the size so far before more is kept. Raises BodyTooLarge, and what `reserve` raises."""
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        part = message.get("body", b"")
        size += len(part)
        if size > maximum:
            raise BodyTooLarge(f"The body is larger than the maximum of {maximum:,} bytes")
        if reserve is not None:
            reserve(size)
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)


def replay_body(body: bytes, receive: Receive) -> Receive:
    """A `receive` that returns `body` first, then what `receive` returns."""
    unread = [body]

    async def replay() -> Any:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        return await receive()

    return replay


def declared_length(scope: Any) -> int:
    """The size of the body that the client announces in bytes; 0 without one."""
    value = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    return int(value) if value.isdigit() else 0


def content_type_of(scope: Any) -> bytes:
    return next((value for name, value in scope["headers"] if name == b"content-type"), b"")


def media_type_of(scope: Any) -> str:
    return _media_type(content_type_of(scope))


def check_json(content_type: bytes, body: bytes) -> None:
    """Raises UnsupportedMediaType, Malformed. Runs at the speed of the decoder, without a Python loop over characters or values."""
    charset = CHARSET.search(content_type)
    if _media_type(content_type) != "application/json" or (charset and charset[1].lower() not in UTF_8):
        raise UnsupportedMediaType("Send the body as application/json in UTF-8")
    try:
        msgspec.json.decode(body)  # refuses lone surrogates, and NUL unless it is escaped
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise unstorable(body, "The body is not valid JSON in UTF-8") from None
    if b"\\u0000" in body and ESCAPED_NUL.search(body):
        raise unstorable(body, "Text must not contain the character NUL")
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _depth(body) > MAX_DEPTH:
        raise Malformed(f"The JSON is nested more than {MAX_DEPTH} deep")


def check_form(media_type: str, body: bytes) -> None:
    """Raises UnsupportedMediaType, and Malformed for text that is not percent-encoded UTF-8."""
    if media_type != FORM:
        raise UnsupportedMediaType(f"Send the body as {FORM}")
    name = unreadable_field(body)
    if name is not None:
        message = "must be percent-encoded UTF-8"
        errors: list[FieldError] = [{"loc": ["body", *filter(None, [name])], "msg": message}]
        detail = f"The form cannot be read: {f'its field {name}' if name else 'it'} {message}. Open its page, and send it from there"
        raise Malformed(detail, errors=errors)


def unstorable(body: bytes, otherwise: str) -> Malformed:
    """The error of a body with a value that cannot be stored. It names the field, if that is found."""
    place = place_of_unstorable(body)
    if place is None:
        return Malformed(otherwise)
    return Malformed(f"{'.'.join(place.path)} {place.message}", errors=[{"loc": ["body", *place.path], "msg": place.message}])


def _media_type(content_type: bytes) -> str:
    return content_type.split(b";")[0].strip().lower().decode("latin-1")


def _depth(body: bytes) -> int:
    """The depth of valid JSON."""
    brackets = TEXT.sub(b"", body).translate(STEPS, NO_BRACKETS)
    return max(accumulate(array("b", brackets)), default=0)
