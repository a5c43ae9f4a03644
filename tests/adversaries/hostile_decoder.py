"""Attempts of a compromised decoder within its child process. Each returns how it ended."""

import _thread
import ctypes
import errno
import mmap
import os
import platform
import signal
import socket
import time
from collections.abc import Callable
from math import nan
from pathlib import Path

import msgspec
import psycopg

from infrastructure.images.validation import ImageLimits
from infrastructure.inference.children import fork_server
from infrastructure.inference.predictions import BatchPrediction, ImageRefusal, ModelPrediction
from infrastructure.sandbox.seccomp import ALLOWED, NOT_EXECUTABLE, TO_ITSELF

LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH = 16
LAST_SYSTEM_CALL = 600
PAST_EVERY_FILTER = {335, 336}
"""uretprobe and uprobe of x86-64: the kernel itself ends whoever calls them without a probe."""
X32_GETPID = 0x4000_0000 + 39


def attempt(what: Callable[[], object]) -> str:
    """`refused`, with the error's name; or `succeeded`."""
    try:
        what()
    except OSError as error:
        return f"refused {errno.errorcode.get(error.errno or 0, '')}"
    except (psycopg.OperationalError, RuntimeError) as error:
        return f"refused {type(error).__name__}"
    return "succeeded"


def checked(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "")


def files(paths: list[str], new: str) -> dict[str, str]:
    found = {path: attempt(Path(path).read_bytes) for path in paths}
    return found | {
        "write": attempt(lambda: Path(new).write_text("x")),
        "write in the working directory": attempt(lambda: Path("new").write_text("x")),
        "make a directory": attempt(lambda: Path(new).mkdir()),
        "remove": attempt(lambda: Path(paths[0]).unlink()),
        "list": attempt(lambda: list(Path("/").iterdir())),
        "descriptor without a file": attempt(lambda: os.memfd_create("x")),
        "duplicate": attempt(lambda: os.dup(0)),
    }


def sockets(port: int, unix: str, database: str) -> dict[str, str]:
    def connect(family: int, kind: int, address: object) -> Callable[[], object]:
        return lambda: socket.socket(family, kind).connect(address)

    return {
        "TCP": attempt(connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", port))),
        "UDP": attempt(connect(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", port))),
        "Postgres's socket": attempt(connect(socket.AF_UNIX, socket.SOCK_STREAM, unix)),
        "netlink": attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
        "pair": attempt(socket.socketpair),
        "database": attempt(lambda: psycopg.connect(database, connect_timeout=2)),
    }


def processes(parent: int) -> dict[str, str]:
    return {
        "fork": attempt(_fork),
        "execute": attempt(lambda: os.execv("/bin/true", ["true"])),
        "spawn": attempt(lambda: os.posix_spawn("/bin/true", ["true"], {})),
        "thread": attempt(lambda: _thread.start_new_thread(int, ())),
        "trace the parent": attempt(lambda: checked(LIBC.ptrace(PTRACE_ATTACH, parent, 0, 0))),
        "kill the parent": attempt(lambda: os.kill(parent, signal.SIGKILL)),
        "kill the fork server": attempt(lambda: os.kill(os.getppid(), signal.SIGKILL)),
        "kill all": attempt(lambda: os.kill(-1, signal.SIGKILL)),
        "handle of the parent": attempt(lambda: os.pidfd_open(parent)),
        "executable memory": attempt(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)),
        "raise a limit": attempt(lambda: checked(LIBC.setrlimit(7, (ctypes.c_ulong * 2)(64, 64)))),
        "become root": attempt(lambda: os.setuid(0)),
    }


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def system_calls() -> list[int]:
    """The numbers of those that are not refused, of all that the filter does not name."""
    column = 0 if platform.machine() == "x86_64" else 1
    named = {numbers[column] for group in (ALLOWED, NOT_EXECUTABLE, TO_ITSELF) for numbers in group.values()}
    unnamed = [number for number in range(LAST_SYSTEM_CALL) if number not in named | PAST_EVERY_FILTER]
    return [number for number in unnamed if LIBC.syscall(number, 0, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != errno.EPERM]


def call_of_another_architecture() -> int:
    return int(LIBC.syscall(X32_GETPID))


def take_2_gib() -> int:
    return len(bytearray(2 * 1024**3))


def loop() -> None:
    while True:
        pass


def borrow_for_ever() -> None:
    while True:
        fork_server.borrow("model")


def borrow_slowly() -> None:
    """Each time within a time limit of a second, and in all not."""
    for _ in range(6):
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            pass
        fork_server.borrow("model")


def announce_an_endless_answer() -> None:
    fork_server._parent.write((2**62).to_bytes(fork_server.LENGTH))
    fork_server._parent.write(bytes(1024))
    fork_server._parent.flush()
    loop()


def answer_rubbish() -> None:
    fork_server._parent.write((4).to_bytes(fork_server.LENGTH) + b"\xc1\xc1\xc1\xc1")
    fork_server._parent.flush()
    loop()


def answer_a_million_lists() -> None:
    """One in another."""
    frame = b"\x82\xa4type\xa8Returned\xa5value" + b"\x91" * 1_000_000 + b"\xc0"
    fork_server._parent.write(len(frame).to_bytes(fork_server.LENGTH) + frame)
    fork_server._parent.flush()
    loop()


def fail_with_markup() -> None:
    fork_server.send(fork_server._parent, {"type": "Raised", "kind": "<script>", "detail": "", "spent": False})


HONEST = ModelPrediction(label="a", confidence=0.75, out_of_domain=False, scores=(0.75, 0.25), signals={"focus": 0.5})
LIES = {
    "not a number": {"scores": (nan, nan), "confidence": nan},
    "more than one": {"scores": (0.75, 0.75)},
    "negative": {"scores": (1.25, -0.25), "confidence": 1.25},
    "too few": {"scores": (1.0,), "confidence": 1.0},
    "too many": {"scores": (0.75, 0.25, 0.0)},
    "a label that the model lacks": {"label": "c"},
    "a label that is not the first": {"label": "b", "confidence": 0.25},
    "a confidence of its own": {"confidence": 0.99},
    "a signal that is no number": {"signals": {"focus": nan}},
    "a signal with a strange name": {"signals": {"<b>": 1.0}},
    "a thousand signals": {"signals": {f"s{number}": 1.0 for number in range(1000)}},
}


def honest(images: int) -> BatchPrediction:
    return _judged([HONEST] * images)


def lying(lie: str) -> BatchPrediction:
    return _judged([msgspec.structs.replace(HONEST, **LIES[lie])])


def failing_with(detail: str) -> BatchPrediction:
    return _judged([ImageRefusal("decode_failed", detail)])


def _judged(answers: list[ModelPrediction | ImageRefusal]) -> BatchPrediction:
    return BatchPrediction(
        answers=answers, preprocessing="0" * 64, runtime="onnxruntime 1", provider="CPU", decoder="reader 1", seconds=0.1
    )


def huge_thumbnail(data: bytes, limits: ImageLimits) -> dict[str, object]:
    about = {"width": 1, "height": 1, "bands": 1, "dtype": "uint8", "pages": 1, "axes": "YX", "pixel_size_um": None, "reader": 1}
    return {"type": "InspectedUpload", **about, "warnings": [], "thumbnail": bytes(8 * 1024**2), "preview": None}
