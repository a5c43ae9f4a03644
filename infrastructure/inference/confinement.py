"""Confinement of the inference process: before the first image, it gives up access to all files that it does not need.

Its children, which decode images and run models, give up everything else too (infrastructure.sandbox).
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
    """Give up permanently all files, privileges and signals that inference does not need. Connections are not restricted.

    To be called after settings and secrets were read, while there is a single thread: the limits apply to it and its children. On a kernel
    without all layers, `accept_unsandboxed` and the environment decide. Raises Unsandboxed, OSError.
    """
    with suppress(OSError):  # missing layers are detected below
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
    """Drop all capabilities except those for opening files, which root needs for the socket of the embedded Postgres.

    Landlock limits files, also for root.
    """
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    drop_capabilities(keep=FILE_CAPABILITIES)


def _require_one_thread() -> None:
    if len(list(THREADS.iterdir())) != 1:
        raise RuntimeError(f"confinement is too late, since running threads would not be restricted: {threading.enumerate()}")
