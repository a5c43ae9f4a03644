"""What the outside works with: every port, gathered once where a process is put together."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, BinaryIO, Protocol, TypeVar
from uuid import UUID

import msgspec

from application.limits.sign_in_attempts import SignInLimits
from application.ports import BlobStore, EventStore, LastSeen, PasswordHasher, RefreshTokens
from application.signed_downloads import LocalAddress
from domain.access import Role

T = TypeVar("T")
CHANNEL = "bioscope.live"  # on which the projector tells Redis that there is something new


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """Whom an access token speaks for: a user in a session, or (`session_id` is None) a service with its scopes."""

    subject: UUID
    session_id: UUID | None
    role: Role | None
    scopes: frozenset[str]
    issued_at: datetime
    expires_at: datetime


class AccessTokens(Protocol):
    """Signed tokens that are believed until they end; whether their session still lives is asked apart."""

    def issue(self, *, user: UUID, session: UUID, role: Role, at: datetime) -> str: ...

    def issue_service(self, *, name: str, scopes: frozenset[str], seconds: int, at: datetime) -> str: ...

    def verify(self, token: str, *, at: datetime) -> Claims:
        """Raises NotAuthenticated ("Invalid token"). Does not block."""


class QueryDatabase(Protocol):
    """The read models. Raises Unavailable when the database is away or has no connection to spare."""

    async def rows(self, query: str, parameters: Mapping[str, object], *, into: type[T]) -> list[T]:
        """Each row of `query` as `into` (a Struct whose fields are named as the columns)."""


class ReadPosition(Protocol):
    """How far the read models are."""

    position: int

    async def wait(self, position: int, timeout: float) -> bool:  # noqa: ASYNC109 - the answer says whether it was reached
        """Whether the read models have reached `position` within `timeout` seconds."""


class LiveNotifications(Protocol):
    """News from the projector, for whoever watches. Only a hint: it may be lost, and after a second one looks anyway."""

    def subscribe(self) -> AbstractAsyncContextManager["LiveSubscription"]: ...


class LiveSubscription(Protocol):
    async def wait(self, timeout: float) -> bool:  # noqa: ASYNC109 - the answer says whether there was news
        """Whether there was news within `timeout` seconds; news that came before the call counts."""


class ImageHeader(Protocol):
    """What an image's own bytes say of it."""

    @property
    def media_type(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...


class UploadValidator(Protocol):
    """One upload's structure, walked while it streams in. Raises UnsupportedImage, DamagedImage, ImageTooLarge."""

    def feed(self, chunk: bytes) -> None: ...

    def finish(self, file: BinaryIO) -> ImageHeader:
        """`file` holds exactly what was fed. Blocks for some 100 ms at worst."""


class DependencyHealth(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the system needs; `lag` in events where it can be behind."""

    name: str
    ok: bool
    detail: str = ""
    lag: int | None = None


class HealthChecks(Protocol):
    async def examine(self) -> list[DependencyHealth]:
        """Each dependency, asked at once, within 2 s. Raises nothing."""


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """The ports of the API process.

    `live_reads` serves WebSockets only. `upload_validator()` makes a validator for one upload. `request_digests` returns the keyed hashes
    under which a request's payload may be stored, the newest first. `unseal_address` reads the token of a signed address; it raises
    Forbidden for a wrong or expired one. `head_keys` are the Ed25519 public keys of signed heads, the newest first. `metrics` is the text
    of `/metrics`; `observe_request(method, route, status, seconds)` counts a request. `lifespan()` opens connections and runs the
    background work until it ends.
    """

    log: EventStore
    reads: QueryDatabase
    live_reads: QueryDatabase
    read_position: ReadPosition
    notifications: LiveNotifications
    blobs: BlobStore
    passwords: PasswordHasher
    access_tokens: AccessTokens
    refresh_tokens: RefreshTokens
    sign_in_limits: SignInLimits
    last_seen: LastSeen
    health: HealthChecks
    upload_validator: Callable[[], UploadValidator]
    request_digests: Callable[[bytes], tuple[bytes, ...]]
    unseal_address: Callable[[str], LocalAddress]
    head_keys: tuple[bytes, ...]
    metrics: Callable[[], bytes]
    observe_request: Callable[[str, str, int, float], None]
    lifespan: Callable[[], AbstractAsyncContextManager[Any]]
