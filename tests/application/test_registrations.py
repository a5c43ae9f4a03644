"""Registrations whose address is verified before the account exists."""

from datetime import timedelta
from threading import Thread

import pytest

from application import accounts, invitations, password_resets, registrations, sessions
from application.authentication import PENDING, signed_in
from application.commands import CommandResult
from application.passwords import PASSWORD, NewPassword
from domain import registration
from domain.access import Actor, Role
from domain.errors import Forbidden, Invalid, InvalidLink, NotAuthenticated, NotFound, Taken, TooMany, UpgradeUnderWay
from domain.events import ERASED
from domain.registration import (
    LIFETIME,
    Registration,
    RegistrationCompleted,
    RegistrationDiscarded,
    RegistrationRequested,
    VerificationRequested,
)
from domain.session import SessionRevoked, SessionStarted
from domain.user import Status, User, UserRegistered
from tests.given import LATER, NOW, actor, command
from tests.twins.key_uses import identity_cache

SECRET, OTHER, EMAIL = "a long and winding road", "another long password", "ada@example.org"
SYSTEM = actor(None, kind="system")
FROM = {"address": "192.0.2.1", "network": "192.0.2.1", "agent": "Mozilla"}


@pytest.fixture
def account(log, passwords):
    """An account with the address."""
    names = {"username": "ada", "first_name": "Ada", "last_name": "Lab", "password": SECRET}
    return accounts.register(email=EMAIL, **names, command=command(), log=log, passwords=passwords).id


@pytest.fixture
def sign_in(log, passwords, tokens, sign_in_limits):
    def sign_in(password=SECRET, email=EMAIL, *, at=NOW):
        ports = {"log": log, "passwords": passwords, "tokens": tokens, "sign_in_limits": sign_in_limits}
        return sessions.sign_in(email=email, password=password, **FROM, command=command(at=at), **ports)

    return sign_in


@pytest.fixture
def verify(log, links, passwords, tokens, sign_in_limits):
    def verify(token, password=SECRET, username=None, *, at=NOW):
        ports = {"log": log, "links": links.links, "passwords": passwords, "tokens": tokens, "sign_in_limits": sign_in_limits}
        return registrations.verify(token=token, password=password, username=username, network="192.0.2.1", command=command(at=at), **ports)

    return verify


@pytest.fixture
def discard(log, tokens):
    def discard(registration_id, *, at):
        registrations.discard_expired(registration_id, command=command(SYSTEM, at=at), log=log, tokens=tokens)

    return discard


def newest(log, email=EMAIL):
    return registrations.find(email, log)


def types(log, stream):
    return [one.type for one in log.history(stream)]


def test_a_verified_registration_is_an_account_with_the_same_password(log, links, verify, sign_in):
    token = links.of_registration(EMAIL, password=SECRET)
    pending = newest(log)
    result = verify(token)
    assert result.id != pending.id
    assert types(log, pending.id) == [RegistrationRequested.__name__, RegistrationCompleted.__name__]
    account = sign_in().user
    assert (type(account), account.id, account.role, account.status) == (User, result.id, Role.VIEWER, Status.ACTIVE)


def test_a_registration_of_an_earlier_release_is_verified_whatever_its_address(links, verify, sign_in, monkeypatch):
    old = "ada@exam\u00adple.org"
    with monkeypatch.context() as earlier:
        earlier.setattr("domain.registration.new_address", str)
        token = links.of_registration(old, password=SECRET)
    assert sign_in(email=old).user.email == old
    account = verify(token).id
    assert sign_in(email=old).user.id == account


def test_the_private_data_of_a_verified_registration_is_destroyed(log, links, verify):
    token = links.of_registration(EMAIL, password=SECRET)
    pending = newest(log)
    verify(token)
    assert [log.secret(kind, pending.id) for kind in ("key", PASSWORD)] == [None, None]
    log.codec.forget(pending.id)
    read = log.load(pending.id, registration.evolve)
    assert {read.email, read.username, read.first_name, read.last_name} == {ERASED}


