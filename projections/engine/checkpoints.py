"""The checkpoint, which is the position that the read models show, and its errors."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from application.history.hash_chain import START
from application.services import QueryDatabase

POSITION = "select position from checkpoint where projection = 'main'"


class Checkpoint(NamedTuple):
    """`position` and `hash` of the last applied event. The next events are in the Kafka cluster `cluster` from `next_offset` on."""

    position: int
    cluster: str = ""
    next_offset: int = 0
    hash: bytes = START


class CheckpointConflict(Exception):
    """Another process moved the checkpoint. It must be read again."""


class NotInLog(Exception):
    """The log does not contain the event to be applied: the record is forged, or the log was restored from a backup."""


class CheckpointUnfit(Exception):
    """The checkpoint is at an event that the log does not contain. The message says what to do."""

    def __init__(self, position: int) -> None:
        super().__init__(
            f"the read models are at position {position} of another log: run `bioscope audit verify` to check the log, then"
            " `bioscope rebuild` to rebuild the read models"
        )


class FoldsDiffer(Exception):
    """The read models have other fold versions than this release. `reason` names them; the message also says what to do.

    `is_newer`: some fold versions are those of a newer release.
    """

    def __init__(self, reason: str, *, is_newer: bool) -> None:
        remedy = "upgrade this process" if is_newer else "run `bioscope migrate` to rebuild them"
        super().__init__(f"{reason}: {remedy}")
        self.reason, self.is_newer = reason, is_newer


def folds_difference(own: Mapping[str, int], stored: Mapping[str, int]) -> FoldsDiffer | None:
    """The error if this release (`own`) must not write to read models of the fold versions `stored`; None if they are equal."""
    different = sorted(name for name in own.keys() | stored.keys() if own.get(name) != stored.get(name))
    if not different:
        return None
    shown = ", ".join(f"{name} ({_version(stored, name)} there, {_version(own, name)} here)" for name in different)
    is_newer = any(stored.get(name, 0) > own.get(name, 0) for name in different)
    return FoldsDiffer(f"the read models were made by another release, with other fold versions of {shown}", is_newer=is_newer)


def _version(versions: Mapping[str, int], name: str) -> str:
    return f"version {versions[name]}" if name in versions else "none"


class Position(msgspec.Struct, frozen=True):
    position: int


async def position(db: QueryDatabase) -> int:
    return (await db.rows(POSITION, {}, into=Position))[0].position
