"""Invitations, and the first administrator."""

from datetime import timedelta
from uuid import uuid4

import pytest

from application import accounts, bootstrap, invitations
from application.commands import CommandResult
from domain import invitation
from domain.access import Actor, Role
from domain.errors import Conflict, Forbidden, InvalidLink, NotFound, Taken, TooMany
from domain.events import ERASED
from domain.invitation import InvitationAccepted, InvitationWithdrawn, UserInvited
from domain.user import Status, UserRegistered
from infrastructure.security.bootstrap_tokens import KeyedBootstrapTokens
from infrastructure.security.keys import RootKey
from tests.application.conftest import ROOT
from tests.application.test_registrations import in_parallel
from tests.given import NOW, actor, command

SECRET, EMAIL = "a long and winding road", "ada@example.org"
ADMIN = actor(Role.ADMIN)
NAMES = {"username": "ada", "first_name": "Ada", "last_name": "Lab", "password": SECRET, "network": "192.0.2.1"}
BOOTSTRAP, OF_ANOTHER = KeyedBootstrapTokens(ROOT), KeyedBootstrapTokens(RootKey(bytes([1]) * 32))


@pytest.fixture
def accept(log, links, passwords):
    def accept(token, *, at=NOW, **changes):
        ports = {"log": log, "links": links.links, "passwords": passwords, "sign_in_limits": links.sign_in_limits}
        return invitations.accept(token=token, **NAMES | changes, command=command(at=at), **ports)

    return accept


@pytest.fixture
def set_up(log, passwords):
    def set_up(token=None, **changes):
        about = {"token": token or BOOTSTRAP.token(), "email": EMAIL, **NAMES} | changes
        return bootstrap.create_first_administrator(**about, command=command(), log=log, bootstrap_tokens=BOOTSTRAP, passwords=passwords)

    return set_up


def types(log, stream):
    return [one.type for one in log.history(stream)]


def invited(log):
    return log.claimed("invitation", EMAIL)


@pytest.fixture
def sender(log, passwords):
    """An administrator with an account."""
    names = {"username": "eve", "first_name": "Eve", "last_name": "Lab", "password": SECRET}
    about = {"email": "eve@example.org", "role": Role.ADMIN, "log": log, "passwords": passwords}
    return accounts.register(**names, **about, command=command()).id


def end_the_rights(sender, how, log, tokens, passwords):
    ports = {"log": log, "command": command(ADMIN)}
    if how == "demoted":
        return accounts.change_role(sender, Role.RESEARCHER, **ports)
    if how == "suspended":
        return accounts.update(sender, profile={}, status=Status.SUSPENDED, passwords=passwords, tokens=tokens, **ports)
    return {"deleted": accounts.delete, "erased": accounts.erase}[how](sender, tokens=tokens, **ports)


@pytest.mark.parametrize("how", ["demoted", "suspended", "deleted", "erased"])
def test_an_invitation_counts_no_longer_once_its_sender_is_no_administrator_until_another_one_sends_it(
    log, links, accept, sender, tokens, passwords, how
):
    another = {"username": "another", "first_name": "An", "last_name": "Other", "password": SECRET}
    accounts.register(email="another@example.org", **another, role=Role.ADMIN, command=command(), log=log, passwords=passwords)
    by = command(Actor(id=sender, role=Role.ADMIN))
    sent = invitations.invite(email=EMAIL, role=Role.ADMIN, command=by, log=log).id
    token = links.of_stream(sent)
    invitations.of_token(token, command=command(), log=log, links=links.links)
    end_the_rights(sender, how, log, tokens, passwords)
    with pytest.raises(InvalidLink):
        invitations.of_token(token, command=command(), log=log, links=links.links)
    with pytest.raises(InvalidLink):
        accept(token)
    invitations.repeat(sent, command=command(ADMIN), log=log)
    assert accept(links.of_stream(sent)).id == accounts.find(EMAIL, log).id


