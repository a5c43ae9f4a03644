"""The ports of the use cases. Each docstring is the contract: what blocks, what is raised, what may be repeated."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, BinaryIO, NamedTuple, Protocol, TypeVar
from uuid import UUID

import msgspec

from application.history.access_records import Access
from application.signed_downloads import Holder
from domain.access import Actor
from domain.classification import PlaneSelection, Verdict
from domain.errors import CorruptBlob, NotFound
from domain.events import Event, State
from domain.image import Image
from domain.links import LinkPurpose
from domain.model import Version
from domain.values import ImageWarning

S = TypeVar("S", bound=State)
Evolve = Callable[[S | None, Event], S | None]


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One intention of one actor. `id` makes it idempotent; the payload's `digest` distinguishes a repeat from another request.

    `earlier_digests` are digests of the same payload with earlier keys.
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
    """A condition on another stream: it exists, has none of the events `closed_by`, and is at `version` if one is given."""

    stream: UUID
    version: int | None = None
    closed_by: tuple[type[Event], ...] = ()


class UniqueClaim(msgspec.Struct, frozen=True, kw_only=True):
    """A claim of `value`, which only one stream at a time may have within `scope`."""

    scope: str
    value: str
    stream: UUID


class ReleasedClaim(msgspec.Struct, frozen=True, kw_only=True):
    """The release of a claim; without `value`, of all claims of the stream."""

    stream: UUID
    scope: str = ""
    value: str | None = None


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """A value stored beside the log, never in an event, so that it can be deleted. None deletes it."""

    kind: str
    owner: UUID
    value: bytes | None


class AppendResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a command: the position of its last event, and the stream that it created or changed.

    `replayed`: the command was executed before, and this is its first outcome.
    """

    position: int
    subject: UUID | None = None
    replayed: bool = False


class RecordedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it is stored in the log."""

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
    """An event with the hash of the event before it in the log."""

    event: RecordedEvent
    previous_hash: bytes


class AppendRejected(Exception):
    """A record that is not an event of this installation. `reason` is one of a few fixed words, used as a metric label."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Mismatch(NamedTuple):
    """Why an image does not fit the input of a model.

    `field` is the part of the request that is wrong, such as ("planes", "c"). `axis` is where the model expects `expected`, and `found` is
    what the image has, or would have after the choice of planes. `message` says all of it in words.
    """

    field: tuple[str, ...]
    axis: str
    expected: str
    found: str
    message: str


class InputCheck(Protocol):
    """Compares what is known of an image with the input of a model, before the image is decoded. Does not block."""

    def __call__(self, version: Version, image: Image | None, planes: PlaneSelection | None) -> Sequence[Mismatch]:
        """Every mismatch that is certain. With None for `image`, or one that was not inspected yet: those of `planes` alone."""


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """What a model version says of one image. `scores` are in the order of its labels; `value` is the number of a regression."""

    label: str
    confidence: float
    verdict: Verdict
    scores: tuple[float, ...]
    value: float | None = None
    warnings: tuple[ImageWarning, ...] = ()


class PredictionFailure(NamedTuple):
    """Why an image has no prediction: a stable `reason`, and a sentence. `is_ours`: the image is not at fault."""

    reason: str
    detail: str
    is_ours: bool = False


class Predictor(Protocol):
    """Runs models at once, in sandboxed processes of this machine. Nothing is stored."""

    @property
    def is_enabled(self) -> bool:
        """Whether this installation has such processes."""

    async def predict(
        self, images: Sequence[bytes], version: Version, *, planes: PlaneSelection, threshold: float | None
    ) -> list[Prediction | PredictionFailure]:
        """The answer for each encoded image, in order. None for `threshold`: that of the version.

        Raises Unavailable.
        """


