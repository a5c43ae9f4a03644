"""The HTTP server of each process for its metrics and health."""

import hmac
import socket
import sys
import threading
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog

from infrastructure.configuration.settings import LOCAL_ADDRESSES, LOOPBACK_HOSTS, PREFIX, Settings, WrongSetting
from infrastructure.observability.heartbeat import HEARTBEAT, Heartbeat
from infrastructure.observability.metrics import exposition
from infrastructure.process_lifecycle import CannotStart

log = structlog.get_logger()

MIN_TOKEN_LENGTH: Final = 16
REQUEST_TIMEOUT_SECONDS: Final = 5.0
HEALTH_TIMEOUT_SECONDS: Final = 3.0
PROCESS_HEADER: Final = "Bioscope-Process"  # names the process that answers on its metrics port
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def metrics_token(settings: Settings) -> str:
    """The secret that a scraper must send; empty if none is required. Raises WrongSetting if it is missing or unusable."""
    name = f"{PREFIX}METRICS_TOKEN_FILE"
    if not settings.metrics_token_file:
        if settings.metrics_port and settings.metrics_host not in LOOPBACK_HOSTS:
            raise WrongSetting(f"{name} is not set: {settings.metrics_host} is not a loopback address, so metrics need a secret")
        return ""
    try:
        token = Path(settings.metrics_token_file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise WrongSetting(f"{name}: {settings.metrics_token_file} cannot be read ({error})") from None
    if len(token) < MIN_TOKEN_LENGTH or not token.isprintable() or " " in token:
        raise WrongSetting(f"{name}: the secret must be at least {MIN_TOKEN_LENGTH} printable characters; run: openssl rand -hex 24")
    return token


def serve_metrics(settings: Settings, process: str, *, heartbeat: Heartbeat = HEARTBEAT) -> None:
    """Serve /metrics and /health of this process, named `process`, on `metrics_host`:`metrics_port` in a thread. Port 0 disables it.

    Raises WrongSetting, and CannotStart if the address cannot be bound.
    """
    token = metrics_token(settings)
    if settings.metrics_port:
        threading.Thread(target=_server(settings, process, token, heartbeat).serve_forever, name="metrics", daemon=True).start()


class HealthAnswer(NamedTuple):
    """`process` is the name that a process gives on its metrics port; empty without an answer, and on the port of the API."""

    healthy: bool
    process: str = ""


def ask_health(host: str, port: int, path: str) -> HealthAnswer:
    """Ask the process at this address; it is healthy if it answers 200 on `path`. A wildcard address is asked on loopback."""
    connection = HTTPConnection(LOCAL_ADDRESSES.get(host, host), port, timeout=HEALTH_TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return HealthAnswer(answer.status == HTTPStatus.OK, answer.getheader(PROCESS_HEADER, ""))
    except (OSError, HTTPException):
        return HealthAnswer(healthy=False)
    finally:
        connection.close()


class MetricsServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], process: str, token: str, heartbeat: Heartbeat) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.process, self.token, self.heartbeat = process, token, heartbeat
        super().__init__(address, MetricsHandler)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - of the library
        """Log an error, but not a client that has gone away."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            log.error("request for metrics or health failed", exc_info=sys.exception())

    def allows(self, authorization: str) -> bool:
        return not self.token or hmac.compare_digest(authorization.encode(), f"Bearer {self.token}".encode())


class MetricsHandler(BaseHTTPRequestHandler):
    server: MetricsServer
    timeout = REQUEST_TIMEOUT_SECONDS

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/health":
                alive = self.server.heartbeat.is_alive()
                self._answer(HTTPStatus.OK if alive else HTTPStatus.SERVICE_UNAVAILABLE, b"ok\n" if alive else b"no heartbeat\n")
            case "/metrics" if self.server.allows(self.headers.get("Authorization", "")):
                self._answer(HTTPStatus.OK, exposition(self.server.process), METRICS_TYPE)
            case "/metrics":
                self._answer(HTTPStatus.UNAUTHORIZED, b"send the metrics token: Authorization: Bearer TOKEN\n")
            case _:
                self._answer(HTTPStatus.NOT_FOUND, b"/metrics or /health\n")

    def _answer(self, status: HTTPStatus, body: bytes, media_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header(PROCESS_HEADER, self.server.process)
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing, since scrapers call every few seconds."""


def _server(settings: Settings, process: str, token: str, heartbeat: Heartbeat) -> MetricsServer:
    try:
        return MetricsServer((settings.metrics_host, settings.metrics_port), process, token, heartbeat)
    except OSError as error:
        raise CannotStart(
            f"{settings.metrics_host}:{settings.metrics_port} cannot be bound for metrics ({error.strerror}): "
            f"choose another {PREFIX}METRICS_PORT or {PREFIX}METRICS_HOST"
        ) from None