def test_an_accepted_invitation_is_an_account_with_its_address_and_role(log, links, accept):
    token = links.of_invitation(EMAIL, Role.RESEARCHER)
    sent = invited(log)
    accept(token)
    account = accounts.find(EMAIL, log)
    assert (account.role, account.username) == (Role.RESEARCHER, "ada")
    assert types(log, sent) == [UserInvited.__name__, InvitationAccepted.__name__]


def test_an_invitation_of_an_earlier_release_is_accepted_whatever_its_address(log, links, accept, monkeypatch):
    old = "ada@exam\u00adple.org"
    with monkeypatch.context() as earlier:
        earlier.setattr("domain.invitation.new_address", str)
        token = links.of_invitation(old)
    accept(token)
    assert accounts.find(old, log).email == old


def test_user_names_cannot_be_guessed_with_an_invitation(links, accept, sender):
    token = links.of_invitation(EMAIL)
    for _ in range(links.sign_in_limits.rates.user_names_per_hour):
        with pytest.raises(Taken):
            accept(token, username="eve")
    for username in ("eve", "ada"):
        with pytest.raises(TooMany):
            accept(token, username=username)
    accept(links.of_invitation("bob@example.org"), username="bob")


@pytest.mark.parametrize("accepted", [True, False])
def test_the_address_of_a_closed_invitation_is_destroyed(log, links, accept, accepted):
    token = links.of_invitation(EMAIL)
    sent = invited(log)
    if accepted:
        accept(token)
    else:
        invitations.withdraw(sent, command=command(ADMIN), log=log)
    log.codec.forget(sent)
    assert (log.secret("key", sent), log.load(sent, invitation.evolve).email) == (None, ERASED)
    assert invited(log) is None
    with pytest.raises(InvalidLink):
        accept(token)


def test_a_link_works_for_seven_days_and_only_the_newest(log, links, accept):
    token = links.of_invitation(EMAIL)
    with pytest.raises(InvalidLink):
        accept(token, at=NOW + timedelta(days=7))
    invitations.repeat(invited(log), command=command(ADMIN, at=NOW + timedelta(days=7)), log=log)
    with pytest.raises(InvalidLink):
        accept(token, at=NOW + timedelta(days=6))
    accept(links.of_stream(invited(log)), at=NOW + timedelta(days=8))


def test_an_erasure_of_the_person_erases_an_open_invitation_too(log, links, passwords, tokens):
    links.of_invitation(EMAIL)
    sent = invited(log)
    names = {"email": EMAIL, "username": "ada", "first_name": "Ada", "last_name": "Lab", "password": SECRET}
    ada = accounts.register(**names, command=command(), log=log, passwords=passwords).id
    accounts.erase(ada, command=command(ADMIN), log=log, tokens=tokens)
    assert (types(log, sent)[-1], log.secret("key", sent)) == (InvitationWithdrawn.__name__, None)


def test_a_user_name_in_use_leaves_the_link_open(links, accept):
    accept(links.of_invitation("bob@example.org"))
    token = links.of_invitation(EMAIL)
    with pytest.raises(Taken) as refused:
        accept(token)
    assert refused.value.scope == "username"
    accept(token, username="lovelace")


def test_the_page_of_a_link_shows_whom_it_is_for(log, links, accept):
    token = links.of_invitation(EMAIL, Role.ANALYST)
    about = {"command": command(), "log": log, "links": links.links}
    assert invitations.of_token(token, **about).email == EMAIL
    accept(token)
    with pytest.raises(InvalidLink):
        invitations.of_token(token, **about)


def test_a_person_is_invited_once_and_not_with_an_account(log, links, accept):
    token = links.of_invitation(EMAIL)
    for _ in range(2):
        with pytest.raises(Taken) as refused:
            invitations.invite(email="ADA@example.org", role=Role.VIEWER, command=command(ADMIN), log=log)
    assert refused.value.scope == "invitation"
    accept(token)
    with pytest.raises(Taken) as refused:
        invitations.invite(email=EMAIL, role=Role.VIEWER, command=command(ADMIN), log=log)
    assert refused.value.scope == "email"


