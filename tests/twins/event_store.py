"""The in-memory twin of the Postgres recorder."""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import accumulate, chain
from threading import RLock
from typing import Any
from uuid import UUID

from application.history.hash_chain import START, chained
from application.ports import RecordedEvent, ReleasedClaim
from domain import classification, image, model, model_check
from domain.classification import ChunkJudged, ClassificationPlanned
from domain.events import Event
from domain.image import ImageAccepted, ImageRejected
from domain.model_check import ModelCheckFailed, ModelCheckPassed
from domain.registry import EVENTS
from infrastructure.eventstore.codec import EncodedEvent, Undecodable, without_opening
from infrastructure.eventstore.group_commit import Append, Outcome, meta_of
from infrastructure.eventstore.recorder_port import StreamEnd
from infrastructure.security.keyed_digest import ClaimDigests
from infrastructure.security.keys import Keys


class MemoryRecorder:
    """Behaves like PostgresRecorder, within one process. `clock` is that of the database."""

    def __init__(self, keys: Keys, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._database_lock = RLock()
        self._digests, self._clock = ClaimDigests(keys), clock
        self._log: list[RecordedEvent] = []
        self._commands: dict[UUID, tuple[bytes | None, int, UUID | None]] = {}
        self._claims: dict[tuple[str, bytes], UUID] = {}
        self._secrets: dict[tuple[str, UUID], bytes] = {}
        self._written = {(name, version) for name, kind in EVENTS.items() for version in range(1, kind.schema_version + 1)}
        self.capabilities: dict[str, Mapping[str, int]] = {}
        """Of each running process, by its name: the types of events that it understands, each up to a schema version."""

    def close(self) -> None:
        pass

    def insert(self, events: Sequence[EncodedEvent], append: Append) -> Outcome:
        with self._database_lock:
            refused = (
                self._replayed(append) or self._guarded(append) or self._outdated(events) or self._claimed(append) or self._ruled(events)
            )
            if refused is not None:
                return refused
            return self._keep(events, append)

    def _outdated(self, events: Sequence[EncodedEvent]) -> Outcome | None:
        newest = {event.stream: len(self._events_of(event.stream)) for event in events}
        for event in events:
            if event.version != newest[event.stream] + 1:
                return Outcome("conflict", None, None, None)
            newest[event.stream] = event.version
        return None

    def _ruled(self, events: Sequence[EncodedEvent]) -> Outcome | None:
        """The rules of migrations 0010 and 0024. No twin is a worker or an API that adds versions of others."""
        for place, event in enumerate(events):
            violation = None
            if event.type == ChunkJudged.__name__:
                violation = self._wrong_judgement(event)
            elif event.type in {ImageAccepted.__name__, ImageRejected.__name__}:
                earlier = [without_opening(one) for one in events[:place] if one.stream == event.stream]
                state = self._folded(event.stream, image.evolve, earlier)
                violation = image.violation_of(without_opening(event), state)  # type: ignore[arg-type]
            elif event.type in {ModelCheckPassed.__name__, ModelCheckFailed.__name__}:
                violation = self._wrong_answer(without_opening(event), events[:place])  # type: ignore[arg-type]
            if violation is not None:
                return Outcome("refused", None, None, violation)
        return None

    def _wrong_answer(self, answer: ModelCheckPassed | ModelCheckFailed, before: Sequence[EncodedEvent]) -> str | None:
        added = [without_opening(one) for one in before if one.stream == answer.model_id]
        named = self._folded(answer.model_id, model.evolve, added) if answer.model_id else None
        return model_check.violation_of(answer, self._folded(answer.originator_id, model_check.evolve), named.numbers if named else ())

    def _wrong_judgement(self, event: EncodedEvent) -> str | None:
        try:
            judged = without_opening(event)
        except Undecodable:
            return "the event cannot be read"
        assert isinstance(judged, ChunkJudged)
        job = self._folded(judged.job_id, classification.evolve)
        if job is not None and (job.phase.ended or job.deleted):
            return "the job has ended"
        parts = (without_opening(one) for one in self._events_of(judged.job_id))
        plans = (part for part in parts if isinstance(part, ClassificationPlanned))
        plan = next((one for one in plans if classification.planned_images(one, judged.number) is not None), None)
        labels = None
        if job is not None and job.external:
            labels = model.external_labels(self._folded(job.model_id, model.evolve), job.model_version, job.model_sha256)
        return classification.violation_of(judged, job=job, plan=plan, labels=labels)

    def _folded(self, stream: UUID, evolve: Any, more: Sequence[Event] = ()) -> Any:
        state = None
        for event in chain((without_opening(recorded) for recorded in self._events_of(stream)), more):
            state = evolve(state, event)
        return state

    def _replayed(self, append: Append) -> Outcome | None:
        known = self._commands.get(append.command.id)
        if known is None:
            return None
        digest, position, subject = known
        return Outcome("replayed" if digest == append.command.digest else "reused", position, subject, None)

    def _guarded(self, append: Append) -> Outcome | None:
        for guard in append.guards:
            stream = self._events_of(guard.stream)
            if not stream:
                return Outcome("missing", None, None, str(guard.stream))
            if guard.version is not None and stream[-1].version != guard.version:
                return Outcome("conflict", None, None, None)
            if {one.type for one in stream} & {kind.__name__ for kind in guard.closed_by}:
                return Outcome("closed", None, None, str(guard.stream))
        return None

    def _claimed(self, append: Append) -> Outcome | None:
        released = {place for release in append.releases for place in self._held(release)}
        for claim in append.claims:
            place = (claim.scope, self._digests.of(claim.scope, claim.value))
            if place not in released and self._claims.get(place, claim.stream) != claim.stream:
                return Outcome("taken", None, None, claim.scope)
        return None

    def _held(self, release: ReleasedClaim) -> list[tuple[str, bytes]]:
        forms = None if release.value is None else self._digests.forms(release.scope, release.value)
        return [place for place, held in self._claims.items() if held == release.stream and (forms is None or place[1] in forms)]

    def _keep(self, events: Sequence[EncodedEvent], append: Append) -> Outcome:
        now = self._clock()
        for event in events:
            recorded = RecordedEvent(
                position=len(self._log) + 1,
                stream=event.stream,
                version=event.version,
                type=event.type,
                schema_version=event.schema_version,
                event_id=event.event_id,
                data=event.data,
                meta=meta_of(append.command),
                recorded_at=now,
            )
            self._log.append(chained(self._log[-1].hash if self._log else START, recorded))
            self._secrets.update({("key", owner): wrapped for owner, wrapped in event.new_keys})
        for release in append.releases:
            for place in self._held(release):
                del self._claims[place]
        for claim in append.claims:
            self._claims[claim.scope, self._digests.of(claim.scope, claim.value)] = claim.stream
        for secret in append.secrets:
            if secret.value is None:
                self._secrets.pop((secret.kind, secret.owner), None)
            else:
                self._secrets[secret.kind, secret.owner] = secret.value
        self._commands[append.command.id] = (append.command.digest, len(self._log), append.subject)
        return Outcome("appended", len(self._log), append.subject, None)

    def select_recorded(self, after: int, limit: int) -> list[RecordedEvent]:
        with self._database_lock:
            return self._log[after : after + limit]

    def hash_at(self, position: int) -> bytes | None:
        """None where the log does not reach so far."""
        if position == 0:
            return START
        return next((event.hash for event in self.select_recorded(position - 1, 1)), None)

    def max_notification_id(self) -> int:
        return len(self._log)

    def select_stream(self, stream: UUID, *, after: int = 0, until: int | None = None) -> list[RecordedEvent]:
        return [one for one in self._events_of(stream) if after < one.version and (until is None or one.version <= until)]

    def _events_of(self, stream: UUID) -> list[RecordedEvent]:
        with self._database_lock:
            return [one for one in self._log if one.stream == stream]

    def select_position_at(self, moment: datetime) -> tuple[int, datetime]:
        with self._database_lock:
            return bisect_right(self._log, moment, key=_stamped), self._clock()

    def select_bounded(self, after: int, limit: int, max_bytes: int) -> list[RecordedEvent]:
        page = self.select_recorded(after, limit)
        sizes = accumulate(len(one.data) for one in page)
        return [one for one, size in zip(page, sizes, strict=True) if size <= max_bytes or one.position == after + 1]

    def select_streams(self, streams: Collection[UUID], types: Sequence[str], until: int | None) -> list[RecordedEvent]:
        with self._database_lock:
            events = self._log[:until]
        return [one for one in events if one.stream in set(streams) and (not types or one.type in types)]

    def select_at(self, positions: Collection[int]) -> list[RecordedEvent]:
        with self._database_lock:
            return [one for one in self._log if one.position in set(positions)]

    def select_touching(self, stream: UUID, at: Collection[int], after: int, maximum: int | None) -> list[RecordedEvent]:
        with self._database_lock:
            return [one for one in self._log[after:] if one.stream == stream or one.position in set(at)][:maximum]

    def select_event(self, stream: UUID, version: int) -> RecordedEvent | None:
        return next((one for one in self._events_of(stream) if one.version == version), None)

    def select_ends(self, stream: UUID) -> tuple[StreamEnd, StreamEnd] | None:
        ends = [StreamEnd(one.position, one.type, one.schema_version) for one in self._events_of(stream)]
        return (ends[0], ends[-1]) if ends else None

    def select_having(self, streams: Collection[UUID], types: Sequence[str]) -> set[UUID]:
        wanted, named = set(streams), set(types)
        with self._database_lock:
            return {one.stream for one in self._log if one.stream in wanted and one.type in named}

    def select_command(self, command: UUID) -> tuple[bytes | None, int, UUID | None] | None:
        return self._commands.get(command)

    def select_claim(self, scope: str, digests: Sequence[bytes]) -> UUID | None:
        return next((self._claims[scope, digest] for digest in digests if (scope, digest) in self._claims), None)

    def begin_to_write(self, type_name: str, schema_version: int) -> str | None:
        if (type_name, schema_version) in self._written:
            return None
        lacking = (process for process, known in self.capabilities.items() if known.get(type_name, 0) < schema_version)
        if (process := next(lacking, None)) is None:
            self._written.add((type_name, schema_version))
        return process

    def select_discarded(self) -> list[bytes]:
        with self._database_lock:
            return [one.data for one in self._log if one.type == "DeadLetterDiscarded"]

    def select_administrators(self) -> list[UUID]:
        with self._database_lock:
            given = (one.stream for one in self._log if one.type in {"UserRegistered", "UserRoleChanged"} and b'"role":"admin"' in one.data)
            return list(dict.fromkeys(given))

    def select_secrets(self, kind: str, owners: Iterable[UUID]) -> Mapping[UUID, bytes]:
        return {owner: self._secrets[kind, owner] for owner in owners if (kind, owner) in self._secrets}


def _stamped(recorded: RecordedEvent) -> datetime:
    assert recorded.recorded_at is not None
    return recorded.recorded_at
