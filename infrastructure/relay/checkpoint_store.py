"""The relay's checkpoint, and the events after it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Protocol

from psycopg import AsyncConnection

from application.hash_chain import START, linked
from application.ports import ChainedEvent, RecordedEvent
from infrastructure.eventstore.recorder import EVENT_COLUMNS, recorded_from
from infrastructure.relay.errors import CheckpointBeyondLog

TAKE_OVER = "update ops.relay set epoch = epoch + 1 returning epoch, position, cluster, next_offset"
PUBLISHED_POSITION = "select position from ops.relay"
EVENTS_AFTER = f"select {EVENT_COLUMNS} from es.events where notification_id >= %s order by notification_id limit %s"  # noqa: S608 - constants
ADVANCE = """update ops.relay set position = %s, cluster = %s, next_offset = %s
  where epoch = %s and position = %s and cluster = %s and next_offset = %s"""


class RelayCheckpoint(NamedTuple):
    """The events up to `position` are in `cluster`, before `next_offset`."""

    position: int
    cluster: str
    next_offset: int


class CheckpointStore(Protocol):
    """How far the log was published, and the events after that. Calls raise what the database raises while it is unavailable."""

    async def take_over(self) -> tuple[int, RelayCheckpoint]:
        """A new epoch, and the checkpoint: relays of earlier epochs cannot move it any more."""

    async def needed_position(self) -> int:
        """The published position from which on the read models still need the log from Kafka."""

    async def events_after(self, position: int, limit: int) -> Sequence[ChainedEvent]: ...

    async def advance(self, epoch: int, current: RelayCheckpoint, to: RelayCheckpoint) -> bool:
        """False when the checkpoint is not `current`, or a newer epoch has begun."""


class PostgresCheckpointStore:
    """The port `CheckpointStore`. `connection` is autocommitting, and used by nothing else.

    `projected_position` reads the position of the read models; `on_read` is called with the events that were read, `on_advanced` once Kafka has more of the log.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        *,
        projected_position: Callable[[AsyncConnection], Awaitable[int]],
        on_read: Callable[[Sequence[RecordedEvent]], object] = lambda _: None,
        on_advanced: Callable[[], object] = lambda: None,
    ) -> None:
        self._connection, self._projected_position = connection, projected_position
        self._on_read, self._on_advanced = on_read, on_advanced

    async def take_over(self) -> tuple[int, RelayCheckpoint]:
        epoch, *checkpoint = await self._row(TAKE_OVER)
        return epoch, RelayCheckpoint(*checkpoint)

    async def needed_position(self) -> int:
        (published,) = await self._row(PUBLISHED_POSITION)
        return min(int(published), await self._projected_position(self._connection))

    async def events_after(self, position: int, limit: int) -> list[ChainedEvent]:
        """Raises CheckpointBeyondLog where the event at `position` is missing."""
        preceding = 1 if position else 0  # the event at `position`, whose hash the next one covers
        cursor = await self._connection.execute(EVENTS_AFTER, (position, limit + preceding), prepare=True, binary=True)
        events = [recorded_from(row) for row in await cursor.fetchall()]
        if preceding and (not events or events[0].position != position):
            raise CheckpointBeyondLog(f"the log has no event at position {position}, up to which ops.relay says that it was published")
        self._on_read(events)
        return list(linked(events[preceding:], events[0].hash if preceding else START))

    async def advance(self, epoch: int, current: RelayCheckpoint, to: RelayCheckpoint) -> bool:
        cursor = await self._connection.execute(ADVANCE, (*to, epoch, *current), prepare=True)
        if cursor.rowcount != 1:
            return False
        self._on_advanced()
        return True

    async def _row(self, query: str) -> tuple[Any, ...]:
        row = await (await self._connection.execute(query)).fetchone()
        assert row is not None
        return row
