"""Blobs that nothing refers to: of uploads that ended before their event, and of images that were deleted."""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from application.ports import Blobs

KEPT = timedelta(days=3)  # since it was last put: longer than any upload takes to become an event, even by a clock that is set a day on


def sweep_orphans(blobs: Blobs, known: Callable[[Iterable[str]], set[str]], *, now: datetime, kept: timedelta = KEPT) -> int:
    """Delete what nobody knows, and say how many. Blocks, for long when there are many; may be repeated, and stopped at any time.

    `known` gets some hundred names and returns those in use. It must raise rather than leave one out that it is not sure of.
    """
    old = now - kept
    return sum(blobs.delete(sha256, put_before=old) for sha256 in blobs.orphans(known, older_than=old))