class EventStore(Protocol):
    """The event log. Calls block, and raise Unavailable if the database is unavailable."""

    def load(self, stream: UUID, evolve: Evolve[S], *, version: int | None = None, until: int | None = None) -> S | None:
        """The state of `stream`: of all its events, or of those up to `version`, or up to position `until`. None if there are none."""

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
        """Append all of `events` or none, and return when they are durable.

        A known command id with the same digest changes nothing and returns its first outcome.

        Raises ConcurrencyConflict if a version exists already, NotFound or StreamClosed if a precondition fails, and Taken (with `scope`)
        if a claim does. KeyReused: the command id is known with another digest. Refused: an event breaks a rule of the event store, or
        this process may not append it. UpgradeUnderWay: a running process does not understand an event yet.
        """

    def require_writable(self, *kinds: type[Event]) -> None:
        """Raises UpgradeUnderWay if a running process does not understand the types yet, as `append` does for an event of them.

        For a request that must be refused alike, whether or not it leads to an event.
        """

    def outcome(self, command: Command) -> AppendResult | None:
        """The first outcome of this command, or None if it was not executed before. Raises KeyReused as `append` does."""

    def head(self) -> int:
        """The position of the newest event; 0 if there is none."""

    def position_at(self, moment: datetime) -> int:
        """The position of the last event that was recorded at or before `moment`; 0 if there is none.

        Recording times come from one clock, whichever process appended the event. Raises Invalid for a time in the future.
        """

    def read(self, after: int, limit: int, *, most_bytes: int | None = None) -> Sequence[RecordedEvent]:
        """The events after position `after`, without a gap: at most `limit`, and at most `most_bytes` of data or one larger event."""

    def history(self, stream: UUID) -> Sequence[RecordedEvent]:
        """All events of one stream, oldest first."""

    def histories(self, streams: Collection[UUID], *kinds: type[Event], until: int | None = None) -> Sequence[RecordedEvent]:
        """The events of several streams up to position `until`, in the order of the log; only the types `kinds` if any are named."""

    def at(self, positions: Collection[int]) -> Sequence[RecordedEvent]:
        """The events at these positions, in the order of the log."""

    def touching(self, stream: UUID, at: Collection[int], *, after: int, maximum: int | None) -> Sequence[RecordedEvent]:
        """The first `maximum` events after position `after`, in `stream` or at one of the positions `at`, in the order of the log."""

    def event(self, stream: UUID, version: int) -> RecordedEvent | None:
        """One event of a stream; None if the stream has no such version."""

    def is_open(self, stream: UUID, *, begun_by: type[Event], closed_by: Sequence[type[Event]]) -> bool:
        """Whether the first event of the stream has the type `begun_by`, and the last one none of the types `closed_by`.

        Reads two events, whatever the length of the stream. For streams that get no more events once they are closed. Raises
        UpgradeNeeded if a newer release wrote one of the two.
        """

    def having(self, streams: Collection[UUID], *kinds: type[Event]) -> set[UUID]:
        """Those of the streams that contain an event of one of the types."""

    def decode(self, recorded: RecordedEvent) -> Event:
        """The event in its newest schema version, decrypted. Raises UpgradeNeeded for an event of a newer release, as `load` does."""

    def prefetch(self, recorded: Sequence[RecordedEvent]) -> None:
        """Load the keys that `decode` needs for these events, in one query."""

    def claimed(self, scope: str, value: str) -> UUID | None:
        """The stream that has claimed `value`, or None."""

    def administrators(self) -> Sequence[UUID]:
        """All accounts that ever had the role of administrator, oldest first, up to the events appended before the call."""

    def discarded(self) -> frozenset[int]:
        """The positions of discarded dead letters, which no read model may show."""

    def secret(self, kind: str, owner: UUID) -> bytes | None: ...


class PasswordRequester(NamedTuple):
    """The requester of a password hash: an account, named by its id, or a stranger, named by the client's network."""

    name: str
    is_stranger: bool


