"""Who ends first when memory runs out: a child of the inference pool, before the process that started it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

OWN_SCORE: Final = "/proc/self/oom_score_adj"
CHILD_SCORE: Final = "500"  # of 1000

_own_score: int | None = None


def keep_own_score() -> None:
    """Open our own score, since a process that takes files away from itself cannot open it later, and its children cannot open theirs."""
    global _own_score
    with suppress(OSError):
        _own_score = os.open(OWN_SCORE, os.O_RDWR | os.O_CLOEXEC)


@contextmanager
def children_go_first() -> Iterator[None]:
    """What is started in the block, and all its children, inherit a higher score. Without `keep_own_score` nothing happens."""
    if _own_score is None:
        yield
        return
    before = os.pread(_own_score, 16, 0)
    os.pwrite(_own_score, CHILD_SCORE.encode(), 0)
    try:
        yield
    finally:
        os.pwrite(_own_score, before, 0)
