"""The outermost middleware: for every request an id, limits, security headers, CORS, HEAD, one log line, and problems as errors."""

import re
import time
import traceback
from collections.abc import Awaitable, Callable, Container, Iterable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any
from uuid import uuid4

import msgspec
import structlog

from api.app_context import APP_CONTEXT, AppContext
from api.middleware.access_recording import AccessRecorder
from api.middleware.admission import Admission
from api.middleware.allowed_hosts import REFUSED, AllowedHosts, is_under
from api.middleware.allowed_methods import METHODS, AllowedMethods
from api.middleware.body_timeout import BodyTimeout, Message, Receive
from api.problems import encoded, problem

log = structlog.get_logger()

Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Any, Any, Any], Awaitable[None]]
Lifespan = Callable[[], AbstractAsyncContextManager[None]]
Headers = list[tuple[bytes, bytes]]

MAX_QUERY_BYTES = 8192
MAX_HEADERS_BYTES = 32_768
PREFLIGHT_MAX_AGE_SECONDS = b"600"
REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
ACCEPTED_HEADERS = b"authorization, content-type, if-match, idempotency-key, last-event-id, prefer, traceparent, x-request-id"
EXPOSED_HEADERS = b"etag, link, location, retry-after, content-disposition, x-event-position, x-next-cursor, x-total-count, x-request-id"
SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
    (b"server", b"bioscope"),  # otherwise the HTTP server adds its own name
)
CLIENT_DISCONNECTED = 499
HSTS = (b"strict-transport-security", b"max-age=31536000")
MONITORING_PATHS = ("/health", "/api/health", "/metrics")  # exempt from admission control