def test_a_link_verifies_once(log, links, verify):
    token = links.of_registration(EMAIL, password=SECRET)
    verify(token)
    with pytest.raises(InvalidLink):
        verify(token)
    assert [one.type for one in log.read(0, 100)].count(UserRegistered.__name__) == 1


def test_only_the_newest_link_of_a_registration_works(log, links, verify):
    first = links.of_registration(EMAIL, password=SECRET)
    registrations.request_verification(email=EMAIL, command=command(), log=log)
    with pytest.raises(InvalidLink):
        verify(first)
    verify(links.of_stream(newest(log).id))


def test_a_link_works_for_half_an_hour(links, verify):
    token = links.of_registration(EMAIL, password=SECRET)
    with pytest.raises(InvalidLink):
        verify(token, at=NOW + timedelta(minutes=30))
    verify(token, at=NOW + timedelta(minutes=29))


def test_a_verification_needs_the_password_of_the_registration(log, links, verify):
    """Otherwise the owner of an address would confirm an account whose password a stranger has chosen."""
    token = links.of_registration(EMAIL, password=SECRET)
    with pytest.raises(Forbidden):
        verify(token, OTHER)
    assert accounts.find(EMAIL, log) is None


def test_a_user_name_is_checked_when_the_address_is_verified(log, links, verify, account):
    token = links.of_registration("bob@example.org", password=SECRET, username="ada")
    with pytest.raises(Taken) as refused:
        verify(token)
    assert refused.value.scope == "username"
    verify(token, username="bob")
    assert accounts.find("bob@example.org", log).username == "bob"


def test_user_names_cannot_be_guessed_with_a_registration(links, verify, account, sign_in_limits):
    token = links.of_registration("bob@example.org", password=SECRET, username="ada")
    for _ in range(sign_in_limits.rates.user_names_per_hour):
        with pytest.raises(Taken):
            verify(token)
    for username in ("ada", "bob"):
        with pytest.raises(TooMany):
            verify(token, username=username)


def test_an_address_that_has_an_account_is_refused_to_its_owner_alone(links, verify, account):
    token = links.of_registration(EMAIL, password=OTHER)
    with pytest.raises(Taken) as refused:
        verify(token, OTHER)
    assert refused.value.scope == "email"


@pytest.mark.parametrize("known", [False, True])
def test_a_registration_costs_one_hash_for_a_known_address_and_for_an_unknown_one(request, links, passwords, known):
    if known:
        request.getfixturevalue("account")
    before = passwords.computed
    links.of_registration(EMAIL, password=OTHER)
    assert passwords.computed == before + 1


@pytest.mark.parametrize("pending", [False, True])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("password", [SECRET, OTHER, "a wrong password"])
def test_every_sign_in_costs_one_hash(request, links, passwords, sign_in, known, pending, password):
    if known:
        request.getfixturevalue("account")
    if pending:
        links.of_registration(EMAIL, password=OTHER)
    kind = User if known and password == SECRET else Registration if pending and password == OTHER else None
    before = passwords.computed
    if kind is None:
        with pytest.raises(NotAuthenticated, match="Invalid credentials"):
            sign_in(password)
    else:
        assert isinstance(sign_in(password).user, kind)
    assert passwords.computed == before + 1


@pytest.fixture
def change_password(log, links, passwords, tokens, sign_in_limits):
    """The ways to another password of an account."""

    def change_password(how, user_id):
        ports = {"log": log, "passwords": passwords, "tokens": tokens, "command": command(actor(Role.ADMIN))}
        if how == "reset":
            ports["command"] = command()
            token = links.of_reset(EMAIL)
            password_resets.reset(token=token, password="a third long password", network="192.0.2.1", links=links.links, **ports)
        elif how == "operator":
            accounts.reset_password(user_id, "a third long password", **ports)
        else:
            new = NewPassword(password="a third long password", current=SECRET, signed_in_for=0)
            ports["command"] = command(Actor(id=user_id, role=Role.VIEWER))
            accounts.update(user_id, profile={}, password=new, sign_in_limits=sign_in_limits, **ports)

    return change_password


