"""The inference process takes away from itself all files but those that its work needs, before it looks at the first image.

Its children, which decode images and run models, take away everything from themselves on top of that (infrastructure.sandbox).
"""

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from infrastructure import sandbox
from infrastructure.configuration.settings import Settings
from infrastructure.inference.accessible_files import inference_rules
from infrastructure.inference.children.memory_shortage import keep_own_score
from infrastructure.sandbox import landlock, seccomp
from infrastructure.sandbox.kernel import FILE_CAPABILITIES, PR_SET_NO_NEW_PRIVS, drop_capabilities, prctl
from infrastructure.sandbox.policy import require_sandbox

THREADS: Final = Path("/proc/self/task")


def confine_inference(settings: Settings) -> None:
    """Give up, for ever, all files, privileges and signals that inference does not need; connections are not restricted.

    Call it once settings and secrets were read, and while there is one thread: what is given up is that thread's, and of those that it
    starts. Where the kernel offers less, `accept_unsandboxed` and the environment decide. Raises Unsandboxed, OSError.
    """
    with suppress(OSError):  # what is missing then is found out below
        _give_up_privileges()
    layers = sandbox.supported()
    require_sandbox(settings, layers)
    _require_one_thread()
    if layers.confines_files:
        keep_own_score()
        landlock.restrict_files(layers.landlock, inference_rules(settings, os.environ))
    if layers.seccomp:
        seccomp.refuse_metadata()


def _give_up_privileges() -> None:
    """Those that open files stay: root needs them for the socket of the embedded Postgres, in a folder of another user.

    Landlock decides about files, for root too.
    """
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    drop_capabilities(keep=FILE_CAPABILITIES)


def _require_one_thread() -> None:
    if len(list(THREADS.iterdir())) != 1:
        raise RuntimeError(f"too late: threads run already that would not be restricted: {threading.enumerate()}")
