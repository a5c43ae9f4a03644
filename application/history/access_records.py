"""The records of the trail of access: who was refused, and who read what."""

from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec


class AccessKind(StrEnum):
    """What a record of the trail of access is about."""

    SIGN_IN = "sign_in"
    NOT_AUTHENTICATED = "not_authenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    PREVIEW = "preview"
    DOWNLOAD = "download"
    EXPORT = "export"
    KEY_USE = "key_use"
    ADMIN_READ = "admin_read"


class TrailKind(StrEnum):
    """The kinds of the whole trail: an event of the log is a change, all others are those of `AccessKind`."""

    CHANGE = "change"
    SIGN_IN = "sign_in"
    NOT_AUTHENTICATED = "not_authenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    PREVIEW = "preview"
    DOWNLOAD = "download"
    EXPORT = "export"
    KEY_USE = "key_use"
    ADMIN_READ = "admin_read"


class AccessOutcome(StrEnum):
    ALLOWED = "allowed"
    REFUSED = "refused"
    THROTTLED = "throttled"


REFUSALS: Final = frozenset({AccessKind.SIGN_IN, AccessKind.NOT_AUTHENTICATED, AccessKind.FORBIDDEN, AccessKind.NOT_FOUND})
"""Kinds that somebody without any right can cause."""
LOOKING_KINDS: Final = (AccessKind.PREVIEW, AccessKind.DOWNLOAD, AccessKind.EXPORT, AccessKind.ADMIN_READ)
"""Kinds that show content."""


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """One access, or `count` alike.

    `actor_id` is None if the client is not known. `person` is the account with whose data key the `address` is erased: that of the actor,
    or the one that a refused sign-in named. `object_id` was asked for and need not exist. `network` counts for the budget of records, and
    is not stored.
    """

    at: datetime
    kind: AccessKind
    outcome: AccessOutcome
    actor_id: UUID | None = None
    actor_kind: str = "anonymous"
    key_id: UUID | None = None
    noun: str = ""
    object_id: UUID | None = None
    dataset_id: UUID | None = None
    route: str = ""
    request_id: str = ""
    address: str = ""
    network: str = ""
    person: UUID | None = None
    count: int = 1


class ShownAccess(msgspec.Struct, frozen=True, kw_only=True):
    """A record as it is shown. `address` is None if it was erased. A record without `request_id` stands for several requests."""

    position: int
    at: datetime
    kind: AccessKind
    outcome: AccessOutcome
    actor_id: UUID | None
    actor_kind: str
    key_id: UUID | None
    noun: str
    object_id: UUID | None
    dataset_id: UUID | None
    route: str
    request_id: str
    count: int
    address: str | None


class RecordedAccess(msgspec.Struct, frozen=True, kw_only=True):
    """A record as it is stored. `address_digest` is SHA-256 over a salt and the address, which are stored apart."""

    position: int
    recorded_at: datetime
    at: datetime
    kind: str
    outcome: str
    actor_id: UUID | None
    actor_kind: str
    key_id: UUID | None
    noun: str
    object_id: UUID | None
    dataset_id: UUID | None
    route: str
    request_id: str
    count: int
    address_digest: bytes
    hash: bytes
