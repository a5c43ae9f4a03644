"""Garbage collection of blobs: of uploads without an event, and of deleted images."""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from application.ports import BlobStore

MIN_AGE = timedelta(days=3)  # since it was last put: longer than any upload takes to become an event, even by a clock that is set a day on
MAX_LAG = timedelta(days=1)
"""How far the read models may be behind. A blob older than MIN_AGE became an event within a day, and clocks differ by a day at most: so the
read models show that event."""


class BlobReferences(NamedTuple):
    """Of some blobs: those in use, and those that may be used by an event that could not be applied yet."""

    referred: set[str]
    waiting: set[str]


class SweepResult(NamedTuple):
    """How many blobs were deleted, and how many were kept for events that could not be applied yet."""

    freed: int
    waiting: int


def sweep_orphans(
    blobs: BlobStore, in_use: Callable[[Iterable[str]], BlobReferences], *, now: datetime, min_age: timedelta = MIN_AGE
) -> SweepResult:
    """Delete what nothing refers to. Blocks, for long when there are many; may be repeated, and stopped at any time.

    `in_use` gets some hundred names. It must raise rather than leave one out that it is not sure of.
    """
    old, waiting = now - min_age, 0

    def known(names: Iterable[str]) -> set[str]:
        nonlocal waiting
        references = in_use(names)
        waiting += len(references.waiting - references.referred)
        return references.referred | references.waiting

    freed = sum(blobs.delete(sha256, put_before=old) for sha256 in blobs.orphans(known, older_than=old))
    return SweepResult(freed, waiting)
