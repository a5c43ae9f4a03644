"""Functions that tests run in child processes."""

import hashlib
import os
import signal
import time
from contextlib import suppress

from infrastructure.inference.children.fork_server import NotLent, borrow


def add(left: int, right: int) -> int:
    return left + right


def size(data: bytes) -> int:
    return len(data)


def echo(data: bytes) -> bytes:
    return data


def lent(key: str) -> bytes:
    return bytes(borrow(key))


def lent_often(keys: list[str]) -> int:
    return sum(len(borrow(key)) for key in keys)


def not_lent_often(keys: list[str]) -> None:
    """A child that goes on after each refusal."""
    for key in keys:
        with suppress(NotLent):
            borrow(key)


def digest_of_lent(key: str) -> str:
    return hashlib.sha256(borrow(key)).hexdigest()


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