class OuterMiddleware:
    """Wraps the router. `lifespan` runs what the application needs while it is served; `has_credential(scope)` is whether a request has a
    credential that we issued.

    Call `drain` after the server has stopped accepting connections. Then waiting requests are answered at once.
    """

    def __init__(
        self,
        router: Asgi,
        context: AppContext,
        *,
        lifespan: Lifespan,
        admission: Admission,
        has_credential: Callable[[Any], bool],
        drain: Callable[[], None],
        accesses: AccessRecorder,
        allowed_methods: AllowedMethods,
    ) -> None:
        self._router, self._context, self.lifespan, self.drain = router, context, lifespan, drain
        self._options = options = context.options
        self._observe_request = context.services.observe_request
        self._hosts = AllowedHosts(options)
        self._security_headers = (*SECURITY_HEADERS, HSTS) if options.secure_cookies else SECURITY_HEADERS
        self._admission, self._unlimited, self._has_credential = admission, Admission(), has_credential
        self._accesses, self._allowed_methods = accesses, allowed_methods

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._open_websocket(scope, receive, send)
            return
        if scope["type"] != "http":
            await serve_lifespan(self.lifespan, receive, send)
            return
        request = _Request(scope, self._options.cors_origins)
        admission = self._unlimited if request.is_monitoring else self._admission
        admission.count += 1
        try:
            await self._handle(request, receive, self._wrap_send(request, send))
        finally:
            admission.count -= 1
            self._log_request(request)

    async def _open_websocket(self, scope: Any, receive: Receive, send: Send) -> None:
        """A rejection answers the handshake, if the server supports that."""
        request = _Request({**scope, "method": "GET"}, self._options.cors_origins)
        if (rejection := self._header_rejection(request)) is None:
            await self._router({**scope, "state": request.scope["state"], APP_CONTEXT: self._context}, receive, send)
            return
        request.status = rejection[0]
        await receive()
        if "websocket.http.response" in (scope.get("extensions") or {}):
            await _send_problem(send, *rejection, request, kind="websocket.http.response")
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": rejection[1]})
        self._log_request(request)

    async def _handle(self, request: "_Request", receive: Receive, send: Send) -> None:
        if (rejection := self._rejection(request)) is not None:
            await _send_problem(send, *rejection, request)
            return
        if request.is_preflight:
            await send({"type": "http.response.start", "status": 204, "headers": self._preflight(request)})
            await send({"type": "http.response.body", "body": b""})
            return
        body = BodyTimeout(receive, self._unlimited if request.is_monitoring else self._admission, self._options.body_timeouts)
        try:
            request.scope[APP_CONTEXT] = self._context
            await self._router(request.scope, body.receive, send)
        except Exception:
            log.exception("unexpected error", request_id=request.id)
            if not request.has_response:
                await _send_problem(send, 500, "Internal error. The server's log has details under this request's id", request)
        finally:
            body.stop()

    def _rejection(self, request: "_Request") -> tuple[int, str] | None:
        if (rejection := self._header_rejection(request)) is not None:
            return rejection
        if not self._admits(request):
            request.is_rejected_by_admission = True
            return 503, "Too many requests at the same time; try again in a second"
        if request.headers.get(b"content-encoding", b"identity") != b"identity":
            return 415, "Send the body without Content-Encoding"
        return None

    def _admits(self, request: "_Request") -> bool:
        """Whether admission control accepts the request. Preflights are always accepted: they are cheap, and carry no token."""
        has_credential = partial(self._has_credential, request.scope)
        return request.is_monitoring or request.is_preflight or self._admission.admits(request.started, has_credential=has_credential)

    def _header_rejection(self, request: "_Request") -> tuple[int, str] | None:
        if not self._hosts.allows(request.path, request.scope["headers"]):
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
            (b"access-control-allow-methods", ", ".join(METHODS).encode()),
            (b"access-control-allow-headers", ACCEPTED_HEADERS),
            (b"access-control-max-age", PREFLIGHT_MAX_AGE_SECONDS),
        ]

    def _wrap_send(self, request: "_Request", send: Send) -> Send:
        """Add headers to the response. Requests blocked on a slow reader do not count towards the concurrency limit."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.status = message["status"]
                self._accesses.record(request.scope, request.status)
                message["headers"] = self._headers(request, message.get("headers", ()))
            elif request.is_head and message["type"] == "http.response.body":
                if request.is_complete:
                    return
                request.is_complete = True
                message = {"type": "http.response.body", "body": b""}
            with self._admission:
                await send(message)

        return send_with_headers

    def _headers(self, request: "_Request", original: Iterable[tuple[bytes, bytes]]) -> Headers:
        headers = [(name.lower(), value) for name, value in original]
        names = {name for name, _ in headers}
        if b"allow" in names:
            template = str(request.scope.get("path_template") or "")
            headers = [(name, self._allowed_methods.header(template, value) if name == b"allow" else value) for name, value in headers]
        headers += [pair for pair in self._security_headers if pair[0] not in names]
        headers.append((b"x-request-id", request.id.encode()))
        if self._options.cors_origins:
            headers.append((b"vary", b"Origin"))
        if request.status == 408:
            headers.append((b"connection", b"close"))  # the rest of the body is not read
        if request.origin is not None:
            headers += [(b"access-control-allow-origin", request.origin), (b"access-control-expose-headers", EXPOSED_HEADERS)]
        return headers

    def _log_request(self, request: "_Request") -> None:
        seconds = time.perf_counter() - request.started
        route = str(request.scope.get("path_template") or "unknown")
        method = request.method if request.method in METHODS else "unknown"  # clients must not create metric labels
        self._observe_request(method, route, request.status, seconds)
        if request.is_rejected_by_admission:
            return  # a metric counts it; a log line would cost more than the rejection
        if request.status >= 500 or not request.is_monitoring:
            user = getattr(request.scope.get("user"), "id", None)
            fields = {"method": method, "route": route, "status": request.status, "ms": round(seconds * 1000, 1)}
            log.info("request", **fields, request_id=request.id, user=str(user) if user else None)


class _Request:
    """One request as the outermost middleware sees it. `origin` is that of the page, if CORS allows it."""

    def __init__(self, scope: Any, allowed_origins: Container[str]) -> None:
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.is_head = self.method == "HEAD"
        self.scope = {**scope, "method": "GET"} if self.is_head else scope
        origin = self.headers.get(b"origin")
        self.origin = origin if origin is not None and origin.decode("latin-1") in allowed_origins else None
        self.is_rejected_by_admission = False
        self.started = time.perf_counter()
        self.status = CLIENT_DISCONNECTED  # until there is a response
        self.is_complete = False
        request_id = self.headers.get(b"x-request-id", b"").decode("latin-1")
        self.id = request_id if REQUEST_ID.fullmatch(request_id) else uuid4().hex
        self.scope["state"] = {**scope.get("state", {}), "request_id": self.id}

    @property
    def is_monitoring(self) -> bool:
        return is_under(self.path, MONITORING_PATHS)

    @property
    def is_preflight(self) -> bool:
        return self.method == "OPTIONS" and b"access-control-request-method" in self.headers

    @property
    def has_response(self) -> bool:
        return self.status != CLIENT_DISCONNECTED


async def serve_lifespan(lifespan: Lifespan, receive: Receive, send: Send) -> None:
    """Enter `lifespan` when the server starts, and leave it when it stops. An error in it is reported to the server, which ends."""
    await receive()
    step = "startup"
    try:
        async with lifespan():
            await send({"type": "lifespan.startup.complete"})
            step = "shutdown"
            await receive()
    except Exception:
        await send({"type": f"lifespan.{step}.failed", "message": traceback.format_exc()})
        raise
    await send({"type": "lifespan.shutdown.complete"})


async def _send_problem(send: Send, status: int, detail: str, request: "_Request", *, kind: str = "http.response") -> None:
    content, media_type = encoded(problem(status, detail, request_id=request.id), request.path)
    body = msgspec.json.encode(content)
    headers: Headers = [(b"content-type", media_type.encode()), (b"content-length", str(len(body)).encode())]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
