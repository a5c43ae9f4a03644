"""Accounts: registration, changes, closing and erasure."""

from uuid import uuid4

import pytest

from application import accounts
from application.accounts import load_account
from application.passwords import PASSWORD, NewPassword
from domain.access import Actor, Role
from domain.errors import Conflict, Forbidden, Invalid, LastAdministrator, NotFound, Taken, TooMany, VersionMismatch
from domain.events import ERASED
from domain.user import PasswordChanged, Status, UserErased, UserRegistered
from domain.values import canonical
from infrastructure.security.keyed_digest import ClaimDigests
from tests.given import NOW, actor, command

SECRET, OTHER = "a long and winding road", "another long password"
ADMIN = actor(Role.ADMIN)
SYSTEM = actor(None, kind="system")


@pytest.fixture
def register(log, passwords):
    def register(name="ada", **changes):
        about = {"email": f"{name}@example.org", "username": name, "first_name": name, "last_name": "Lab", "password": SECRET}
        return accounts.register(**about | changes, command=command(), log=log, passwords=passwords).id

    return register


@pytest.fixture
def update(log, passwords, tokens, sign_in_limits):
    def update(user_id, *, by=None, profile=None, **changes):
        actor = by or Actor(id=user_id, role=Role.VIEWER)
        about = {"command": command(actor), "log": log, "passwords": passwords, "tokens": tokens, "sign_in_limits": sign_in_limits}
        return accounts.update(user_id, profile=profile or {}, **changes, **about)

    return update


def types(log, stream):
    return [one.type for one in log.history(stream)]


def test_a_registered_user_is_a_viewer_whose_password_is_stored_beside_the_log(log, register):
    ada = register()
    assert types(log, ada) == [UserRegistered.__name__]
    assert load_account(log, ada).role is Role.VIEWER
    assert log.secret(PASSWORD, ada) is not None
    assert accounts.find("ADA@example.org", log).id == ada
    assert accounts.find("bob@example.org", log) is None
    assert accounts.states_of({ada, uuid4()}, log) == {ada: load_account(log, ada)}


@pytest.mark.parametrize(("taken", "scope"), [({"username": "other"}, "email"), ({"email": "other@example.org"}, "username")])
def test_an_email_and_a_username_belong_to_one_account(register, taken, scope):
    register()
    with pytest.raises(Taken) as refused:
        register(**taken)
    assert refused.value.scope == scope


@pytest.mark.parametrize(("first", "second"), [("münchen", "xn--mnchen-3ya"), ("xn--mnchen-3ya", "münchen")])
def test_a_mailbox_has_one_account_however_its_domain_is_spelled(log, register, update, first, second):
    ada = register(email=f"ada@{first}.example")
    assert accounts.find(f"ada@{second}.example", log).id == ada
    with pytest.raises(Taken):
        register("other", email=f"ADA@{second}.example")
    update(ada, profile={"email": f"ada@{second}.example"})
    assert load_account(log, ada).email == f"ada@{second}.example"
    update(ada, profile={"email": "ada@example.org"})
    assert register("other", email=f"ada@{first}.example")


@pytest.mark.parametrize("old", ["ada@xn--mnchen-3ya.example", "ada@mün\u00adchen.example", "ä@example.org"])
def test_an_account_of_an_earlier_release_keeps_its_address(log, register, update, monkeypatch, old):
    with monkeypatch.context() as earlier:
        earlier.setattr("domain.user.new_address", str)
        earlier.setattr(ClaimDigests, "of", lambda digests, scope, value: digests._scope(scope).of(canonical(value).encode()))
        ada = register(email=old)
    assert accounts.find(old, log).id == ada
    update(ada, profile={"email": old, "first_name": "Augusta"})
    assert (load_account(log, ada).email, load_account(log, ada).first_name) == (old, "Augusta")
    if old.isascii():
        with pytest.raises(Taken):
            register("other", email="ada@münchen.example")
    update(ada, profile={"email": "lovelace@example.org"})
    assert accounts.find(old, log) is None


@pytest.mark.parametrize("password", ["short", "passwordpassword", "ada@example.org", "a" * 15, "x" * 129])
def test_a_weak_password_is_refused(log, register, password):
    with pytest.raises(Invalid):
        register(password=password)
    assert log.head() == 0


def test_a_user_changes_the_profile_and_the_old_email_is_free_again(log, register, update):
    ada = register()
    update(ada, profile={"email": "lovelace@example.org", "institution": "Royal Society"})
    assert load_account(log, ada).institution == "Royal Society"
    assert accounts.find("lovelace@example.org", log).id == ada
    assert register("other", email="ada@example.org")


