"""Datasets and their grants."""

from uuid import uuid4

import pytest
from msgspec import UNSET

from domain import dataset
from domain.access import Grant
from domain.errors import Conflict, Invalid
from tests.given import LATER, NOW, state_after

ME, OTHER = uuid4(), uuid4()


def a_dataset():
    return dataset.evolve(None, dataset.create(uuid4(), name="cells", description=None, by=ME, at=NOW))


def shared(whom, grant=Grant.VIEWER):
    return dataset.share(a_dataset(), user=whom, grant=grant, by=ME, at=NOW)


def test_the_owner_keeps_the_right_to_a_dataset():
    for refused in (lambda: dataset.withdraw(a_dataset(), user=ME, by=ME, at=NOW), lambda: shared(ME), lambda: shared(OTHER, Grant.OWNER)):
        with pytest.raises(Conflict):
            refused()


def test_a_share_can_be_given_and_withdrawn():
    mine = a_dataset()
    mine = state_after(dataset.evolve, [dataset.create(mine.id, name="x", description=None, by=ME, at=NOW), *shared(OTHER)])
    assert mine.grants == {ME: Grant.OWNER, OTHER: Grant.VIEWER}
    assert dataset.evolve(mine, *dataset.withdraw(mine, user=OTHER, by=ME, at=LATER)).grants == {ME: Grant.OWNER}


def test_a_description_records_only_what_changes():
    before = a_dataset()
    (described,) = dataset.describe(before, name="cells", description="from the microscope", by=ME, at=LATER)
    assert (described.name, described.description) == (UNSET, "from the microscope")
    after = dataset.evolve(before, described)
    assert (after.name, after.description, after.version) == ("cells", "from the microscope", 2)
    assert dataset.describe(after, name="cells", description="from the microscope", by=ME, at=LATER) == []
    with pytest.raises(Invalid):
        dataset.describe(after, name=" ", by=ME, at=LATER)


def test_a_deleted_dataset_keeps_its_grants():
    before = a_dataset()
    deleted = dataset.evolve(before, dataset.delete(before, by=ME, at=LATER))
    assert (deleted.deleted, deleted.grants) == (True, {ME: Grant.OWNER})
