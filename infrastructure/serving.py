"""The HTTP server's own process. It imports nothing of what its worker serves: it only accepts, watches and ends it."""

from typing import Final

from granian import Granian
from granian.constants import Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels

from infrastructure.settings import Settings

BACKLOG: Final = 1024  # connections that wait to be accepted
CONNECTIONS: Final = 1024  # requests and WebSockets under way; beyond, connections wait
HEADER_WITHIN: Final = 10_000  # milliseconds until a request's headers are there; a connection at rest is closed then too
BUFFER: Final = 64 * 1024  # bytes of headers and of a body that waits to be read
ENDS_WITHIN: Final = 2  # seconds that answers under way may take when the server is told to stop


def serve(target: str, settings: Settings) -> None:
    """Serve the application that the function named by `target` makes, until SIGTERM or SIGINT. Blocks.

    One worker: commands wait in threads, and the group commit gathers them.
    """
    Granian(
        target,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.ASGI,
        factory=True,
        workers=1,
        loop=Loops.uvloop,
        backlog=BACKLOG,
        backpressure=CONNECTIONS,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_WITHIN, max_buffer_size=BUFFER),
        workers_kill_timeout=ENDS_WITHIN,
        log_level=LogLevels.warning,
        log_dictconfig={"handlers": {}, "loggers": {"_granian": {"propagate": True}, "granian.access": {"propagate": False}}},
    ).serve()