@pytest.mark.parametrize("how", ["owner", "reset", "operator"])
def test_a_registration_does_not_show_that_the_account_of_its_address_has_got_another_password(
    account, links, sign_in, change_password, how
):
    links.of_registration(EMAIL, password=OTHER)
    change_password(how, account)
    assert isinstance(sign_in(OTHER).user, Registration)
    assert sign_in("a third long password").user.id == account
    with pytest.raises(NotAuthenticated):
        sign_in(SECRET)


def test_a_registration_does_not_show_that_its_address_has_got_an_account(log, links, sign_in, verify, passwords):
    first = links.of_registration(EMAIL, password=SECRET)
    links.of_registration(EMAIL, password=OTHER, username="somebody else")
    verify(first)
    assert isinstance(sign_in(OTHER).user, Registration)
    assert isinstance(sign_in(SECRET).user, User)


def test_a_registration_does_not_show_that_its_address_has_accepted_an_invitation(log, links, sign_in, passwords, sign_in_limits):
    token = links.of_invitation(EMAIL)
    links.of_registration(EMAIL, password=OTHER)
    names = {"username": "ada", "first_name": "Ada", "last_name": "Lab", "network": "192.0.2.1"}
    ports = {"command": command(), "log": log, "links": links.links, "passwords": passwords, "sign_in_limits": sign_in_limits}
    invitations.accept(token=token, password=SECRET, **names, **ports)
    assert isinstance(sign_in(OTHER).user, Registration)
    assert isinstance(sign_in(SECRET).user, User)


def test_a_registration_does_not_show_that_the_hash_of_the_account_of_its_address_is_outdated(
    log, account, links, sign_in, passwords, discard
):
    links.of_registration(EMAIL, password=OTHER)
    passwords.strength += 1
    assert isinstance(sign_in(SECRET).user, User)
    assert isinstance(sign_in(OTHER).user, Registration)
    discard(newest(log).id, at=NOW + LIFETIME)
    sign_in(SECRET)
    assert not passwords.outdated(log.secret(PASSWORD, account))


def test_a_new_password_has_a_salt_of_its_own_once_the_parameters_are_outdated(log, account, passwords, change_password):
    before = log.secret(PASSWORD, account)
    passwords.strength += 1
    change_password("operator", account)
    assert not passwords.outdated(log.secret(PASSWORD, account))
    assert passwords.outdated(before)


def test_the_session_of_a_registration_is_pending_and_can_be_refreshed(log, links, sign_in, tokens, sign_in_limits):
    links.of_registration(EMAIL, password=SECRET)
    started = sign_in()
    identity = identity_cache(log).signed_in(started.session_id)
    assert (identity.actor.id, identity.actor.kind, identity.actor.role) == (newest(log).id, PENDING, None)
    about = {"address": "192.0.2.1", "network": "192.0.2.1", "command": command(), "log": log, "tokens": tokens}
    refreshed = sessions.refresh(token=started.refresh_token, **about, sign_in_limits=sign_in_limits)
    assert refreshed.session_id == started.session_id


def test_a_verification_ends_the_sessions_of_the_registration(log, links, sign_in, verify, tokens):
    token = links.of_registration(EMAIL, password=SECRET)
    started = sign_in()
    verify(token)
    assert types(log, started.session_id) == [SessionStarted.__name__, SessionRevoked.__name__]
    assert tokens.session_of(started.refresh_token) is None


def test_a_process_that_dies_after_a_verification_leaves_no_session(log, links, sign_in, verify, monkeypatch):
    token = links.of_registration(EMAIL, password=SECRET)
    started = sign_in()
    monkeypatch.setattr(accounts, "end_sessions", lambda *_, **__: None)
    verify(token)
    with pytest.raises(NotAuthenticated):
        signed_in(started.session_id, log)


def test_only_the_newest_registration_of_an_address_signs_in_and_all_links_work(links, sign_in, verify):
    first = links.of_registration(EMAIL, password=SECRET)
    links.of_registration(EMAIL, password=OTHER)
    with pytest.raises(NotAuthenticated):
        sign_in(SECRET)
    assert isinstance(sign_in(OTHER).user, Registration)
    assert verify(first, SECRET)


