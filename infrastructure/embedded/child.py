"""A child process: it logs into a file, leads its own process group, and never outlives its parent."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from infrastructure.child_environment import NATIVE_ENVIRONMENT, PRIVATE_UMASK
from infrastructure.process_lifecycle import CannotStart, die_with_parent

MAX_LOG_BYTES = 8 * 1024**2


class Child:
    """A running child. Its output goes to `log`, its group is killed with it, its core is never dumped."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] = NATIVE_ENVIRONMENT,
        user: int | None = None,
        folder: Path | None = None,
        on_our_death: signal.Signals = signal.SIGKILL,
    ) -> None:
        """Start it, as `user` where one is named (then we must be root). Raises CannotStart."""
        output = open_log(log)
        try:
            self._popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(environment),
                cwd=folder,
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
                umask=PRIVATE_UMASK,
                preexec_fn=_preparation(os.getpid(), on_our_death),  # noqa: PLW1509 - two system calls, of a library loaded before
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise CannotStart(f"{argv[0]} cannot be started: {error}") from None
        finally:
            os.close(output)
        self.pid = self._popen.pid

    def alive(self) -> bool:
        """False once it has ended; the rest of its group is killed then."""
        if self._popen.returncode is not None:
            return False
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return True
        self._kill_group()
        return False

    @property
    def exit_code(self) -> int | None:
        """As of a shell, but negative for a signal; None while it lives."""
        return None if self.alive() else self._popen.returncode

    def ask_to_stop(self, by: signal.Signals = signal.SIGTERM) -> None:
        if self.alive():
            os.kill(self.pid, by)

    def ended(self, *, within: float) -> bool:
        """Wait for its end, `within` seconds at most."""
        deadline = time.monotonic() + within
        while self.alive():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        return True

    def kill(self) -> None:
        """End it and its group at once, and wait for that."""
        if self._popen.returncode is None:
            self._kill_group()

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()


def _preparation(parent: int, by: signal.Signals) -> Callable[[], None]:
    def prepare() -> None:
        die_with_parent(parent, by=by)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    return prepare


def open_log(path: Path) -> int:
    """A descriptor that appends to `path`; a log that is too long is rotated first."""
    shorten_log(path)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def shorten_log(path: Path) -> None:
    """Copy a log that is too long to NAME.log.1 and empty the file, which other processes have open.

    Without disk space it keeps growing.
    """
    with suppress(OSError):
        if path.stat().st_size > MAX_LOG_BYTES:
            shutil.copy(path, path.with_name(path.name + ".1"))
            os.truncate(path, 0)


def log_end(log: Path, *, lines: int = 5) -> str:
    """The end of a log, to be shown to the user."""
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    return ""


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """The command line that runs a module; -P keeps the current folder out of its imports."""
    return (sys.executable, "-P", "-m", module, *arguments)
