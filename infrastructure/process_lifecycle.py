"""Process start and end: signal readiness, die with the parent, exit within a time limit."""

import ctypes
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Final

PR_SET_PDEATHSIG: Final = 1
READY_FILE: Final = "BIOSCOPE_READY_FILE"
"""Environment variable with the path of the file that a process writes once it is ready."""
LIBC: Final = ctypes.CDLL(None, use_errno=True)


class CannotStart(Exception):
    """A process cannot start. The message says which one, why, and what to do."""


def signal_ready() -> None:
    """Tell the supervisor that this process is ready. Does nothing without a supervisor."""
    if path := os.environ.get(READY_FILE):
        Path(path).write_text("ready\n", encoding="ascii")


def die_with_parent(parent: int | None = None, *, by: signal.Signals = signal.SIGKILL) -> None:
    """Make the kernel kill this process when its parent dies. To be called first in a child.

    `parent` is the parent's pid, if known; the process exits at once if that parent is dead already. The kernel watches the forking
    thread, so children must be forked from a thread that lives as long as its process. A change of the user id cancels the request.
    """
    LIBC.prctl(PR_SET_PDEATHSIG, int(by), 0, 0, 0)
    if os.getppid() != (parent if parent is not None else _parent_pid()):
        os._exit(128 + by)


def exit_within(seconds: float) -> None:
    """Exit within `seconds`, even if a library hangs. Only for processes that lose nothing when they are killed."""
    deadline = threading.Timer(seconds, _exit, (seconds,))
    deadline.daemon = True
    deadline.start()


def _parent_pid() -> int:
    """The pid of the parent, from multiprocessing if it started this process."""
    parent = getattr(sys.modules.get("multiprocessing.process"), "parent_process", lambda: None)()
    return int(parent.pid) if parent is not None else os.getppid()


def _exit(seconds: float) -> None:
    import structlog  # noqa: PLC0415 - image decoder processes load this module but not the logger

    structlog.get_logger().error("process did not exit in time", seconds=seconds)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
