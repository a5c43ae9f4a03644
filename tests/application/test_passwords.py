"""The rule for new passwords holds wherever one is set, and a change that ends sessions ends them even if the process dies."""

from uuid import uuid4

import pytest

from application import accounts, open_sessions
from application.passwords import PASSWORD, NewPassword
from domain import session
from domain.access import Actor, Role
from domain.errors import Invalid
from domain.password import COMMON, NAMES, SEQUENCE
from domain.session import Reason
from domain.user import Status
from tests.given import NOW, actor, command

SECRET, OTHER = "a long and winding road", "another long password"
ADMIN, SYSTEM = actor(Role.ADMIN), actor(None, kind="system")
WEAK = {
    "passwordpassword": SEQUENCE,
    "qwertzuiopasdfgh": SEQUENCE,
    "correcthorsebatterystaple": COMMON,
    "CorrectHorseBatteryStaple1!": COMMON,
    "ada.lovelace@example.org": NAMES,
    "Countess Lovelace 1815": NAMES,
    "BioScopeAI-Core-2026": NAMES,
    "scope.example.org!": NAMES,
    "short": "15 to 128 characters",
}


@pytest.fixture
def register(log, passwords):
    def register(password=SECRET, **changes):
        about = {"email": "ada.lovelace@example.org", "username": "countess", "first_name": "Ada", "last_name": "Lovelace"}
        return accounts.register(**about | changes, password=password, command=command(), log=log, passwords=passwords).id

    return register


@pytest.fixture
def ports(log, passwords, tokens, sign_in_limits):
    return {"log": log, "passwords": passwords, "tokens": tokens, "sign_in_limits": sign_in_limits}


def started(log, tokens, user):
    session_id = uuid4()
    tokens.issue(session=session_id, user=user, at=NOW)
    log.append(command(), session.start(session_id, user=user, address="192.0.2.1", agent="curl/8", at=NOW))
    return session_id


@pytest.mark.parametrize(("weak", "reason"), WEAK.items())
def test_a_weak_password_is_refused_wherever_it_is_set(log, ports, register, weak, reason):
    with pytest.raises(Invalid, match=reason):
        register(weak)
    ada = register()
    before = log.secret(PASSWORD, ada)
    new = NewPassword(password=weak, current=SECRET, signed_in_for=0)
    with pytest.raises(Invalid, match=reason) as refused:
        accounts.update(ada, profile={}, password=new, command=command(Actor(id=ada, role=Role.VIEWER)), **ports)
    assert weak not in str(refused.value)
    at_reset = {name: port for name, port in ports.items() if name != "sign_in_limits"}
    with pytest.raises(Invalid, match=reason):
        accounts.reset_password(ada, weak, command=command(SYSTEM), **at_reset)
    assert log.secret(PASSWORD, ada) == before


def test_a_password_may_not_consist_of_the_name_that_the_same_change_sets(ports, register):
    ada = register()
    new = NewPassword(password="Babbage, Charlotte", current=SECRET, signed_in_for=0)
    profile = {"first_name": "Charlotte", "last_name": "Babbage"}
    with pytest.raises(Invalid, match=NAMES):
        accounts.update(ada, profile=profile, password=new, command=command(Actor(id=ada, role=Role.VIEWER)), **ports)


class Dying:
    """Tokens of a process that dies before it deletes any."""

    def __init__(self, tokens):
        self._tokens = tokens

    def __getattr__(self, name):
        return getattr(self._tokens, name)

    def revoke_user(self, user, *, but=None):
        raise SystemExit


def changes(ada, keep, ports):
    own, at_server = Actor(id=ada, role=Role.VIEWER), {name: ports[name] for name in ("log", "tokens")}
    new = NewPassword(password=OTHER, current=SECRET, signed_in_for=0, keep=keep)
    return {
        "password": lambda: accounts.update(ada, profile={}, password=new, command=command(own), **ports),
        "reset": lambda: accounts.reset_password(ada, OTHER, command=command(SYSTEM), passwords=ports["passwords"], **at_server),
        "suspension": lambda: accounts.update(ada, profile={}, status=Status.SUSPENDED, command=command(ADMIN), **ports),
        "deletion": lambda: accounts.delete(ada, command=command(ADMIN), **at_server),
        "erasure": lambda: accounts.erase(ada, command=command(ADMIN), **at_server),
    }


@pytest.mark.parametrize("change", ["password", "reset", "suspension", "deletion", "erasure"])
def test_a_process_that_dies_after_a_change_leaves_no_session_open(log, tokens, ports, register, change):
    ada = register()
    kept, *ended = [started(log, tokens, ada) for _ in range(3)]
    with pytest.raises(SystemExit):
        changes(ada, kept, ports | {"tokens": Dying(tokens)})[change]()
    assert all(log.load(each, session.evolve).revoked for each in ended)
    assert log.load(kept, session.evolve).revoked == (change != "password")


def test_more_sessions_end_than_are_appended_together(log, tokens, ports, register):
    ada = register()
    everything = [started(log, tokens, ada) for _ in range(accounts.MAX_ENDED_TOGETHER + 5)]
    found = accounts.session_endings(ada, Reason.ACCOUNT, command=command(ADMIN), log=log, tokens=tokens)
    assert len(found) == accounts.MAX_ENDED_TOGETHER
    accounts.update(ada, profile={}, status=Status.SUSPENDED, command=command(ADMIN), **ports)
    assert all(log.load(each, session.evolve).revoked for each in everything)
    assert open_sessions.listed(ada, actor=ADMIN, at=NOW, log=log, tokens=tokens) == []


def test_an_erased_account_shows_no_sessions(log, tokens, register):
    ada = register()
    started(log, tokens, ada)
    (one,) = open_sessions.listed(ada, actor=ADMIN, at=NOW, log=log, tokens=tokens)
    assert (one.device, one.address) == ("curl", "192.0.2.1")
    accounts.erase(ada, command=command(ADMIN), log=log, tokens=tokens)
    assert tokens.open_sessions(ada, at=NOW) == []
