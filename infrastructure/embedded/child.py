"""Child processes that log into a file, lead their own process group, and never outlive their parent."""

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
    """A running child. Its output goes to `log`, its process group is killed with it, and it never dumps core."""

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
        """Start the child, as `user` if one is given, which needs root. Raises CannotStart."""
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
                preexec_fn=_preparation(os.getpid(), on_our_death),  # noqa: PLW1509 - only two system calls of a loaded library
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise CannotStart(f"{argv[0]} cannot be started: {error}") from None
        finally:
            os.close(output)
        self.pid = self._popen.pid

    def alive(self) -> bool:
        """Whether the child runs. Once it has ended, the rest of its group is killed."""
        if self._popen.returncode is not None:
            return False
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return True
        self._kill_group()
        return False

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while the child runs."""
        return None if self.alive() else self._popen.returncode

    def ask_to_stop(self, by: signal.Signals = signal.SIGTERM) -> None:
        if self.alive():
            os.kill(self.pid, by)

    def ended(self, *, within: float) -> bool:
        """Wait at most `within` seconds for the end of the child; return whether it has ended."""
        deadline = time.monotonic() + within
        while self.alive():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        return True

    def kill(self) -> None:
        """Kill the child and its group, and wait for the end."""
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
    """A descriptor that appends to `path`. A log that is too long is rotated first."""
    shorten_log(path)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def shorten_log(path: Path) -> None:
    """Rotate a log that is too long: copy it to NAME.log.1 and truncate the file, which other processes have open.

    Without disk space, the log keeps growing.
    """
    with suppress(OSError):
        if path.stat().st_size > MAX_LOG_BYTES:
            shutil.copy(path, path.with_name(path.name + ".1"))
            os.truncate(path, 0)


def log_end(log: Path, *, lines: int = 5) -> str:
    """The last lines of a log, for messages."""
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    return ""


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """The command line that runs a module. `-P` excludes the current folder from imports."""
    return (sys.executable, "-P", "-m", module, *arguments)