class PasswordHasher(Protocol):
    """Computes slow password hashes: few at a time, few per requester, known users first. Raises Unavailable if too many wait."""

    @property
    def service_names(self) -> Collection[str]:
        """The names and addresses of this installation, of which no password may consist."""

    def is_common(self, password: str) -> bool:
        """Whether the password is on the list of common and leaked passwords."""

    def hash(self, password: str, *, requester: PasswordRequester, like: bytes | None = None) -> bytes:
        """The hash of a password, with a salt of its own; with the salt and parameters of the hash `like` if one is given.

        Raises Invalid for a password that is too long.
        """

    def verify(self, password: str, known: bytes | None, *, requester: PasswordRequester) -> bool:
        """Whether the password matches the hash `known`. None takes as long as a real hash and never matches."""

    def matching(self, password: str, candidates: Sequence[bytes], *, requester: PasswordRequester) -> int | None:
        """The index of the first candidate that is a hash of the password. None if there is none.

        Costs exactly one hash, whatever the candidates: with the salt and parameters of the first readable one, or with those of no
        hash. A candidate with other ones never matches.
        """

    def outdated(self, known: bytes) -> bool:
        """Whether the hash was made with weaker parameters than the current ones."""


class RefreshResult(msgspec.Struct, frozen=True, kw_only=True):
    session_id: UUID
    user_id: UUID
    token: str


class OpenSession(NamedTuple):
    """A session with a refresh token that can still be used, and when its newest token was issued."""

    session: UUID
    last_used_at: datetime


class RefreshTokens(Protocol):
    """Opaque tokens. Each is exchanged once, for exactly one successor."""

    def issue(self, *, session: UUID, user: UUID, at: datetime) -> str: ...

    def rotate(self, token: str, *, at: datetime) -> RefreshResult:
        """The successor of `token`; within a grace period of 10 s, the same successor again.

        Raises NotAuthenticated if the token is unknown, expired or revoked, RefreshTokenReused if it was exchanged before.
        """

    def session_of(self, token: str) -> UUID | None: ...

    def open_sessions(self, user: UUID, *, at: datetime) -> list[OpenSession]:
        """The user's sessions that can be refreshed at this time, the last used one first."""

    def revoke(self, session: UUID) -> None:
        """Revoke the session's tokens. Idempotent."""

    def revoke_user(self, user: UUID, *, but: UUID | None = None) -> list[UUID]:
        """Revoke the tokens of the user's sessions except `but`; return the revoked sessions."""


class MailLink(NamedTuple):
    """What the token of a link claims. Nothing is proved before `MailLinks.is_genuine` says so for the address of `stream`."""

    purpose: LinkPurpose
    stream: UUID
    request_id: UUID


class MailLinks(Protocol):
    """The tokens of links in mails. They are derived from a key, so none is stored; the log says which one is open."""

    def token(self, link: MailLink, *, address: str) -> str: ...

    def read(self, token: str) -> MailLink:
        """Raises InvalidLink for a token in another form."""

    def is_genuine(self, token: str, *, address: str) -> bool:
        """Whether this installation issued the token for this address."""


class BootstrapTokens(Protocol):
    """The token with which the first administrator creates an account. It is derived from a key."""

    def token(self) -> str: ...

    def is_genuine(self, token: str) -> bool: ...


class RateLimit(msgspec.Struct, frozen=True, kw_only=True):
    """At most `maximum` calls of `key` within any period of `seconds`."""

    key: str
    maximum: int
    seconds: float


class RateLimiter(Protocol):
    def take(self, *limits: RateLimit) -> Callable[[], None]:
        """Count one call for all of the limits, or for none. Raises TooMany with `retry_after` (seconds) if one is exhausted.

        The returned function refunds the call, so that it no longer counts. It never raises; a call that cannot be refunded counts until
        its window ends.
        """


class LastSeen(Protocol):
    """The times of the devices' last status reports, which are not in the log. Calls block, and raise Unavailable."""

    def record(self, device: UUID) -> None:
        """Set the device's time to now."""

    def of(self, device: UUID) -> datetime | None:
        """The time, or None if none is stored."""

    def forget(self, device: UUID) -> None:
        """Delete the time. Idempotent."""


class KeyUse(msgspec.Struct, frozen=True, kw_only=True):
    """The first and the last use of a key that is known. `network` is where the last one came from.

    `legacy_name` is that of the program where the key is a signed service token of an earlier release.
    """

    key: UUID
    first_at: datetime
    last_at: datetime
    network: str
    legacy_name: str | None = None
    legacy_expiry: datetime | None = None


