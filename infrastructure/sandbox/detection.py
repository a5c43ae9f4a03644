"""Detection of the sandbox layers that work on this machine. Each is tried in its own process."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Final

import msgspec

from infrastructure.child_environment import python_environment
from infrastructure.sandbox import landlock, seccomp
from infrastructure.sandbox.kernel import PR_SET_NO_NEW_PRIVS, prctl
from infrastructure.sandbox.layers import Layers, enter, enter_empty_directory

DETECTION_TIMEOUT_SECONDS: Final = 30.0


@cache
def supported() -> Layers:
    """The layers of this machine, detected once in a separate process, since forks need a single thread.

    Blocks. Raises OSError if that process fails.
    """
    argv = [sys.executable, "-P", "-c", "from infrastructure.sandbox.detection import main; main()"]
    try:
        answer = subprocess.check_output(
            argv, env=python_environment(os.environ), stdin=subprocess.DEVNULL, timeout=DETECTION_TIMEOUT_SECONDS
        )
        return msgspec.json.decode(answer, type=Layers)
    except (subprocess.SubprocessError, msgspec.MsgspecError) as error:
        raise OSError(f"the sandbox layers of this kernel cannot be detected: {error}") from error


def main() -> None:
    sys.stdout.buffer.write(msgspec.json.encode(detect()))


def detect() -> Layers:
    """Try each layer in a forked child. Must be called in a process with one thread."""
    enter_empty_directory()
    found = Layers()
    for layer in ("no_new_privileges", "user_namespace", "network_namespace", "empty_root"):
        candidate = msgspec.structs.replace(found, **{layer: True})
        if _works(partial(enter, candidate)):
            found = candidate
    if found.no_new_privileges:
        if _works(_enter_landlock):
            found = msgspec.structs.replace(found, landlock=landlock.abi_version())
        if _works(_enter_seccomp):
            found = msgspec.structs.replace(found, seccomp=True)
    return found


def _enter_landlock() -> None:
    """Enter Landlock. Raises OSError if that fails or a file can still be read."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    landlock.restrict(landlock.abi_version())
    _expect_refusal(lambda: Path("/proc/self/status").read_bytes())


def _enter_seccomp() -> None:
    """Enter seccomp. Raises OSError if that fails or a socket can still be created."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    seccomp.restrict()
    _expect_refusal(socket.socket)


def _expect_refusal(attempt: Callable[[], object]) -> None:
    try:
        attempt()
    except PermissionError:
        return
    raise OSError("the kernel allows what it should refuse")


def _works(attempt: Callable[[], None]) -> bool:
    """Whether the attempt succeeds in a forked child."""
    pid = os.fork()
    if pid == 0:
        try:
            attempt()
        except BaseException:  # reported as the exit code
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
