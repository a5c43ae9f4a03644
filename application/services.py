"""The ports that the API uses, and the struct that holds them. The composition root fills it."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, BinaryIO, Final, Protocol, TypeVar
from uuid import UUID

import msgspec

from application.limits.prediction_limit import PredictionLimit
from application.limits.sign_in_attempts import SignInLimits
from application.model_packages import ExportPackage
from application.ports import (
    AccessTrail,
    BlobStore,
    BootstrapTokens,
    EventStore,
    InputCheck,
    KeyUses,
    LastSeen,
    MailLinks,
    PasswordHasher,
    Predictor,
    RefreshTokens,
)
from application.signed_downloads import LocalAddress
from domain.access import Role

T = TypeVar("T")
NO_TOKEN_ID: Final = UUID(int=0)
CHANNEL = "bioscope.live"  # the Redis channel on which the projector announces new positions


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a verified access token: a user's session, or a service with `name` and scopes (`session_id` is None)."""

    subject: UUID
    session_id: UUID | None
    role: Role | None
    scopes: frozenset[str]
    issued_at: datetime
    expires_at: datetime
    token_id: UUID = NO_TOKEN_ID
    name: str = ""


class AccessTokens(Protocol):
    """Signed tokens, valid until they expire. Whether their session still exists is checked separately."""

    def issue(self, *, user: UUID, session: UUID, role: Role, at: datetime) -> str: ...

    def issue_service(self, *, name: str, scopes: frozenset[str], seconds: int, at: datetime) -> str: ...

    def verify(self, token: str, *, at: datetime) -> Claims:
        """Raises NotAuthenticated ("Invalid token"). Does not block."""


class PageTokens(Protocol):
    """Signed names of sessions, for the cookie of the pages. Whether the session still exists is checked separately."""

    def issue(self, session: UUID) -> str: ...

    def session_of(self, token: str) -> UUID:
        """Raises NotAuthenticated ("Invalid token"). Does not block."""


class QueryDatabase(Protocol):
    """The read models. Raises Unavailable if the database is unavailable or no connection is free."""

    async def rows(self, query: str, parameters: Mapping[str, object], *, into: type[T]) -> list[T]:
        """The rows of `query`, each as `into`: a Struct whose fields have the names of the columns."""


class ReadPosition(Protocol):
    """The position that the read models have reached."""

    position: int

    async def wait(self, position: int, timeout: float) -> bool:  # noqa: ASYNC109 - the answer says whether it was reached
        """Wait until the read models have reached `position`. False after `timeout` seconds."""


class LiveNotifications(Protocol):
    """Wake-ups from the projector for WebSocket connections. They may be lost, so subscribers also poll every second."""

    def subscribe(self) -> AbstractAsyncContextManager["LiveSubscription"]: ...


class LiveSubscription(Protocol):
    async def wait(self, timeout: float) -> bool:  # noqa: ASYNC109 - the answer says whether there was news
        """Wait for a wake-up, including one since the last call. False after `timeout` seconds."""


class ImageHeader(Protocol):
    """The image's type and size in pixels, as its header states them."""

    @property
    def media_type(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...


class UploadValidator(Protocol):
    """Checks the structure of one upload while it streams in. Raises UnsupportedImage, DamagedImage, ImageTooLarge."""

    def feed(self, chunk: bytes) -> None: ...

    def finish(self, file: BinaryIO) -> ImageHeader:
        """Check the complete upload: `file` contains exactly the bytes that were fed. Blocks, for about 100 ms at most."""


class DependencyHealth(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one dependency. `lag` is in events, for dependencies that can lag behind the log.

    `silent_models` are models whose external classifier does not answer. Their names are for operators; anybody may read the others.
    """

    name: str
    ok: bool
    detail: str = ""
    lag: int | None = None
    silent_models: tuple[str, ...] = ()


class HealthChecks(Protocol):
    async def examine(self) -> list[DependencyHealth]:
        """Check all dependencies concurrently, within 2 s. Never raises."""


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """All ports of the API process.

    `live_reads` serves live connections only. `upload_validator()` makes a validator for one upload. `request_digests` returns the keyed
    hashes under which a request's payload may be stored, the newest first. `unseal_address` reads the token of a signed address; it raises
    Forbidden for a wrong or expired one. `input_check` says before a job whether its image fits the model. `export_package` makes
    the zip file of a version. `head_keys` are the Ed25519 public keys of signed heads, the newest first. `predictor` runs models at once,
    as often as `prediction_limit` allows. `mail_links` reads the tokens of links in mails, `bootstrap_tokens` that of the first
    administrator. `metrics` is the text of `/metrics`; `observe_request(method, route, status, seconds)` counts a
    request. `lifespan()` opens connections and runs the background work until it ends.
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
    page_tokens: PageTokens
    sign_in_limits: SignInLimits
    last_seen: LastSeen
    key_uses: KeyUses
    health: HealthChecks
    upload_validator: Callable[[], UploadValidator]
    request_digests: Callable[[bytes], tuple[bytes, ...]]
    unseal_address: Callable[[str], LocalAddress]
    mail_links: MailLinks
    bootstrap_tokens: BootstrapTokens
    input_check: InputCheck
    export_package: ExportPackage
    head_keys: tuple[bytes, ...]
    predictor: Predictor
    prediction_limit: PredictionLimit
    metrics: Callable[[], bytes]
    observe_request: Callable[[str, str, int, float], None]
    access_trail: AccessTrail
    lifespan: Callable[[], AbstractAsyncContextManager[Any]]
