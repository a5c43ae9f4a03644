"""The base class of the embedded servers."""

import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Self

from infrastructure.configuration.paths import run_folder
from infrastructure.embedded.child import Child, log_end
from infrastructure.embedded.data_folder import make_private
from infrastructure.process_lifecycle import CannotStart

READY_TIMEOUT_SECONDS = 60.0


class EmbeddedServer(ABC):
    """A server of the embedded stack, run as a child. `with server:` starts it, waits until it answers, and stops it."""

    name: ClassVar[str]
    stop_timeout_seconds: ClassVar[float]

    def __init__(self, data: Path) -> None:
        self.data = data.resolve()
        self.log = self.data / "logs" / f"{self.name}.log"
        self.log.parent.mkdir(mode=0o700, exist_ok=True)
        self.folder = run_folder(self.data)
        make_private(self.folder)
        self.child: Child | None = None
        self._had_socket = False

    def start(self) -> Child:
        """Start the server without waiting until it answers (see `ready`). Raises CannotStart."""
        self._had_socket = False
        try:
            make_private(self.folder)
            self.child = self._started()
        except OSError as error:
            raise CannotStart(f"the embedded {self.name} cannot be started: {error}") from None
        return self.child

    def lost_socket(self) -> bool:
        """Whether the socket was removed while the server runs, so that clients cannot connect."""
        if self.socket is None or self.child is None or not self.child.alive():
            return False
        exists = self.socket.exists()
        lost = self._had_socket and not exists
        self._had_socket = exists
        return lost

    def ready(self) -> bool:
        """Whether the server answers. Raises CannotStart if it has ended."""
        if self.child is None or not self.child.alive():
            raise CannotStart(f"the embedded {self.name} ended:\n{log_end(self.log)}")
        return self._answers()

    def stop(self, *, within: float | None = None) -> None:
        """Ask the server to stop, and kill it after `within` seconds. May be repeated."""
        if self.child is not None:
            self._end(self.child, self.stop_timeout_seconds if within is None else within)
            self._clean()
            for folder in {self.folder, self.socket_folder}:
                with suppress(OSError):  # other servers still use it
                    folder.rmdir()

    def __enter__(self) -> Self:
        self.start()
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        try:
            while not self.ready():
                if time.monotonic() > deadline:
                    raise CannotStart(f"the embedded {self.name} does not answer:\n{log_end(self.log)}")
                time.sleep(0.02)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def socket_folder(self) -> Path:
        """The folder of the socket, which is removed when the server stops and the folder is empty."""
        return self.folder

    @property
    def socket(self) -> Path | None:
        """The socket for clients; None for a server with a TCP port."""
        return None

    @abstractmethod
    def _started(self) -> Child: ...

    @abstractmethod
    def _answers(self) -> bool: ...

    def _end(self, child: Child, within: float) -> None:
        child.ask_to_stop()
        child.ended(within=within)
        child.kill()

    @abstractmethod
    def _clean(self) -> None:
        """Remove the server's files from the run folder."""
