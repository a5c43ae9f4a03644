"""Errors of commands and queries. Each has a stable `code`, and a message that tells the user what to do."""

from collections.abc import Sequence
from typing import Any, ClassVar, Final, TypedDict
from uuid import UUID

MAX_TYPE_NAME_SHOWN: Final = 80  # characters, since the name of an unknown event type may have any length


class FieldError(TypedDict):
    """One invalid value of a request: its location (`loc`) and the rule that it breaks (`msg`)."""

    loc: Sequence[str]
    msg: str


class DomainError(Exception):
    """A refused command or query; nothing has changed.

    `detail` is the message for the user, `reason` a stable word that refines the code, `retry_after` the number of seconds after which
    the same request may succeed.
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
    """The thing does not exist, or the caller may not see it. Both give the same answer.

    `noun` and `object_id` name it for the trail of access, where they are known.
    """

    code = "not_found"

    def __init__(
        self, detail: str, *, reason: str = "", retry_after: int | None = None, noun: str = "", object_id: UUID | None = None
    ) -> None:
        super().__init__(detail, reason=reason, retry_after=retry_after)
        self.noun, self.object_id = noun, object_id


class UnknownAddress(NotFound):
    """No account has the e-mail address that a request names. The thing that the request concerns was found."""


class Forbidden(DomainError):
    """The caller is authenticated, but not allowed to do this."""

    code = "forbidden"


class NotAuthenticated(DomainError):
    """No credentials, or invalid ones. `user_id` names the user whom they concern, where that is known."""

    code = "not_authenticated"

    def __init__(self, detail: str, *, user_id: UUID | None = None) -> None:
        super().__init__(detail)
        self.user_id = user_id


class RefreshTokenReused(DomainError):
    """A refresh token was used again after its grace period. It may have been stolen."""

    code = "refresh_token_reused"

    def __init__(self, session_id: UUID, user_id: UUID) -> None:
        super().__init__("Invalid or expired refresh token")
        self.session_id = session_id
        self.user_id = user_id


class Invalid(DomainError):
    """One or more values break a rule. `errors` lists them."""

    code = "invalid"

    def __init__(self, detail: str, *, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.errors = errors


class MismatchedInput(FieldError):
    """Why an image does not fit a model: along which `axis`, what the model expects, and what was found in the image."""

    axis: str
    expected: str
    found: str


class InputMismatch(Invalid):
    """An image does not fit the input of a model. `errors` are of the type MismatchedInput."""

    code = "input_mismatch"


class Conflict(DomainError):
    """The current state does not allow this."""

    code = "conflict"


class Taken(Conflict):
    """Another stream has claimed this value. `scope` is the kind of value, such as `email`."""

    code = "taken"

    def __init__(self, detail: str, *, scope: str) -> None:
        super().__init__(detail)
        self.scope = scope


class InvalidLink(DomainError):
    """The link of a mail is unknown, of another purpose, used, replaced by a newer one, or expired. The answer is the same for each."""

    code = "invalid_link"

    def __init__(self, detail: str = "This link is invalid, was used already, or has expired: request a new one") -> None:
        super().__init__(detail)


class LastAdministrator(Conflict):
    """The change would leave the installation without an active administrator."""

    code = "last_administrator"

    def __init__(self) -> None:
        super().__init__("This is the last active administrator: make another user an administrator first")


class ConcurrencyConflict(DomainError):
    """The stream has newer events than were loaded. Load it and decide again."""

    code = "conflicted"


class StreamClosed(DomainError):
    """A precondition failed: the stream is closed, such as that of a deleted dataset."""

    code = "closed"


class Refused(DomainError):
    """The event breaks a rule of the event store. A correct program never appends such an event."""

    code = "not_recorded"


class VersionMismatch(DomainError):
    """If-Match names a version that is not the newest."""

    code = "version_mismatch"


class KeyReused(DomainError):
    """The Idempotency-Key was used before with another request."""

    code = "idempotency_key_reused"


class TooMany(DomainError):
    """A rate limit was exceeded. `retry_after` is in seconds."""

    code = "too_many"

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(detail, retry_after=retry_after)


class Unavailable(DomainError):
    """A dependency is unavailable."""

    code = "unavailable"


class UpgradePending(Unavailable):
    """Two releases run side by side, and one of them does not support this yet. An upgrade resolves it; waiting alone does not."""


class UpgradeNeeded(UpgradePending):
    """The log holds a valid event of a newer release, which this process does not understand."""

    code = "upgrade_needed"

    def __init__(self, location: str, type_name: str, schema_version: int) -> None:
        shown = type_name[:MAX_TYPE_NAME_SHOWN]
        super().__init__(
            f"{location} holds {shown} version {schema_version}, which a newer release wrote; upgrade this process", retry_after=30
        )


class UpgradeUnderWay(UpgradePending):
    """A running process does not understand the event to be appended."""

    code = "upgrade_under_way"

    def __init__(self, process: str, type_name: str, schema_version: int) -> None:
        super().__init__(
            f"{process} does not understand {type_name} version {schema_version} yet; upgrade it, then try again",
            retry_after=10,
        )


class CorruptBlob(DomainError):
    """The stored bytes do not have the sha256 that names them. They are never used."""

    code = "corrupted"

    def __init__(self, detail: str, *, sha256: str = "") -> None:
        super().__init__(detail)
        self.sha256 = sha256


class UnsupportedImage(DomainError):
    """The file type is not supported."""

    code = "unsupported_image"


class DamagedImage(DomainError):
    """The file has the signature of an image, but its structure is damaged."""

    code = "damaged_image"


class ImageTooLarge(DomainError):
    """The file has too many bytes, pixels, bands or pages."""

    code = "image_too_large"
