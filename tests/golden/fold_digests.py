"""A digest of the rows of each read model after the golden events. `.venv/bin/python -m tests.golden.fold_digests` writes it.

A digest of the same events may change only with the `fold_version` of its table. Read models of earlier releases are then rebuilt.
"""

import hashlib
import re
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import msgspec

from domain.events import Event
from projections.engine.batches import TABLES
from projections.engine.projection import PositionedEvent, Table
from tests.golden.make import FOLDER, golden
from tests.projections.test_folds import apply, empty

FILE = FOLDER / "folds" / "digests.json"
BEGINNINGS = (
    "UserRegistered.1",
    "DatasetCreated.1",
    "DeviceRegistered.2",
    "ModelVersionAdded.1",
    "ImageUploaded.1.2",
    "ClassificationRequested.1",
    "ClassificationPlanned.1",
)
UUIDS = re.compile(rb'"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"')


class Folded(msgspec.Struct, frozen=True, kw_only=True):
    fold_version: int
    digest: str


class Digests(msgspec.Struct, frozen=True, kw_only=True):
    """`events`: the names of the golden files that were folded."""

    events: list[str]
    tables: dict[str, Folded]


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def stored() -> Digests:
    return msgspec.json.decode(FILE.read_bytes(), type=Digests)


def digests_of(events: list[str], tables: Sequence[Table] = TABLES) -> dict[str, str]:
    """By table: of the rows after the beginnings and any two of the events. All things have one id, so that events find what they name."""
    known = {name: _about_one_thing(FOLDER / f"{name}.json") for name in events}
    begun = _history([known[name] for name in BEGINNINGS])
    found = {table.name: hashlib.sha256() for table in tables}
    for pair in product(known.values(), repeat=2):
        for name, rows in apply(apply(empty(), begun, tables=tables), _history(pair, after=len(begun)), tables=tables).items():
            found[name].update(msgspec.json.encode(sorted(map(msgspec.json.encode, rows.values()))))
    return {name: digest.hexdigest() for name, digest in found.items()}


def made() -> Digests:
    found = digests_of(names())
    return Digests(
        events=names(),
        tables={table.name: Folded(fold_version=table.fold_version, digest=found[table.name]) for table in TABLES},
    )


def changed_without_a_new_version(before: Digests, tables: Sequence[Table] = TABLES) -> list[str]:
    """The tables whose folds make other rows than before of the same events, and have the version of before."""
    now = digests_of(before.events, tables)
    return [
        table.name
        for table in tables
        if (known := before.tables.get(table.name)) is not None
        and known.fold_version == table.fold_version
        and known.digest != now[table.name]
    ]


def _about_one_thing(path: Path) -> Event:
    known = golden(path)
    event = known.read()
    text = UUIDS.sub(b'"%s"' % str(known.stream).encode(), msgspec.json.encode(event))
    return msgspec.json.decode(text, type=type(event))


def _history(events: list[Event] | tuple[Event, ...], after: int = 0) -> list[PositionedEvent]:
    numbered = enumerate(events, after + 1)
    return [PositionedEvent(number, msgspec.structs.replace(event, originator_version=number)) for number, event in numbered]


def main() -> None:
    if FILE.exists() and (changed := changed_without_a_new_version(stored())):
        sys.exit(f"The folds of {', '.join(changed)} give other rows than before: raise the fold_version of these tables first.")
    FILE.write_bytes(msgspec.json.format(msgspec.json.encode(made()), indent=2) + b"\n")


if __name__ == "__main__":
    main()
