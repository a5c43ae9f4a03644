"""Operations of `bioscope dead-letters`: list, retry and discard."""

from collections.abc import Sequence
from functools import partial

import psycopg

from application.ports import Command, RecordedEvent
from domain import dead_letter
from domain.errors import NotFound
from infrastructure.configuration.settings import Settings
from infrastructure.eventstore.codec import Undecodable
from infrastructure.eventstore.event_store import RecorderEventStore, open_event_store
from projections.engine import batches, postgres_dead_letters, postgres_store
from projections.engine import dead_letters as engine
from projections.engine.batches import ReadModels
from projections.engine.dead_letters import DeadLetter, RetryResult, TouchedIds
from projections.engine.postgres_store import PostgresReadModels
from projections.engine.projection import PositionedEvent
from projections.engine.projector import Projector
from projections.process.composition import projector_over
from projections.rebuild import rebuilding


def list_dead_letters(settings: Settings) -> list[DeadLetter]:
    with open_event_store(settings) as log, postgres_store.connect(settings.postgres_url) as connection:
        return dead_letters_of(connection, log)


def dead_letters_of(connection: psycopg.Connection, log: RecorderEventStore) -> list[DeadLetter]:
    """All dead letters. `connection` is to the read models."""

    def touched_by_position(positions: Sequence[int]) -> dict[int, TouchedIds]:
        events = log.at(positions)
        log.prefetch(events)
        return {event.position: touched_ids_of(log, event) for event in events}

    return postgres_dead_letters.list_dead_letters(connection, PostgresReadModels(connection), touched=touched_by_position)


def retry_dead_letters(settings: Settings, position: int | None) -> RetryResult:
    """Apply a dead letter, or all, again. May be repeated. Raises FoldsDiffer, CheckpointUnfit."""
    with open_event_store(settings) as log, postgres_store.connect(settings.postgres_url) as connection:
        projector = projector_over(settings.postgres_url, log)
        try:
            return retry_with(projector, PostgresReadModels(connection), log, position)
        finally:
            projector.close()


def discard_dead_letter(settings: Settings, position: int, *, reason: str, command: Command) -> RetryResult:
    """Record that a dead letter is discarded, and apply the events that wait for it. May be repeated.

    Raises NotFound, Invalid, AlreadyRebuilding, and before anything is recorded FoldsDiffer and CheckpointUnfit.
    """
    with open_event_store(settings) as log, postgres_store.connect(settings.postgres_url) as connection:
        projector = projector_over(settings.postgres_url, log)
        try:
            return discard_with(projector, connection, log, position, reason=reason, command=command)
        finally:
            projector.close()


def discard_with(
    projector: Projector, connection: psycopg.Connection, log: RecorderEventStore, position: int, *, reason: str, command: Command
) -> RetryResult:
    """Discard with a given projector and a `connection` to its read models. Locks out rebuilds, which would apply the event."""
    models = PostgresReadModels(connection)
    with rebuilding.rebuild_lock(connection):
        models.read_checkpoint()
        record_discard(connection, log, position, reason=reason, command=command)
        return retry_with(projector, models, log, position)


def record_discard(connection: psycopg.Connection, log: RecorderEventStore, position: int, *, reason: str, command: Command) -> None:
    """Append DeadLetterDiscarded unless the log contains it. Raises NotFound, Invalid."""
    found = next((letter for letter in postgres_dead_letters.dead_letters_of(connection) if letter.position == position), None)
    if found is None:
        raise NotFound(f"There is no dead letter at position {position}: see `bioscope dead-letters list`")
    event = dead_letter.discard(
        position=position,
        stream=found.stream,
        type_name=found.type,
        error=found.reason,
        reason=reason,
        by=command.actor.id,
        at=command.at,
    )
    if position not in log.discarded():
        log.append(command, event, subject=event.originator_id)


def retry_with(projector: Projector, models: ReadModels, log: RecorderEventStore, position: int | None = None) -> RetryResult:
    """Retry with a given projector. `models` are the same read models on another connection."""

    def read_at(event_position: int) -> RecordedEvent:
        return log.read(event_position - 1, 1)[0]

    return engine.retry(projector, models, read=read_at, touched=partial(touched_ids_of, log), position=position)


def touched_ids_of(log: RecorderEventStore, recorded: RecordedEvent) -> TouchedIds:
    """The ids of the rows that an event touches; only its stream if it cannot be decoded."""
    try:
        return engine.touched_ids(batches.TABLES, PositionedEvent(recorded.position, log.decode(recorded)))
    except Undecodable:
        return engine.only_stream(recorded)
