"""What the use cases need of the world. Each docstring is the contract: what blocks, what is raised, what may be repeated."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol, TypeVar
from uuid import UUID

import msgspec

from application.signed_downloads import Holder
from domain.access import Actor
from domain.errors import CorruptBlob, NotFound
from domain.events import Event, State

S = TypeVar("S", bound=State)
Evolve = Callable[[S | None, Event], S | None]


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks for what, when. `id` makes it idempotent; `digest` (of the request's payload) tells a repeat from another request.

    `earlier_digests`: those under which the same payload may have been stored before the key changed.
    """

    id: UUID
    actor: Actor
    at: datetime
    digest: bytes | None = None
    earlier_digests: tuple[bytes, ...] = ()
    correlation_id: UUID | None = None
    causation_id: UUID | None = None
    request_id: str = ""
    traceparent: str = ""


class StreamPrecondition(msgspec.Struct, frozen=True, kw_only=True):
    """A stream that must exist, have none of the events `closed_by`, and stand at `version` where one is given."""

    stream: UUID
    version: int | None = None
    closed_by: tuple[type[Event], ...] = ()


class UniqueClaim(msgspec.Struct, frozen=True, kw_only=True):
    """`value` may belong to one stream at a time within `scope`."""

    scope: str
    value: str
    stream: UUID


class ReleasedClaim(msgspec.Struct, frozen=True, kw_only=True):
    """Give a claim back; without `value` all claims of the stream."""

    stream: UUID
    scope: str = ""
    value: str | None = None


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """Something forgettable that never stands in an event; None forgets it."""

    kind: str
    owner: UUID
    value: bytes | None


class AppendResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a command ended: its last event's position, the stream that it made, and whether this was a repeat."""

    position: int
    subject: UUID | None = None
    replayed: bool = False


class RecordedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it stands in the log."""

    position: int
    stream: UUID
    version: int
    type: str
    schema_version: int
    event_id: UUID
    data: bytes
    meta: bytes = b"{}"
    recorded_at: datetime | None = None
    hash: bytes = b""


class ChainedEvent(NamedTuple):
    """An event with the hash of the one before it in the log."""

    event: RecordedEvent
    previous_hash: bytes


class AppendRejected(Exception):
    """A record that is not an event of this installation; `reason` is one of a few words, for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class EventStore(Protocol):
    """The event log. Calls block; Unavailable is raised when the database is away."""

    def load(self, stream: UUID, evolve: Evolve[S], *, version: int | None = None, until: int | None = None) -> S | None:
        """What the events of `stream` add up to, all of them, or up to `version`, or up to position `until`; None when there are none."""

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
        """Append all of `events` or none, durably, and return when that is certain.

        Raises ConcurrencyConflict (a version exists already), NotFound or StreamClosed (a precondition), Taken (a claim; `scope`),
        KeyReused (the command id is known with another digest), Refused (an event breaks a rule of the record, or this process may not
        append it), UpgradeUnderWay (a running process does not understand an event yet).
        A known command id with the same digest changes nothing and returns its first outcome.
        """

    def outcome(self, command: Command) -> AppendResult | None:
        """The first outcome of this command, if it was taken before. Raises KeyReused as `append` does."""

    def head(self) -> int:
        """The position of the newest event; 0 when there is none."""

    def position_at(self, moment: datetime) -> int:
        """The position of the last event that was recorded at or before `moment`; 0 where there is none.

        When an event was recorded is one clock's answer, whichever process appended it. Raises Invalid for a moment that is still to come.
        """

    def read(self, after: int, limit: int, *, most_bytes: int | None = None) -> Sequence[RecordedEvent]:
        """The events that follow position `after`, contiguous; at most `limit`, with at most `most_bytes` of data, or one of more."""

    def history(self, stream: UUID) -> Sequence[RecordedEvent]:
        """All events of one stream."""

    def histories(self, streams: Collection[UUID], *kinds: type[Event], until: int | None = None) -> Sequence[RecordedEvent]:
        """The events of several streams up to position `until`, of the named kinds where any are named; in the order of the log."""

    def at(self, positions: Collection[int]) -> Sequence[RecordedEvent]:
        """The events at these positions, in the order of the log."""

    def touching(self, stream: UUID, at: Collection[int], *, after: int, maximum: int | None) -> Sequence[RecordedEvent]:
        """The first `most` events behind position `after` that are of `stream` or at one of the positions `at`, in the order of the log."""

    def event(self, stream: UUID, version: int) -> RecordedEvent | None:
        """One event of a stream; None where the stream has no such version."""

    def is_open(self, stream: UUID, *, begun_by: type[Event], closed_by: Sequence[type[Event]]) -> bool:
        """Whether the stream begins with an event of that type, and ends with none of the others.

        Reads two events however long it is. For streams to which nothing else is appended once they are closed. Raises UpgradeNeeded where
        a newer release wrote one of the two.
        """

    def having(self, streams: Collection[UUID], *kinds: type[Event]) -> set[UUID]:
        """Those of the streams that have an event of one of the kinds."""

    def decode(self, recorded: RecordedEvent) -> Event:
        """Raises UpgradeNeeded for what a newer release wrote, and so does `load`."""

    def prefetch(self, recorded: Sequence[RecordedEvent]) -> None:
        """Bring what `decode` needs for these events, in one query however many they are."""

    def claimed(self, scope: str, value: str) -> UUID | None:
        """The stream that holds a claim."""

    def administrators(self) -> Sequence[UUID]:
        """The accounts that were ever given the role of administrator, oldest first; none that was appended before the call is missing."""

    def discarded(self) -> frozenset[int]:
        """The positions of the events that were given up as dead letters: no read model may show them."""

    def secret(self, kind: str, owner: UUID) -> bytes | None: ...


