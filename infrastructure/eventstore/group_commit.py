"""Group commit: one thread and connection write all commands that arrive during a transaction in the next one."""

from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import psycopg
import structlog

from application.ports import Command, ReleasedClaim, Secret, StreamPrecondition, UniqueClaim
from infrastructure.eventstore.codec import EncodedEvent
from infrastructure.observability.metrics import APPEND_COMMANDS, APPEND_SECONDS, APPENDS
from infrastructure.postgres.arrays import Array, bools, byteas, ints, register, texts, uuids
from infrastructure.postgres.connections import LivenessLimits
from infrastructure.postgres.errors import database_unavailable
from infrastructure.postgres.profiles import GROUP_COMMIT, LIVENESS
from infrastructure.postgres.wake_ups import APPENDED, WakeUps
from infrastructure.security.keyed_digest import ClaimDigests
from infrastructure.security.keys import Keys

log = structlog.get_logger()

MAX_COMMANDS_PER_BATCH = 256  # in one transaction
COMMIT_TIMEOUT_SECONDS = 10.0  # for a command to be committed
WAKING_OUTCOMES = {"appended", "replayed"}  # a replay may follow a COMMIT whose answer was lost, and which sent no wake-up


class Append(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of one command that is written in the transaction of its events."""

    command: Command
    subject: UUID | None = None
    guards: Sequence[StreamPrecondition] = ()
    claims: Sequence[UniqueClaim] = ()
    releases: Sequence[ReleasedClaim] = ()
    secrets: Sequence[Secret] = ()


class Outcome(NamedTuple):
    outcome: str
    position: int | None
    subject: UUID | None
    detail: str | None


class PendingResult:
    """A one-time hand-over of an outcome between two threads, ten times faster than a Future."""

    __slots__ = ("_error", "_is_set", "_outcome")

    def __init__(self) -> None:
        self._is_set = Lock()
        self._is_set.acquire()
        self._outcome: Outcome | None = None
        self._error: Exception | None = None

    def set(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._is_set.release()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._is_set.release()

    def wait(self, seconds: float) -> Outcome:
        """The outcome. Raises TimeoutError after `seconds`, and the error that was set."""
        if not self._is_set.acquire(timeout=seconds):
            raise TimeoutError
        if self._error is not None:
            raise self._error
        assert self._outcome is not None
        return self._outcome


class PendingAppend(NamedTuple):
    append: Append
    events: Sequence[EncodedEvent]
    done: PendingResult


class Columns:
    """The arguments of `es.append` for a batch of commands: parallel arrays."""

    def __init__(self, digests: ClaimDigests, batch: Sequence[PendingAppend]) -> None:
        self._digests = digests
        self.commands: list[tuple[Any, ...]] = []
        self.events: list[tuple[Any, ...]] = []
        self.guards: list[tuple[Any, ...]] = []
        self.claims: list[tuple[Any, ...]] = []
        self.secrets: list[tuple[Any, ...]] = []
        for number, (append, events, _) in enumerate(batch, 1):
            self._add(number, append, events)

    def _add(self, number: int, append: Append, events: Sequence[EncodedEvent]) -> None:
        command = append.command
        self.commands.append((command.id, command.digest, append.subject, meta_of(command)))
        self.events += [(number, e.stream, e.version, e.type, e.schema_version, e.data, e.event_id) for e in events]
        self.guards += [(number, g.stream, g.version, ",".join(kind.__name__ for kind in g.closed_by)) for g in append.guards]
        self.claims += [(number, r.scope, digest, r.stream, False) for r in append.releases for digest in self._released(r)]
        self.claims += [(number, c.scope, self._digests.of(c.scope, c.value), c.stream, True) for c in append.claims]
        self.secrets += [(number, s.kind, s.owner, s.value) for s in append.secrets]
        self.secrets += [(number, "key", owner, wrapped) for e in events for owner, wrapped in e.new_keys]

    def _released(self, release: ReleasedClaim) -> tuple[bytes | None, ...]:
        """The digests to release: all forms of the value; None stands for all claims of the stream."""
        return (None,) if release.value is None else self._digests.forms(release.scope, release.value)

    def arguments(self) -> list[Array]:
        groups = zip((self.commands, self.events, self.guards, self.claims, self.secrets), COLUMNS, strict=True)
        return [pack([row[column] for row in rows]) for rows, packs in groups for column, pack in enumerate(packs)]


COLUMNS: tuple[tuple[Callable[[list[Any]], Array], ...], ...] = (
    (uuids, byteas, uuids, byteas),
    (ints, uuids, ints, texts, ints, byteas, uuids),
    (ints, uuids, ints, texts),
    (ints, texts, byteas, uuids, bools),
    (ints, texts, uuids, byteas),
)
APPEND = """select outcome, position, subject, detail from es.append(
  %s::uuid[], %s::bytea[], %s::uuid[], %s::bytea[],
  %s::int[], %s::uuid[], %s::int[], %s::text[], %s::int[], %s::bytea[], %s::uuid[],
  %s::int[], %s::uuid[], %s::int[], %s::text[],
  %s::int[], %s::text[], %s::bytea[], %s::uuid[], %s::bool[],
  %s::int[], %s::text[], %s::uuid[], %s::bytea[])"""


class GroupCommit:
    """One writer thread. Commands that arrive during a transaction form the next batch."""

    def __init__(self, url: str, keys: Keys, *, liveness: LivenessLimits = LIVENESS) -> None:
        self._url, self._digests, self._liveness = url, ClaimDigests(keys), liveness
        self._queue: SimpleQueue[PendingAppend | None] = SimpleQueue()
        self._connection: psycopg.Connection | None = None
        self._wake_ups = WakeUps(url)
        self._thread = Thread(target=self._run, name="group-commit", daemon=True)
        self._thread.start()

    def submit(self, append: Append, events: Sequence[EncodedEvent]) -> PendingResult:
        done = PendingResult()
        self._queue.put(PendingAppend(append, events, done))
        return done

    def close(self) -> None:
        """Commit the queued commands, then stop."""
        self._queue.put(None)
        self._thread.join(COMMIT_TIMEOUT_SECONDS)
        self._wake_ups.close()

    def _run(self) -> None:
        running = True
        while running:
            batch = [self._queue.get()]
            while len(batch) < MAX_COMMANDS_PER_BATCH and not self._queue.empty():
                batch.append(self._queue.get())
            running = None not in batch
            self._commit(_without_duplicates([pending for pending in batch if pending is not None]))
        if self._connection is not None:
            self._connection.close()

    def _commit(self, batch: Sequence[PendingAppend]) -> None:
        if not batch:
            return
        APPEND_COMMANDS.observe(len(batch))
        try:
            with APPEND_SECONDS.time():
                outcomes = self._call_again_if_lost(batch)
            if any(outcome.outcome in WAKING_OUTCOMES for outcome in outcomes):
                self._wake_ups.send(APPENDED)
            for pending, outcome in zip(batch, outcomes, strict=True):
                APPENDS.labels(outcome.outcome).inc()
                pending.done.set(outcome)
        except Exception as error:  # the writer must survive every batch; callers get the error
            log.warning("append failed", error=type(error).__name__, commands=len(batch))
            self._drop_connection()
            if len(batch) > 1 and not isinstance(error, psycopg.OperationalError):
                for pending in batch:
                    self._commit([pending])
                return
            raised = database_unavailable() if isinstance(error, psycopg.OperationalError) else error
            for pending in batch:
                pending.done.fail(raised)

    def _call_again_if_lost(self, batch: Sequence[PendingAppend]) -> list[Outcome]:
        """Append; repeat once after a lost connection. Command ids make that safe, even if the first COMMIT succeeded."""
        arguments = Columns(self._digests, batch).arguments()
        try:
            return self._call(arguments)
        except psycopg.OperationalError:
            self._drop_connection()
            return self._call(arguments)

    def _call(self, arguments: list[Array]) -> list[Outcome]:
        if self._connection is None or self._connection.closed:
            self._connection = GROUP_COMMIT.connect(self._url, liveness=self._liveness)
            register(self._connection)
        return [Outcome(*row) for row in self._connection.execute(APPEND, arguments, prepare=True).fetchall()]

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _without_duplicates(batch: Sequence[PendingAppend]) -> list[PendingAppend]:
    """Report a conflict for commands whose version of a stream an earlier command in the batch appends, except for repeats."""
    command_of: dict[tuple[UUID, int], UUID] = {}
    remaining = []
    for pending in batch:
        versions = {(event.stream, event.version) for event in pending.events}
        if any(command_of.setdefault(version, pending.append.command.id) != pending.append.command.id for version in versions):
            APPENDS.labels("conflict").inc()
            pending.done.set(Outcome("conflict", None, None, None))
        else:
            remaining.append(pending)
    return remaining


def meta_of(command: Command) -> bytes:
    """The metadata stored with each event of a command. Addresses and user agents are private, so they are in events instead."""
    actor: dict[str, object] = {"id": command.actor.id, "kind": command.actor.kind, "role": command.actor.role}
    actor |= {"key": command.actor.key} if command.actor.key else {}
    fields = {
        "command_id": command.id,
        "correlation_id": command.correlation_id or command.id,
        "causation_id": command.causation_id or command.id,
        "actor": actor | ({"name": command.actor.name} if command.actor.name else {}),
        "at": command.at,
        "request_id": command.request_id or None,
        "traceparent": command.traceparent or None,
    }
    return msgspec.json.encode({name: value for name, value in fields.items() if value is not None})
