"""Runs the embedded stack in this process, in the foreground or on a background thread."""

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from infrastructure.child_environment import PRIVATE_UMASK, TEMPORARY
from infrastructure.configuration.settings import Settings
from infrastructure.embedded.child import python
from infrastructure.embedded.data_folder import AlreadyRunning
from infrastructure.embedded.installation import NotRunning, ensure_root_key, root_key_of, running_settings, take_root_key, with_free_port
from infrastructure.embedded.restarting import ProcessDefinition, is_ready_by_file, serves
from infrastructure.embedded.stack import DEFAULT_LIMITS, EmbeddedStack, StackLimits
from infrastructure.postgres.environment import remove_libpq_variables
from infrastructure.process_lifecycle import CannotStart

__all__ = [
    "PROCESSES",
    "AlreadyRunning",
    "CannotStart",
    "NotRunning",
    "ProcessDefinition",
    "SupervisedStack",
    "ensure_root_key",
    "is_ready_by_file",
    "root_key_of",
    "running_settings",
    "serves",
    "take_root_key",
    "up",
    "with_free_port",
]

PROCESSES = (
    ProcessDefinition(
        name="relay", argv=python("api.cli", "relay"), ready=is_ready_by_file, follows_broker=True, database_role="bioscope_relay"
    ),
    ProcessDefinition(
        name="projector",
        argv=python("api.cli", "projector"),
        ready=is_ready_by_file,
        follows_broker=True,
        database_role="bioscope_projector",
    ),
    ProcessDefinition(
        name="inference",
        argv=python("api.cli", "inference"),
        ready=is_ready_by_file,
        follows_broker=True,
        database_role="bioscope_inference",
    ),
    ProcessDefinition(
        name="api", argv=python("api.cli", "api"), ready=serves("/health/live"), database_role="bioscope_api", stops_first=True
    ),
    ProcessDefinition(
        name="inference-bridge",
        argv=python("api.cli", "inference-bridge"),
        ready=is_ready_by_file,
        follows_broker=True,
        database_role="bioscope_inference",
    ),
)


def up(
    settings: Settings,
    *,
    processes: Sequence[ProcessDefinition] = PROCESSES,
    prepare: Callable[[Settings], object],
    on_ready: Callable[[Settings], None] | None = None,
    verbose: bool = False,
) -> int:
    """Run the stack until SIGTERM, SIGINT or SIGHUP; return the exit code.

    Raises AlreadyRunning, CannotStart and what `prepare` raises.
    """
    os.umask(PRIVATE_UMASK)
    remove_libpq_variables(os.environ)
    tempfile.tempdir = str(settings.data / TEMPORARY)
    system = EmbeddedStack(settings, processes=processes, prepare=prepare, report=_to_stderr, verbose=verbose)
    with _signals(system.stop):
        system.run(on_ready or (lambda _: None))
    return 0


class SupervisedStack:
    """Runs the stack on a background thread. `with SupervisedStack(...) as settings:` gives all addresses once everything is ready."""

    def __init__(
        self,
        settings: Settings,
        *,
        processes: Sequence[ProcessDefinition] = PROCESSES,
        prepare: Callable[[Settings], object],
        report: Callable[[str], None] = lambda _: None,
        limits: StackLimits = DEFAULT_LIMITS,
    ) -> None:
        self._system = EmbeddedStack(settings, processes=processes, prepare=prepare, report=report, limits=limits)
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._previous_handler: Callable[[int, FrameType | None], object] | int | None = None
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)  # children die with their starting thread

    @property
    def settings(self) -> Settings:
        """The current settings: the broker's address changes when it is restarted."""
        return self._system.settings

    def pid(self, name: str) -> int:
        """The current pid of a server or process."""
        return self._system.pid(name)

    def wait(self) -> None:
        """Wait until the stack ends or Ctrl-C."""
        try:
            while self._thread.is_alive():
                self._thread.join(1.0)
        except KeyboardInterrupt:
            return

    def __enter__(self) -> Settings:
        if threading.current_thread() is threading.main_thread():
            self._previous_handler = signal.signal(signal.SIGTERM, _exit_on_signal)
        self._thread.start()
        try:
            while not self._ready.wait(0.1) and self._thread.is_alive():
                pass
        except BaseException:
            self._finish()
            raise
        if not self._ready.is_set():
            self._finish()
        return self.settings

    def __exit__(self, *_: object) -> None:
        self._finish()

    def _run(self) -> None:
        try:
            self._system.run(lambda _: self._ready.set())
        except BaseException as error:  # raised in the waiting thread
            self._error = error

    def _finish(self) -> None:
        self._system.stop()
        self._thread.join()
        if self._previous_handler is not None:
            signal.signal(signal.SIGTERM, self._previous_handler)
        if self._error is not None:
            raise self._error


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - messages of `bioscope up`


@contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    def handle(_: int, __: FrameType | None) -> None:
        stop()

    previous = {name: signal.signal(name, handle) for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)


def _exit_on_signal(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
