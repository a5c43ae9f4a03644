"""The recorder on Postgres: it reads with a connection pool and writes with group commit, in one round trip per batch."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from threading import Lock
from typing import Any
from uuid import UUID

import psycopg
from psycopg_pool import PoolTimeout

from application.ports import RecordedEvent
from domain.errors import Unavailable
from infrastructure.eventstore.codec import EncodedEvent
from infrastructure.eventstore.group_commit import (
    COMMIT_TIMEOUT_SECONDS,
    Append,
    GroupCommit,
    Outcome,
)
from infrastructure.eventstore.recorder_port import StreamEnd
from infrastructure.postgres.arrays import register
from infrastructure.postgres.connections import LivenessLimits, ServerUnresponsive
from infrastructure.postgres.errors import database_unavailable
from infrastructure.postgres.profiles import COMMANDS, LIVENESS
from infrastructure.security.keys import Keys

READ_CONNECTIONS = 8
LONG_QUERY_SECONDS = 600
MAX_VERSION = 2**31 - 1
EVENT_COLUMNS = "notification_id, originator_id, originator_version, topic, schema_version, event_id, state, meta, recorded_at, hash"

BETWEEN = f"select {EVENT_COLUMNS} from es.events where notification_id > %s and notification_id <= %s order by notification_id"  # noqa: S608
LATER = f"select {EVENT_COLUMNS} from es.events where notification_id > %s order by notification_id limit %s"  # noqa: S608 - constants

# A bisection over the primary key, which needs no index: positions have no gaps, and `recorded_at` is set under the append lock.
POSITION_AT = """with recursive bounds (low, high) as (
    select 0::bigint, position from es.head
    union all
    select case when e.recorded_at <= %(moment)s then e.notification_id else b.low end,
      case when e.recorded_at <= %(moment)s then b.high else e.notification_id - 1 end
    from bounds b cross join lateral es.event_at((b.low + b.high + 1) / 2) e
    where b.low < b.high
  )
  select low, clock_timestamp() from bounds where low = high"""
BOUNDED = f"""select {EVENT_COLUMNS} from (
    select *, sum(octet_length(state)) over (order by notification_id) as size from (
      select {EVENT_COLUMNS} from es.events where notification_id > %(after)s order by notification_id limit %(limit)s
    ) next
  ) sized where size <= %(bytes)s or notification_id = %(after)s + 1 order by notification_id"""  # noqa: S608 - constants
OF_STREAMS = f"""select {EVENT_COLUMNS} from es.events
  where originator_id = any(%(streams)s)
    and notification_id between (select min(first) from es.streams where stream = any(%(streams)s))
      and (select max(newest) from es.streams where stream = any(%(streams)s))
    and (%(types)s::text[] is null or topic = any(%(types)s::text[]))
    and (%(until)s::bigint is null or notification_id <= %(until)s::bigint)
  order by notification_id"""  # noqa: S608 - constants
OF_STREAM = f"""select {EVENT_COLUMNS} from es.stream_events(%s, %s)
  where originator_version <= %s order by originator_version"""  # noqa: S608 - constants
# The order of versions equals that of positions. Ordering by version makes the planner use the index of streams.
TOUCHING = f"""select {EVENT_COLUMNS} from (
    (select {EVENT_COLUMNS} from es.events where originator_id = %(stream)s and notification_id > %(after)s
        and notification_id between (select first from es.streams where stream = %(stream)s)
          and (select newest from es.streams where stream = %(stream)s)
      order by originator_version limit %(maximum)s)
    union
    select {EVENT_COLUMNS} from es.events where notification_id = any(%(at)s) and notification_id > %(after)s
  ) found order by notification_id limit %(maximum)s"""  # noqa: S608 - constants

# The condition is that of the index in migration 0020.
DISCARDED = "select state from es.events where topic = 'DeadLetterDiscarded' order by notification_id"

# The condition is that of the index in migration 0008.
ADMINISTRATORS = """select originator_id from es.events
  where topic in ('UserRegistered', 'UserRoleChanged') and position('"role":"admin"'::bytea in state) > 0
  group by originator_id order by min(notification_id)"""


class PostgresRecorder:
    """Implements `Recorder`: reads with a pool, writes with group commit."""

    def __init__(self, url: str, keys: Keys, *, liveness: LivenessLimits = LIVENESS) -> None:
        self.pool = COMMANDS.pool(url, min_size=1, max_size=READ_CONNECTIONS, liveness=liveness, configure=register)
        self._liveness = liveness
        self._keys = keys
        self._url = url
        self._writer: GroupCommit | None = None
        self._writer_lock = Lock()
        self.pool.open()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self.pool.close()

    def insert(self, events: Sequence[EncodedEvent], append: Append) -> Outcome:
        try:
            return self._group_commit().submit(append, events).wait(COMMIT_TIMEOUT_SECONDS)
        except TimeoutError:
            raise Unavailable("The database does not answer; try again", retry_after=5) from None

    def _group_commit(self) -> GroupCommit:
        """The group commit, started with the first command, so that a reading process has none."""
        with self._writer_lock:
            if self._writer is None:
                self._writer = GroupCommit(self._url, self._keys, liveness=self._liveness)
            return self._writer

    def named_rows(self, query: str, **arguments: object) -> list[tuple[Any, ...]]:
        """As `rows`, with named arguments."""
        return self.rows(query, named=arguments)

    def rows(self, query: str, *arguments: object, named: Mapping[str, object] | None = None) -> list[tuple[Any, ...]]:
        """Run a query. If an idle connection had died, the pool is checked and the query repeated. Raises Unavailable."""
        parameters = named or arguments
        try:
            return self._rows(query, parameters)
        except PoolTimeout:
            raise database_unavailable() from None
        except ServerUnresponsive:
            self.pool.drain()  # the other connections are unresponsive too, and checking each would take as long again
        except psycopg.OperationalError:
            self.pool.check()
        try:
            return self._rows(query, parameters)
        except psycopg.OperationalError:
            raise database_unavailable() from None

    def rows_of_long_query(self, query: str, *arguments: object) -> list[tuple[Any, ...]]:
        """As `rows`, without repetition, for queries that read a whole table. Raises Unavailable."""
        try:
            with self.pool.connection() as connection, connection.transaction():
                connection.execute(f"set local statement_timeout = '{LONG_QUERY_SECONDS}s'")
                return connection.execute(query, arguments, binary=True).fetchall()
        except (PoolTimeout, psycopg.OperationalError):
            raise database_unavailable() from None

    def _rows(self, query: str, arguments: Sequence[object] | Mapping[str, object]) -> list[tuple[Any, ...]]:
        with self.pool.connection() as connection:
            return connection.execute(query, arguments, prepare=True, binary=True).fetchall()

    def select_recorded(self, after: int, limit: int) -> list[RecordedEvent]:
        """The first events after position `after`. Positions have no gaps, so a range suffices; if rows are missing, the next ones."""
        rows = self.rows(BETWEEN, after, after + limit) or self.rows(LATER, after, limit)
        return [recorded_from(row) for row in rows]

    def select_stream(self, stream: UUID, *, after: int = 0, until: int | None = None) -> list[RecordedEvent]:
        return [recorded_from(row) for row in self.rows(OF_STREAM, stream, after, MAX_VERSION if until is None else until)]

    def select_position_at(self, moment: datetime) -> tuple[int, datetime]:
        """The last position at `moment`, and the current time of the same clock."""
        ((position, now),) = self.named_rows(POSITION_AT, moment=moment)
        return position, now

    def select_bounded(self, after: int, limit: int, max_bytes: int) -> list[RecordedEvent]:
        return [recorded_from(row) for row in self.named_rows(BOUNDED, after=after, limit=limit, bytes=max_bytes)]

    def select_streams(self, streams: Collection[UUID], types: Sequence[str], until: int | None) -> list[RecordedEvent]:
        if not streams:
            return []
        rows = self.named_rows(OF_STREAMS, streams=list(streams), types=list(types) or None, until=until)
        return [recorded_from(row) for row in rows]

    def select_at(self, positions: Collection[int]) -> list[RecordedEvent]:
        query = f"select {EVENT_COLUMNS} from es.events where notification_id = any(%s) order by notification_id"  # noqa: S608 - constants
        return [recorded_from(row) for row in self.rows(query, list(positions))]

    def select_touching(self, stream: UUID, at: Collection[int], after: int, maximum: int | None) -> list[RecordedEvent]:
        return [recorded_from(row) for row in self.named_rows(TOUCHING, stream=stream, at=list(at), after=after, maximum=maximum)]

    def select_event(self, stream: UUID, version: int) -> RecordedEvent | None:
        query = f"select {EVENT_COLUMNS} from es.stream_events(%s, %s) where originator_version = %s"  # noqa: S608
        found = self.rows(query, stream, version - 1, version)
        return recorded_from(found[0]) if found else None

    def select_ends(self, stream: UUID) -> tuple[StreamEnd, StreamEnd] | None:
        """The first and the newest event of a stream, or None."""
        query = """select s.first, first.topic, first.schema_version, s.newest, newest.topic, newest.schema_version
          from es.streams s, es.event_at(s.first) first, es.event_at(s.newest) newest where s.stream = %s"""
        return next(((StreamEnd(*row[:3]), StreamEnd(*row[3:])) for row in self.rows(query, stream)), None)

    def select_having(self, streams: Collection[UUID], types: Sequence[str]) -> set[UUID]:
        query = "select distinct s.stream from es.streams s, es.stream_events(s.stream, 0) e where s.stream = any(%s) and e.topic = any(%s)"
        return {stream for (stream,) in self.rows(query, list(streams), list(types))} if streams else set()

    def max_notification_id(self) -> int | None:
        return self.rows("select position from es.head")[0][0] or None

    def select_command(self, command: UUID) -> tuple[bytes | None, int, UUID | None] | None:
        rows = self.rows("select digest, position, subject from es.commands where id = %s", command)
        return rows[0] if rows else None

    def select_claim(self, scope: str, digests: Sequence[bytes]) -> UUID | None:
        """The stream that has claimed the first of `digests` that is claimed."""
        found = dict(self.rows("select digest, stream from es.claims where scope = %s and digest = any(%s)", scope, list(digests)))
        return next((found[digest] for digest in digests if digest in found), None)

    def begin_to_write(self, type_name: str, schema_version: int) -> str | None:
        """None if events of this type and version may be appended from now on; else a running process that does not understand them."""
        lacking: str | None = self.rows("select ops.begin_to_write(%s, %s)", type_name, schema_version)[0][0]
        return lacking

    def select_discarded(self) -> list[bytes]:
        """The data of each DeadLetterDiscarded event."""
        return [state for (state,) in self.rows(DISCARDED)]

    def select_administrators(self) -> list[UUID]:
        return [account for (account,) in self.rows(ADMINISTRATORS)]

    def select_secrets(self, kind: str, owners: Iterable[UUID]) -> Mapping[UUID, bytes]:
        return dict(self.rows("select owner, value from es.secrets where kind = %s and owner = any(%s)", kind, list(owners)))


def recorded_from(row: tuple[Any, ...]) -> RecordedEvent:
    position, stream, version, topic, schema_version, event_id, state, meta, recorded_at, digest = row
    return RecordedEvent(
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
