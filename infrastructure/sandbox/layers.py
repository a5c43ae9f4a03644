"""The layers of the sandbox that a decoder or model process enters before its first call."""

import os
import resource
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import msgspec

from infrastructure.sandbox import landlock, seccomp
from infrastructure.sandbox.kernel import CLONE_NEWNET, CLONE_NEWUSER, PR_SET_NO_NEW_PRIVS, drop_capabilities, prctl, unshare

NO_FILES: Final = "/proc/self/fdinfo"
"""Used if no folder can be created: it contains only the process's own descriptors."""
ZERO_LIMITS: Final = (resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC, resource.RLIMIT_CORE, resource.RLIMIT_MSGQUEUE, resource.RLIMIT_NOFILE)
"""Limits that forbid file writes, new processes, core dumps, message queues and new descriptors."""


TRUNCATION_SINCE: Final = (3, "6.2")
SIGNALS_SINCE: Final = (6, "6.12")
"""The first version of Landlock's ABI, and of Linux, with this feature."""
MIN_LANDLOCK_OF_FILES: Final = 2
"""The first ABI version (Linux 5.19) that allows moves between folders, which storing a rendition needs."""


class Layers(msgspec.Struct, frozen=True, kw_only=True):
    """The sandbox layers that work on this machine. `landlock` is the ABI version, 0 for none.

    `empty_root`: the root directory can be changed to an empty one.
    """

    no_new_privileges: bool = False
    user_namespace: bool = False
    network_namespace: bool = False
    empty_root: bool = False
    landlock: int = 0
    seccomp: bool = False

    @property
    def confines_files(self) -> bool:
        """Whether the inference process can restrict its own access to files."""
        return self.no_new_privileges and self.landlock >= MIN_LANDLOCK_OF_FILES

    @property
    def not_restricted(self) -> tuple[str, ...]:
        """Actions of the inference process that this Landlock version cannot prevent."""
        limits = {"truncate files": TRUNCATION_SINCE, "send signals to processes of its user": SIGNALS_SINCE}
        return tuple(f"{what} (before Linux {linux})" for what, (since, linux) in limits.items() if self.landlock < since)

    @property
    def missing(self) -> tuple[str, ...]:
        """The required layers that are missing."""
        landlock_of_files = self.landlock >= MIN_LANDLOCK_OF_FILES
        required = {"no_new_privs": self.no_new_privileges, "Landlock": landlock_of_files, "seccomp": self.seccomp}
        return tuple(name for name, present in required.items() if not present)

    def __str__(self) -> str:
        names = {
            "no_new_privs": self.no_new_privileges,
            f"Landlock {self.landlock or ''}".rstrip(): self.landlock,
            "seccomp": self.seccomp,
            "user namespace": self.user_namespace,
            "network namespace": self.network_namespace,
            "empty root directory": self.empty_root,
        }
        return ", ".join(name if present else f"no {name}" for name, present in names.items())


def enter_empty_directory() -> None:
    """Change to an empty directory in which no file can be created, because it was removed."""
    try:
        path = mkdtemp(prefix="bioscope-empty-")
    except OSError:
        os.chdir(NO_FILES)
        return
    os.chdir(path)
    with suppress(OSError):  # if it cannot be removed, it is at least empty
        Path(path).rmdir()


def enter(layers: Layers) -> None:
    """Give up permanently everything except computing and open descriptors; the working directory becomes the root.

    Needs a single thread and an empty working directory. Raises OSError; the process must then exit.
    """
    if layers.no_new_privileges:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
    flags = CLONE_NEWUSER * layers.user_namespace | CLONE_NEWNET * layers.network_namespace
    if flags:
        unshare(flags)
    if layers.empty_root:
        os.chroot(".")
    drop_capabilities()
    if layers.landlock:
        landlock.restrict(layers.landlock)
    for limit in ZERO_LIMITS:
        resource.setrlimit(limit, (0, 0))
    if layers.seccomp:
        seccomp.restrict()
