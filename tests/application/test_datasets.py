"""Datasets: created, described, shared, deleted."""

from uuid import uuid4

import pytest

from application import accounts, datasets
from application.datasets import load_dataset
from domain.access import Actor, Grant, Role
from domain.errors import Conflict, Forbidden, Invalid, NotFound, VersionMismatch
from tests.given import actor, command

ADA, STRANGER, ADMIN = actor(), actor(), actor(Role.ADMIN)


@pytest.fixture
def cells(log):
    return datasets.create(name="cells", description=None, command=command(ADA), log=log).id


@pytest.fixture
def bob(log, passwords):
    about = {"email": "bob@example.org", "username": "bob", "first_name": "Bob", "last_name": "Lab", "password": "a long and winding road"}
    return Actor(id=accounts.register(**about, command=command(), log=log, passwords=passwords).id, role=Role.RESEARCHER)


def test_a_dataset_belongs_to_its_creator(log, cells):
    assert load_dataset(log, cells, ADA, Grant.OWNER).owner_id == ADA.id
    assert load_dataset(log, cells, ADMIN, Grant.OWNER).name == "cells"
    with pytest.raises(NotFound):
        load_dataset(log, cells, STRANGER, Grant.VIEWER)


def test_a_viewer_creates_no_dataset(log):
    with pytest.raises(Forbidden):
        datasets.create(name="cells", description=None, command=command(actor(Role.VIEWER)), log=log)


def test_a_dataset_is_described_field_by_field(log, cells):
    datasets.describe(cells, description="from the microscope", command=command(ADA), log=log)
    datasets.describe(cells, name="blood cells", command=command(ADA), log=log)
    state = load_dataset(log, cells, ADA, Grant.OWNER)
    assert (state.name, state.description) == ("blood cells", "from the microscope")
    assert datasets.describe(cells, name="blood cells", command=command(ADA), log=log).position == 0
    with pytest.raises(Invalid):
        datasets.describe(cells, name=" ", command=command(ADA), log=log)


def test_a_change_of_an_older_version_is_refused(log, cells):
    datasets.describe(cells, name="blood cells", expected=1, command=command(ADA), log=log)
    with pytest.raises(VersionMismatch):
        datasets.describe(cells, name="other cells", expected=1, command=command(ADA), log=log)


def test_a_share_gives_a_user_a_grant_until_it_is_withdrawn(log, cells, bob):
    datasets.share(cells, user_id=bob.id, grant=Grant.VIEWER, command=command(ADA), log=log)
    assert load_dataset(log, cells, bob, Grant.VIEWER)
    with pytest.raises(Forbidden):
        load_dataset(log, cells, bob, Grant.EDITOR)
    datasets.withdraw(cells, user_id=bob.id, command=command(ADA), log=log)
    with pytest.raises(NotFound):
        load_dataset(log, cells, bob, Grant.VIEWER)


def test_a_dataset_is_shared_with_existing_users_by_its_owner_alone(log, cells, bob):
    with pytest.raises(NotFound, match="User"):
        datasets.share(cells, user_id=uuid4(), grant=Grant.VIEWER, command=command(ADA), log=log)
    with pytest.raises(Conflict):
        datasets.share(cells, user_id=bob.id, grant=Grant.OWNER, command=command(ADA), log=log)
    datasets.share(cells, user_id=bob.id, grant=Grant.EDITOR, command=command(ADA), log=log)
    with pytest.raises(Forbidden):
        datasets.share(cells, user_id=bob.id, grant=Grant.VIEWER, command=command(bob), log=log)


def test_a_deleted_dataset_is_not_found(log, cells):
    datasets.delete(cells, command=command(ADA), log=log)
    with pytest.raises(NotFound):
        load_dataset(log, cells, ADA, Grant.VIEWER)
    with pytest.raises(NotFound):
        datasets.delete(cells, command=command(ADA), log=log)
