"""Password resets: the mail, and the new password that is set with its link."""

from datetime import timedelta
from uuid import uuid4

import pytest

from application import accounts, email_changes, password_resets, sessions
from application.accounts import load_account
from application.authentication import signed_in
from application.passwords import NewPassword, Proof
from domain.access import Actor, Role
from domain.errors import Conflict, Forbidden, Invalid, InvalidLink, NotAuthenticated, NotFound, Taken, TooMany, UpgradeUnderWay
from domain.session import Reason, SessionRevoked
from domain.user import PasswordReset, PasswordResetRequested, Status
from tests.application.test_registrations import in_parallel
from tests.given import LATER, NOW, actor, command

SECRET, OTHER, EMAIL = "a long and winding road", "another long password", "ada@example.org"
FROM = {"address": "192.0.2.1", "network": "192.0.2.1", "agent": "Mozilla"}
ADMIN = actor(Role.ADMIN)


@pytest.fixture
def ada(log, passwords):
    names = {"username": "ada", "first_name": "Ada", "last_name": "Lab", "password": SECRET}
    return accounts.register(email=EMAIL, **names, command=command(), log=log, passwords=passwords).id


@pytest.fixture
def sign_in(log, passwords, tokens, sign_in_limits):
    def sign_in(password=SECRET, *, at=NOW):
        ports = {"log": log, "passwords": passwords, "tokens": tokens, "sign_in_limits": sign_in_limits}
        return sessions.sign_in(email=EMAIL, password=password, **FROM, command=command(at=at), **ports)

    return sign_in


@pytest.fixture
def reset(log, links, passwords, tokens):
    def reset(token, password=OTHER, *, at=LATER):
        ports = {"log": log, "links": links.links, "passwords": passwords, "tokens": tokens}
        return password_resets.reset(token=token, password=password, network="192.0.2.1", command=command(at=at), **ports)

    return reset


@pytest.fixture
def update(log, passwords, tokens, sign_in_limits):
    def update(user_id, *, by=None, profile=None, **changes):
        ports = {"log": log, "passwords": passwords, "tokens": tokens, "sign_in_limits": sign_in_limits}
        return accounts.update(
            user_id, profile=profile or {}, **changes, command=command(by or Actor(id=user_id, role=Role.VIEWER)), **ports
        )

    return update


def types(log, stream):
    return [one.type for one in log.history(stream)]


def test_a_reset_sets_the_password_and_ends_all_sessions(log, ada, links, reset, sign_in, tokens):
    started = sign_in()
    assert reset(links.of_reset(EMAIL)).id == ada
    assert types(log, ada)[-2:] == [PasswordResetRequested.__name__, PasswordReset.__name__]
    assert types(log, started.session_id)[-1] == SessionRevoked.__name__
    assert log.decode(log.history(started.session_id)[-1]).reason is Reason.RESET
    assert tokens.session_of(started.refresh_token) is None
    with pytest.raises(NotAuthenticated):
        sign_in(SECRET, at=LATER)
    assert signed_in(sign_in(OTHER, at=LATER).session_id, log)[1].id == ada


def test_a_process_that_dies_after_a_reset_leaves_no_session(log, ada, links, reset, sign_in, tokens, sign_in_limits, monkeypatch):
    started = sign_in()
    monkeypatch.setattr(accounts, "end_sessions", lambda *_, **__: None)
    reset(links.of_reset(EMAIL))
    with pytest.raises(NotAuthenticated):
        signed_in(started.session_id, log)
    about = {"address": "192.0.2.1", "network": "192.0.2.1", "command": command(at=LATER), "log": log, "tokens": tokens}
    with pytest.raises(NotAuthenticated):
        sessions.refresh(token=started.refresh_token, **about, sign_in_limits=sign_in_limits)
    assert tokens.session_of(started.refresh_token) is None


def test_the_sessions_end_in_the_command_of_the_reset_whatever_the_clocks_of_other_processes(log, ada, links, reset, sign_in, monkeypatch):
    started = sign_in(at=LATER + timedelta(seconds=20))
    monkeypatch.setattr(accounts, "end_sessions", lambda *_, **__: None)  # the process ends here
    reset(links.of_reset(EMAIL), at=LATER)
    with pytest.raises(NotAuthenticated):
        signed_in(started.session_id, log)


