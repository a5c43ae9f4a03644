"""The port between the event store and the tables, or the memory, that hold the log."""

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
    """Calls block and raise Unavailable. Methods return events in the order of the log unless they say otherwise."""

    def close(self) -> None: ...

    def insert(self, events: Sequence[EncodedEvent], append: Append) -> Outcome:
        """All events or none, with what `append` holds beside them. The outcome says which."""

    def begin_to_write(self, type_name: str, schema_version: int) -> str | None:
        """None where events of this type and version may be appended from now on; else a running process that does not understand them."""

    def max_notification_id(self) -> int | None:
        """The position of the newest event; None or 0 where there is none."""

    def select_position_at(self, moment: datetime) -> tuple[int, datetime]:
        """The last position at `moment`, and the present time by the same clock."""

    def select_recorded(self, after: int, limit: int) -> list[RecordedEvent]:
        """The first events behind position `after`."""

    def select_bounded(self, after: int, limit: int, max_bytes: int) -> list[RecordedEvent]:
        """As `select_recorded`, with at most `max_bytes` of data; one event may have more."""

    def select_at(self, positions: Collection[int]) -> list[RecordedEvent]: ...

    def select_stream(self, stream: UUID, *, after: int = 0, until: int | None = None) -> list[RecordedEvent]:
        """The events of a stream behind version `after`, up to version `until`."""

    def select_streams(self, streams: Collection[UUID], types: Sequence[str], until: int | None) -> list[RecordedEvent]:
        """The events of several streams up to position `until`; of `types` where any are named."""

    def select_touching(self, stream: UUID, at: Collection[int], after: int, maximum: int | None) -> list[RecordedEvent]:
        """The first events behind position `after` that are of `stream` or at one of the positions `at`."""

    def select_event(self, stream: UUID, version: int) -> RecordedEvent | None: ...

    def select_ends(self, stream: UUID) -> tuple[StreamEnd, StreamEnd] | None: ...

    def select_having(self, streams: Collection[UUID], types: Sequence[str]) -> set[UUID]:
        """Those of `streams` that have an event of one of `types`."""

    def select_command(self, command: UUID) -> tuple[bytes | None, int, UUID | None] | None:
        """The digest, the last position and the subject of an executed command."""

    def select_claim(self, scope: str, digests: Sequence[bytes]) -> UUID | None:
        """The stream that holds the first of `digests` that is claimed."""

    def select_administrators(self) -> list[UUID]: ...

    def select_discarded(self) -> list[bytes]:
        """The data of each DeadLetterDiscarded event."""

    def select_secrets(self, kind: str, owners: Iterable[UUID]) -> Mapping[UUID, bytes]: ...
