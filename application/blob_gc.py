"""Blobs that nothing refers to: of uploads that ended before their event, and of images that were deleted."""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from application.ports import BlobStore

MIN_AGE = timedelta(days=3)  # since it was last put: longer than any upload takes to become an event, even by a clock that is set a day on
MAX_LAG = timedelta(days=1)
"""The read models may be so far behind. What was put before KEPT became an event within a day, and clocks differ by a day at most: so they
have seen it."""


class BlobReferences(NamedTuple):
    """Of some blobs: those that something refers to, and those that an event may refer to which could not be applied yet."""

    referred: set[str]
    waiting: set[str]


class SweepResult(NamedTuple):
    """How many blobs were freed, and how many were left for events that could not be applied yet."""

    freed: int
    waiting: int


def sweep_orphans(
    blobs: BlobStore, in_use: Callable[[Iterable[str]], BlobReferences], *, now: datetime, kept: timedelta = MIN_AGE
) -> SweepResult:
    """Delete what nothing refers to. Blocks, for long when there are many; may be repeated, and stopped at any time.

    `in_use` gets some hundred names. It must raise rather than leave one out that it is not sure of.
    """
    old, waiting = now - kept, 0

    def known(names: Iterable[str]) -> set[str]:
        nonlocal waiting
        found = in_use(names)
        waiting += len(found.waiting - found.referred)
        return found.referred | found.waiting

    freed = sum(blobs.delete(sha256, put_before=old) for sha256 in blobs.orphans(known, older_than=old))
    return SweepResult(freed, waiting)
