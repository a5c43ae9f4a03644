"""The composition root of `bioscope projector`, and of what the command line does to read models."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

import psycopg

from application.ports import Recorded
from domain.events import Event
from infrastructure.codec import Undecodable
from infrastructure.event_store import EventLog, PostgresRecorder, encoded_from
from infrastructure.keys import RootKey, WrongRootKey
from infrastructure.settings import Settings
from projections import batches, read_models, rebuilding
from projections import dead_letters as letters
from projections.dead_letters import DeadLetter, Retried
from projections.projector import Projector
from projections.read_models import PostgresModels
from projections.rebuilding import Rebuilt
from projections.tables import Happened


class LogDecoder:
    """Events out of the log, with the keys of their subjects."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def prefetch(self, recorded: Sequence[Recorded]) -> None:
        self._log.codec.prefetch(map(encoded_from, recorded))

    def decode(self, recorded: Recorded) -> Event:
        return self._log.decode(recorded)

    def forget(self, subject: UUID) -> None:
        self._log.codec.forget(subject)


def projector_over(url: str, log: EventLog, *, schema: str = rebuilding.LIVE) -> Projector:
    return Projector(lambda: PostgresModels(read_models.connect(url, schema=schema)), LogDecoder(log), fatal=(WrongRootKey,))


@contextmanager
def event_log(given: Settings) -> Iterator[EventLog]:
    root = RootKey.read(given.root_key_path)
    log = EventLog(PostgresRecorder(given.postgres_url, root), root)
    try:
        yield log
    finally:
        log.close()


# ---- what the command line does ----------------------------------------------------------------------------------------------------
def rebuild(given: Settings, *, check: bool, progress: Callable[[int], None] = lambda _: None) -> Rebuilt:
    """Make the read models anew from the log; with `check` only compare them with the live ones."""
    url = given.postgres_owner_url or given.postgres_url
    with event_log(given) as log, psycopg.connect(url, autocommit=True, options="-c timezone=UTC") as owner:
        return rebuilding.rebuild(
            owner, projector_over=lambda schema: projector_over(url, log, schema=schema), log=log, check=check, progress=progress
        )


def dead_letters(given: Settings) -> list[DeadLetter]:
    with read_models.connect(given.postgres_url) as connection:
        return letters.listed(connection)


def retry_dead_letters(given: Settings, position: int | None) -> Retried:
    """Apply a dead letter, or all, again. Harmless to repeat."""
    with event_log(given) as log, read_models.connect(given.postgres_url) as connection:
        projector = projector_over(given.postgres_url, log)
        try:
            return retry(projector, connection, log, position)
        finally:
            projector.close()


def retry(projector: Projector, connection: psycopg.Connection, log: EventLog, position: int | None = None) -> Retried:
    def touches(recorded: Recorded) -> set[UUID]:
        try:
            return letters.touched(batches.TABLES, Happened(recorded.position, log.decode(recorded)))
        except Undecodable:
            return {recorded.stream}

    return letters.retry(projector, PostgresModels(connection), read=lambda at: log.read(at - 1, 1)[0], touches=touches, position=position)
