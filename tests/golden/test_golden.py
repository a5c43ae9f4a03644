"""Every event that was ever stored can be read for ever: one file for each type and schema version, written once.

A new type, or a new version of one, gets its file by `.venv/bin/python -m tests.golden.make`.
"""

import msgspec
import pytest

from domain.events import ERASED, SEALED_PREFIXES, private_fields
from domain.registry import EVENTS
from infrastructure.eventstore.codec import PRIVATE_SINCE
from tests.golden.make import FOLDER, golden, made, path_of, paths_of, plain, stores_every_field

FILES = sorted(FOLDER.glob("*.json"))
NAMES = [path.stem for path in FILES]
ADVICE = "run `.venv/bin/python -m tests.golden.make`, and commit what it writes"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_what_was_stored_reads_as_it_did(path):
    known = golden(path)
    assert plain(known.read()) == known.event


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_what_is_private_was_stored_sealed_and_goes_with_its_key(path):
    known = golden(path)
    was_private = known.schema_version >= PRIVATE_SINCE.get(known.type, 1)
    private = private_fields(EVENTS[known.type]) if was_private else {}
    assert all(str(known.data[field]).startswith(SEALED_PREFIXES) for field in private if known.data.get(field) is not None)
    after = plain(known.read(erased=True))
    for field, value in known.event.items():
        gone = {} if isinstance(value, dict) else ERASED
        assert after[field] == (gone if field in private and value is not None else value)


@pytest.mark.parametrize(("name", "kind"), EVENTS.items(), ids=EVENTS)
def test_every_version_of_every_type_has_its_file(name, kind):
    missing = [version for version in range(1, kind.schema_version + 1) if not path_of(name, version).exists()]
    assert not missing, ADVICE


@pytest.mark.parametrize(("name", "kind"), EVENTS.items(), ids=EVENTS)
def test_every_field_of_a_type_is_stored_in_one_of_its_files(name, kind):
    assert any(stores_every_field(path, kind) for path in paths_of(name, kind.schema_version)), ADVICE


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_file_is_named_after_what_it_holds_and_holds_every_field(path):
    known = golden(path)
    assert path in paths_of(known.type, known.schema_version)
    assert set(known.event) == set(EVENTS[known.type].__struct_fields__)


def test_samples_fill_every_field():
    """So a golden file leaves nothing to a default."""
    for kind in EVENTS.values():
        assert msgspec.UNSET not in [getattr(made(kind), field) for field in kind.__struct_fields__]
