"""Garbage collection of blobs: uploads without an event, and files of deleted images."""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from application.ports import BlobStore

MIN_AGE = timedelta(days=3)  # since the last put; longer than any upload takes to be recorded, even if a clock is a day ahead
MAX_LAG = timedelta(days=1)
"""Maximum lag of the read models. A blob older than MIN_AGE was recorded within a day, and clocks differ by a day at most. So the read
models show its event."""


class BlobReferences(NamedTuple):
    """Blobs in use (`referred`), and blobs that an event which could not be applied yet may use (`waiting`)."""

    referred: set[str]
    waiting: set[str]


class SweepResult(NamedTuple):
    """Numbers of blobs: deleted, and kept for events that could not be applied yet."""

    freed: int
    waiting: int


def sweep_orphans(
    blobs: BlobStore, in_use: Callable[[Iterable[str]], BlobReferences], *, now: datetime, min_age: timedelta = MIN_AGE
) -> SweepResult:
    """Delete blobs older than `min_age` that nothing refers to. Blocks; may be interrupted and repeated at any time.

    `in_use` receives a few hundred names per call. It must raise an error if it cannot decide about one of them.
    """
    old, waiting = now - min_age, 0

    def known(names: Iterable[str]) -> set[str]:
        nonlocal waiting
        references = in_use(names)
        waiting += len(references.waiting - references.referred)
        return references.referred | references.waiting

    freed = sum(blobs.delete(sha256, put_before=old) for sha256 in blobs.orphans(known, older_than=old))
    return SweepResult(freed, waiting)
