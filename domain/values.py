"""Rules for single values, each with a name and one place."""

import unicodedata
from datetime import datetime
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec

from domain.errors import Invalid

NAMESPACE = uuid5(NAMESPACE_URL, "https://bioscope.ai/")
LABEL_MOST = 100
FILENAME_MOST = 255
NAME_MOST = 255
DESCRIPTION_MOST = 4000
PASSWORD_LEAST, PASSWORD_MOST = 15, 128


class ImageWarning(msgspec.Struct, frozen=True):
    """Something of an image file that was not used, assumed or converted: a stable `code` and a sentence for the user."""

    code: str
    detail: str


def text(value: str, *, name: str, least: int = 1, most: int) -> str:
    """The value as it is kept: NFC, without blanks at its ends. Raises Invalid for control characters and wrong lengths (in characters)."""
    kept = unicodedata.normalize("NFC", value).strip()
    if any(unicodedata.category(sign) in {"Cc", "Cs"} and sign not in "\n\t" for sign in kept):
        raise invalid(name, "must not contain control characters")
    if not least <= len(kept) <= most:
        raise invalid(name, f"must have {least} to {most} characters, has {len(kept)}")
    return kept


def optional_text(value: str | None, *, name: str, most: int) -> str | None:
    """As `text`; None and blank both mean absent."""
    return text(value, name=name, most=most) if value is not None and value.strip() else None


def email(value: str) -> str:
    """An address as it is kept. Raises Invalid unless it looks like local@domain.tld, 5 to 100 characters."""
    kept = text(value, name="email", least=5, most=100)
    local, at, domain = kept.rpartition("@")
    if not (at and local and "." in domain.strip(".") and not any(sign.isspace() for sign in kept)):
        raise invalid("email", "must be an address like name@example.org")
    return kept


def canonical(value: str) -> str:
    """The form in which two names count as the same: NFKC, case folded."""
    return unicodedata.normalize("NFKC", value).casefold().strip()


def invalid(name: str, message: str) -> Invalid:
    return Invalid(f"{name} {message}", errors=[{"loc": ["body", name], "msg": message}])


def model_id(name: str) -> UUID:
    return uuid5(NAMESPACE, f"model/{name}")


def chunk_id(job: UUID, number: int) -> UUID:
    return uuid5(job, f"chunk/{number}")


def result_id(job: UUID, image: UUID) -> UUID:
    return uuid5(job, f"image/{image}")


def system_actor(name: str) -> UUID:
    return uuid5(NAMESPACE, f"actor/{name}")


def hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)
