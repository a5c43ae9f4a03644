"""The relay's checkpoint, and the events after it."""

from collections.abc import Callable, Sequence
from typing import Protocol

from psycopg import AsyncConnection

from application.history.hash_chain import START, linked
from application.ports import ChainedEvent, RecordedEvent
from infrastructure.eventstore.recorder import EVENT_COLUMNS, recorded_from
from infrastructure.postgres.system import relay_checkpoint
from infrastructure.postgres.system.relay_checkpoint import RelayCheckpoint
from infrastructure.relay.errors import CheckpointBeyondLog

EVENTS_AFTER = f"select {EVENT_COLUMNS} from es.events where notification_id >= %s order by notification_id limit %s"  # noqa: S608 - constants


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

    `on_read` is called with the events that were read, `on_advanced` once Kafka has more of the log.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        *,
        on_read: Callable[[Sequence[RecordedEvent]], object] = lambda _: None,
        on_advanced: Callable[[], object] = lambda: None,
    ) -> None:
        self._connection, self._on_read, self._on_advanced = connection, on_read, on_advanced

    async def take_over(self) -> tuple[int, RelayCheckpoint]:
        return await relay_checkpoint.take_over(self._connection)

    async def needed_position(self) -> int:
        return await relay_checkpoint.needed_position(self._connection)

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
        if not await relay_checkpoint.move(self._connection, epoch, current, to):
            return False
        self._on_advanced()
        return True
