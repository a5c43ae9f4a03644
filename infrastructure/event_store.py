"""The event log on Postgres: the library's contracts, our recorder and mapper, group commit, one round trip a batch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import psycopg
import structlog
from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.persistence import (
    ApplicationRecorder,
    IntegrityError,
    JSONTranscoder,
    Mapper,
    Notification,
    StoredEvent,
    Subscription,
    Transcoder,
)
from psycopg_pool import ConnectionPool, PoolTimeout

from application.ports import Appended, Claim, Closed, Command, Conflicted, Evolve, Guard, Recorded, Release, S, Secret
from domain.errors import KeyReused, NotFound, Taken, Unavailable
from domain.events import Event
from domain.values import canonical
from infrastructure.codec import Codec, Encoded, KeyDestroyed
from infrastructure.figures import APPEND_COMMANDS, APPEND_SECONDS, APPENDS
from infrastructure.keys import DataKeys, RootKey
from infrastructure.postgres.arrays import Array, bools, byteas, ints, register, texts, uuids
from infrastructure.postgres.silence import Attentive, Silent

log = structlog.get_logger()

BATCH_MOST = 256  # commands in one transaction
PATIENCE = 10.0  # seconds that a command waits for its group commit
READERS = 8  # connections that load streams
OPTIONS = "-c statement_timeout=5s -c lock_timeout=2s -c idle_in_transaction_session_timeout=10s -c timezone=UTC"


class Append(msgspec.Struct, frozen=True, kw_only=True):
    """What goes with the events of one command into the same transaction."""

    command: Command
    subject: UUID | None = None
    guards: Sequence[Guard] = ()
    claims: Sequence[Claim] = ()
    releases: Sequence[Release] = ()
    secrets: Sequence[Secret] = ()


@dataclass(frozen=True)
class Stored(StoredEvent):
    """The library's stored event, with our columns."""

    encoded: Encoded


class Outcome(NamedTuple):
    outcome: str
    position: int | None
    subject: UUID | None
    detail: str | None


class EventMapper(Mapper[UUID]):
    """Short type names, JSON by msgspec, private fields sealed."""

    def __init__(self, codec: Codec) -> None:
        super().__init__(JSONTranscoder())
        self.codec = codec

    def to_stored_event(self, domain_event: Any) -> Stored:
        encoded = self.codec.encode(domain_event)
        return Stored(encoded.stream, encoded.version, encoded.type, encoded.data, encoded)

    def to_domain_event(self, stored_event: StoredEvent) -> Any:
        assert isinstance(stored_event, Stored)
        return self.codec.decode(stored_event.encoded)


class Laboratory(Application[UUID]):
    """The library's application over our mapper and a recorder: Postgres', or the in-memory twin."""

    def __init__(self, mapper: EventMapper, recorder: ApplicationRecorder) -> None:
        self._parts = mapper, recorder
        super().__init__({"PERSISTENCE_MODULE": "eventsourcing.popo"})

    def construct_transcoder(self) -> Transcoder:
        return JSONTranscoder()

    def construct_mapper(self) -> Mapper[UUID]:
        return self._parts[0]

    def construct_recorder(self) -> ApplicationRecorder:
        return self._parts[1]


def meta_of(command: Command) -> bytes:
    """What is kept beside each event of a command. No address, no agent: those are private, and stand in events."""
    said = {
        "command_id": command.id,
        "correlation_id": command.correlation_id or command.id,
        "causation_id": command.causation_id or command.id,
        "actor": {"id": command.actor.id, "kind": command.actor.kind, "role": command.actor.role},
        "at": command.at,
        "request_id": command.request_id or None,
        "traceparent": command.traceparent or None,
    }
    return msgspec.json.encode({name: value for name, value in said.items() if value is not None})


