"""What can go wrong, in the words of a user: each error has a stable `code` and a sentence that says what to do."""

from typing import ClassVar, Final

TYPE_NAME_SHOWN: Final = 80  # characters: the name of a type that we do not know may be anything


class DomainError(Exception):
    """A command or query is refused; nothing has changed."""

    code: ClassVar[str] = "refused"

    def __init__(self, detail: str, **more: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.more = more


class NotFound(DomainError):
    """There is no such thing, or the caller may not know of it: both look the same."""

    code = "not_found"


class Forbidden(DomainError):
    """The caller is known, and may not do this."""

    code = "forbidden"


class NotAuthenticated(DomainError):
    """Nobody, or nobody that we can believe."""

    code = "not_authenticated"


class Invalid(DomainError):
    """A value breaks a rule. `errors` lists `{loc, msg}` for each."""

    code = "invalid"


class Conflict(DomainError):
    """The state of things forbids this now."""

    code = "conflict"


class Taken(Conflict):
    """Another one already has this name or address."""

    code = "taken"


class LastAdministrator(Conflict):
    """Without this account nobody could administer the installation any more."""

    code = "last_administrator"

    def __init__(self) -> None:
        super().__init__("This is the last active administrator: make somebody else an administrator first")


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
    """A limit of calls was passed; `retry_after` tells in how many seconds to come back."""

    code = "too_many"


class Unavailable(DomainError):
    """Something we need is away; `retry_after` tells in how many seconds to come back."""

    code = "unavailable"


class UpgradePending(Unavailable):
    """Two releases run beside each other, and one of them cannot do this yet. Nothing is wrong, and waiting alone does not help."""


class UpgradeNeeded(UpgradePending):
    """The log holds an event that a newer release wrote, and that this process does not understand. Nothing is wrong with it."""

    code = "upgrade_needed"

    def __init__(self, place: str, type_name: str, schema_version: int) -> None:
        super().__init__(
            f"{place} holds {type_name[:TYPE_NAME_SHOWN]} version {schema_version}, which a newer release wrote; upgrade this process",
            retry_after=30,
        )


class UpgradeUnderWay(UpgradePending):
    """An event would be appended that a process which runs now does not understand."""

    code = "upgrade_under_way"

    def __init__(self, process: str, type_name: str, schema_version: int) -> None:
        super().__init__(
            f"{process} does not understand {type_name} version {schema_version} yet; this is possible once it was upgraded",
            retry_after=10,
        )


class UnsupportedImage(DomainError):
    """The bytes are not of a type that we take."""

    code = "unsupported_image"


class DamagedImage(DomainError):
    """The bytes claim to be an image, and their structure does not hold."""

    code = "damaged_image"


class ImageTooLarge(DomainError):
    """The file has too many bytes, pixels, bands or pages."""

    code = "image_too_large"