def test_an_update_that_changes_nothing_appends_nothing(log, register, update):
    ada = register()
    head = log.head()
    assert update(ada, profile={"first_name": "ada"}).position == 0
    assert log.head() == head


def test_an_update_of_an_older_version_is_refused(register, update):
    ada = register()
    with pytest.raises(VersionMismatch):
        update(ada, profile={"first_name": "Ada"}, expected=2)


def test_only_administrators_change_others_roles_and_status(register, update):
    ada = register()
    for refused in ({"by": actor(Role.RESEARCHER)}, {"role": Role.ADMIN}, {"status": Status.SUSPENDED}):
        with pytest.raises(Forbidden):
            update(ada, **refused)


def test_a_password_is_changed_with_the_current_one_or_shortly_after_a_sign_in(log, register, update, tokens):
    ada = register()
    keep, ended = (tokens.issue(session=uuid4(), user=ada, at=NOW) for _ in range(2))
    update(ada, password=NewPassword(password=OTHER, current=SECRET, signed_in_for=9999, keep=tokens.session_of(keep)))
    assert types(log, ada)[-1] == PasswordChanged.__name__
    assert tokens.session_of(keep) is not None
    assert tokens.session_of(ended) is None
    assert update(ada, password=NewPassword(password=SECRET, signed_in_for=5)).position
    with pytest.raises(Forbidden, match="current password too"):
        update(ada, password=NewPassword(password=OTHER, signed_in_for=9999))


def test_wrong_current_passwords_are_limited(register, update):
    ada = register()
    for _ in range(5):
        with pytest.raises(Forbidden, match="wrong"):
            update(ada, password=NewPassword(password=OTHER, current="a wrong password", signed_in_for=9999))
    with pytest.raises(TooMany):
        update(ada, password=NewPassword(password=OTHER, current=SECRET, signed_in_for=9999))


def test_a_suspended_user_loses_all_sessions(log, register, update, tokens):
    ada = register()
    token = tokens.issue(session=uuid4(), user=ada, at=NOW)
    update(ada, by=ADMIN, status=Status.SUSPENDED)
    assert not load_account(log, ada).may_sign_in
    assert tokens.session_of(token) is None


def test_a_password_is_reset_by_the_operator_alone(log, register, passwords, tokens):
    ada = register()
    before = log.secret(PASSWORD, ada)
    with pytest.raises(Forbidden):
        accounts.reset_password(ada, OTHER, command=command(), log=log, passwords=passwords, tokens=tokens)
    accounts.reset_password(ada, OTHER, command=command(SYSTEM), log=log, passwords=passwords, tokens=tokens)
    assert log.secret(PASSWORD, ada) != before


def test_the_last_administrator_keeps_the_role(log, register):
    ada, bob = register(), register("bob")
    accounts.change_role(ada, Role.ADMIN, command=command(SYSTEM), log=log)
    with pytest.raises(LastAdministrator):
        accounts.change_role(ada, Role.VIEWER, command=command(SYSTEM), log=log)
    accounts.change_role(bob, Role.ADMIN, command=command(SYSTEM), log=log)
    accounts.change_role(ada, Role.VIEWER, command=command(SYSTEM), log=log)
    assert load_account(log, ada).role is Role.VIEWER


def test_a_closed_account_is_gone_and_its_names_are_free(log, register, tokens):
    ada = register()
    accounts.delete(ada, command=command(ADMIN), log=log, tokens=tokens)
    with pytest.raises(NotFound):
        load_account(log, ada)
    assert log.secret(PASSWORD, ada) is None
    assert register() != ada


def test_nobody_closes_the_own_account(log, register, tokens):
    ada = register()
    with pytest.raises(Conflict):
        accounts.delete(ada, command=command(Actor(id=ada, role=Role.ADMIN)), log=log, tokens=tokens)


def test_an_erased_user_cannot_be_read_any_more(log, register, tokens):
    ada = register()
    accounts.erase(ada, command=command(ADMIN), log=log, tokens=tokens)
    assert types(log, ada)[-1] == UserErased.__name__
    log.codec.forget(ada)  # as after the time for which data keys are cached
    assert log.decode(log.history(ada)[0]).email == ERASED
    with pytest.raises(NotFound):
        accounts.erase(ada, command=command(ADMIN), log=log, tokens=tokens)
