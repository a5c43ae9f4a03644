"""Sign-in, refresh and sign-out."""

from contextlib import nullcontext
from datetime import timedelta
from uuid import uuid4

import pytest

from application import accounts, sessions
from application.passwords import PASSWORD
from application.ports import Secret
from domain import session, user
from domain.access import Role
from domain.errors import NotAuthenticated, TooMany
from domain.session import Reason, RefreshReuseDetected, SessionRevoked, SessionStarted
from domain.user import PasswordRehashed, Status
from tests.given import NOW, actor, command

SECRET, EMAIL = "a long and winding road", "ada@example.org"
FROM = {"address": "192.0.2.1", "network": "192.0.2.1"}


@pytest.fixture
def ada(log, passwords):
    about = {"username": "ada", "first_name": "Ada", "last_name": "Lab", "password": SECRET}
    return accounts.register(email=EMAIL, **about, command=command(), log=log, passwords=passwords).id


@pytest.fixture
def sign_in(log, passwords, tokens, sign_in_limits):
    def sign_in(password=SECRET, email=EMAIL, network="192.0.2.1"):
        about = {"address": "192.0.2.1", "network": network, "agent": "Mozilla", "command": command()}
        return sessions.sign_in(
            email=email, password=password, **about, log=log, passwords=passwords, tokens=tokens, sign_in_limits=sign_in_limits
        )

    return sign_in


@pytest.fixture
def refresh(log, tokens, sign_in_limits):
    def refresh(token, *, at=NOW):
        return sessions.refresh(token=token, **FROM, command=command(at=at), log=log, tokens=tokens, sign_in_limits=sign_in_limits)

    return refresh


def types(log, stream):
    return [one.type for one in log.history(stream)]


def test_a_sign_in_starts_a_session_with_its_own_token(log, ada, sign_in, tokens):
    signed_in = sign_in()
    assert types(log, signed_in.session_id) == [SessionStarted.__name__]
    assert (signed_in.user.id, signed_in.position) == (ada, log.head())
    assert tokens.session_of(signed_in.refresh_token) == signed_in.session_id


@pytest.mark.parametrize(("password", "email"), [("a wrong password", EMAIL), (SECRET, "bob@example.org")])
def test_a_wrong_password_and_an_unknown_address_are_refused_alike(ada, sign_in, password, email):
    with pytest.raises(NotAuthenticated, match=r"^Invalid credentials$"):
        sign_in(password, email)


def test_a_suspended_account_is_refused_alike(log, ada, sign_in, passwords, tokens):
    about = {"command": command(actor(Role.ADMIN)), "log": log, "passwords": passwords, "tokens": tokens}
    accounts.update(ada, profile={}, status=Status.SUSPENDED, **about)
    with pytest.raises(NotAuthenticated, match=r"^Invalid credentials$"):
        sign_in()


@pytest.mark.parametrize("account", ["right", "wrong", "unknown", "suspended", "deleted", "without a hash"])
def test_every_sign_in_costs_exactly_one_hash(log, ada, sign_in, passwords, tokens, account):
    ports = {"command": command(actor(Role.ADMIN)), "log": log, "tokens": tokens}
    if account == "suspended":
        accounts.update(ada, profile={}, status=Status.SUSPENDED, passwords=passwords, **ports)
    elif account == "deleted":
        accounts.delete(ada, **ports)
    elif account == "without a hash":
        event = user.change_profile(log.load(ada, user.evolve), {"phone": "1"}, by=ada, at=NOW)
        log.append(command(), *event, secrets=[Secret(kind=PASSWORD, owner=ada, value=None)])
    before = passwords.computed
    with nullcontext() if account == "right" else pytest.raises(NotAuthenticated, match=r"^Invalid credentials$"):
        sign_in("a wrong password 12" if account == "wrong" else SECRET, "bob@example.org" if account == "unknown" else EMAIL)
    assert passwords.computed == before + 1


def test_failures_are_limited(ada, sign_in):
    for _ in range(5):
        with pytest.raises(NotAuthenticated):
            sign_in("a wrong password")
    with pytest.raises(TooMany):
        sign_in()


def test_an_outdated_hash_is_replaced_at_a_sign_in(log, ada, sign_in, passwords):
    before = log.secret(PASSWORD, ada)
    passwords.strength = 2
    sign_in()
    assert types(log, ada)[-1] == PasswordRehashed.__name__
    assert log.secret(PASSWORD, ada) != before
    assert sign_in().user.id == ada


def test_a_token_is_refreshed_and_nothing_is_recorded(log, ada, sign_in, refresh):
    signed_in = sign_in()
    head = log.head()
    refreshed = refresh(signed_in.refresh_token)
    assert refreshed.session_id == signed_in.session_id
    assert refreshed.refresh_token != signed_in.refresh_token
    assert log.head() == head


def test_a_reused_token_revokes_its_session_and_is_recorded_once(log, ada, sign_in, refresh, tokens):
    signed_in = sign_in()
    child = refresh(signed_in.refresh_token)
    with pytest.raises(NotAuthenticated) as refused:
        refresh(signed_in.refresh_token, at=NOW + timedelta(minutes=1))
    assert refused.value.user_id == ada
    assert types(log, signed_in.session_id) == [kind.__name__ for kind in (SessionStarted, RefreshReuseDetected, SessionRevoked)]
    assert tokens.session_of(child.refresh_token) is None


def test_an_unknown_token_is_refused(refresh):
    with pytest.raises(NotAuthenticated):
        refresh("unknown")


def test_a_token_of_a_closed_account_is_refused(log, ada, sign_in, refresh, tokens):
    session_id = uuid4()
    accounts.delete(ada, command=command(actor(Role.ADMIN)), log=log, tokens=tokens)
    with pytest.raises(NotAuthenticated, match="disabled"):
        refresh(tokens.issue(session=session_id, user=ada, at=NOW))


def test_a_sign_out_ends_the_session_and_may_be_repeated(log, ada, sign_in, tokens):
    signed_in = sign_in()
    for _ in range(2):
        assert sessions.sign_out(signed_in.session_id, command=command(), log=log, tokens=tokens) == ada
    (revoked,) = [log.decode(one) for one in log.history(signed_in.session_id)[1:]]
    assert revoked.reason is Reason.LOGOUT
    assert log.load(signed_in.session_id, session.evolve).revoked
    assert sessions.sign_out(uuid4(), command=command(), log=log, tokens=tokens) is None
