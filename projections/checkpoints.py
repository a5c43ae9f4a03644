"""How far the read models are."""

from typing import NamedTuple

import msgspec

from projections.reading import Reads

POSITION = "select position from checkpoint where projection = 'main'"


class Checkpoint(NamedTuple):
    """`position` of the last event applied; from `next_offset` on of Kafka's cluster `cluster` the rest can be read."""

    position: int
    cluster: str = ""
    next_offset: int = 0


class Outrun(Exception):
    """The checkpoint is not where this process left it: another one moved it. Read it again."""


class Position(msgspec.Struct, frozen=True):
    position: int


async def position(db: Reads) -> int:
    return (await db.rows(POSITION, {}, into=Position))[0].position
