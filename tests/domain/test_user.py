"""Users: given these events, a decision makes those."""

from uuid import uuid4

import pytest

from domain import user
from domain.access import Role
from domain.errors import Conflict
from tests.given import LATER, NOW

ME, OTHER = uuid4(), uuid4()


NAMES = {"email": "ada@example.org", "username": "ada", "first_name": "Ada", "last_name": "Byron"}


def a_user():
    return user.evolve(None, user.register(ME, **NAMES, by=ME, at=NOW))


def test_a_fresh_registration_is_an_active_viewer():
    registered = user.register(ME, **NAMES, by=ME, at=NOW)
    assert (registered.role, registered.status) == (Role.VIEWER, user.Status.ACTIVE)


def test_a_profile_change_records_only_what_is_new():
    changed = user.change_profile(a_user(), {"first_name": "Ada", "phone": "123"}, by=ME, at=LATER)
    assert [(event.phone, event.originator_version) for event in changed] == [("123", 2)]
    assert user.change_profile(a_user(), {"first_name": "Ada"}, by=ME, at=LATER) == []


def test_nobody_deletes_their_own_account():
    with pytest.raises(Conflict):
        user.delete(a_user(), by=ME, at=LATER)


def test_a_role_and_a_status_change_once():
    promoted = user.evolve(a_user(), *user.change_role(a_user(), Role.ADMIN, by=OTHER, at=LATER))
    assert promoted.is_active_admin
    assert user.change_role(promoted, Role.ADMIN, by=OTHER, at=LATER) == []
    suspended = user.evolve(promoted, *user.change_status(promoted, user.Status.SUSPENDED, by=OTHER, at=LATER))
    assert not suspended.may_sign_in
    assert not suspended.is_active_admin
    assert user.change_status(suspended, user.Status.SUSPENDED, by=OTHER, at=LATER) == []


def test_an_event_holds_a_commitment_to_the_password_hash_and_not_the_hash():
    changed = user.change_password(a_user(), password_hash=b"hash", by=ME, at=LATER)
    assert changed.password_commitment == user.commitment(ME, b"hash") != user.commitment(OTHER, b"hash")
    assert user.evolve(a_user(), changed).password_commitment == changed.password_commitment


def test_a_closed_or_erased_account_is_closed_once():
    closed = user.evolve(a_user(), *user.delete(a_user(), by=OTHER, at=LATER))
    assert (closed.deleted, closed.may_sign_in) == (True, False)
    assert user.delete(closed, by=OTHER, at=LATER) == []
    erased = user.evolve(closed, *user.erase(closed, by=OTHER, at=LATER))
    assert erased.erased
    assert user.erase(erased, by=OTHER, at=LATER) == []
