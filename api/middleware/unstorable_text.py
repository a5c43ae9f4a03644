"""Where a request has what cannot be stored: NUL, lone surrogates, numbers that JSON lacks, and control characters in the address."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

MAX_SEARCHED_BYTES: Final = 64 * 1024  # of a body that is refused in any case, since the search is a loop over its values
FIELD_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")


class UnstorableValue(NamedTuple):
    """Where in a body, without names that are none of a field, and what is wrong there."""

    path: tuple[str, ...]
    message: str


def place_of_unstorable(body: bytes) -> UnstorableValue | None:
    """The first value that cannot be stored. None if there is none in a field, or if the body is too large to search in it."""
    if len(body) > MAX_SEARCHED_BYTES:
        return None
    try:
        value = json.loads(body.decode("utf-8", "surrogatepass"), strict=False)
    except (ValueError, RecursionError):
        return None
    return next((place for place in _places(value, ()) if place.path), None)


def _places(value: Any, path: tuple[str, ...]) -> Iterator[UnstorableValue]:
    match value:
        case str() if found := UNSTORABLE.search(value):
            yield UnstorableValue(path, "must not contain the character NUL" if found[0] == "\0" else "must not contain lone surrogates")
        case float() if not math.isfinite(value):
            yield UnstorableValue(path, "must be a number; JSON has no NaN and no infinity")
        case int() if value.bit_length() > 1023:
            yield UnstorableValue(path, "is out of range")
        case dict():
            for name, inner in value.items():
                if UNSTORABLE.search(name):
                    yield UnstorableValue(path, "has a name with the character NUL or a lone surrogate")
                yield from _places(inner, (*path, name) if FIELD_NAME.fullmatch(name) else path)
        case list():
            for number, inner in enumerate(value):
                yield from _places(inner, (*path, str(number)))


def is_printable(text: bytes) -> bool:
    """Whether a percent-encoded part of an address is UTF-8 without control characters."""
    try:
        return CONTROL.search(unquote_to_bytes(text).decode()) is None
    except UnicodeDecodeError:
        return False


def unreadable_field(form: bytes) -> str | None:
    """The name of the first field of a form that is not percent-encoded UTF-8; empty if the name is none of a field."""
    for pair in form.split(b"&"):
        try:
            pair.decode("ascii")
            unquote_to_bytes(pair).decode()
        except UnicodeDecodeError:
            name = pair.partition(b"=")[0].decode("latin-1")
            return name if FIELD_NAME.fullmatch(name) else ""
    return None


def unprintable_parameter(query: bytes) -> str | None:
    """The name of the first parameter whose name or value is not printable; empty if the name is none of a parameter."""
    if is_printable(query):
        return None
    for pair in query.split(b"&"):
        if not is_printable(pair):
            name = pair.partition(b"=")[0].decode("latin-1")
            return name if FIELD_NAME.fullmatch(name) else ""
    return None