class PasswordRequester(NamedTuple):
    """Who has a password hashed: an account, by its id, or somebody whom nobody knows, by the network that the request came from."""

    name: str
    is_stranger: bool


class PasswordHasher(Protocol):
    """Slow hashes, few at a time, users' before strangers', and few of one requester. Raises Unavailable when too many wait."""

    def hash(self, password: str, *, requester: PasswordRequester) -> bytes: ...

    def verify(self, password: str, known: bytes | None, *, requester: PasswordRequester) -> bool:
        """None costs as much as a real hash, and is never right."""

    def outdated(self, known: bytes) -> bool:
        """Whether the hash was made with weaker parameters than today's."""


class RefreshResult(msgspec.Struct, frozen=True, kw_only=True):
    session_id: UUID
    user_id: UUID
    token: str


class RefreshTokens(Protocol):
    """Opaque tokens, each of which may be used once for exactly one child."""

    def issue(self, *, session: UUID, user: UUID, at: datetime) -> str: ...

    def rotate(self, token: str, *, at: datetime) -> RefreshResult:
        """The one child of `token`; the same child again within the grace of 10 s.

        Raises NotAuthenticated when the token is unknown, expired or revoked, and RefreshTokenReused when it was used before.
        """

    def session_of(self, token: str) -> UUID | None: ...

    def revoke(self, session: UUID) -> None:
        """Idempotent."""

    def revoke_user(self, user: UUID, *, but: UUID | None = None) -> list[UUID]:
        """The sessions revoked."""


class RateLimit(msgspec.Struct, frozen=True, kw_only=True):
    """At most `most` calls of `key` within any `seconds`."""

    key: str
    maximum: int
    seconds: float


class RateLimiter(Protocol):
    def take(self, *limits: RateLimit) -> Callable[[], None]:
        """Count one call under each of the limits, or under none. Raises TooMany with `retry_after` (seconds) when one has none free.

        The function that is returned gives the call back: it does not count any more. It raises nothing; a call that cannot be given back
        counts until its window ends.
        """


class LastSeen(Protocol):
    """When devices last gave a sign of life. No part of the record. Calls block; Unavailable is raised when the database is away."""

    def record(self, device: UUID) -> None:
        """Now."""

    def of(self, device: UUID) -> datetime | None:
        """None where nothing was recorded, or is known no more."""

    def forget(self, device: UUID) -> None:
        """Idempotent."""


class KnownAddresses(Protocol):
    """From which networks each account signed in lately. Calls block; Unavailable is raised when the database is away.

    Those of an account that is closed or erased are forgotten with its password.
    """

    def knows(self, user: UUID, network: str) -> bool: ...

    def remember(self, user: UUID, network: str) -> None:
        """From now on, for some weeks."""


BlobContent = bytes | NotFound | CorruptBlob
"""The bytes under a name of the store, or the error that explains why they cannot be read."""


class BlobStore(Protocol):
    """Bytes named by their sha256 (hex), never changed, never under a client's name. Raises Unavailable when the store is away."""

    @property
    def max_url_seconds(self) -> int:
        """The longest time for which `signed_url` may be asked."""

    def begin(self) -> "BlobWriter": ...

    def read(self, sha256: str) -> bytes:
        """All of it, compared with its name. Raises NotFound, CorruptBlob."""

    def read_all(self, names: Sequence[str]) -> list[BlobContent]:
        """Each as `read` gives it, NotFound or CorruptBlob in its place; in order, and as many at once as suits the store."""

    def open(self, sha256: str) -> Any:
        """A binary file to read from, seekable, compared with its name. Raises NotFound, CorruptBlob."""

    def peek(self, sha256: str, size: int) -> bytes:
        """The first bytes, at most `size`, not compared with the name: do not rely on them. Raises NotFound."""

    def exists(self, sha256: str) -> bool: ...

    def put_derived(self, name: str, data: bytes, media_type: str) -> None:
        """Something that can be made again from the log and the blobs, under a name like those of `application.derivatives`.

        Overwrites."""

    def get_derived(self, name: str) -> bytes | None:
        """Not compared with anything: show it, and do not rely on it. Raises CorruptBlob for what is too large."""

    def delete(self, sha256: str, *, put_before: datetime | None = None) -> bool:
        """Whether it goes; with `put_before` only if it was not put again since. Its derivatives of all readers go with it. Idempotent."""

    def orphans(self, known: Callable[[Iterable[str]], set[str]], *, older_than: datetime) -> Iterator[str]:
        """The blobs last put before `older_than` that nobody knows: `known` gets some hundred names and returns those in use."""

    def signed_url(
        self,
        name: str,
        *,
        image_id: UUID,
        holder: Holder,
        filename: str,
        media_type: str,
        inline: bool,
        seconds: int,
        internal: bool = False,
    ) -> str:
        """An address that needs no header and works for at least `seconds`; `name` is a sha256 or the name of a picture of the image.

        One of our own route stops working earlier when `holder` may no longer see the image; one of S3 cannot be revoked.
        The same call within a window of a quarter of `seconds` gives the same address, and the address works for at most a quarter longer.
        """


class BlobWriter(Protocol):
    """One upload under way: nothing is visible until `commit`; `abort` leaves nothing behind."""

    file: Any  # what was written so far, seekable

    def write(self, chunk: bytes) -> None:
        """Raises ImageTooLarge past the most that an upload may have; then nothing can be written or committed."""

    def commit(self) -> tuple[str, int]:
        """(sha256 in hex, bytes). Repeating the same bytes is harmless."""

    def abort(self) -> None: ...
