"""Values that no field may accept, for each kind of field of the OpenAPI document; and the fields of a schema, found in it."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

MARK = "canary-4711"  # part of every hostile text: no answer contains it
MEGABYTE = 1024**2
TEXTS = {
    "NUL": f"{MARK}\0x",
    "a lone surrogate": f"{MARK}\ud800x",
    "CRLF": f"{MARK}\r\nX-Injected: {MARK}",
    "30 kB": MARK * 2700,
    "1 MB": MARK + "x" * MEGABYTE,
}
NUMBERS = {
    "the least int64": -(2**63),
    "the largest int64": 2**63 - 1,
    "beyond int64": 2**63,
    "beyond uint64": 2**64,
    "beyond all floats": 10**400,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "a text": f"<{MARK}>",
}
DATES = {
    "year 0": "0000-01-01T00:00:00Z",
    "before year 1": "0001-01-01T00:00:00+14:00",
    "the year 9999": "9999-12-31T23:59:59Z",
    "after the year 9999": "9999-12-31T23:59:59-14:00",
    "the year 10000": "10000-01-01T00:00:00Z",
    "a day that does not exist": "2026-02-30T00:00:00Z",
}


class Field(NamedTuple):
    """A place in a body, or a parameter; `path` leads to it. `schema` is the part that describes a single value."""

    path: tuple[str | int, ...]
    schema: dict[str, Any]

    @property
    def name(self) -> str:
        return next(part for part in reversed(self.path) if isinstance(part, str))

    def values(self) -> dict[str, Any]:
        kinds = {option.get("type") for option in options(self.schema)}
        kinds = {"string"} if not kinds & {"string", "integer", "number"} else kinds
        formats = {option.get("format") for option in options(self.schema)}
        found = dict(TEXTS) if "string" in kinds else {}
        if kinds & {"integer", "number"}:
            found |= NUMBERS
        if "date-time" in formats:
            found |= DATES
        return found


def options(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The kinds of values that a schema allows."""
    found = []
    for word in ("anyOf", "oneOf", "allOf"):
        for one in schema.get(word, ()):
            found += options(one)
    if isinstance(schema.get("type"), list):
        found += [schema | {"type": one} for one in schema["type"]]
    return found or [schema]


def fields(schema: dict[str, Any], example: Any, path: tuple[str | int, ...] = ()) -> Iterator[Field]:
    """Every text, number and date in a schema without references. The example says which keys a mapping may have."""
    scalars = [one for one in options(schema) if one.get("type") in {"string", "integer", "number"}]
    if scalars and path:
        yield Field(path, {"anyOf": scalars})
    for option in options(schema):
        for name, inner in option.get("properties", {}).items():
            yield from fields(inner, example.get(name) if isinstance(example, dict) else None, (*path, name))
        if isinstance(more := option.get("additionalProperties"), dict):
            known = next(iter(example), "x") if isinstance(example, dict) else "x"
            yield from fields(more, None, (*path, known))
        if isinstance(items := option.get("items"), dict):
            yield from fields(items, example[0] if isinstance(example, list) and example else None, (*path, 0))


def replaced(body: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """A copy of the body with another value at the path."""
    match path:
        case ():
            return value
        case (str(name), *rest):
            inside = dict(body) if isinstance(body, dict) else {}
            return inside | {name: replaced(inside.get(name), tuple(rest), value)}
        case (0, *rest):
            inside = list(body) if isinstance(body, list) else []
            return [replaced(inside[0] if inside else None, tuple(rest), value), *inside[1:]]
        case _:
            raise AssertionError(path)


def is_date(value: Any) -> bool:
    """Whether a value is one of DATES that exists."""
    try:
        return value in DATES.values() and bool(msgspec.convert(value, datetime))
    except msgspec.ValidationError:
        return False
