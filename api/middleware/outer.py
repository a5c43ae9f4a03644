"""What holds for every request, whatever route it meets: ids, limits, secure headers, CORS, one log line, HEAD, and never a bare error."""

import re
import time
from collections.abc import Awaitable, Callable, Container, Iterable
from functools import partial
from typing import Any
from uuid import uuid4

import msgspec
import structlog

from api.middleware.admission import Admission
from api.middleware.allowed_hosts import REFUSED, AllowedHosts, is_under
from api.middleware.body_timeout import BodyTimeout, Message, Receive
from api.problems import MEDIA_TYPE, problem
from application.services import WebOptions

log = structlog.get_logger()

Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Any, Any, Any], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

MAX_QUERY_BYTES = 8192  # bytes
MAX_HEADERS_BYTES = 32_768  # bytes
PREFLIGHT_MAX_AGE_SECONDS = b"600"
REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
KNOWN_METHODS = frozenset(METHODS.decode().split(", "))
ACCEPTED_HEADERS = b"authorization, content-type, if-match, idempotency-key, prefer, traceparent, x-request-id"
EXPOSED_HEADERS = b"etag, link, location, retry-after, content-disposition, x-event-position, x-next-cursor, x-total-count, x-request-id"
SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
    (b"server", b"bioscope"),  # or the HTTP server would name itself
)
HSTS = (b"strict-transport-security", b"max-age=31536000")
QUIET_PATHS = ("/health", "/api/health", "/metrics")  # always answered: they do not count among the requests at once

Observed = Callable[[str, str, int, float], None]


