"""OOM scores: when memory runs out, the kernel kills a child of the inference pool before its parent."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

OWN_SCORE: Final = "/proc/self/oom_score_adj"
CHILD_SCORE: Final = "500"  # of 1000

_own_score: int | None = None


def keep_own_score() -> None:
    """Open this process's OOM score early, since a confined process and its children cannot open it later."""
    global _own_score
    with suppress(OSError):
        _own_score = os.open(OWN_SCORE, os.O_RDWR | os.O_CLOEXEC)


@contextmanager
def children_go_first() -> Iterator[None]:
    """Processes started in the block inherit a higher score. Has no effect without `keep_own_score`."""
    if _own_score is None:
        yield
        return
    before = os.pread(_own_score, 16, 0)
    os.pwrite(_own_score, CHILD_SCORE.encode(), 0)
    try:
        yield
    finally:
        os.pwrite(_own_score, before, 0)