def test_an_expired_registration_is_discarded_with_its_private_data(log, links, sign_in, discard):
    links.of_registration(EMAIL, password=SECRET)
    pending = newest(log)
    sign_in()
    discard(pending.id, at=NOW + LIFETIME - timedelta(seconds=1))
    assert types(log, pending.id) == [RegistrationRequested.__name__]
    for _ in range(2):
        discard(pending.id, at=NOW + LIFETIME)
    assert types(log, pending.id) == [RegistrationRequested.__name__, RegistrationDiscarded.__name__]
    assert (log.secret("key", pending.id), log.secret(PASSWORD, pending.id), log.claimed("registration", EMAIL)) == (None, None, None)
    with pytest.raises(NotAuthenticated):
        sign_in()


def test_a_registration_with_an_invalid_name_is_refused_before_a_hash_is_computed(log, passwords):
    names = {"username": "ab", "first_name": "Ada", "last_name": "Lab", "password": SECRET, "network": "192.0.2.1"}
    with pytest.raises(Invalid):
        registrations.request(email=EMAIL, **names, command=command(), log=log, passwords=passwords)
    assert (passwords.computed, log.head()) == (0, 0)


def test_a_registration_that_has_ended_is_not_found(log, links, verify):
    token = links.of_registration(EMAIL, password=SECRET)
    pending = newest(log)
    assert registrations.load_registration(log, pending.id).id == pending.id
    verify(token)
    with pytest.raises(NotFound):
        registrations.load_registration(log, pending.id)


def test_an_expired_registration_neither_signs_in_nor_gets_another_mail(log, links, sign_in):
    links.of_registration(EMAIL, password=SECRET)
    late = NOW + LIFETIME
    with pytest.raises(NotAuthenticated):
        sign_in(at=late)
    registrations.request_verification(email=EMAIL, command=command(at=late), log=log)
    assert types(log, newest(log).id) == [RegistrationRequested.__name__]


def test_a_mail_is_requested_for_an_unknown_address_without_any_effect(log, account):
    head = log.head()
    registrations.request_verification(email=EMAIL, command=command(), log=log)
    registrations.request_verification(email="nobody@example.org", command=command(), log=log)
    assert log.head() == head


def test_while_a_process_does_not_understand_the_event_a_known_address_is_refused_like_an_unknown_one(log_of_two_releases, passwords):
    log = log_of_two_releases(VerificationRequested)
    names = {"username": "ada", "first_name": "Ada", "last_name": "Lab", "password": SECRET}
    registrations.request(email=EMAIL, **names, network="192.0.2.1", command=command(), log=log, passwords=passwords)
    for email in (EMAIL, "nobody@example.org"):
        with pytest.raises(UpgradeUnderWay, match="older does not understand VerificationRequested version 1 yet"):
            registrations.request_verification(email=email, command=command(), log=log)


def test_one_of_many_parallel_verifications_creates_the_account(log, links, verify):
    token = links.of_registration(EMAIL, password=SECRET)
    outcomes = in_parallel(32, lambda: verify(token, at=LATER))
    assert sum(isinstance(one, CommandResult) for one in outcomes) == 1
    assert sum(isinstance(one, InvalidLink | TooMany) for one in outcomes) == 31
    assert [one.type for one in log.read(0, 100)].count(UserRegistered.__name__) == 1


def test_of_many_parallel_registrations_one_signs_in(log, links, sign_in):
    passwords = [f"{SECRET} {number}" for number in range(32)]
    in_parallel(32, lambda: links.of_registration(EMAIL, password=passwords.pop()))
    assert [one.type for one in log.read(0, 100)].count(RegistrationRequested.__name__) == 32
    assert newest(log) is not None


def in_parallel(times, work):
    """The result or the error of each call."""
    outcomes = []

    def run():
        try:
            outcomes.append(work())
        except Exception as error:
            outcomes.append(error)

    threads = [Thread(target=run) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes
