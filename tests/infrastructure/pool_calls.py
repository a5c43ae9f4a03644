"""What the tests have the pool's children do."""

import os
import resource
import signal
import time
from pathlib import Path

from infrastructure.nursery import borrow


def add(left: int, right: int) -> int:
    return left + right


def size(data: bytes) -> int:
    return len(data)


def echo(data: bytes) -> bytes:
    return data


def lent(key: str) -> bytes:
    return borrow(key)


def pid() -> int:
    return os.getpid()


def home() -> str:
    return os.environ["HOME"]


def condition() -> dict[str, int]:
    return {
        "nice": os.nice(0),
        "memory": resource.getrlimit(resource.RLIMIT_AS)[0],
        "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "first_to_go": int(Path("/proc/self/oom_score_adj").read_text()),
        "descriptors": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "secrets": sum(name.startswith("BIOSCOPE") for name in os.environ),
    }


def hang() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1000)


def work(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def die() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def leave() -> None:
    os._exit(3)


def eat(count: int) -> int:
    return len(bytearray(count))


def fail(text: str) -> None:
    raise KeyError(text)
