"""What can go wrong, in the words of a user: each error has a stable `code` and a sentence that says what to do."""

from collections.abc import Sequence
from typing import Any, ClassVar, Final, TypedDict
from uuid import UUID

MAX_TYPE_NAME_SHOWN: Final = 80  # characters: the name of an unknown event type may be anything


class FieldError(TypedDict):
    """One wrong value of a request: where it is, and what is wrong with it."""

    loc: Sequence[str]
    msg: str


class DomainError(Exception):
    """A command or query is refused; nothing has changed.

    `reason` is a stable word that says more than the code. `retry_after`: seconds after which a repetition may succeed.
    """

    code: ClassVar[str] = "refused"

    def __init__(self, detail: str, *, reason: str = "", retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.reason = reason
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        """Restored with all fields and without `__init__`, whose arguments differ: errors travel between processes."""
        return _new_error, (type(self), *self.args), vars(self)


def _new_error(kind: type[DomainError], *args: object) -> DomainError:
    return kind.__new__(kind, *args)


class NotFound(DomainError):
    """There is no such thing, or the caller may not know of it: both look the same."""

    code = "not_found"


class Forbidden(DomainError):
    """The caller is known, and may not do this."""

    code = "forbidden"


class NotAuthenticated(DomainError):
    """No credentials, or invalid ones. `user_id`: whose sessions may have ended, where that is known."""

    code = "not_authenticated"

    def __init__(self, detail: str, *, user_id: UUID | None = None) -> None:
        super().__init__(detail)
        self.user_id = user_id


class RefreshTokenReused(DomainError):
    """A refresh token was used again after its grace period."""

    code = "refresh_token_reused"

    def __init__(self, session_id: UUID, user_id: UUID) -> None:
        super().__init__("Invalid or expired refresh token")
        self.session_id = session_id
        self.user_id = user_id


class Invalid(DomainError):
    """A value breaks a rule. `errors` names each value."""

    code = "invalid"

    def __init__(self, detail: str, *, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.errors = errors


class Conflict(DomainError):
    """The present state does not allow this."""

    code = "conflict"


class Taken(Conflict):
    """Another stream has this value already; `scope` says which kind of value."""

    code = "taken"

    def __init__(self, detail: str, *, scope: str) -> None:
        super().__init__(detail)
        self.scope = scope


class LastAdministrator(Conflict):
    """Without this account nobody could administer the installation any more."""

    code = "last_administrator"

    def __init__(self) -> None:
        super().__init__("This is the last active administrator: make somebody else an administrator first")


class ConcurrencyConflict(DomainError):
    """A stream has newer events than were loaded: load it again and decide again."""

    code = "conflicted"


class StreamClosed(DomainError):
    """A precondition failed: the stream is closed."""

    code = "closed"


class Refused(DomainError):
    """An event breaks a rule of the record. Correct programs never ask for it."""

    code = "not_recorded"


class VersionMismatch(DomainError):
    """If-Match named a version that is no longer the newest."""

    code = "version_mismatch"


class KeyReused(DomainError):
    """The same Idempotency-Key came with another request."""

    code = "idempotency_key_reused"


class TooMany(DomainError):
    """A limit of calls was exceeded."""

    code = "too_many"

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(detail, retry_after=retry_after)


class Unavailable(DomainError):
    """A dependency is unavailable."""

    code = "unavailable"


class UpgradePending(Unavailable):
    """Two releases run beside each other, and one of them cannot do this yet. Nothing is wrong, and waiting alone does not help."""


class UpgradeNeeded(UpgradePending):
    """The log holds an event that a newer release wrote, and that this process does not understand. Nothing is wrong with it."""

    code = "upgrade_needed"

    def __init__(self, location: str, type_name: str, schema_version: int) -> None:
        shown = type_name[:MAX_TYPE_NAME_SHOWN]
        super().__init__(
            f"{location} holds {shown} version {schema_version}, which a newer release wrote; upgrade this process", retry_after=30
        )


class UpgradeUnderWay(UpgradePending):
    """An event would be appended that a running process does not understand."""

    code = "upgrade_under_way"

    def __init__(self, process: str, type_name: str, schema_version: int) -> None:
        super().__init__(
            f"{process} does not understand {type_name} version {schema_version} yet; this is possible once it was upgraded",
            retry_after=10,
        )


class CorruptBlob(DomainError):
    """Stored bytes differ from the sha256 that names them. They are never used."""

    code = "corrupted"

    def __init__(self, detail: str, *, sha256: str = "") -> None:
        super().__init__(detail)
        self.sha256 = sha256


class UnsupportedImage(DomainError):
    """The bytes are of a type that is not supported."""

    code = "unsupported_image"


class DamagedImage(DomainError):
    """The bytes claim to be an image, and their structure is damaged."""

    code = "damaged_image"


class ImageTooLarge(DomainError):
    """The file has too many bytes, pixels, bands or pages."""

    code = "image_too_large"