class Answer:
    """What one thread tells one other, once. A tenth of a Future's cost."""

    __slots__ = ("_error", "_outcome", "_there")

    def __init__(self) -> None:
        self._there = Lock()
        self._there.acquire()
        self._outcome: Outcome | None = None
        self._error: Exception | None = None

    def set(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._there.release()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._there.release()

    def wait(self, seconds: float) -> Outcome:
        """Raises TimeoutError, and what it was failed with."""
        if not self._there.acquire(timeout=seconds):
            raise TimeoutError
        if self._error is not None:
            raise self._error
        assert self._outcome is not None
        return self._outcome


class Pending(NamedTuple):
    append: Append
    events: Sequence[Encoded]
    done: Answer


class Columns:
    """The parallel arrays of `es.append` for a batch of commands."""

    def __init__(self, root: RootKey, batch: Sequence[Pending]) -> None:
        self._root = root
        self.commands: list[tuple[Any, ...]] = []
        self.events: list[tuple[Any, ...]] = []
        self.guards: list[tuple[Any, ...]] = []
        self.claims: list[tuple[Any, ...]] = []
        self.secrets: list[tuple[Any, ...]] = []
        for number, (append, events, _) in enumerate(batch, 1):
            self._add(number, append, events)

    def _add(self, number: int, append: Append, events: Sequence[Encoded]) -> None:
        command = append.command
        self.commands.append((command.id, command.digest, append.subject, meta_of(command)))
        self.events += [(number, e.stream, e.version, e.type, e.schema_version, e.data, e.event_id) for e in events]
        self.guards += [(number, g.stream, g.version, ",".join(kind.__name__ for kind in g.closed_by)) for g in append.guards]
        self.claims += [(number, r.scope, self._named(r.scope, r.value), r.stream, False) for r in append.releases]
        self.claims += [(number, c.scope, self._named(c.scope, c.value), c.stream, True) for c in append.claims]
        self.secrets += [(number, s.kind, s.owner, s.value) for s in append.secrets]
        self.secrets += [(number, "key", owner, wrapped) for e in events for owner, wrapped in e.new_keys]

    def _named(self, scope: str, value: str | None) -> bytes | None:
        return None if value is None else claim_digest(self._root, scope, value)

    def arguments(self) -> list[Array]:
        groups = zip((self.commands, self.events, self.guards, self.claims, self.secrets), COLUMNS, strict=True)
        return [pack([row[column] for row in rows]) for rows, packs in groups for column, pack in enumerate(packs)]


def claim_digest(root: RootKey, scope: str, value: str) -> bytes:
    return root.hmac(f"claim {scope}", canonical(value).encode())


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
    """One writer thread: while a transaction is under way the next batch gathers."""

    def __init__(self, url: str, root: RootKey) -> None:
        self._url, self._root = url, root
        self._queue: SimpleQueue[Pending | None] = SimpleQueue()
        self._connection: psycopg.Connection | None = None
        self._thread = Thread(target=self._run, name="group-commit", daemon=True)
        self._thread.start()

    def submit(self, append: Append, events: Sequence[Encoded]) -> Answer:
        done = Answer()
        self._queue.put(Pending(append, events, done))
        return done

    def close(self) -> None:
        """Take what was queued before, then stop."""
        self._queue.put(None)
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        going = True
        while going:
            batch = [self._queue.get()]
            while len(batch) < BATCH_MOST and not self._queue.empty():
                batch.append(self._queue.get())
            going = None not in batch
            self._commit(_without_duplicates([pending for pending in batch if pending is not None]))
        if self._connection is not None:
            self._connection.close()

    def _commit(self, batch: Sequence[Pending]) -> None:
        if not batch:
            return
        APPEND_COMMANDS.observe(len(batch))
        try:
            with APPEND_SECONDS.time():
                outcomes = self._call_again_if_lost(batch)
            for pending, outcome in zip(batch, outcomes, strict=True):
                APPENDS.labels(outcome.outcome).inc()
                pending.done.set(outcome)
        except Exception as error:  # the writer must outlive every batch; the callers get the error
            log.warning("append failed", error=type(error).__name__, commands=len(batch))
            self._drop_connection()
            if len(batch) > 1 and not isinstance(error, psycopg.OperationalError):
                for pending in batch:
                    self._commit([pending])
                return
            away = isinstance(error, psycopg.OperationalError)
            raised = _away() if away else error
            for pending in batch:
                pending.done.fail(raised)

    def _call_again_if_lost(self, batch: Sequence[Pending]) -> list[Outcome]:
        """Command ids make the second call answer for a first one whose COMMIT got lost."""
        arguments = Columns(self._root, batch).arguments()
        try:
            return self._call(arguments)
        except psycopg.OperationalError:
            self._drop_connection()
            return self._call(arguments)

    def _call(self, arguments: list[Array]) -> list[Outcome]:
        if self._connection is None or self._connection.closed:
            self._connection = Attentive.connect(self._url, autocommit=True, options=OPTIONS)
            register(self._connection)
        return [Outcome(*row) for row in self._connection.execute(APPEND, arguments, prepare=True).fetchall()]

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _without_duplicates(batch: Sequence[Pending]) -> list[Pending]:
    """Of two commands for one version of a stream the later one conflicts at once, unless it repeats the earlier."""
    owner: dict[tuple[UUID, int], UUID] = {}
    kept = []
    for pending in batch:
        wanted = {(event.stream, event.version) for event in pending.events}
        if any(owner.setdefault(place, pending.append.command.id) != pending.append.command.id for place in wanted):
            APPENDS.labels("conflict").inc()
            pending.done.set(Outcome("conflict", None, None, None))
        else:
            kept.append(pending)
    return kept


EVENT_COLUMNS = "notification_id, originator_id, originator_version, topic, schema_version, event_id, state, meta, recorded_at, hash"


class PostgresRecorder(ApplicationRecorder):
    """Reads on a pool, writes through the group commit."""

    def __init__(self, url: str, root: RootKey) -> None:
        self.pool: ConnectionPool[psycopg.Connection] = ConnectionPool(
            url,
            connection_class=Attentive,
            min_size=1,
            max_size=READERS,
            timeout=2,
            open=False,
            kwargs={"autocommit": True, "options": OPTIONS},
        )
        self._root = root
        self._url = url
        self._writer: GroupCommit | None = None
        self._beginning = Lock()
        self.pool.open()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self.pool.close()

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        return insert_events(self.insert, stored_events, **kwargs)

    def insert(self, events: Sequence[Encoded], append: Append) -> Outcome:
        try:
            return self._writing().submit(append, events).wait(PATIENCE)
        except TimeoutError:
            raise Unavailable("The database does not answer; try again", retry_after=5) from None

    def _writing(self) -> GroupCommit:
        """One a process, begun with the first command: who only reads has none."""
        with self._beginning:
            if self._writer is None:
                self._writer = GroupCommit(self._url, self._root)
            return self._writer

    def rows(self, query: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Raises Unavailable. A connection that died while it was idle costs a second try, after its like were weeded out."""
        try:
            return self._rows(query, arguments)
        except Silent:
            self.pool.drain()  # its like are silent too, and to ask each would take as long again
        except psycopg.OperationalError:
            self.pool.check()
        except PoolTimeout:
            raise _away() from None
        try:
            return self._rows(query, arguments)
        except (psycopg.OperationalError, PoolTimeout):
            raise _away() from None

    def _rows(self, query: str, arguments: Sequence[object]) -> list[tuple[Any, ...]]:
        with self.pool.connection() as connection:
            return connection.execute(query, arguments, prepare=True, binary=True).fetchall()

    def select_events(
        self, originator_id: UUID | str, *, gt: int | None = None, lte: int | None = None, desc: bool = False, limit: int | None = None
    ) -> Sequence[StoredEvent]:
        rows = self.rows(
            f"select {EVENT_COLUMNS} from es.events where originator_id = %s and originator_version > %s"  # noqa: S608 - constants
            f" and originator_version <= %s order by originator_version {'desc' if desc else 'asc'} limit %s",
            originator_id,
            gt or 0,
            2**31 - 1 if lte is None else lte,
            limit,
        )
        return [stored(recorded_from(row)) for row in rows]

    def select_notifications(
        self, start: int | None, limit: int, stop: int | None = None, topics: Sequence[str] = (), *, inclusive_of_start: bool = True
    ) -> Sequence[Notification]:
        after = (start or 1) - 1 if inclusive_of_start else start or 0
        wanted = (one for one in self.select_recorded(after, limit) if (stop is None or one.position <= stop))
        return [
            Notification(one.stream, one.version, one.type, one.data, one.position) for one in wanted if not topics or one.type in topics
        ]

    def select_recorded(self, after: int, limit: int) -> list[Recorded]:
        query = f"select {EVENT_COLUMNS} from es.events where notification_id > %s order by notification_id limit %s"  # noqa: S608
        return [recorded_from(row) for row in self.rows(query, after, limit)]

    def select_stream(self, stream: UUID) -> list[Recorded]:
        query = f"select {EVENT_COLUMNS} from es.events where originator_id = %s order by originator_version"  # noqa: S608
        return [recorded_from(row) for row in self.rows(query, stream)]

    def max_notification_id(self) -> int | None:
        return self.rows("select position from es.head")[0][0] or None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        raise NotImplementedError("consumers follow Kafka, and read the store by position")

    def select_command(self, command: UUID) -> tuple[bytes | None, int, UUID | None] | None:
        rows = self.rows("select digest, position, subject from es.commands where id = %s", command)
        return rows[0] if rows else None

    def select_claim(self, scope: str, digest: bytes) -> UUID | None:
        rows = self.rows("select stream from es.claims where scope = %s and digest = %s", scope, digest)
        return rows[0][0] if rows else None

    def select_secrets(self, kind: str, owners: Iterable[UUID]) -> Mapping[UUID, bytes]:
        return dict(self.rows("select owner, value from es.secrets where kind = %s and owner = any(%s)", kind, list(owners)))


def insert_events(
    insert: Callable[[Sequence[Encoded], Append], Outcome],
    stored_events: Sequence[StoredEvent],
    *,
    append: Append,
    outcome: Callable[[Outcome], None],
    **_: Any,
) -> Sequence[int] | None:
    """The library's contract over ours: positions when something was appended, IntegrityError when a version is taken."""
    ended = insert([one.encoded for one in stored_events if isinstance(one, Stored)], append)
    outcome(ended)
    if ended.outcome == "conflict":
        raise IntegrityError
    if ended.outcome != "appended" or ended.position is None:
        return None
    return range(ended.position - len(stored_events) + 1, ended.position + 1)


def recorded_from(row: tuple[Any, ...]) -> Recorded:
    position, stream, version, topic, schema_version, event_id, state, meta, recorded_at, digest = row
    return Recorded(
        position=position,
        stream=stream,
        version=version,
        type=topic,
        schema_version=schema_version,
        event_id=event_id,
        data=state,
        meta=meta,
        recorded_at=recorded_at,
        hash=digest,
    )


def encoded_from(recorded: Recorded) -> Encoded:
    return Encoded(recorded.stream, recorded.version, recorded.type, recorded.schema_version, recorded.event_id, recorded.data)


def stored(recorded: Recorded) -> Stored:
    return Stored(recorded.stream, recorded.version, recorded.type, recorded.data, encoded_from(recorded))


class EventLog:
    """The port `application.ports.Log` over the library's application and a recorder."""

    def __init__(self, recorder: Any, root: RootKey) -> None:
        self.recorder, self._root = recorder, root
        self.codec = Codec(DataKeys(root, lambda owners: recorder.select_secrets("key", owners)))
        self._laboratory = Laboratory(EventMapper(self.codec), recorder)

    def close(self) -> None:
        self.recorder.close()

    def load(self, stream: UUID, evolve: Evolve[S], *, version: int | None = None, until: datetime | None = None) -> S | None:
        def project(state: S | None, events: Iterable[Any]) -> S | None:
            for event in events:
                if until is None or event.at <= until:
                    state = evolve(state, event)
            return state

        try:
            return self._laboratory.repository.get(stream, version=version, projector_func=project)
        except AggregateNotFoundError:
            return None

    def append(
        self,
        command: Command,
        *events: Event,
        subject: UUID | None = None,
        guards: Sequence[Guard] = (),
        claims: Sequence[Claim] = (),
        releases: Sequence[Release] = (),
        secrets: Sequence[Secret] = (),
    ) -> Appended:
        append = Append(command=command, subject=subject, guards=guards, claims=claims, releases=releases, secrets=secrets)
        outcomes: list[Outcome] = []
        try:
            self._laboratory.events.put(events, append=append, outcome=outcomes.append)
        except (IntegrityError, KeyDestroyed):
            raise Conflicted("Somebody else changed this in the meantime; load it again") from None
        return _appended(outcomes[0])

    def outcome(self, command: Command) -> Appended | None:
        known = self.recorder.select_command(command.id)
        if known is None:
            return None
        digest, position, subject = known
        if digest != command.digest:
            raise _key_reused()
        return Appended(position=position, subject=subject, replayed=True)

    def head(self) -> int:
        return self.recorder.max_notification_id() or 0

    def read(self, after: int, limit: int) -> Sequence[Recorded]:
        return self.recorder.select_recorded(after, limit)  # type: ignore[no-any-return]

    def history(self, stream: UUID) -> Sequence[Recorded]:
        return self.recorder.select_stream(stream)  # type: ignore[no-any-return]

    def decode(self, recorded: Recorded) -> Event:
        return self.codec.decode(encoded_from(recorded))

    def claimed(self, scope: str, value: str) -> UUID | None:
        return self.recorder.select_claim(scope, claim_digest(self._root, scope, value))  # type: ignore[no-any-return]

    def secret(self, kind: str, owner: UUID) -> bytes | None:
        return self.recorder.select_secrets(kind, [owner]).get(owner)  # type: ignore[no-any-return]


def _appended(outcome: Outcome) -> Appended:
    match outcome.outcome:
        case "appended" | "replayed":
            return Appended(position=outcome.position or 0, subject=outcome.subject, replayed=outcome.outcome == "replayed")
        case "reused":
            raise _key_reused()
        case "missing":
            raise NotFound("Not found")
        case "closed":
            raise Closed("This was deleted or has ended already")
        case "taken":
            raise Taken(f"This {outcome.detail} is already used", scope=outcome.detail)
        case other:
            raise AssertionError(other)


def _away() -> Unavailable:
    return Unavailable("The database is away; try again", retry_after=2)


def _key_reused() -> KeyReused:
    return KeyReused("This Idempotency-Key was used before, for another request; use a new one")
