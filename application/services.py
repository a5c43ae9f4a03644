"""What the outside works with: every port, gathered once where a process is put together."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from typing import Any, BinaryIO, Protocol, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from application.ports import BlobStore, EventStore, LastSeen, PasswordHasher, RefreshTokens
from application.sign_in_attempts import SignInLimits
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


class WebOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What of the settings the web layer needs."""

    base_url: str
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    access_ttl: int = 600
    refresh_ttl: int = 7 * 86400
    anonymous_body_max_bytes: int = 8192
    anonymous_body_seconds: float = 5.0
    anonymous_bodies: int = 512  # unfinished at once
    anonymous_bodies_per_address: int = 64
    websockets: int = 1000
    websockets_per_account: int = 100
    websocket_max_bytes: int = 64 * 1024
    anonymous_websockets: int = 256
    anonymous_websockets_per_address: int = 32
    upload_max_bytes: int = 64 * 1024**2
    secure_cookies: bool = False
    docs: bool = True
    preview_wait_seconds: float = 2.0  # for an image that is being inspected
    max_preview_waits: int = 64  # requests at once; more are answered without waiting
    default_model: str = "pbc8"
    live_rows_per_second: int = 2000

    @property
    def origin(self) -> str:
        """Scheme and host of `base_url`, as browsers send it."""
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def base_path(self) -> str:
        """The path of `base_url`, which a proxy removes before it passes a request on: "" or like "/bioscope"."""
        return urlsplit(self.base_url).path.rstrip("/")


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """`opened()` starts what runs beside the requests, and stops it. `live_reads` serves WebSockets alone. `digests` are the keyed hashes
    under which a request's payload may be stored, the one that is written first; `observed(method, route, status, seconds)` is told of
    every request; `head_keys` are the Ed25519 public keys of signed heads, the newest first."""

    options: WebOptions
    log: EventStore
    reads: QueryDatabase
    live_reads: QueryDatabase
    visible: ReadPosition
    live: LiveNotifications
    blobs: BlobStore
    passwords: PasswordHasher
    access_tokens: AccessTokens
    refresh_tokens: RefreshTokens
    attempts: SignInLimits
    last_seen: LastSeen
    health: HealthChecks
    gate: Callable[[], UploadValidator]
    digests: Callable[[bytes], tuple[bytes, ...]]
    signed: Callable[[str], LocalAddress]
    head_keys: tuple[bytes, ...]
    metrics: Callable[[], bytes]
    observed: Callable[[str, str, int, float], None]
    opened: Callable[[], AbstractAsyncContextManager[Any]]
