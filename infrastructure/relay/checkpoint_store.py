"""The port to the relay's checkpoint and the events after it, and its Postgres adapter."""

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
    """The relay's checkpoint, and the events after it. Calls raise the driver's errors while the database is unavailable."""

    async def take_over(self) -> tuple[int, RelayCheckpoint]:
        """Begin a new epoch; return it with the checkpoint. Relays of earlier epochs can no longer move it."""

    async def needed_position(self) -> int:
        """The position after which the read models still need events from Kafka."""

    async def events_after(self, position: int, limit: int) -> Sequence[ChainedEvent]: ...

    async def advance(self, epoch: int, current: RelayCheckpoint, to: RelayCheckpoint) -> bool:
        """Move the checkpoint. False if it is not at `current`, or a newer epoch has begun."""


class PostgresCheckpointStore:
    """Implements `CheckpointStore`. `connection` is in autocommit mode and used for nothing else.

    `on_read` is called with the events that were read, `on_advanced` when Kafka has new events.
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
        """Raises CheckpointBeyondLog if the event at `position` is missing."""
        preceding = 1 if position else 0  # the event at `position`, whose hash the next one covers
        cursor = await self._connection.execute(EVENTS_AFTER, (position, limit + preceding), prepare=True, binary=True)
        events = [recorded_from(row) for row in await cursor.fetchall()]
        if preceding and (not events or events[0].position != position):
            raise CheckpointBeyondLog(f"the log has no event at position {position}, where the relay's checkpoint (ops.relay) is")
        self._on_read(events)
        return list(linked(events[preceding:], events[0].hash if preceding else START))

    async def advance(self, epoch: int, current: RelayCheckpoint, to: RelayCheckpoint) -> bool:
        if not await relay_checkpoint.move(self._connection, epoch, current, to):
            return False
        self._on_advanced()
        return True