def test_an_open_invitation_is_sent_again_by_its_address(log, links, accept):
    first = links.of_invitation(EMAIL)
    assert invitations.open_invitation("ADA@example.org", log) == invited(log)
    invitations.repeat_to("ADA@example.org", command=command(ADMIN), log=log)
    with pytest.raises(InvalidLink):
        accept(first)
    with pytest.raises(NotFound, match="no open invitation"):
        invitations.repeat_to("bob@example.org", command=command(ADMIN), log=log)
    with pytest.raises(Forbidden):
        invitations.repeat_to(EMAIL, command=command(actor(Role.RESEARCHER)), log=log)


def test_only_administrators_invite_repeat_and_withdraw(log, links):
    links.of_invitation(EMAIL)
    by = command(actor(Role.RESEARCHER))
    for work in (
        lambda: invitations.invite(email="bob@example.org", role=Role.VIEWER, command=by, log=log),
        lambda: invitations.repeat(invited(log), command=by, log=log),
        lambda: invitations.withdraw(invited(log), command=by, log=log),
    ):
        with pytest.raises(Forbidden):
            work()


def test_what_is_closed_is_neither_sent_again_nor_withdrawn(log, links, accept):
    token = links.of_invitation(EMAIL)
    sent = invited(log)
    accept(token)
    for change in (invitations.repeat, invitations.withdraw):
        with pytest.raises(Conflict):
            change(sent, command=command(ADMIN), log=log)
        with pytest.raises(NotFound):
            change(uuid4(), command=command(ADMIN), log=log)


def test_a_withdrawal_may_be_repeated(log, links):
    links.of_invitation(EMAIL)
    sent = invited(log)
    for _ in range(2):
        invitations.withdraw(sent, command=command(ADMIN), log=log)
    assert types(log, sent) == [UserInvited.__name__, InvitationWithdrawn.__name__]


def test_one_of_many_parallel_acceptances_wins(log, links, accept):
    token = links.of_invitation(EMAIL)
    names = [f"ada{number}" for number in range(32)]
    outcomes = in_parallel(32, lambda: accept(token, username=names.pop()))
    assert sum(isinstance(one, CommandResult) for one in outcomes) == 1
    assert sum(isinstance(one, InvalidLink | Taken) for one in outcomes) == 31
    assert [one.type for one in log.read(0, 200)].count(UserRegistered.__name__) == 1


def test_one_of_many_parallel_invitations_of_a_person_is_made(log):
    outcomes = in_parallel(32, lambda: invitations.invite(email=EMAIL, role=Role.VIEWER, command=command(ADMIN), log=log))
    assert sum(isinstance(one, CommandResult) for one in outcomes) == 1


# ---- the first administrator -------------------------------------------------------------------------------------------------------
def test_the_printed_token_creates_the_first_administrator_and_nobody_else(log, set_up):
    assert bootstrap.is_needed(log)
    set_up()
    assert accounts.find(EMAIL, log).role is Role.ADMIN
    assert not bootstrap.is_needed(log)
    with pytest.raises(InvalidLink):
        set_up(email="bob@example.org", username="bob")


@pytest.mark.parametrize(
    "token", ["x", "bsb_", "bsb_AAAA", "\u00e4", KeyedBootstrapTokens(RootKey(bytes([1]) * 32)).token(), BOOTSTRAP.token() + "="]
)
def test_another_token_creates_nobody(log, set_up, token):
    with pytest.raises(InvalidLink):
        set_up(token)
    assert log.head() == 0


def test_one_of_many_parallel_first_administrators_wins(log, set_up):
    names = [f"ada{number}" for number in range(32)]

    def work():
        name = names.pop()
        return set_up(username=name, email=f"{name}@example.org")

    outcomes = in_parallel(32, work)
    assert sum(isinstance(one, CommandResult) for one in outcomes) == 1
    assert len(log.administrators()) == 1
