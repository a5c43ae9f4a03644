"""Supervised child processes: readiness, and restart with backoff."""

import http.client
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from infrastructure.configuration.settings import LOCAL_ADDRESSES, Settings
from infrastructure.embedded.child import Child
from infrastructure.embedded.postgres.server import APP_ROLE
from infrastructure.process_lifecycle import CannotStart

FIRST_DELAY_SECONDS, MAX_DELAY_SECONDS, STABLE_AFTER_SECONDS = 0.1, 5.0, 30.0

Ready = Callable[[Settings, Path], bool]


def serves(path: str) -> Ready:
    """A readiness check: the API answers 200 on `path`."""

    def probe(settings: Settings, _: Path) -> bool:
        host = LOCAL_ADDRESSES.get(settings.host, settings.host)
        connection = http.client.HTTPConnection(host, settings.port, timeout=2)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return probe


def is_ready_by_file(_: Settings, file: Path) -> bool:
    """A readiness check: the process has called `signal_ready`."""
    with suppress(FileNotFoundError):
        return file.stat().st_size > 0
    return False


class ProcessDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A process of the application. `grace` is the time in seconds between SIGTERM and SIGKILL.

    `database_role` is its role in the embedded Postgres. `stops_first`: it ends before the others, while it can still answer clients.
    """

    name: str
    argv: tuple[str, ...]
    ready: Ready | None = None
    follows_broker: bool = False
    database_role: str = APP_ROLE
    stops_first: bool = False
    grace: float = 3.0


class RestartingProcess:
    """A child that is restarted when it ends. The delay grows while it ends soon after its start."""

    def __init__(self, name: str, start: Callable[[], Child], log: Path) -> None:
        self.name, self.log = name, log
        self.deaths = 0
        self._start = start
        self._delay = 0.0
        self._started_at = 0.0
        self._restart_at: float | None = None
        self.child: Child | None = None

    def start(self) -> None:
        self._started_at, self._restart_at = time.monotonic(), None
        self.child = self._start()

    def check(self, report: Callable[[str], None]) -> bool:
        """Check the child once; return whether it was restarted just now."""
        if self.child is not None and self.child.alive():
            return False
        if self._restart_at is None:
            self._schedule_restart(report)
            return False
        return time.monotonic() >= self._restart_at and self.restart(report)

    def restart(self, report: Callable[[str], None]) -> bool:
        """Start the child again; return whether that succeeded. If not, it is tried again later."""
        try:
            self.start()
        except (CannotStart, OSError) as error:
            self.child = None
            report(f"{self.name}: {error}")
        return self.child is not None

    def _schedule_restart(self, report: Callable[[str], None]) -> None:
        now = time.monotonic()
        self.deaths += 1
        self._delay = next_restart_delay(self._delay, lived=now - self._started_at)
        self._restart_at = now + self._delay
        code = self.child.exit_code if self.child is not None else None
        report(f"{self.name} ended (exit code {code}); restarting it in {self._delay:.1f} s; its log is {self.log}")


def next_restart_delay(previous: float, *, lived: float) -> float:
    """Seconds until the restart of a child that ran for `lived` seconds."""
    if previous == 0 or lived >= STABLE_AFTER_SECONDS:
        return FIRST_DELAY_SECONDS
    return min(2 * previous, MAX_DELAY_SECONDS)
