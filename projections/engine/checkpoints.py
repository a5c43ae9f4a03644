"""The checkpoint: the position up to which read models show the log, and the errors around it."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from application.history.hash_chain import START
from application.services import QueryDatabase

POSITION = "select position from checkpoint where projection = 'main'"


class Checkpoint(NamedTuple):
    """`position` and `hash` of the last event applied; the next ones start at `next_offset` in Kafka's cluster `cluster`."""

    position: int
    cluster: str = ""
    next_offset: int = 0
    hash: bytes = START


class CheckpointConflict(Exception):
    """Another process moved the checkpoint. Read it again."""


class NotInLog(Exception):
    """The log does not hold the event that was to be applied: the record is forged, or the log was restored from a backup."""


class CheckpointUnfit(Exception):
    """The checkpoint stands at an event that the log does not hold; the text says what to do."""

    def __init__(self, position: int) -> None:
        super().__init__(
            f"the read models stand at position {position} of another log: `bioscope audit verify` shows whether the log is whole, and"
            " `bioscope rebuild` makes the read models anew"
        )


class FoldsDiffer(Exception):
    """The read models were folded by other rules than those of this release: `reason` says by which, the text also what to do.

    `is_newer`: some of the rules are those of a newer release.
    """

    def __init__(self, reason: str, *, is_newer: bool) -> None:
        remedy = "upgrade this process" if is_newer else "`bioscope migrate` makes them anew beside the live ones"
        super().__init__(f"{reason}: {remedy}")
        self.reason, self.is_newer = reason, is_newer


def folds_difference(own: Mapping[str, int], stored: Mapping[str, int]) -> FoldsDiffer | None:
    """Why this release must not write to read models of the fold versions `stored`; None where they are its own."""
    different = sorted(name for name in own.keys() | stored.keys() if own.get(name) != stored.get(name))
    if not different:
        return None
    shown = ", ".join(f"{name} ({_version(stored, name)} there, {_version(own, name)} here)" for name in different)
    is_newer = any(stored.get(name, 0) > own.get(name, 0) for name in different)
    return FoldsDiffer(f"the read models were folded by another release, by other versions of {shown}", is_newer=is_newer)


def _version(versions: Mapping[str, int], name: str) -> str:
    return f"version {versions[name]}" if name in versions else "none"


class Position(msgspec.Struct, frozen=True):
    position: int


async def position(db: QueryDatabase) -> int:
    return (await db.rows(POSITION, {}, into=Position))[0].position
