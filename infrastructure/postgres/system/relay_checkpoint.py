"""The relay's checkpoint in Postgres. Each new leader raises the epoch, so that earlier ones can no longer move the checkpoint."""

from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection

TAKE_OVER: Final = "update ops.relay set epoch = epoch + 1 returning epoch, position, cluster, next_offset"
NEEDED: Final = "select least(r.position, c.position) from ops.relay r, read.checkpoint c where c.projection = 'main'"
MOVE: Final = """update ops.relay set position = %s, cluster = %s, next_offset = %s
  where epoch = %s and position = %s and cluster = %s and next_offset = %s"""


class RelayCheckpoint(NamedTuple):
    """The events up to `position` are stored in the Kafka cluster `cluster`, before `next_offset`."""

    position: int
    cluster: str
    next_offset: int


async def take_over(connection: AsyncConnection[Any]) -> tuple[int, RelayCheckpoint]:
    """Begin a new epoch; return its number and the checkpoint. Raises psycopg.Error."""
    epoch, *checkpoint = await _row(connection, TAKE_OVER)
    return epoch, RelayCheckpoint(*checkpoint)


async def needed_position(connection: AsyncConnection[Any]) -> int:
    """The position after which the projector needs events from Kafka. Raises psycopg.Error."""
    (position,) = await _row(connection, NEEDED)
    return int(position)


async def move(connection: AsyncConnection[Any], epoch: int, was: RelayCheckpoint, to: RelayCheckpoint) -> bool:
    """Move the checkpoint from `was`, unless a newer epoch has begun. False if it was not moved. Raises psycopg.Error."""
    cursor = await connection.execute(MOVE, (*to, epoch, *was), prepare=True)
    return cursor.rowcount == 1


async def _row(connection: AsyncConnection[Any], query: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = await (await connection.execute(query)).fetchone()
    assert row is not None
    return row
