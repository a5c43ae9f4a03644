"""Writes a whole log with COPY, with the same hash chain, streams and tables as es.append would leave.

COPY's binary format puts each column after its length, as the hash chain does. So the bytes that are sent are the bytes that are hashed.
"""

import random
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from application.history.hash_chain import EPOCH, MICROSECOND, START
from benchmarks.long_log_events import MadeCommand, MadeEvent, Years
from infrastructure.security.keys import Keys

EVENTS_A_DAY: Final = 346_000
COMMANDS_KEPT: Final = timedelta(days=30)
PIECE: Final = 20_000  # events per COPY and transaction
BINARY_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
BINARY_END: Final = b"\xff\xff"
POSTGRES_EPOCH: Final = (datetime(2000, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND
TEN_COLUMNS: Final = b"\0\x0a"
_NUMBER, _LONG, _LENGTH = struct.Struct(">ii"), struct.Struct(">iq"), struct.Struct(">i")

EVENTS: Final = """copy es.events (notification_id, originator_id, originator_version, topic, schema_version, state, meta, event_id,
  recorded_at, hash) from stdin (format binary)"""
COMMANDS: Final = "copy es.commands (id, subject, position, recorded_at) from stdin (format binary)"
SECRETS: Final = "copy es.secrets (kind, owner, value) from stdin (format binary)"
CLAIMS: Final = "copy es.claims (scope, digest, stream) from stdin (format binary)"
HEAD: Final = "update es.head set position = %s, hash = %s"


class Clock:
    """Advances by the same step with each command, so that the last of `events` events happens now."""

    def __init__(self, events: int) -> None:
        self._step = timedelta(days=1) / EVENTS_A_DAY
        self.now = datetime.now(UTC) - events * self._step

    def __call__(self) -> datetime:
        self.now += self._step
        return self.now


def make_log(
    owner_url: str, keys: Keys, events: int, pictures: Sequence[str], *, progress: Callable[[int], None] = lambda _: None
) -> float:
    """Fill an empty, migrated database with at least `events` events. Returns the seconds. The owner must be a superuser."""
    began = time.monotonic()
    with psycopg.connect(owner_url, options="-c session_replication_role=replica -c synchronous_commit=off") as connection:
        _call_if_there(connection, "es.prepare_partitions", events + PIECE)
        clock = Clock(events)
        writer = Writer(connection, clock, datetime.now(UTC) - COMMANDS_KEPT)
        for command in Years(keys, clock, pictures).commands():
            writer.add(command)
            if writer.position >= events:
                break
            if len(writer.events) >= PIECE:
                writer.flush()
                progress(writer.position)
        writer.flush()
        writer.finish()
        _call_if_there(connection, "es.fill_streams")
        _call_if_there(connection, "ops.fill_open_chunks")
        connection.commit()
    return time.monotonic() - began


def _call_if_there(connection: psycopg.Connection, procedure: str, *arguments: int) -> None:
    """Call a procedure that fills a table derived from the log, if this release has it."""
    (found,) = connection.execute("select to_regproc(%s)", (procedure,)).fetchone() or (None,)
    if found is not None:
        given = SQL(", ").join(map(Literal, arguments))
        connection.execute(SQL("call {}({})").format(Identifier(*procedure.split(".")), given))


class Writer:
    """Writes events in pieces. Commands since `keep_since` are stored too."""

    def __init__(self, connection: psycopg.Connection, clock: Clock, keep_since: datetime) -> None:
        self._connection, self._clock, self._keep_since = connection, clock, keep_since
        self.position, self._hash = 0, START
        self.events: list[bytes] = []
        self._commands: list[bytes] = []
        self._secrets: list[bytes] = []
        self._claims: list[bytes] = []
        self._ids = _Ids()
        self._thread = ThreadPoolExecutor(1)
        self._under_way: Future[None] | None = None

    def add(self, command: MadeCommand) -> None:
        command_id, now = next(self._ids), self._clock.now
        micros = (now - EPOCH) // MICROSECOND
        meta = b'{"command_id":"%b"}' % str(command_id).encode()  # without an actor, to save the disk
        for event in command.events:
            self._add_event(event, meta, micros)
        if now >= self._keep_since:
            answer = _LONG.pack(8, self.position) + _LONG.pack(8, micros - POSTGRES_EPOCH)
            self._commands.append(_row(command_id.bytes, command.events[0].stream.bytes, then=2) + answer)
        self._claims += [_row(scope.encode(), digest, command.events[0].stream.bytes) for scope, digest in command.claims]

    def _add_event(self, event: MadeEvent, meta: bytes, micros: int) -> None:
        self.position += 1
        kind = event.type.encode()
        framed = b"".join(
            (
                _LONG.pack(8, self.position),
                b"\0\0\0\x10",
                event.stream.bytes,
                _NUMBER.pack(4, event.version),
                _LENGTH.pack(len(kind)),
                kind,
                _NUMBER.pack(4, event.schema_version),
                _LENGTH.pack(len(event.data)),
                event.data,
                _LENGTH.pack(len(meta)),
                meta,
                b"\0\0\0\x10",
                event.event_id.bytes,
            )
        )
        self._hash = sha256(self._hash + framed + _LONG.pack(8, micros)).digest()
        self.events.append(b"".join((TEN_COLUMNS, framed, _LONG.pack(8, micros - POSTGRES_EPOCH), b"\0\0\0\x20", self._hash)))
        if event.wrapped:
            self._secrets.append(_row(b"key", event.stream.bytes, event.wrapped))

    def flush(self) -> None:
        """Write the new rows in the background, while more are generated."""
        self.finish()
        pieces = [(query, b"".join((BINARY_HEADER, *rows, BINARY_END))) for query, rows in self._rows() if rows]
        for _, rows in self._rows():
            rows.clear()
        self._under_way = self._thread.submit(self._write, pieces, self.position, self._hash)

    def finish(self) -> None:
        if self._under_way is not None:
            self._under_way.result()

    def _rows(self) -> tuple[tuple[str, list[bytes]], ...]:
        return (EVENTS, self.events), (COMMANDS, self._commands), (SECRETS, self._secrets), (CLAIMS, self._claims)

    def _write(self, pieces: Sequence[tuple[str, bytes]], position: int, digest: bytes) -> None:
        for query, piece in pieces:
            with self._connection.cursor().copy(query) as copy:
                copy.write(piece)
        self._connection.execute(HEAD, (position, digest))
        self._connection.commit()


class _Ids(Iterator[UUID]):
    """Ascending ids, so that the used part of their index stays small."""

    def __init__(self) -> None:
        self._last = time.time_ns() // 1_000_000

    def __next__(self) -> UUID:
        self._last += 1
        return UUID(int=self._last << 80 | random.getrandbits(80), version=4)


def _row(*columns: bytes, then: int = 0) -> bytes:
    """A row of columns whose binary form is their bytes; `then` further columns follow."""
    return struct.pack(">h", len(columns) + then) + b"".join(_LENGTH.pack(len(column)) + column for column in columns)
