"""The event log: the library's application over our mapper and a recorder, behind the port that use cases know."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.persistence import ApplicationRecorder, IntegrityError, JSONTranscoder, Mapper, StoredEvent, Transcoder

from application.change_limits import ChangeLimit
from application.ports import AppendResult, Command, Evolve, RecordedEvent, ReleasedClaim, S, Secret, StreamPrecondition, UniqueClaim
from domain.errors import ConcurrencyConflict, Invalid, KeyReused, NotFound, Refused, StreamClosed, Taken, UpgradeNeeded, UpgradeUnderWay
from domain.events import Event
from domain.registry import is_known
from domain.values import printable
from infrastructure.configuration.settings import Settings
from infrastructure.eventstore.codec import Codec, KeyDestroyed, subject_of
from infrastructure.eventstore.group_commit import Append, Outcome
from infrastructure.eventstore.recorder import PostgresRecorder, StoredEventRow, StreamEnd, encoded_from
from infrastructure.eventstore.state_cache import CachedState, StateCache
from infrastructure.security.keyed_digest import ClaimDigests
from infrastructure.security.keys import DataKeys, Keys
from infrastructure.security.process_keys import operator_keys


class _Discarded(msgspec.Struct):
    """What of a DeadLetterDiscarded can be read without a key."""

    position: int


class EventMapper(Mapper[UUID]):
    """Short type names, JSON by msgspec, private fields sealed."""

    def __init__(self, codec: Codec) -> None:
        super().__init__(JSONTranscoder())
        self.codec = codec

    def to_stored_event(self, domain_event: Any) -> StoredEventRow:
        encoded = self.codec.encode(domain_event)
        return StoredEventRow(encoded.stream, encoded.version, encoded.type, encoded.data, encoded)

    def to_domain_event(self, stored_event: StoredEvent) -> Any:
        assert isinstance(stored_event, StoredEventRow)
        return self.codec.decode(stored_event.encoded)


class EventStoreApplication(Application[UUID]):
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


class RecorderEventStore:
    """The port `application.ports.EventStore` over the library's application and a recorder.

    `pausing` gets each UpgradeNeeded before it is raised.
    """

    def __init__(
        self, recorder: Any, keys: Keys, *, changes: ChangeLimit | None = None, pausing: Callable[[UpgradeNeeded], object] = lambda _: None
    ) -> None:
        self.recorder, self._digests, self._changes, self.pausing = recorder, ClaimDigests(keys), changes, pausing
        self._written: set[tuple[str, int]] = set()
        self._states = StateCache()
        data_keys = DataKeys(keys, lambda owners: recorder.select_secrets("key", owners))
        self.codec = Codec(data_keys, lambda stream: map(encoded_from, recorder.select_stream(stream)))
        self._laboratory = EventStoreApplication(EventMapper(self.codec), recorder)

    def close(self) -> None:
        self.recorder.close()

    def load(self, stream: UUID, evolve: Evolve[S], *, version: int | None = None, until: int | None = None) -> S | None:
        try:
            if until is not None:
                return self._up_to(until, stream, evolve)
            return self._newest(stream, evolve) if version is None else self._at_version(version, stream, evolve)
        except UpgradeNeeded as needed:
            self.pausing(needed)
            raise

    def _at_version(self, version: int, stream: UUID, evolve: Evolve[S]) -> S | None:
        def project(state: S | None, events: Iterable[Any]) -> S | None:
            for event in events:
                state = evolve(state, event)
            return state

        try:
            return self._laboratory.repository.get(stream, version=version, projector_func=project)
        except AggregateNotFoundError:
            return None

    def _up_to(self, position: int, stream: UUID, evolve: Evolve[S]) -> S | None:
        state: S | None = None
        events = self.histories([stream], until=position)
        self.prefetch(events)
        for recorded in events:
            state = evolve(state, self.decode(recorded))
        return state

    def _newest(self, stream: UUID, evolve: Evolve[S]) -> S | None:
        """From the state that was folded last, if it is still one of this log and no key has gone since then."""
        known = self._states.get((stream, evolve))
        if known is not None:
            events = self.recorder.select_events(stream, gt=known.version - 1)
            if events and events[0].encoded.event_id == known.event_id and self.codec.readable(known.owners) == known.readable:
                return self._folded(stream, evolve, events[1:], known)
            self._states.drop((stream, evolve))
        return self._folded(stream, evolve, self.recorder.select_events(stream), None)

    def _folded(self, stream: UUID, evolve: Evolve[S], events: Sequence[StoredEventRow], known: CachedState | None) -> S | None:
        state: S | None = known.state if known else None
        if not events:
            return state
        owners = known.owners if known else frozenset()
        owners |= {owner for one in events if (owner := subject_of(one.encoded)) is not None}
        readable = self.codec.readable(owners)
        for one in events:
            state = evolve(state, self.codec.decode(one.encoded))
        newest = events[-1].encoded
        if state is not None and readable == self.codec.readable(owners):  # else a key came or went meanwhile
            self._states.keep((stream, evolve), CachedState(state, newest.version, newest.event_id, owners, readable))
        return state

    def append(
        self,
        command: Command,
        *events: Event,
        subject: UUID | None = None,
        guards: Sequence[StreamPrecondition] = (),
        claims: Sequence[UniqueClaim] = (),
        releases: Sequence[ReleasedClaim] = (),
        secrets: Sequence[Secret] = (),
    ) -> AppendResult:
        self._refuse_what_not_all_understand(events)
        self._refuse_claims_in_earlier_forms(claims)
        append = Append(command=command, subject=subject, guards=guards, claims=claims, releases=releases, secrets=secrets)
        outcomes: list[Outcome] = []
        try:
            with self._changes.counted(command, events) if self._changes else nullcontext():
                self._laboratory.events.put(events, append=append, outcome=outcomes.append)
                return _appended(outcomes[0])
        except (IntegrityError, KeyDestroyed):
            raise ConcurrencyConflict("Somebody else changed this in the meantime; load it again") from None

    def _refuse_what_not_all_understand(self, events: Sequence[Event]) -> None:
        """Of a type and version that this process wrote before, nothing is asked: once written, it is written for ever.

        Raises UpgradeUnderWay, Unavailable.
        """
        for type_name, schema_version in {(type(event).__name__, event.schema_version) for event in events} - self._written:
            lacking = self.recorder.begin_to_write(type_name, schema_version)
            if lacking is not None:
                raise UpgradeUnderWay(printable(lacking), type_name, schema_version)
            self._written.add((type_name, schema_version))

    def _refuse_claims_in_earlier_forms(self, claims: Sequence[UniqueClaim]) -> None:
        """`es.append` compares the form that is written now. Nobody writes an earlier one any more, so it can be looked up before.

        Raises Taken.
        """
        for claim in claims:
            _, *earlier = self._digests.forms(claim.scope, claim.value)
            if self.recorder.select_claim(claim.scope, earlier) not in {None, claim.stream}:
                raise _taken(claim.scope)

    def outcome(self, command: Command) -> AppendResult | None:
        known = self.recorder.select_command(command.id)
        if known is None:
            return None
        digest, position, subject = known
        if digest not in {command.digest, *command.earlier_digests}:
            raise _key_reused()
        return AppendResult(position=position, subject=subject, replayed=True)

    def head(self) -> int:
        return self.recorder.max_notification_id() or 0

    def position_at(self, moment: datetime) -> int:
        position, now = self.recorder.select_position_at(moment)
        if moment > now:
            raise Invalid(f"This time is still to come: the log is at {now:%Y-%m-%dT%H:%M:%SZ}")
        return position  # type: ignore[no-any-return]

    def read(self, after: int, limit: int, *, most_bytes: int | None = None) -> Sequence[RecordedEvent]:
        if most_bytes is not None:
            return self.recorder.select_bounded(after, limit, most_bytes)  # type: ignore[no-any-return]
        return self.recorder.select_recorded(after, limit)  # type: ignore[no-any-return]

    def history(self, stream: UUID) -> Sequence[RecordedEvent]:
        return self.recorder.select_stream(stream)  # type: ignore[no-any-return]

    def histories(self, streams: Collection[UUID], *kinds: type[Event], until: int | None = None) -> Sequence[RecordedEvent]:
        return self.recorder.select_streams(streams, [kind.__name__ for kind in kinds], until)  # type: ignore[no-any-return]

    def at(self, positions: Collection[int]) -> Sequence[RecordedEvent]:
        return self.recorder.select_at(positions)  # type: ignore[no-any-return]

    def touching(self, stream: UUID, at: Collection[int], *, after: int, maximum: int | None) -> Sequence[RecordedEvent]:
        return self.recorder.select_touching(stream, at, after, maximum)  # type: ignore[no-any-return]

    def event(self, stream: UUID, version: int) -> RecordedEvent | None:
        return self.recorder.select_event(stream, version)  # type: ignore[no-any-return]

    def is_open(self, stream: UUID, *, begun_by: type[Event], closed_by: Sequence[type[Event]]) -> bool:
        ends = self.recorder.select_ends(stream)
        if ends is None:
            return False
        first, newest = ends
        self._require_known(first)
        self._require_known(newest)  # a newer release may have closed it by an event that this one does not know
        return first.type == begun_by.__name__ and newest.type not in {kind.__name__ for kind in closed_by}

    def having(self, streams: Collection[UUID], *kinds: type[Event]) -> set[UUID]:
        return self.recorder.select_having(streams, [kind.__name__ for kind in kinds])  # type: ignore[no-any-return]

    def decode(self, recorded: RecordedEvent) -> Event:
        self._require_known(recorded)
        return self.codec.decode(encoded_from(recorded))

    def _require_known(self, one: RecordedEvent | StreamEnd) -> None:
        """Raises UpgradeNeeded."""
        if not is_known(one.type, one.schema_version):
            needed = UpgradeNeeded(f"position {one.position}", one.type, one.schema_version)
            self.pausing(needed)
            raise needed

    def prefetch(self, recorded: Sequence[RecordedEvent]) -> None:
        self.codec.prefetch(map(encoded_from, recorded))

    def claimed(self, scope: str, value: str) -> UUID | None:
        return self.recorder.select_claim(scope, self._digests.forms(scope, value))  # type: ignore[no-any-return]

    def claim_forms(self, scope: str, value: str) -> tuple[bytes, ...]:
        """The digests under which a claim may be stored. Raises MissingKey."""
        return self._digests.forms(scope, value)

    def administrators(self) -> Sequence[UUID]:
        return self.recorder.select_administrators()  # type: ignore[no-any-return]

    def discarded(self) -> frozenset[int]:
        return frozenset(msgspec.json.decode(data, type=_Discarded).position for data in self.recorder.select_discarded())

    def secret(self, kind: str, owner: UUID) -> bytes | None:
        return self.recorder.select_secrets(kind, [owner]).get(owner)  # type: ignore[no-any-return]


def postgres_event_store(given: Settings, keys: Keys, *, changes: ChangeLimit | None = None) -> RecorderEventStore:
    return RecorderEventStore(PostgresRecorder(given.postgres_url, keys), keys, changes=changes)


@contextmanager
def open_event_store(given: Settings, keys: Keys | None = None) -> Iterator[RecorderEventStore]:
    """The log on Postgres, while the block runs, with all keys that are here unless `keys` are given. Raises WrongRootKey."""
    log = postgres_event_store(given, operator_keys(given) if keys is None else keys)
    try:
        yield log
    finally:
        log.close()


def _appended(outcome: Outcome) -> AppendResult:
    match outcome.outcome:
        case "appended" | "replayed":
            return AppendResult(position=outcome.position or 0, subject=outcome.subject, replayed=outcome.outcome == "replayed")
        case "reused":
            raise _key_reused()
        case "missing":
            raise NotFound("Not found")
        case "closed":
            raise StreamClosed("This was deleted or has ended already")
        case "taken":
            raise _taken(outcome.detail or "name")
        case "refused":
            raise Refused(f"The record does not take this: {outcome.detail}")
        case other:
            raise AssertionError(other)


def _taken(scope: str) -> Taken:
    return Taken(f"This {scope} is already used", scope=scope)


def _key_reused() -> KeyReused:
    return KeyReused("This Idempotency-Key was used before, for another request; use a new one")
