"""What a process that runs decoders and models gives up before its first call, layer by layer."""

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
"""Where no folder can be made: it names nothing but the process's own descriptors."""
ZERO_LIMITS: Final = (resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC, resource.RLIMIT_CORE, resource.RLIMIT_MSGQUEUE, resource.RLIMIT_NOFILE)
"""Nothing can be written to a file, no process made, no core left, no message queue filled, no descriptor opened."""


TRUNCATION_SINCE: Final = (3, "6.2")
SIGNALS_SINCE: Final = (6, "6.12")
"""The version of Landlock's ABI that knows them, and that of Linux."""
MIN_LANDLOCK_OF_FILES: Final = 2
"""The first version of the ABI that lets a process move files between folders, as a picture is when it is stored: that of Linux 5.19."""


class Layers(msgspec.Struct, frozen=True, kw_only=True):
    """The layers that a kernel offers here. `landlock`: the version of its ABI, 0 for none. `empty_root`: whether the root directory
    can be changed to an empty one."""

    no_new_privileges: bool = False
    user_namespace: bool = False
    network_namespace: bool = False
    empty_root: bool = False
    landlock: int = 0
    seccomp: bool = False

    @property
    def confines_files(self) -> bool:
        """Whether the inference process can take away files from itself."""
        return self.no_new_privileges and self.landlock >= MIN_LANDLOCK_OF_FILES

    @property
    def not_restricted(self) -> tuple[str, ...]:
        """What this version of Landlock cannot take away from the inference process."""
        limits = {"truncate files": TRUNCATION_SINCE, "send signals to processes of its user": SIGNALS_SINCE}
        return tuple(f"{what} (before Linux {linux})" for what, (since, linux) in limits.items() if self.landlock < since)

    @property
    def missing(self) -> tuple[str, ...]:
        """Those without which a process is not sandboxed."""
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
    """Make the working directory one that holds no file, and in which none can be made: it was removed."""
    try:
        path = mkdtemp(prefix="bioscope-empty-")
    except OSError:
        os.chdir(NO_FILES)
        return
    os.chdir(path)
    with suppress(OSError):  # where it may not be removed, it is only empty
        Path(path).rmdir()


def enter(layers: Layers) -> None:
    """Give up, for ever, all but computing and the descriptors that are open; the root becomes the working directory.

    Needs a single thread and an empty working directory. Raises OSError, after which the process must end.
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
