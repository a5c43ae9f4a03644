"""The event types in docs/events.md and their fields in docs/event-types.md. `make events` writes both."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from application.history.event_meanings import EVERY_EVENT, FIELDS, MEANINGS
from application.history.event_schemas import COLUMNS
from domain.events import Event, private_fields
from domain.registry import EVENTS, NOUN_OF
from scripts.blocks import with_block

DOCS: Final = Path(__file__).parent.parent / "docs"
OVERVIEW: Final = DOCS / "events.md"
REFERENCE: Final = DOCS / "event-types.md"
BEGIN: Final = "<!-- `make events` writes the table from here ... -->\n"
END: Final = "<!-- ... to here. -->\n"
HEADER: Final = """# Event types and their fields

`make events` writes this page from the code. [events.md](events.md) explains how to read events.
`GET /api/events/schemas/TYPE` gives the same fields as JSON Schema, also of earlier schema versions.

Every payload has two fields:

{common}
"""


def overview() -> str:
    """The table of docs/events.md."""
    rows = ["| of | type | meaning | private fields |", "|---|---|---|---|"]
    for kind, event in EVENTS.items():
        private = ", ".join(f"`{name}`" for name in private_fields(event))
        rows.append(f"| {NOUN_OF[kind]} | `{kind}` | {MEANINGS[kind]} | {private} |")
    return "\n".join(rows) + "\n"


def overview_page(text: str) -> str:
    return with_block(text, BEGIN, END, overview())


def reference_page() -> str:
    """Raises KeyError for an event type or a field without a meaning."""
    nouns = dict.fromkeys(NOUN_OF.values())
    sections = [HEADER.format(common=_items(EVERY_EVENT.items()))]
    sections += [_noun(noun, [event for kind, event in EVENTS.items() if NOUN_OF[kind] == noun]) for noun in nouns]
    return "\n".join([*sections, _parts()])


def _noun(noun: str, events: Iterable[type[Event]]) -> str:
    return "\n".join([f"## {noun.replace('_', ' ').capitalize()}\n", *map(_event, events)])


def _event(event: type[Event]) -> str:
    kind, private = event.__name__, private_fields(event)
    fields = [(name, _meaning(kind, name) + (" Private." if name in private else "")) for name in field_names(event)]
    return f"### {kind}\n\n{MEANINGS[kind]}\n" + (f"\n{_items(fields)}\n" if fields else "")


def _parts() -> str:
    parts = [
        f"### {part.__name__}\n\n{_items((name, _meaning(part.__name__, name)) for name in part.__struct_fields__)}\n"
        for part in parts_of_events()
    ]
    return "\n".join(["## Parts of fields\n", *parts])


def _meaning(kind: str, name: str) -> str:
    return FIELDS[kind][name]


def _items(named: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"- `{name}`: {meaning}" for name, meaning in named)


def field_names(event: type[Event]) -> list[str]:
    """The fields of an event type, without those that every event has."""
    return [name for name in event.__struct_fields__ if name not in {*COLUMNS, *EVERY_EVENT}]


def parts_of_events() -> list[type[msgspec.Struct]]:
    """The structs in the fields of events, by name."""
    found: dict[str, type[msgspec.Struct]] = {}
    for event in EVENTS.values():
        _collect(msgspec.inspect.type_info(event), found)
    return [part for name, part in sorted(found.items()) if name not in EVENTS]


def _collect(info: Any, found: dict[str, type[msgspec.Struct]]) -> None:
    match info:
        case msgspec.inspect.StructType() if info.cls.__name__ not in found:
            found[info.cls.__name__] = info.cls
            for field in info.fields:
                _collect(field.type, found)
        case msgspec.inspect.VarTupleType():
            _collect(info.item_type, found)
        case msgspec.inspect.UnionType():
            for one in info.types:
                _collect(one, found)


if __name__ == "__main__":
    OVERVIEW.write_text(overview_page(OVERVIEW.read_text()))
    REFERENCE.write_text(reference_page())