class OuterMiddleware:
    """Around the whole application. `observed(method, route, status, seconds)` is called for every request; `has_credential(scope)` says
    whether it carries a credential that we gave out.

    Call `drain` when no new connection is accepted: requests that wait for something are then answered at once.
    """

    def __init__(
        self,
        app: Asgi,
        options: WebOptions,
        observed: Observed,
        *,
        lifespan: Callable[[], Any],
        admission: Admission,
        has_credential: Callable[[Any], bool],
        drain: Callable[[], None],
    ) -> None:
        self._app, self._options, self._observed, self.lifespan, self.drain = app, options, observed, lifespan, drain
        self._hosts = AllowedHosts(options)
        self._secure = (*SECURITY_HEADERS, HSTS) if options.secure_cookies else SECURITY_HEADERS
        self._admission, self._uncounted, self._has_credential = admission, Admission(), has_credential

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._open(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(scope, self._options.cors_origins)
        counted = self._uncounted if request.is_quiet else self._admission
        counted.count += 1
        try:
            await self._handle(request, receive, self._wrap_send(request, send))
        finally:
            counted.count -= 1
            self._log_request(request)

    async def _open(self, scope: Any, receive: Receive, send: Send) -> None:
        """A WebSocket: a refusal answers the handshake, where the server can send one."""
        request = _Request({**scope, "method": "GET"}, self._options.cors_origins)
        if (refusal := self._refusal_of_headers(request)) is None:
            await self._app(scope, receive, send)
            return
        request.status = refusal[0]
        await receive()
        if "websocket.http.response" in (scope.get("extensions") or {}):
            await _send_problem(send, *refusal, request.id, kind="websocket.http.response")
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": refusal[1]})
        self._log_request(request)

    async def _handle(self, request: "_Request", receive: Receive, send: Send) -> None:
        if (refusal := self._refusal(request)) is not None:
            await _send_problem(send, *refusal, request.id)
            return
        if request.is_preflight:
            await send({"type": "http.response.start", "status": 204, "headers": self._preflight(request)})
            await send({"type": "http.response.body", "body": b""})
            return
        body = BodyTimeout(receive, self._uncounted if request.is_quiet else self._admission)
        try:
            await self._app(request.scope, body.received, send)
        except Exception:
            log.exception("unforeseen error", request_id=request.id)
            await request.if_not_started(lambda: _send_problem(send, 500, "Something went wrong on our side. It was logged", request.id))
        finally:
            body.end()

    def _refusal(self, request: "_Request") -> tuple[int, str] | None:
        if (refusal := self._refusal_of_headers(request)) is not None:
            return refusal
        if not self._admits(request):
            request.turned_away = True
            return 503, "Too many requests at once; try again in a second"
        if request.headers.get(b"content-encoding", b"identity") != b"identity":
            return 415, "Send the body without Content-Encoding"
        return None

    def _admits(self, request: "_Request") -> bool:
        """A preflight carries no token, and costs nothing: users' browsers send it ahead of their requests."""
        has_credential = partial(self._has_credential, request.scope)
        return request.is_quiet or request.is_preflight or self._admission.admits(request.began, has_credential=has_credential)

    def _refusal_of_headers(self, request: "_Request") -> tuple[int, str] | None:
        if not self._hosts.serve(request.path, request.scope["headers"]):
            return 421, REFUSED
        if len(request.scope.get("query_string", b"")) > MAX_QUERY_BYTES:
            return 414, f"The query is longer than {MAX_QUERY_BYTES} bytes"
        if sum(len(name) + len(value) for name, value in request.scope["headers"]) > MAX_HEADERS_BYTES:
            return 431, f"The headers are longer than {MAX_HEADERS_BYTES} bytes"
        return None

    def _preflight(self, request: "_Request") -> Headers:
        if request.origin is None:
            return []
        return [
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", ACCEPTED_HEADERS),
            (b"access-control-max-age", PREFLIGHT_MAX_AGE_SECONDS),
        ]

    def _wrap_send(self, request: "_Request", send: Send) -> Send:
        """Who reads slowly holds nobody up: a request is not counted while its answer waits to be taken."""

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.status = message["status"]
                message["headers"] = self._headers(request, message.get("headers", ()))
            elif request.is_head and message["type"] == "http.response.body":
                if request.ended:
                    return
                request.ended = True
                message = {"type": "http.response.body", "body": b""}
            with self._admission:
                await send(message)

        return dressed

    def _headers(self, request: "_Request", given: Iterable[tuple[bytes, bytes]]) -> Headers:
        kept = [(name.lower(), value) for name, value in given]
        names = {name for name, _ in kept}
        kept += [pair for pair in self._secure if pair[0] not in names]
        kept.append((b"x-request-id", request.id.encode()))
        if self._options.cors_origins:
            kept.append((b"vary", b"Origin"))
        if request.status == 408:
            kept.append((b"connection", b"close"))  # the rest of the body is not waited for
        if request.origin is not None:
            kept += [(b"access-control-allow-origin", request.origin), (b"access-control-expose-headers", EXPOSED_HEADERS)]
        return kept

    def _log_request(self, request: "_Request") -> None:
        seconds = time.perf_counter() - request.began
        route = str(request.scope.get("path_template") or "unknown")
        method = request.method if request.method in KNOWN_METHODS else "unknown"  # or a client could fill our memory with names
        self._observed(method, route, request.status, seconds)
        if request.turned_away:
            return  # it is counted; a line for each would cost more than to say no
        if request.status >= 500 or not request.is_quiet:
            user = getattr(request.scope.get("user"), "id", None)
            said = {"method": method, "route": route, "status": request.status, "ms": round(seconds * 1000, 1)}
            log.info("request", **said, request_id=request.id, user=str(user) if user else None)


class _Request:
    """One request as the edge sees it; `origin` is the page that asks, if it is among those that may."""

    def __init__(self, scope: Any, origins: Container[str]) -> None:
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.is_head = self.method == "HEAD"
        self.scope = {**scope, "method": "GET"} if self.is_head else scope
        origin = self.headers.get(b"origin")
        self.origin = origin if origin is not None and origin.decode("latin-1") in origins else None
        self.turned_away = False
        self.began = time.perf_counter()
        self.status = 499  # until there is an answer: the client went away
        self.ended = False
        given = self.headers.get(b"x-request-id", b"").decode("latin-1")
        self.id = given if REQUEST_ID.fullmatch(given) else uuid4().hex
        self.scope["state"] = {**scope.get("state", {}), "request_id": self.id}

    @property
    def is_quiet(self) -> bool:
        return is_under(self.path, QUIET_PATHS)

    @property
    def is_preflight(self) -> bool:
        return self.method == "OPTIONS" and b"access-control-request-method" in self.headers

    async def if_not_started(self, say: Callable[[], Awaitable[None]]) -> None:
        if self.status == 499:
            await say()


async def _send_problem(send: Send, status: int, detail: str, request_id: str, *, kind: str = "http.response") -> None:
    body = msgspec.json.encode(problem(status, detail, request_id=request_id))
    headers: Headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
