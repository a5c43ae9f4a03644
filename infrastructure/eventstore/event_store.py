"""The event store: implements the port of the use cases over a recorder."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from application.limits.change_limits import ChangeLimit
from application.ports import AppendResult, Command, Evolve, RecordedEvent, ReleasedClaim, S, Secret, StreamPrecondition, UniqueClaim
from domain.errors import ConcurrencyConflict, Invalid, KeyReused, NotFound, Refused, StreamClosed, Taken, UpgradeNeeded, UpgradeUnderWay
from domain.events import Event
from domain.registry import is_known
from domain.values import printable
from infrastructure.configuration.settings import Settings
from infrastructure.eventstore.codec import Codec, KeyDestroyed, subject_of
from infrastructure.eventstore.group_commit import Append, Outcome
from infrastructure.eventstore.library import EventsourcingLibrary
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.eventstore.recorder_port import Recorder, StreamEnd
from infrastructure.eventstore.state_cache import CachedState, StateCache
from infrastructure.security.keyed_digest import ClaimDigests
from infrastructure.security.keys import DataKeys, Keys
from infrastructure.security.process_keys import operator_keys


class _Discarded(msgspec.Struct):
    """The part of a DeadLetterDiscarded that is readable without a key."""

    position: int


_DISCARDED: Final = msgspec.json.Decoder(_Discarded)


class RecorderEventStore:
    """Implements `application.ports.EventStore` over a recorder. `pausing` is called with each UpgradeNeeded before it is raised."""

    def __init__(
        self,
        recorder: Recorder,
        keys: Keys,
        *,
        changes: ChangeLimit | None = None,
        pausing: Callable[[UpgradeNeeded], object] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.recorder, self._digests, self._changes, self.pausing = recorder, ClaimDigests(keys), changes, pausing
        self._written: set[tuple[str, int]] = set()
        self._states = StateCache()
        data_keys = DataKeys(keys, lambda owners: recorder.select_secrets("key", owners), clock=clock)
        self.codec = Codec(data_keys, recorder.select_stream)
        self._library = EventsourcingLibrary(self.codec, recorder)

    def close(self) -> None:
        self.recorder.close()

    def load(self, stream: UUID, evolve: Evolve[S], *, version: int | None = None, until: int | None = None) -> S | None:
        try:
            if until is not None:
                return self._up_to(until, stream, evolve)
            return self._newest(stream, evolve) if version is None else self._library.load(stream, evolve, version)
        except UpgradeNeeded as needed:
            self.pausing(needed)
            raise

    def _up_to(self, position: int, stream: UUID, evolve: Evolve[S]) -> S | None:
        state: S | None = None
        events = self.histories([stream], until=position)
        self.prefetch(events)
        for recorded in events:
            state = evolve(state, self.decode(recorded))
        return state

    def _newest(self, stream: UUID, evolve: Evolve[S]) -> S | None:
        """The current state, folded from the cached one if that is still valid: in the same log, and with the same keys available."""
        known = self._states.get((stream, evolve))
        if known is not None:
            events = self.recorder.select_stream(stream, after=known.version - 1)
            if events and events[0].event_id == known.event_id and self.codec.readable(known.owners) == known.readable:
                return self._folded(stream, evolve, events[1:], known)
            self._states.drop((stream, evolve))
        return self._folded(stream, evolve, self.recorder.select_stream(stream), None)

    def _folded(self, stream: UUID, evolve: Evolve[S], events: Sequence[RecordedEvent], known: CachedState | None) -> S | None:
        state: S | None = known.state if known else None
        if not events:
            return state
        owners = known.owners if known else frozenset()
        owners |= {owner for one in events if (owner := subject_of(one)) is not None}
        readable = self.codec.readable(owners)
        for one in events:
            state = evolve(state, self.codec.decode(one))
        newest = events[-1]
        if state is not None and readable == self.codec.readable(owners):  # else keys changed in the meantime
            self._states.put((stream, evolve), CachedState(state, newest.version, newest.event_id, owners, readable))
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
        self._refuse_what_not_all_understand({(type(event).__name__, event.written_version) for event in events})
        self._refuse_claims_in_earlier_forms(claims, releases)
        append = Append(command=command, subject=subject, guards=guards, claims=claims, releases=releases, secrets=secrets)
        try:
            with self._changes.counted(command, events) if self._changes else nullcontext():
                return _appended(self._library.append(events, append))
        except KeyDestroyed:
            raise _conflict() from None

    def require_writable(self, *kinds: type[Event]) -> None:
        self._refuse_what_not_all_understand({(kind.__name__, kind.schema_version) for kind in kinds})

    def _refuse_what_not_all_understand(self, written: Collection[tuple[str, int]]) -> None:
        """Check that every running process understands the types. A type that was appended before is not checked again.

        Raises UpgradeUnderWay, Unavailable.
        """
        for type_name, schema_version in set(written) - self._written:
            lacking = self.recorder.begin_to_write(type_name, schema_version)
            if lacking is not None:
                raise UpgradeUnderWay(printable(lacking), type_name, schema_version)
            self._written.add((type_name, schema_version))

    def _refuse_claims_in_earlier_forms(self, claims: Sequence[UniqueClaim], releases: Sequence[ReleasedClaim]) -> None:
        """Check claims that were stored with earlier digests, before the append; `es.append` checks the current digest.

        No process writes earlier digests any more, so there is no race. Raises Taken.
        """
        released = {release.stream for release in releases}
        for claim in claims:
            current = self._digests.of(claim.scope, claim.value)
            earlier = [form for form in self._digests.forms(claim.scope, claim.value) if form != current]
            if self.recorder.select_claim(claim.scope, earlier) not in {None, claim.stream, *released}:
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
            raise Invalid(f"This time is in the future: the log's clock is at {now:%Y-%m-%dT%H:%M:%SZ}")
        return position

    def read(self, after: int, limit: int, *, most_bytes: int | None = None) -> Sequence[RecordedEvent]:
        if most_bytes is not None:
            return self.recorder.select_bounded(after, limit, most_bytes)
        return self.recorder.select_recorded(after, limit)

    def history(self, stream: UUID) -> Sequence[RecordedEvent]:
        return self.recorder.select_stream(stream)

    def histories(self, streams: Collection[UUID], *kinds: type[Event], until: int | None = None) -> Sequence[RecordedEvent]:
        return self.recorder.select_streams(streams, [kind.__name__ for kind in kinds], until)

    def at(self, positions: Collection[int]) -> Sequence[RecordedEvent]:
        return self.recorder.select_at(positions)

    def touching(self, stream: UUID, at: Collection[int], *, after: int, maximum: int | None) -> Sequence[RecordedEvent]:
        return self.recorder.select_touching(stream, at, after, maximum)

    def event(self, stream: UUID, version: int) -> RecordedEvent | None:
        return self.recorder.select_event(stream, version)

    def is_open(self, stream: UUID, *, begun_by: type[Event], closed_by: Sequence[type[Event]]) -> bool:
        ends = self.recorder.select_ends(stream)
        if ends is None:
            return False
        first, newest = ends
        self._require_known(first)
        self._require_known(newest)  # a newer release may have closed it with an event of an unknown type
        return first.type == begun_by.__name__ and newest.type not in {kind.__name__ for kind in closed_by}

    def having(self, streams: Collection[UUID], *kinds: type[Event]) -> set[UUID]:
        return self.recorder.select_having(streams, [kind.__name__ for kind in kinds])

    def decode(self, recorded: RecordedEvent) -> Event:
        self._require_known(recorded)
        return self.codec.decode(recorded)

    def _require_known(self, one: RecordedEvent | StreamEnd) -> None:
        """Raises UpgradeNeeded."""
        if not is_known(one.type, one.schema_version):
            needed = UpgradeNeeded(f"position {one.position}", one.type, one.schema_version)
            self.pausing(needed)
            raise needed

    def prefetch(self, recorded: Sequence[RecordedEvent]) -> None:
        self.codec.prefetch(recorded)

    def claimed(self, scope: str, value: str) -> UUID | None:
        return self.recorder.select_claim(scope, self._digests.forms(scope, value))

    def claim_forms(self, scope: str, value: str) -> tuple[bytes, ...]:
        """All digests under which a claim may be stored. Raises MissingKey."""
        return self._digests.forms(scope, value)

    def administrators(self) -> Sequence[UUID]:
        return self.recorder.select_administrators()

    def discarded(self) -> frozenset[int]:
        return frozenset(_DISCARDED.decode(data).position for data in self.recorder.select_discarded())

    def secret(self, kind: str, owner: UUID) -> bytes | None:
        return self.recorder.select_secrets(kind, [owner]).get(owner)


class PostgresEventStore(RecorderEventStore):
    """The event store on Postgres. `recorder` also gives access to other tables."""

    recorder: PostgresRecorder


def postgres_event_store(settings: Settings, keys: Keys, *, changes: ChangeLimit | None = None) -> PostgresEventStore:
    return PostgresEventStore(PostgresRecorder(settings.postgres_url, keys), keys, changes=changes)


@contextmanager
def open_event_store(settings: Settings, keys: Keys | None = None) -> Iterator[PostgresEventStore]:
    """The event store on Postgres, with the operator's keys unless `keys` are given; closed after the block. Raises WrongRootKey."""
    log = postgres_event_store(settings, operator_keys(settings) if keys is None else keys)
    try:
        yield log
    finally:
        log.close()


def _appended(outcome: Outcome) -> AppendResult:
    match outcome.outcome:
        case "appended" | "replayed":
            return AppendResult(position=outcome.position or 0, subject=outcome.subject, replayed=outcome.outcome == "replayed")
        case "conflict":
            raise _conflict()
        case "reused":
            raise _key_reused()
        case "missing":
            raise NotFound("Not found")
        case "closed":
            raise StreamClosed("This was deleted or has ended already")
        case "taken":
            raise _taken(outcome.detail or "name")
        case "refused":
            raise Refused(f"The event store refused this: {outcome.detail}")
        case other:
            raise AssertionError(other)


def _conflict() -> ConcurrencyConflict:
    return ConcurrencyConflict("Somebody else changed this in the meantime; load it again")


def _taken(scope: str) -> Taken:
    return Taken(f"This {scope} is already used", scope=scope)


def _key_reused() -> KeyReused:
    return KeyReused("This Idempotency-Key was used for another request; use a new one")
