"""An inference process that was taken over: it goes on working, and beside that tries what a test asks it to.

`python -m tests.adversaries.hostile_inference PORT`: once it has taken away from itself what it does not need, it connects to PORT, reads
attempts, one a line, and answers each with how it ended.
"""

import ctypes
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE = 0x4206
PROCESS_VM_READV = 310 if os.uname().machine == "x86_64" else 270


def read(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY))


def read_folder(path: str) -> None:
    list(Path(path).iterdir())


def overwrite(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY))


def truncate(path: str) -> None:
    os.truncate(path, 0)


def create(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def remove(path: str) -> None:
    Path(path).unlink()


def rename(path: str) -> None:
    Path(path).rename(f"{path}-renamed")


def replace(path: str) -> None:
    """With a file that it may write."""
    own = Path(os.environ["TMPDIR"]) / "own"
    own.write_bytes(b"mine")
    own.replace(path)


def link(path: str, to: str) -> None:
    os.link(path, to)


def open_to_others(path: str) -> None:
    Path(path).chmod(0o777)


def make_old(path: str) -> None:
    os.utime(path, (0, 0))


def label(path: str) -> None:
    os.setxattr(path, "user.mine", b"1")


def send_signal(pid: int) -> None:
    os.kill(pid, 0)


def send_signal_by_handle(pid: int) -> None:
    handle = os.pidfd_open(pid)
    signal.pidfd_send_signal(handle, 0)
    os.close(handle)


def trace(pid: int) -> None:
    _checked(LIBC.ptrace(PTRACE_SEIZE, pid, 0, 0))


def read_memory(pid: int) -> None:
    """At an address that no process has: EFAULT where reading is allowed."""
    buffer = ctypes.create_string_buffer(1)
    ours, theirs = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 1), (ctypes.c_void_p * 2)(1, 1)
    arguments = (pid, ctypes.addressof(ours), 1, ctypes.addressof(theirs), 1, 0)
    _checked(LIBC.syscall(ctypes.c_long(PROCESS_VM_READV), *map(ctypes.c_long, arguments)))


def run_program(path: str) -> None:
    subprocess.run([path, "-c", ":"], check=True)


def start_uring() -> None:
    _checked(LIBC.syscall(425, 1, ctypes.create_string_buffer(120)))


ATTEMPTS: dict[str, Callable[..., None]] = {
    attempt.__name__: attempt
    for attempt in (
        *(read, read_folder, overwrite, truncate, create, remove, rename, replace, link, open_to_others, make_old, label),
        *(send_signal, send_signal_by_handle, trace, read_memory, run_program, start_uring),
    )
}


def outcome(name: str, *arguments: object) -> str:
    """`refused`, with the error's name; or `succeeded`."""
    try:
        ATTEMPTS[name](*arguments)
    except OSError as error:
        return f"refused {errno.errorcode.get(error.errno or 0, '')}"
    return "succeeded"


def _checked(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "")


def _answer(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rw") as lines:
        for line in lines:
            lines.write(outcome(*json.loads(line)) + "\n")
            lines.flush()


def main() -> None:
    from api.cli import main as bioscope
    from api.cli import processes

    port = int(sys.argv[1])
    serve = processes._serve_metrics

    def taken_over(given: object, process: str) -> None:
        """What comes next once the process is confined."""
        threading.Thread(target=_answer, args=(port,), daemon=True).start()
        serve(given, process)

    processes._serve_metrics = taken_over
    bioscope(["inference"])


if __name__ == "__main__":
    main()
