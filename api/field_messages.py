"""Sentences for the messages of msgspec about a field with a value of a wrong type, size or form, or about a field itself."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,40}")
MISSING: Final = re.compile(r"Object missing required field `([^`]+)`")
UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)", re.DOTALL)
LENGTH: Final = re.compile(r"Expected `(\w+)` of length (>=|<=) (\d+)")
RANGE: Final = re.compile(r"Expected `(?:int|float)` (>=|<=|>|<) (\S+)")
WRONG_TYPE: Final = re.compile(r"Expected `([\w |]+)`(?:, got `\w+`)?")
TYPES: Final[Mapping[str, str]] = {
    "array": "a list",
    "bool": "true or false",
    "date": "a date such as 2026-05-04",
    "datetime": "a date and time such as 2026-05-04T12:00:00Z",
    "float": "a number",
    "int": "a whole number",
    "object": "a JSON object",
    "str": "a text",
    "uuid": "an id, such as 74e02ed7-defc-5b5f-96eb-de056419e140",
}
FORMS: Final[Mapping[str, str]] = {
    "Expected `datetime` with a timezone component": "must have an offset from UTC, such as Z",
    "Integer value out of range": "is out of range",
    "Invalid RFC3339 encoded date": f"must be {TYPES['date']}",
    "Invalid RFC3339 encoded datetime": f"must be {TYPES['datetime']}",
    "Invalid UUID": f"must be {TYPES['uuid']}",
    "Invalid base64 encoded string": "must be base64",
}
BOUNDS: Final[Mapping[str, str]] = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}
ENTRIES: Final = ("entry", "entries")
UNITS: Final[Mapping[str, tuple[str, str]]] = {"str": ("character", "characters"), "bytes": ("byte", "bytes")}
"""What the length of a value counts, in singular and plural; entries if it is not listed."""


class UnknownField(NamedTuple):
    """A field that was sent and is not known. `name` is empty unless it is short and plain."""

    name: str


def unknown_field(message: str) -> UnknownField | None:
    """The field, if the message is about an unknown one. It may be cut off anywhere in the name."""
    found = UNKNOWN.match(message)
    if found is None:
        return None
    name = found[1].removesuffix("`")
    return UnknownField(name if name != found[1] and PLAIN_NAME.fullmatch(name) else "")


def missing_field(message: str) -> str | None:
    """The name of the field, if the message is about a missing one."""
    found = MISSING.fullmatch(message)
    return found[1] if found else None


def plain(message: str) -> str:
    """The message as the end of a sentence about the field. One of an unknown form stays as it is."""
    if missing_field(message):
        return "is missing"
    if found := LENGTH.fullmatch(message):
        one, many = UNITS.get(found[1], ENTRIES)
        return f"must have {BOUNDS[found[2]]} {found[3]} {one if found[3] == '1' else many}"
    if found := RANGE.fullmatch(message):
        return f"must be {BOUNDS[found[1]]} {found[2]}"
    if found := WRONG_TYPE.fullmatch(message):
        names = found[1].split(" | ")
        types = [TYPES[name] for name in names if name in TYPES and not (name == "int" and "float" in names)]
        return f"must be {' or '.join(types)}" if types else "has a wrong type"
    return FORMS.get(message, message)
