"""Validation rules for single values, and ids that are derived from names."""

import re
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Protocol
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec
from msgspec import UNSET, UnsetType

from domain.errors import Invalid

NAMESPACE = uuid5(NAMESPACE_URL, "https://bioscope.ai/")
MAX_LABEL = 100
MAX_FILENAME = 255
MAX_PATH_LENGTH = 512
MAX_NAME = 255
MAX_DESCRIPTION = 4000
MIN_PASSWORD_CHARACTERS, MAX_PASSWORD_CHARACTERS = 15, 128
REPEATABLE = re.compile(r"[\w .:+-]{1,60}")
DRIVE_LETTER = re.compile(r"[A-Za-z]:")
LINE_BREAK_OR_TAB = re.compile("[\n\t\u2028\u2029]")
JOINERS = "\u200c\u200d"
"""Zero-width characters that some scripts need between letters."""
WITHOUT_GLYPH = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Invisible characters that are not format characters (category Cf)."""
SECRET = re.compile(r"bs[bkl]_[\w-]{40}", re.ASCII)
"""The beginning of an API key (`bsk_`), of the token of a link (`bsl_`) or of the token of the set-up page (`bsb_`)."""


class Rule(Protocol):
    """Gives a text as it is stored, or raises Invalid."""

    def __call__(self, value: str, *, name: str, maximum: int) -> str: ...


class ImageWarning(msgspec.Struct, frozen=True):
    """A part of an image file that was ignored, assumed or converted: a stable `code`, and a sentence for the user."""

    code: str
    detail: str


def multiline_text(value: str, *, name: str, minimum: int = 1, maximum: int) -> str:
    """The value as it is stored: NFC, stripped. Raises Invalid outside `minimum` to `maximum` characters, and for control characters.

    Only line feeds and tabs are allowed. Raises Invalid for a secret too: what is stored stays in the log.
    """
    cleaned = unicodedata.normalize("NFC", value).strip()
    if any(unicodedata.category(character) in {"Cc", "Cs"} and character not in "\n\t" for character in cleaned):
        raise invalid(name, "must not contain control characters")
    refuse_secret(cleaned, name=name)
    if not minimum <= len(cleaned) <= maximum:
        raise invalid(name, f"must have {minimum} to {maximum} characters, has {len(cleaned)}")
    return cleaned


def refuse_secret(value: str, *, name: str) -> None:
    """Raises Invalid for a text that contains an API key, or the token of a link."""
    if SECRET.search(value):
        raise invalid(name, "must not contain a key or the token of a link: remove it")


def one_line(value: str, *, name: str, minimum: int = 1, maximum: int) -> str:
    """One line, as it is stored. Raises Invalid as `multiline_text` does, and for tabs and line breaks."""
    cleaned = multiline_text(value, name=name, minimum=minimum, maximum=maximum)
    if LINE_BREAK_OR_TAB.search(cleaned):
        raise invalid(name, "must be one line without tabs")
    return cleaned


def text(value: str, *, name: str, minimum: int = 1, maximum: int) -> str:
    """As `one_line`, for a new text. Raises Invalid for invisible format characters too, such as those that change the direction.

    Joiners are allowed between other characters.
    """
    cleaned = one_line(value, name=name, minimum=minimum, maximum=maximum)
    has_format = any(unicodedata.category(character) == "Cf" and character not in JOINERS for character in cleaned)
    if has_format or cleaned.strip(JOINERS) != cleaned:
        raise invalid(name, "must not contain invisible characters: type the text anew")
    return cleaned


def unique_text(value: str, *, name: str, minimum: int = 1, maximum: int) -> str:
    """As `text`, for a name that no two things may have: without any invisible character, so that different names look different."""
    cleaned = text(value, name=name, minimum=minimum, maximum=maximum)
    if WITHOUT_GLYPH.search(cleaned) or set(cleaned) & set(JOINERS):
        raise invalid(name, "must not contain invisible characters: type the text anew")
    return cleaned


def optional_text(value: str | None, *, name: str, maximum: int) -> str | None:
    """As `text`; None and blank both mean no value."""
    return text(value, name=name, maximum=maximum) if value is not None and value.strip() else None


def optional_multiline_text(value: str | None, *, name: str, maximum: int) -> str | None:
    """As `multiline_text`; None and blank both mean no value."""
    return multiline_text(value, name=name, maximum=maximum) if value is not None and value.strip() else None


def changed_text(value: str, present: str, *, name: str, maximum: int, rule: Rule = text) -> str | UnsetType:
    """The new text, or UNSET for the present one, which may be older than the rule. Raises Invalid as the rule does."""
    if value == present:
        return UNSET
    cleaned = rule(value, name=name, maximum=maximum)
    return UNSET if cleaned == present else cleaned


def new_text(changes: Mapping[str, str | None], name: str, present: str, *, maximum: int, rule: Rule = text) -> str | UnsetType:
    """As `changed_text`, of the field `name`; UNSET too if `changes` does not contain it."""
    return changed_text(changes[name] or "", present, name=name, maximum=maximum, rule=rule) if name in changes else UNSET


def new_optional_text(changes: Mapping[str, str | None], name: str, present: str | None, *, maximum: int) -> str | None | UnsetType:
    """As `new_text`; None and blank both mean no value."""
    if name not in changes or changes[name] == present:
        return UNSET
    cleaned = optional_text(changes[name], name=name, maximum=maximum)
    return UNSET if cleaned == present else cleaned


def printable(value: str) -> str:
    """The value with all kinds of spaces replaced by plain ones, and without unprintable characters."""
    with_plain_spaces = (" " if unicodedata.category(character) == "Zs" else character for character in value)
    return "".join(character for character in with_plain_spaces if character.isprintable())


def relative_path(value: str) -> str:
    """A file's path relative to the uploaded folder, as it is stored: "/" as separator, NFC, 1 to 512 characters.

    Raises Invalid for an absolute path, one that leaves the folder, and one with empty parts or control characters.
    """
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in value):
        raise invalid("path", "must not contain control characters: rename the file, or omit path")
    normalized = unicodedata.normalize("NFC", printable(value.replace("\\", "/")))
    parts = [part for part in map(str.strip, normalized.split("/")) if part != "."]
    if normalized.startswith("/") or (parts and DRIVE_LETTER.fullmatch(parts[0])):
        raise invalid("path", "must be relative to the uploaded folder, like A1/img.tif: omit the drive and the first slash")
    if not parts or not all(part.strip(". ") for part in parts):
        raise invalid("path", "must not have empty parts or '..': send it relative to the uploaded folder, like A1/img.tif")
    return text("/".join(parts), name="path", maximum=MAX_PATH_LENGTH)


def email(value: str) -> str:
    """An e-mail address that may be stored. Raises Invalid unless it has the form local@domain.tld and 5 to 100 characters.

    For new ones, there is a stricter rule: `email_address.new_address`.
    """
    address = one_line(value, name="email", minimum=5, maximum=100)
    local, at, domain = address.rpartition("@")
    if not (at and local and "." in domain.strip(".") and not any(character.isspace() for character in address)):
        raise invalid("email", "must be an address like name@example.org")
    return address


def canonical(value: str) -> str:
    """The form that is compared to find equal names: NFKC, case-folded, stripped."""
    return unicodedata.normalize("NFKC", value).casefold().strip()


def invalid(name: str, message: str) -> Invalid:
    return Invalid(f"{name} {message}", errors=[{"loc": ["body", name], "msg": message}])


def repeatable(word: str) -> str:
    """A word of a request as a message may repeat it: empty if it is long, or has signs that a name hardly has."""
    return word if REPEATABLE.fullmatch(word) else ""


def named(noun: str, name: str) -> str:
    """A thing in a message: with its name, if that may be repeated."""
    return f"{noun} {repeatable(name)}".rstrip()


def quoted(noun: str, name: str) -> str:
    """As `named`, with the name in quotes: one that a person has typed."""
    return f"{noun} {name!r}" if repeatable(name) else noun


def is_id(value: str) -> bool:
    """Whether `value` can be read as an id, so that it may be taken for one."""
    try:
        UUID(value)
    except ValueError:
        return False
    return True


@lru_cache(256)
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