def test_a_link_works_once_for_half_an_hour_and_only_the_newest(ada, links, reset):
    first = links.of_reset(EMAIL)
    newest = links.of_reset(EMAIL)
    for token, at in ((first, LATER), (newest, NOW + timedelta(minutes=30))):
        with pytest.raises(InvalidLink):
            reset(token, at=at)
    reset(newest)
    with pytest.raises(InvalidLink):
        reset(newest)


def test_a_link_does_not_work_for_an_account_that_was_suspended_or_has_another_address(ada, links, reset, update):
    token = links.of_reset(EMAIL)
    update(ada, by=ADMIN, profile={"email": "lovelace@example.org"})
    with pytest.raises(InvalidLink):
        reset(token)
    token = links.of_reset("lovelace@example.org")
    update(ada, by=ADMIN, status=Status.SUSPENDED)
    with pytest.raises(InvalidLink):
        reset(token)


def test_a_weak_password_leaves_the_link_open(ada, links, reset):
    token = links.of_reset(EMAIL)
    with pytest.raises(Invalid):
        reset(token, "short")
    reset(token)


def test_a_link_of_another_purpose_is_refused(ada, links, reset):
    for token in (links.of_registration("bob@example.org", password=SECRET), links.of_invitation("eve@example.org")):
        with pytest.raises(InvalidLink):
            reset(token)


def test_nothing_happens_for_an_unknown_address_and_a_suspended_account(log, ada, update):
    update(ada, by=ADMIN, status=Status.SUSPENDED)
    head = log.head()
    for email in (EMAIL, "nobody@example.org"):
        assert password_resets.request(email=email, command=command(), log=log) is None
    assert log.head() == head


def test_while_a_process_does_not_understand_the_event_a_known_address_is_refused_like_an_unknown_one(log_of_two_releases, passwords):
    log = log_of_two_releases(PasswordResetRequested)
    names = {"username": "ada", "first_name": "Ada", "last_name": "Lab", "password": SECRET}
    accounts.register(email=EMAIL, **names, command=command(), log=log, passwords=passwords)
    for email in (EMAIL, "nobody@example.org"):
        with pytest.raises(UpgradeUnderWay, match="older does not understand PasswordResetRequested version 1 yet"):
            password_resets.request(email=email, command=command(), log=log)


def test_administrators_send_the_mail_to_active_accounts(log, ada, update):
    with pytest.raises(Forbidden):
        password_resets.request_for(ada, command=command(actor(Role.RESEARCHER)), log=log)
    with pytest.raises(NotFound):
        password_resets.request_for(uuid4(), command=command(ADMIN), log=log)
    password_resets.request_for(ada, command=command(ADMIN), log=log)
    assert log.decode(log.history(ada)[-1]).by == ADMIN.id
    update(ada, by=ADMIN, status=Status.SUSPENDED)
    with pytest.raises(Conflict):
        password_resets.request_for(ada, command=command(ADMIN), log=log)


def test_one_of_many_parallel_resets_wins(log, ada, links, reset, sign_in):
    token = links.of_reset(EMAIL)
    outcomes = in_parallel(32, lambda: reset(token))
    assert sum(isinstance(one, InvalidLink) for one in outcomes) == 31
    assert types(log, ada).count(PasswordReset.__name__) == 1
    assert sign_in(OTHER, at=LATER).user.id == ada


# ---- new addresses -----------------------------------------------------------------------------------------------------------------
def test_ones_own_new_address_takes_effect_when_its_link_is_opened(log, ada, links, update, passwords):
    update(ada, profile={"email": "lovelace@example.org", "first_name": "Augusta"}, verifies_email=True, network="192.0.2.1")
    account = load_account(log, ada)
    assert (account.email, account.first_name, account.pending_email(NOW)) == (EMAIL, "Augusta", "lovelace@example.org")
    assert accounts.find("lovelace@example.org", log) is None
    token = links.of_email_change(EMAIL, to="byron@example.org")
    confirm = {"command": command(at=LATER), "log": log, "links": links.links}
    assert email_changes.confirm(token=token, **confirm).id == ada
    assert accounts.find("byron@example.org", log).id == ada
    assert accounts.find(EMAIL, log) is None
    with pytest.raises(InvalidLink):
        email_changes.confirm(token=token, **confirm)
    names = {"username": "bob", "first_name": "Bob", "last_name": "Lab", "password": SECRET}
    assert accounts.register(email=EMAIL, **names, command=command(), log=log, passwords=passwords)


