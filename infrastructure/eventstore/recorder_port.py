"""The port between the event store and the storage of the log."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from application.ports import RecordedEvent
from infrastructure.eventstore.codec import EncodedEvent
from infrastructure.eventstore.group_commit import Append, Outcome


class StreamEnd(NamedTuple):
    """The first or the newest event of a stream."""

    position: int
    type: str
    schema_version: int


class Recorder(Protocol):
    """The storage of the log. Calls block, and raise Unavailable. Events are returned in log order unless stated otherwise."""

    def close(self) -> None: ...

    def insert(self, events: Sequence[EncodedEvent], append: Append) -> Outcome:
        """Write all events with the rest of `append`, or nothing. The outcome says which."""

    def begin_to_write(self, type_name: str, schema_version: int) -> str | None:
        """None if events of this type and version may be appended from now on; else a running process that does not understand them."""

    def max_notification_id(self) -> int | None:
        """The position of the newest event; None or 0 if there is none."""

    def select_position_at(self, moment: datetime) -> tuple[int, datetime]:
        """The last position at `moment`, and the current time of the same clock."""

    def select_recorded(self, after: int, limit: int) -> list[RecordedEvent]:
        """The first `limit` events after position `after`."""

    def select_bounded(self, after: int, limit: int, max_bytes: int) -> list[RecordedEvent]:
        """As `select_recorded`, with at most `max_bytes` of data or one larger event."""

    def select_at(self, positions: Collection[int]) -> list[RecordedEvent]: ...

    def select_stream(self, stream: UUID, *, after: int = 0, until: int | None = None) -> list[RecordedEvent]:
        """The events of a stream after version `after`, up to version `until`, in the order of versions."""

    def select_streams(self, streams: Collection[UUID], types: Sequence[str], until: int | None) -> list[RecordedEvent]:
        """The events of several streams up to position `until`; only those of `types` if any are named."""

    def select_touching(self, stream: UUID, at: Collection[int], after: int, maximum: int | None) -> list[RecordedEvent]:
        """The first events after position `after` that are in `stream` or at one of the positions `at`."""

    def select_event(self, stream: UUID, version: int) -> RecordedEvent | None: ...

    def select_ends(self, stream: UUID) -> tuple[StreamEnd, StreamEnd] | None: ...

    def select_having(self, streams: Collection[UUID], types: Sequence[str]) -> set[UUID]:
        """Those of `streams` that contain an event of one of `types`."""

    def select_command(self, command: UUID) -> tuple[bytes | None, int, UUID | None] | None:
        """The digest, the last position and the subject of an executed command."""

    def select_claim(self, scope: str, digests: Sequence[bytes]) -> UUID | None:
        """The stream that has claimed the first of `digests` that is claimed."""

    def select_administrators(self) -> list[UUID]: ...

    def select_discarded(self) -> list[bytes]:
        """The data of each DeadLetterDiscarded event."""

    def select_secrets(self, kind: str, owners: Iterable[UUID]) -> Mapping[UUID, bytes]: ...