class KeyUses(Protocol):
    """The uses of API keys, which are not in the log. Calls block, and raise Unavailable.

    The uses of a user's keys are deleted with the user's password, when the account is closed or erased.
    """

    def record(self, key: UUID, *, network: str, user: UUID | None) -> None:
        """Set the last use of the key to now. `user` is its owner; None for a service account."""

    def record_legacy(self, token: UUID, *, name: str, expires_at: datetime, network: str) -> None:
        """Set the last use of a signed service token to now."""

    def of(self, keys: Collection[UUID]) -> dict[UUID, KeyUse]:
        """The uses of those of the keys that were used."""

    def legacy(self) -> list[KeyUse]:
        """The uses of all signed service tokens, the oldest first."""


class KnownAddresses(Protocol):
    """The networks from which each account signed in recently. Calls block, and raise Unavailable.

    The networks of a closed or erased account are deleted with its password.
    """

    def knows(self, user: UUID, network: str) -> bool: ...

    def remember(self, user: UUID, network: str) -> None:
        """Store the network for some weeks."""


class AccessTrail(Protocol):
    """The trail of access, which is apart from the log. Thread-safe."""

    def record(self, access: Access) -> None:
        """Record an access within a second. Never blocks and never raises. Of a flood of alike accesses, most are only counted."""


BlobContent = bytes | NotFound | CorruptBlob
"""The bytes of a blob, or the error that explains why they cannot be read."""


class BlobStore(Protocol):
    """Immutable bytes, named by their sha256 (hexadecimal) and never by a client's name. Calls block, and raise Unavailable."""

    @property
    def max_url_seconds(self) -> int:
        """The maximum of `seconds` that `signed_url` accepts."""

    def begin(self, *, max_bytes: int | None = None) -> "BlobWriter":
        """An upload of at most `max_bytes`; by default, of the maximum size of an image."""

    def read(self, sha256: str) -> bytes:
        """The whole blob, verified against its name. Raises NotFound, CorruptBlob."""

    def read_all(self, names: Sequence[str]) -> list[BlobContent]:
        """Each blob as `read` returns it, or the error, in the order of `names`. The store decides how many it reads concurrently."""

    def open(self, sha256: str) -> Any:
        """A seekable binary file for reading, verified against its name. Raises NotFound, CorruptBlob."""

    def open_locally(self, sha256: str) -> BinaryIO:
        """As `open`, but always a file on this machine: a blob elsewhere is copied, piece by piece. Reading it needs no request."""

    def peek(self, sha256: str, size: int) -> bytes:
        """The first bytes, at most `size`, not verified against the name and so not to be trusted. Raises NotFound."""

    def exists(self, sha256: str) -> bool: ...

    def put_derived(self, name: str, data: bytes, media_type: str) -> None:
        """Store a rendition, which can be made again from its blob, under a name of `application.derivatives`. Overwrites."""

    def get_derived(self, name: str) -> bytes | None:
        """A rendition, or None. It is not verified: display it, but do not trust it. Raises CorruptBlob if it is too large."""

    def delete(self, sha256: str, *, put_before: datetime | None = None) -> bool:
        """Delete a blob and its renditions of all reader versions; with `put_before`, only if it was not put again since then.

        Returns whether the blob was deleted. Idempotent.
        """

    def orphans(self, known: Callable[[Iterable[str]], set[str]], *, older_than: datetime) -> Iterator[str]:
        """The unused blobs last put before `older_than`. `known` receives a few hundred names and returns those in use."""

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
        """An address that needs no header and works for at least `seconds`. `name` is a sha256 or the name of a rendition of the image.

        An address of the API stops working once `holder` may no longer see the image; one of S3 cannot be revoked. The same call within
        a window of a quarter of `seconds` gives the same address, which works for at most a quarter longer.
        """


class BlobWriter(Protocol):
    """One upload in progress. Nothing is visible before `commit`; `abort` removes everything."""

    file: Any  # the bytes written so far, seekable

    def write(self, chunk: bytes) -> None:
        """Raises ImageTooLarge beyond the maximum size of an upload; after that, nothing can be written or committed."""

    def commit(self) -> tuple[str, int]:
        """Store the upload; return its sha256 (hexadecimal) and size in bytes. Storing the same bytes again is harmless."""

    def abort(self) -> None: ...
