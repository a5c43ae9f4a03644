"""The audit of the tables beside the log: streams, commands, claims, password hashes, data keys."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from application.ports import RecordedEvent
from domain.device import DeviceRegistered
from domain.registry import ERASING, is_known
from domain.user import UserRegistered
from infrastructure.audit.reconciliation import discrepancies, named_subjects
from infrastructure.eventstore.codec import subject_of
from infrastructure.eventstore.event_store import PostgresEventStore
from infrastructure.postgres.arrays import uuids

RECONCILED: Final = frozenset({UserRegistered.__name__, DeviceRegistered.__name__})
STREAMS: Final = "select stream, first, newest, version from es.streams where stream = any(%s::uuid[])"
COUNTED_STREAMS: Final = "select count(*) from es.streams where newest <= %s or newest > (select position from es.head)"
UNKNOWN_STREAMS: Final = """select s.stream from es.streams s where not exists (
    select from es.event_at(s.first) e where e.originator_id = s.stream and e.originator_version = 1) or not exists (
    select from es.event_at(s.newest) e where e.originator_id = s.stream and e.originator_version = s.version) limit 1"""
COMMANDS: Final = "select id, position, subject from es.commands where id = any(%s::uuid[])"
MAY_BE_FORGOTTEN: Final = "select clock_timestamp() - interval '1 day'"  # the shorter of the times in migration 0019
KEYS: Final = "select owner from es.secrets where kind = 'key' and owner = any(%s::uuid[])"
COUNTED: Final = "select count(*) from es.commands where position <= %s"
UNKNOWN: Final = """select c.id from es.commands c where position <= %s and not exists (
    select from es.event_at(c.position) e where position(convert_to(c.id::text, 'UTF8') in e.meta) > 0) limit 1"""


class CausingCommand(msgspec.Struct):
    """The part of an event's metadata that identifies its command."""

    command_id: UUID


class WrittenEvents(msgspec.Struct):
    """The events of one command: position and time of the last one, and the streams of all."""

    position: int
    recorded_at: datetime | None
    streams: set[UUID]


class TableNotes(NamedTuple):
    """The results of the audit of a range, for the audit of the whole log.

    `edges`: the first and the last command of the range, whose events may continue in the neighbouring ranges. `commands`, `streams`:
    numbers of correct rows. `accounts`: accounts and devices. `keyless`: subjects without a data key. `unread`: streams with an event of
    a newer release, which may have destroyed the key. `found`: problems as texts.
    """

    position: int
    edges: tuple[tuple[UUID, WrittenEvents], ...]
    commands: int
    streams: int
    accounts: frozenset[UUID]
    keyless: frozenset[UUID]
    unread: frozenset[UUID]
    found: tuple[str, ...]


class StreamRow(NamedTuple):
    """The row of a stream: the positions of its first and newest events, and the newest version."""

    first: int
    newest: int
    version: int


_causing_command = msgspec.json.Decoder(CausingCommand)


