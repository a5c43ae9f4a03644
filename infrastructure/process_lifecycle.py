"""The start and the end of our processes: say when one is ready, tie it to its parent, end it in time."""

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
"""The variable with the path of the file that a process writes once it is ready."""
LIBC: Final = ctypes.CDLL(None, use_errno=True)


class CannotStart(Exception):
    """Something needed cannot be started; the text says what, why, and what to do."""


def signal_ready() -> None:
    """Tell the supervisor that this process serves now. Nothing happens without a supervisor."""
    if path := os.environ.get(READY_FILE):
        Path(path).write_text("ready\n", encoding="ascii")


def die_with_parent(parent: int | None = None, *, by: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel kill this process when its parent dies, however it dies. Call it first thing in a child.

    `parent` is the pid of the parent, where it is known: if it is gone already, the process ends here. The kernel watches the thread
    that forked, so children must be started from one that lives as long as its process. A change of user id undoes it.
    """
    LIBC.prctl(PR_SET_PDEATHSIG, int(by), 0, 0, 0)
    if os.getppid() != (parent if parent is not None else _parent_pid()):
        os._exit(128 + by)


def exit_within(seconds: float) -> None:
    """End this process after `seconds` at the latest, even if a library hangs. Only for processes that lose nothing when killed."""
    deadline = threading.Timer(seconds, _exit, (seconds,))
    deadline.daemon = True
    deadline.start()


def _parent_pid() -> int:
    """The pid of the parent as far as can be told: multiprocessing knows its own."""
    parent = getattr(sys.modules.get("multiprocessing.process"), "parent_process", lambda: None)()
    return int(parent.pid) if parent is not None else os.getppid()


def _exit(seconds: float) -> None:
    import structlog  # noqa: PLC0415 - the processes that decode images load this module, and need no logger

    structlog.get_logger().error("did not end by itself", seconds=seconds)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
