"""How far the read models are."""

from typing import NamedTuple

import msgspec

from application.hash_chain import START
from projections.reading import Reads

POSITION = "select position from checkpoint where projection = 'main'"


class Checkpoint(NamedTuple):
    """`position` and `hash` of the last event applied; from `next_offset` on of Kafka's cluster `cluster` the rest can be read."""

    position: int
    cluster: str = ""
    next_offset: int = 0
    hash: bytes = START


class Outrun(Exception):
    """The checkpoint is not where this process left it: another one moved it. Read it again."""


class NotInLog(Exception):
    """The log does not hold the event that was to be applied: what was read of it is not true, or not true any more."""


class CheckpointUnfit(Exception):
    """The checkpoint stands at an event that the log does not hold; the text says what to do."""

    def __init__(self, position: int) -> None:
        super().__init__(
            f"the read models stand at position {position} of another log: `bioscope audit verify` shows whether the log is whole, and"
            " `bioscope rebuild` makes the read models anew"
        )


class Position(msgspec.Struct, frozen=True):
    position: int


async def position(db: Reads) -> int:
    return (await db.rows(POSITION, {}, into=Position))[0].position