@pytest.mark.parametrize("by", ["owner", "reset"])
def test_a_new_password_ends_the_links_that_a_stranger_with_the_old_one_requested(log, ada, links, reset, update, by):
    new_address, new_password = links.of_email_change(EMAIL, to="stranger@example.org"), links.of_reset(EMAIL)
    if by == "owner":
        update(ada, password=NewPassword(password=OTHER, current=SECRET, signed_in_for=0))
    else:
        reset(links.of_reset(EMAIL))
    assert load_account(log, ada).pending_email(NOW) is None
    with pytest.raises(InvalidLink):
        email_changes.confirm(token=new_address, command=command(at=LATER), log=log, links=links.links)
    with pytest.raises(InvalidLink):
        reset(new_password)
    assert accounts.find(EMAIL, log).id == ada


def test_an_address_that_has_got_another_account_stays_with_it(log, ada, links, passwords):
    token = links.of_email_change(EMAIL, to="bob@example.org")
    names = {"username": "bob", "first_name": "Bob", "last_name": "Lab", "password": SECRET}
    bob = accounts.register(email="bob@example.org", **names, command=command(), log=log, passwords=passwords).id
    with pytest.raises(Taken):
        email_changes.confirm(token=token, command=command(at=LATER), log=log, links=links.links)
    assert accounts.find("bob@example.org", log).id == bob


@pytest.mark.parametrize("verifies_email", [False, True])
def test_ones_own_address_changes_with_the_password_or_soon_after_the_sign_in(log, ada, update, verifies_email):
    about = {"verifies_email": verifies_email, "network": "192.0.2.1"}
    for proof in (Proof(signed_in_for=901), Proof(signed_in_for=float("inf")), Proof(signed_in_for=0, current=OTHER)):
        with pytest.raises(Forbidden):
            update(ada, profile={"email": "stranger@example.org", "phone": "1"}, proof=proof, **about)
    account = load_account(log, ada)
    assert (account.email, account.pending_email(NOW), account.phone) == (EMAIL, None, None)
    update(ada, profile={"email": EMAIL, "phone": "2"}, proof=Proof(signed_in_for=901), **about)
    for number, proof in enumerate((Proof(signed_in_for=899), Proof(signed_in_for=901, current=SECRET))):
        address = f"{number}@example.org"
        update(ada, profile={"email": address}, proof=proof, **about)
        account = load_account(log, ada)
        assert address == (account.pending_email(NOW) if verifies_email else account.email)


@pytest.mark.parametrize("verifies_email", [False, True])
def test_nobody_has_more_mails_sent_to_an_address_by_changing_their_own_to_it(ada, update, verifies_email):
    for number in range(5):
        for email in (f"{number}@example.org", "victim@example.org"):
            update(ada, profile={"email": email}, verifies_email=verifies_email, network="192.0.2.1")
    with pytest.raises(TooMany):
        update(ada, profile={"email": "VICTIM@example.org"}, verifies_email=verifies_email, network="192.0.2.1")
    update(ada, by=ADMIN, profile={"email": "victim@example.com"}, verifies_email=verifies_email, network="192.0.2.1")


def test_an_administrator_changes_the_address_of_others_at_once(log, ada, update):
    update(ada, by=ADMIN, profile={"email": "lovelace@example.org"}, verifies_email=True, network="192.0.2.1")
    assert load_account(log, ada).email == "lovelace@example.org"


def test_a_new_password_does_not_end_the_session_that_set_it(log, ada, sign_in, update):
    started = sign_in()
    update(ada, password=NewPassword(password=OTHER, current=SECRET, signed_in_for=0, keep=started.session_id))
    assert signed_in(started.session_id, log)[1].id == ada
