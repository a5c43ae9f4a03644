"""The projector: every event of the log, once and in order, into the read models; what cannot be applied is set aside, never skipped."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar
from uuid import UUID

import psycopg
import structlog

from application.ports import Recorded
from domain.errors import Unavailable
from projections.batches import TABLES, Applied, Decoder, Statement, Target, decoded, project, read_target, write
from projections.checkpoints import Checkpoint, Outrun
from projections.dead_letters import blocked_streams, letter, park, set_aside, touched
from projections.tables import Happened

log = structlog.get_logger()
T = TypeVar("T")

ATTEMPTS = 3  # tries of an event that fails alone, before it is set aside
PAUSE = 0.05  # seconds between them
AWAY: tuple[type[Exception], ...] = (
    Outrun,
    Unavailable,
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.ProgrammingError,
    psycopg.InternalError,
)
"""Errors that say nothing about an event: the database is away, or not as this release expects it."""


class Projector:
    """Applies batches behind its checkpoint, which it must share with nobody unknowingly: who loses it gets Outrun.

    It does not care where a batch comes from. Calls block, and belong to one thread. After any error that is raised here nothing of
    the batch under way has happened; after Outrun read `checkpoint()` again, after others too, when the database is back.
    `fatal`: errors that are nobody's fault but the installation's (a wrong key), and must not be blamed on an event.
    """

    def __init__(self, connect: Callable[[], psycopg.Connection], decoder: Decoder, *, fatal: tuple[type[Exception], ...] = ()) -> None:
        self._connect, self._decoder = connect, decoder
        self.not_poison: tuple[type[Exception], ...] = (*AWAY, *fatal)
        self._connection: psycopg.Connection | None = None
        self._target: Target | None = None
        self._blocked: set[UUID] = set()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._target = None

    def checkpoint(self) -> Checkpoint:
        """How far the read models are, read anew."""
        return self._knowing(self._read).at

    def apply(self, batch: Sequence[Recorded], to: Checkpoint) -> Applied:
        """Apply `batch` (contiguous, not empty, beginning right behind the checkpoint), and move the checkpoint to `to`. Raises Outrun."""
        target = self._target or self._knowing(self._read)
        if target.at.position != batch[0].position - 1:
            self._target = None
            raise Outrun
        return self._knowing(lambda: self._apply_or_divide(batch, to))

    def retry(self, batch: Sequence[Recorded], *, statements: Sequence[Statement], left: set[UUID]) -> None:
        """Apply events of long ago with `statements`, the checkpoint standing still; then only the streams `left` are blocked.

        Raises whatever is wrong with an event.
        """
        with self._there().transaction():
            target = read_target(self._there(), lock=True)
            statements_of_events, _ = project(self._there(), decoded(self._decoder, batch))
            write(self._there(), target, target.at, [*statements_of_events, *statements], generations=1)
        self._target, self._blocked = None, left

    def _there(self) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        return self._connection

    def _read(self) -> Target:
        self._target = read_target(self._there())
        self._blocked = blocked_streams(self._there())
        return self._target

    def _knowing(self, act: Callable[[], T]) -> T:
        """After an error nothing is taken for known that was read before."""
        try:
            return act()
        except Outrun:
            self._target = None
            raise
        except Exception:
            self.close()
            raise

    def _apply_or_divide(self, batch: Sequence[Recorded], to: Checkpoint) -> Applied:
        try:
            return self._apply(batch, to)
        except self.not_poison:
            raise
        except Exception as error:
            if len(batch) == 1:
                return self._apply_again_or_set_aside(batch[0], to, error)
        log.warning("a batch failed, dividing it", first=batch[0].position, last=batch[-1].position)
        middle = len(batch) // 2
        before = self._apply_or_divide(batch[:middle], Checkpoint(batch[middle - 1].position))
        return before.then(self._apply_or_divide(batch[middle:], to))

    def _apply_again_or_set_aside(self, event: Recorded, to: Checkpoint, error: Exception) -> Applied:
        for _ in range(ATTEMPTS - 1):
            time.sleep(PAUSE)
            try:
                return self._apply([event], to)
            except self.not_poison:
                raise
            except Exception as again:
                error = again
        dead = letter(event, error)
        log.error("dead letter", position=dead.position, stream=str(dead.stream), type=dead.type, reason=dead.reason)
        self._write(to, [set_aside(dead)])
        self._blocked.add(event.stream)
        return Applied(event.position, letters=(dead,))

    def _apply(self, batch: Sequence[Recorded], to: Checkpoint) -> Applied:
        happened, parked, blocked = self._sorted_out(batch)
        statements, applied = project(self._there(), happened) if happened else ([], Applied(0))
        self._write(to, [*statements, park(parked)] if parked else statements)
        self._blocked = blocked
        return applied._replace(position=to.position)

    def _sorted_out(self, batch: Sequence[Recorded]) -> tuple[list[Happened], list[Recorded], set[UUID]]:
        """What can be applied, what must wait behind a dead letter, and the streams that are blocked then."""
        if not self._blocked:
            return decoded(self._decoder, batch), [], self._blocked
        happened: list[Happened] = []
        parked: list[Recorded] = []
        blocked = set(self._blocked)
        for recorded in batch:
            event = None if recorded.stream in blocked else decoded(self._decoder, [recorded])[0]
            if event is None or not blocked.isdisjoint(touched(TABLES, event)):
                parked.append(recorded)
                blocked.add(recorded.stream)
            else:
                happened.append(event)
        return happened, parked, blocked

    def _write(self, to: Checkpoint, statements: Sequence[Statement]) -> None:
        assert self._target is not None
        write(self._there(), self._target, to, statements)
        self._target = Target(to, self._target.generation)
