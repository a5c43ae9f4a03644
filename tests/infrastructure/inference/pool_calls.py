"""Functions that tests run in child processes."""

import hashlib
import os
import signal
import time

from infrastructure.inference.children import fork_server
from infrastructure.inference.children.fork_server import borrow, borrow_file


def add(left: int, right: int) -> int:
    return left + right


def size(data: bytes) -> int:
    return len(data)


def echo(data: bytes) -> bytes:
    return data


def lent(key: str) -> bytes:
    return borrow(key)


def lent_file(key: str, parts: list[tuple[int, int]]) -> list[bytes]:
    """What lies at each place of a file: where it begins, and how many bytes; all of the file for -1."""
    file = borrow_file(key)
    found = []
    for start, length in parts:
        file.seek(start)
        found.append(file.read(length))
    return found


def piece(key: str, start: int, end: int) -> bytes:
    """Asks for any part, as a child that was taken over can."""
    return fork_server._lent(fork_server.BorrowPiece(key, start, end), key, bytes)


def digest_of_file(key: str) -> str:
    return hashlib.file_digest(borrow_file(key), "sha256").hexdigest()


def pid() -> int:
    return os.getpid()


def home() -> str:
    return os.environ["HOME"]


def secrets() -> int:
    return sum(name.startswith("BIOSCOPE") for name in os.environ)


def hang() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1000)


def hang_after_borrowing(key: str) -> None:
    borrow(key)
    hang()


def work(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def die() -> None:
    os.abort()


def leave() -> None:
    os._exit(3)


def eat(count: int) -> int:
    return len(bytearray(count))


def fail(text: str) -> None:
    raise KeyError(text)
