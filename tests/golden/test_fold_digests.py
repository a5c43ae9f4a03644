"""A fold that makes other rows from the same events needs a new version, so that read models of earlier releases are rebuilt."""

import msgspec
import pytest

from projections import images
from projections.engine import batches
from tests.golden import fold_digests
from tests.golden.fold_digests import changed_without_a_new_version, names, stored

ADVICE = "run `.venv/bin/python -m tests.golden.fold_digests`, and commit what it writes"


def test_no_fold_makes_other_rows_under_the_same_version():
    assert changed_without_a_new_version(stored()) == [], f"raise the `fold_version` of these tables, then {ADVICE}"


def test_the_digests_cover_every_golden_event_and_every_table():
    known = stored()
    versions = {name: folded.fold_version for name, folded in known.tables.items()}
    assert (known.events, versions) == (names(), batches.FOLD_VERSIONS), ADVICE


def test_a_fold_that_was_changed_is_noticed():
    def upside_down(key, row, happened, look):
        row = images.fold(key, row, happened, look)
        return row and msgspec.structs.replace(row, width=row.height + 1)

    tables = tuple(table._replace(fold=upside_down) if table is images.TABLE else table for table in batches.TABLES)
    assert changed_without_a_new_version(stored(), tables) == ["images"]
    raised = tuple(table._replace(fold_version=2) if table.name == "images" else table for table in tables)
    assert changed_without_a_new_version(stored(), raised) == []


@pytest.mark.parametrize("table", batches.FOLD_VERSIONS)
def test_golden_events_leave_rows_in_every_table(table):
    nothing = fold_digests.hashlib.sha256(b"[]" * len(names()) ** 2).hexdigest()
    assert stored().tables[table].digest != nothing
