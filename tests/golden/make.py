"""Writes a golden file for each event type and schema version that has none: `.venv/bin/python -m tests.golden.make`.

A field that is added to a version gets a further file (`NAME.VERSION.2.json`), in which it is stored.

What was stored is never written anew. How it reads today is: look at the difference before you commit it.
"""

import base64
import typing
from datetime import UTC, datetime
from enum import Enum
from itertools import count, takewhile
from pathlib import Path
from types import UnionType
from typing import Any
from uuid import UUID, uuid5

import msgspec

from domain.events import Event, private_fields
from domain.registry import EVENTS
from domain.session import Reason
from infrastructure.eventstore.codec import COLUMNS, Codec, EncodedEvent
from infrastructure.security.keys import DataKeys, RootKey

FOLDER = Path(__file__).parent
ROOT = RootKey(b"the root key of golden files ...")
NAMES = UUID(int=7)
OF_THE_NEWEST_VERSION: dict[Any, Any] = {Reason: Reason.ENDED}
"""Members that earlier schema versions lack."""
PLAIN: dict[Any, Any] = {int: 3, float: 0.25, bool: True, datetime: datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)}


class Golden(msgspec.Struct, forbid_unknown_fields=True):
    """One stored event, with the wrapped keys that its private fields need, and `event`: how it reads."""

    stream: UUID
    version: int
    type: str
    schema_version: int
    event_id: UUID
    keys: dict[UUID, str]
    data: dict[str, Any]
    event: dict[str, Any]

    @property
    def stored(self) -> EncodedEvent:
        data = msgspec.json.encode(self.data)
        return EncodedEvent(self.stream, self.version, self.type, self.schema_version, self.event_id, data)

    def read(self, *, erased: bool = False) -> Event:
        keys = {} if erased else {subject: base64.b64decode(wrapped) for subject, wrapped in self.keys.items()}
        return Codec(DataKeys(ROOT, lambda wanted: {it: keys[it] for it in wanted if it in keys}), lambda _: ()).decode(self.stored)


def plain(event: Event) -> dict[str, Any]:
    """As JSON would hold it."""
    return msgspec.json.decode(msgspec.json.encode(event))


def path_of(type_name: str, schema_version: int, number: int = 1) -> Path:
    return FOLDER / (f"{type_name}.{schema_version}.json" if number == 1 else f"{type_name}.{schema_version}.{number}.json")


def paths_of(type_name: str, schema_version: int) -> list[Path]:
    """The golden files that there are of one version of a type."""
    paths = (path_of(type_name, schema_version, number) for number in count(1))
    return list(takewhile(Path.exists, paths))


def stores_every_field(path: Path, kind: type[Event]) -> bool:
    return set(kind.__struct_fields__) - set(COLUMNS) <= set(golden(path).data)


def golden(path: Path) -> Golden:
    return msgspec.json.decode(path.read_bytes(), type=Golden)


def sample(name: str, kind: Any) -> Any:
    """A value for a field, which its name decides: the same in each run."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in {typing.Union, UnionType}:
        return sample(name, inner[0])
    if origin is tuple:
        return (sample(f"{name} 1", inner[0]), sample(f"{name} 2", inner[0]))
    if origin is dict:
        return {sample(f"{name} key", inner[0]): sample(f"{name} value", inner[1])}
    if issubclass(kind, Enum):
        return OF_THE_NEWEST_VERSION.get(kind, next(iter(kind)))
    if issubclass(kind, msgspec.Struct):
        return made(kind)
    if kind is UUID:
        return uuid5(NAMES, name)
    return PLAIN.get(kind, f"{name}, größe µ")


def made(kind: type[msgspec.Struct]) -> Any:
    hints = typing.get_type_hints(kind)
    return kind(**{name: sample(name, hints[name]) for name in kind.__struct_fields__})


def first(kind: type[Event]) -> Golden:
    """Of a type that has no golden file in its present version."""
    event, keys = made(kind), {}
    data_keys = DataKeys(ROOT, lambda wanted: {it: keys[it] for it in wanted if it in keys})
    for owner in set(private_fields(kind).values()):
        subject = getattr(event, owner)
        keys[subject] = data_keys.create(subject)[1]
    encoded = Codec(data_keys, lambda _: ()).encode(event)
    return Golden(
        stream=encoded.stream,
        version=encoded.version,
        type=encoded.type,
        schema_version=encoded.schema_version,
        event_id=encoded.event_id,
        keys={subject: base64.b64encode(wrapped).decode() for subject, wrapped in keys.items()},
        data=msgspec.json.decode(encoded.data),
        event=plain(event),
    )


def write(path: Path, content: Golden) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")


def main() -> None:
    for name, kind in EVENTS.items():
        paths = paths_of(name, kind.schema_version)
        if not any(stores_every_field(path, kind) for path in paths):
            write(path_of(name, kind.schema_version, len(paths) + 1), first(kind))
    for path in FOLDER.glob("*.json"):
        known = golden(path)
        write(path, msgspec.structs.replace(known, event=plain(known.read())))


if __name__ == "__main__":
    main()
