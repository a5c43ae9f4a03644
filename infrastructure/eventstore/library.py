"""The adapter between the eventsourcing library and a recorder. All code for the library is in this module (decision 0075)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

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

from application.ports import Evolve, S
from domain.events import Event
from infrastructure.eventstore.codec import Codec, EncodedEvent, SerializedEvent
from infrastructure.eventstore.group_commit import Append, Outcome
from infrastructure.eventstore.recorder_port import Recorder


@dataclass(frozen=True)
class LibraryEvent(StoredEvent):
    """The library's stored event, with the corresponding event of this system."""

    event: SerializedEvent


class EventMapper(Mapper[UUID]):
    """Maps domain events to stored events with the codec."""

    def __init__(self, codec: Codec) -> None:
        super().__init__(JSONTranscoder())
        self.codec = codec

    def to_stored_event(self, domain_event: Any) -> LibraryEvent:
        return _library_event(self.codec.encode(domain_event))

    def to_domain_event(self, stored_event: StoredEvent) -> Any:
        assert isinstance(stored_event, LibraryEvent)
        return self.codec.decode(stored_event.event)


class RecorderAdapter(ApplicationRecorder):
    """The library's recorder interface over a recorder."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Append events; return their positions, or None if nothing was appended.

        The keyword arguments come from `put`: `append`, and `report`, which is called with the outcome. Raises IntegrityError after a
        conflict, and ValueError if two events would create the key of one subject, since only one key could be stored.
        """
        append: Append = kwargs["append"]
        report: Callable[[Outcome], None] = kwargs["report"]
        events = [one.event for one in stored_events if isinstance(one, LibraryEvent) and isinstance(one.event, EncodedEvent)]
        owners = [owner for event in events for owner, _ in event.new_keys]
        if len(owners) > len(set(owners)):
            raise ValueError("the first private values of a stream must be in one event: two events of this append would create its key")
        outcome = self._recorder.insert(events, append)
        report(outcome)
        if outcome.outcome == "conflict":
            raise IntegrityError
        if outcome.outcome != "appended" or outcome.position is None:
            return None
        return range(outcome.position - len(events) + 1, outcome.position + 1)

    def select_events(
        self, originator_id: UUID | str, *, gt: int | None = None, lte: int | None = None, desc: bool = False, limit: int | None = None
    ) -> Sequence[StoredEvent]:
        events = self._recorder.select_stream(UUID(str(originator_id)), after=gt or 0, until=lte)
        return [_library_event(one) for one in (reversed(events) if desc else events)][:limit]

    def select_notifications(
        self, start: int | None, limit: int, stop: int | None = None, topics: Sequence[str] = (), *, inclusive_of_start: bool = True
    ) -> Sequence[Notification]:
        raise NotImplementedError("use EventStore.read to read the log by position")

    def max_notification_id(self) -> int | None:
        return self._recorder.max_notification_id()

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        raise NotImplementedError("consumers read Kafka, or the log by position")


class LibraryApplication(Application[UUID]):
    def __init__(self, mapper: EventMapper, recorder: RecorderAdapter) -> None:
        self._parts = mapper, recorder
        super().__init__({"PERSISTENCE_MODULE": "eventsourcing.popo"})

    def construct_transcoder(self) -> Transcoder:
        return JSONTranscoder()

    def construct_mapper(self) -> Mapper[UUID]:
        return self._parts[0]

    def construct_recorder(self) -> ApplicationRecorder:
        return self._parts[1]


class EventsourcingLibrary:
    """Appends events and loads states through the library."""

    def __init__(self, codec: Codec, recorder: Recorder) -> None:
        self._application = LibraryApplication(EventMapper(codec), RecorderAdapter(recorder))

    def append(self, events: Sequence[Event], append: Append) -> Outcome:
        """Append events. Raises KeyDestroyed, Unavailable, and what the recorder raises.

        The library returns only positions, so the outcome is returned through a callback.
        """
        outcomes: list[Outcome] = []
        try:
            self._application.events.put(events, append=append, report=outcomes.append)
        except IntegrityError:
            if not outcomes:
                raise
        return outcomes[0]

    def load(self, stream: UUID, evolve: Evolve[S], version: int | None) -> S | None:
        """The state at `version`, without a cache; None if there are no events."""

        def project(state: S | None, events: Iterable[Any]) -> S | None:
            for event in events:
                state = evolve(state, event)
            return state

        try:
            return self._application.repository.get(stream, version=version, projector_func=project)
        except AggregateNotFoundError:
            return None


def _library_event(event: SerializedEvent) -> LibraryEvent:
    return LibraryEvent(event.stream, event.version, event.type, event.data, event)
