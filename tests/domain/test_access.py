"""Roles and grants: each includes those below it."""

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.access import Actor, Grant, Role, grant_of_scopes, require_grant, require_role
from domain.errors import Forbidden, NotFound

ME = uuid4()


@given(st.sampled_from(Role), st.sampled_from(Role))
def test_a_role_includes_those_below_it(held, minimum):
    asker = Actor(id=ME, role=held)
    if held.level >= minimum.level:
        require_role(asker, minimum)
    else:
        with pytest.raises(Forbidden):
            require_role(asker, minimum)


@given(st.sampled_from([None, *Grant]), st.sampled_from(Grant))
def test_a_grant_decides_and_a_foreign_dataset_looks_absent(held, minimum):
    if held is not None and held.level >= minimum.level:
        require_grant(held, minimum, dataset_id=uuid4())
    else:
        with pytest.raises(NotFound if held is None else Forbidden):
            require_grant(held, minimum, dataset_id=uuid4())


@pytest.mark.parametrize(
    ("scopes", "grant"),
    [
        ((), None),
        (("metrics:read", "models:run"), None),
        (("images:read",), Grant.VIEWER),
        (("datasets:read",), Grant.VIEWER),
        (("results:read", "jobs:run"), Grant.ANALYST),
        (("jobs:run", "images:write"), Grant.EDITOR),
    ],
)
def test_the_grant_of_a_service_follows_from_its_scopes(scopes, grant):
    assert grant_of_scopes(scopes) is grant


def test_a_service_is_no_administrator():
    with pytest.raises(Forbidden):
        require_role(Actor(id=ME, kind="service", scopes=frozenset({"events:read"})), Role.VIEWER)
