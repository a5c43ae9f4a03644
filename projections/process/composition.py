"""Composition of the projector on Postgres, for the process, the command line and rebuilds."""

from collections.abc import Sequence
from uuid import UUID

from application.ports import RecordedEvent
from domain.events import Event
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.security.keys import WrongRootKey
from projections.engine import postgres_store
from projections.engine.batches import ReadModels
from projections.engine.postgres_store import PostgresReadModels
from projections.engine.projector import Projector
from projections.engine.row_cache import RowCache
from projections.rebuild.digests import LIVE_SCHEMA
from projections.rebuild.write_behind import WriteBehind


class LogDecoder:
    """Implements `projections.engine.batches.Decoder` with the event store and its codec."""

    def __init__(self, log: RecorderEventStore) -> None:
        self._log = log

    def at(self, positions: Sequence[int]) -> Sequence[RecordedEvent]:
        return self._log.at(positions)

    def prefetch(self, recorded: Sequence[RecordedEvent]) -> None:
        self._log.codec.prefetch(recorded)

    def decode(self, recorded: RecordedEvent) -> Event:
        return self._log.decode(recorded)

    def forget(self, subject: UUID) -> None:
        self._log.codec.forget(subject)


def projector_over(url: str, log: RecorderEventStore, schema: str = LIVE_SCHEMA, *, exclusive: bool = False) -> Projector:
    """A projector for the read models in `schema`. `exclusive`: no one else uses them, so that they may be one batch behind."""

    def models() -> ReadModels:
        found = PostgresReadModels(postgres_store.connect(url, schema=schema, monitored=True))
        return RowCache(WriteBehind(found) if exclusive else found)

    return Projector(models, LogDecoder(log), discarded=log.discarded, fatal=(WrongRootKey,))