class TableAudit:
    """Checks the events of a log in order. Its memory grows with the number of accounts and devices, not with the log.

    Needs the keys of claims and data keys. Calls raise Unavailable.
    """

    def __init__(self, log: PostgresEventStore, *, is_part: bool = False) -> None:
        self._log = log
        self._first: dict[UUID, WrittenEvents] | None = {} if is_part else None  # the first command, possibly begun earlier
        self._open: dict[UUID, WrittenEvents] = {}  # the command whose events may continue in the next batch
        self._commands = self._streams = 0  # correct rows
        self._position = 0
        self._subjects: set[UUID] = set()
        self._keyless: set[UUID] = set()
        self._unread: set[UUID] = set()  # streams with an event of a newer release, which may have destroyed the key
        self._found: list[str] = []

    def take(self, events: Sequence[RecordedEvent]) -> None:
        self._subjects |= {event.stream for event in events if event.type in RECONCILED}
        self._unread |= {event.stream for event in events if not is_known(event.type, event.schema_version)}
        self._take_keys(events)
        self._take_commands(events)
        self._take_streams(events)
        self._position = events[-1].position

    def notes(self) -> TableNotes:
        """The results of the audit of a range, for `add`."""
        edges = (*(self._first or {}).items(), *self._open.items())
        return TableNotes(
            position=self._position,
            edges=edges,
            commands=self._commands,
            streams=self._streams,
            accounts=frozenset(self._subjects),
            keyless=frozenset(self._keyless),
            unread=frozenset(self._unread),
            found=tuple(self._found),
        )

    def add(self, notes: TableNotes) -> None:
        """Add the results of the next range."""
        for command, written in notes.edges:
            if (known := self._open.get(command)) is None:
                self._compare(self._open)
                self._open = {command: written}
            else:
                known.position, known.streams = written.position, known.streams | written.streams
        self._position = notes.position
        self._commands += notes.commands
        self._streams += notes.streams
        self._subjects |= notes.accounts
        self._keyless |= notes.keyless
        self._unread |= notes.unread
        self._found += notes.found

    def finish(self) -> Iterator[str]:
        """All differences between the tables and the log, as texts."""
        self._compare(self._open)
        yield from self._found
        yield from self._unknown_commands()
        yield from self._unknown_streams()
        erased = self._log.having(self._keyless, *ERASING)
        keyless = self._keyless - self._subjects - erased - self._unread
        yield from (f"{subject}: its data key is missing, but it was not erased" for subject in sorted(keyless))
        yield from map(str, discrepancies(self._log, sorted(self._subjects | named_subjects(self._log))))

    def _take_keys(self, events: Iterable[RecordedEvent]) -> None:
        """Check data keys, except those of accounts and devices, which are reconciled at the end."""
        subjects = {subject for event in events if (subject := subject_of(event)) is not None} - self._subjects
        if subjects:
            stored = {owner for (owner,) in self._log.recorder.rows(KEYS, uuids(list(subjects)))}
            self._keyless |= subjects - stored

    def _take_commands(self, events: Iterable[RecordedEvent]) -> None:
        written, self._open = self._open, {}
        for event in events:
            try:
                command = _causing_command.decode(event.meta).command_id
            except msgspec.MsgspecError:
                self._found.append(f"event at position {event.position}: it names no command")
                continue
            known = written.setdefault(command, WrittenEvents(event.position, event.recorded_at, set()))
            known.position = event.position
            known.streams.add(event.stream)
        if written:
            last = next(reversed(written))
            self._open = {last: written.pop(last)}
        if self._first == {} and written:
            first = next(iter(written))
            self._first = {first: written.pop(first)}
        self._compare(written)

    def _compare(self, written: Mapping[UUID, WrittenEvents]) -> None:
        if not written:
            return
        stored = {command: (position, subject) for command, position, subject in self._log.recorder.rows(COMMANDS, uuids(list(written)))}
        ((forgettable,),) = self._log.recorder.rows(MAY_BE_FORGOTTEN)  # queried after them: commands pruned before are older
        self._commands += len(stored)
        needed = {
            command: it for command, it in written.items() if command in stored or it.recorded_at is None or it.recorded_at >= forgettable
        }
        self._found += [f"command {command}: {problem}" for command, it in needed.items() if (problem := _problem(it, stored.get(command)))]

    def _take_streams(self, events: Sequence[RecordedEvent]) -> None:
        """Check the rows of streams. A row may be newer than the events read so far; it counts when its last version is reached."""
        rows = self._log.recorder.rows(STREAMS, uuids(list({event.stream for event in events})))
        stored = {stream: StreamRow(*row) for stream, *row in rows}
        for event in events:
            known = stored.get(event.stream)
            if known is None or not _fits(event, known):
                self._found.append(f"stream {event.stream}: its row does not match the event at position {event.position}")
            else:
                self._streams += event.version == known.version

    def _unknown_streams(self) -> Iterator[str]:
        (counted,) = self._log.recorder.rows_of_long_query(COUNTED_STREAMS, self._position)[0]
        if counted > self._streams:
            yield from (
                f"stream {stream}: its row names a first or newest event that is not in the log"
                for (stream,) in self._log.recorder.rows_of_long_query(UNKNOWN_STREAMS)
            )

    def _unknown_commands(self) -> Iterator[str]:
        (counted,) = self._log.recorder.rows_of_long_query(COUNTED, self._position)[0]
        if counted > self._commands:
            yield from (
                f"command {command}: the log has no event of it"
                for (command,) in self._log.recorder.rows_of_long_query(UNKNOWN, self._position)
            )


def _fits(event: RecordedEvent, stored: StreamRow) -> bool:
    is_first, is_newest = event.position == stored.first, event.position == stored.newest
    return (
        is_first == (event.version == 1)
        and is_newest == (event.version == stored.version)
        and event.version <= stored.version
        and stored.first <= event.position <= stored.newest
    )


def _problem(written: WrittenEvents, stored: tuple[int, UUID | None] | None) -> str | None:
    if stored is None:
        return "it is missing, so a repeated request would be executed again"
    position, subject = stored
    if position != written.position:
        return f"its outcome names position {position}, but its last event is at {written.position}"
    if subject is not None and subject not in written.streams:
        return f"its outcome names {subject}, which it did not change"
    return None
