"""Accounts as a state machine: registrations, links, passwords, addresses and sessions behave as a small model says, in any order."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from application import accounts, email_changes, invitations, password_resets, registrations, sessions
from application.authentication import signed_in
from application.limits.sign_in_attempts import SignInLimits, SignInRates
from domain.access import Actor, Role
from domain.errors import DomainError, Forbidden, InvalidLink, NotAuthenticated, Taken
from domain.links import LIFETIMES, LinkPurpose
from domain.registration import LIFETIME
from domain.user import Status
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.security.mail_links import KeyedMailLinks
from infrastructure.security.rate_limits import LocalRateLimiter
from tests.application.conftest import ROOT
from tests.given import NOW, actor, command
from tests.rigs.links import Links
from tests.twins.event_store import MemoryRecorder
from tests.twins.known_addresses import MemoryKnownAddresses
from tests.twins.passwords import MemoryPasswords
from tests.twins.refresh_tokens import MemoryRefreshTokens

EMAILS = st.sampled_from(["ada@example.org", "bob@example.org", "eve@example.org"])
NAMES = st.sampled_from(["ada", "bob", "eve"])
PASSWORDS = st.sampled_from(["a long and winding road", "another long password", "one more long password"])
INDEXES = st.integers(0, 1000)
ADMIN = actor(Role.ADMIN)
UNLIMITED = SignInRates(**dict.fromkeys(SignInRates.__struct_fields__, 10**6))
FROM = {"address": "192.0.2.1", "network": "192.0.2.1", "agent": "Mozilla"}
EXAMPLES, STEPS = 100, 50


class Accounts(RuleBasedStateMachine):
    """The model: `accounts` and `pending` by id, `issued` links in order, `sessions` with their owner. `salt` stands for that of a hash."""

    def __init__(self):
        super().__init__()
        self.log = RecorderEventStore(MemoryRecorder(ROOT), ROOT)
        self.passwords, self.tokens = MemoryPasswords(), MemoryRefreshTokens(lifetime=timedelta(days=999))
        limits = SignInLimits(limits=LocalRateLimiter(), known_addresses=MemoryKnownAddresses(), rates=UNLIMITED)
        self.now, self.salts = NOW, 0
        ports = SimpleNamespace(log=self.log, passwords=self.passwords, sign_in_limits=limits, mail_links=KeyedMailLinks(ROOT))
        self.links = Links(ports, clock=lambda: self.now)
        self.ports = {"log": self.log, "passwords": self.passwords, "tokens": self.tokens}
        self.accounts, self.pending, self.invited = {}, {}, {}
        self.issued, self.sessions = [], []

    # ---- the model -------------------------------------------------------------------------------------------------------------------
    def owner_of(self, email):
        return next((one for one in self.accounts.values() if one.email == email), None)

    def new_salt(self):
        self.salts += 1
        return self.salts

    def newest_pending(self, email):
        return next((one for one in self.pending.values() if one.email == email and one.is_newest), None)

    def salt_for(self, email):
        """The salt of the first password of an account or registration with this address, which has no account."""
        pending = self.newest_pending(email)
        return pending.salt if pending else self.new_salt()

    def issue(self, token, purpose, about):
        for link in self.issued:
            if (link.purpose, link.about) == (purpose, about):
                link.is_open = False
        self.issued.append(SimpleNamespace(token=token, purpose=purpose, about=about, at=self.now, is_open=True))

    def is_valid(self, link):
        return link.is_open and self.now < link.at + LIFETIMES[link.purpose]

    def close(self, about):
        for link in self.issued:
            link.is_open = link.is_open and link.about != about

    def end(self, owner):
        self.sessions = [(one, who, is_valid and who != owner) for one, who, is_valid in self.sessions]

    def chosen(self, purpose, index):
        links = [link for link in self.issued if link.purpose is purpose]
        return links[index % len(links)] if links else None

    def has(self, purpose):
        return any(link.purpose is purpose for link in self.issued)

    def command(self, by=None):
        return command(by or actor(None, kind="anonymous"), at=self.now)

    def attempt(self, expected, work):
        """Run `work`, which raises `expected` if that is an error; whether it succeeded."""
        self.now += timedelta(seconds=1)
        if expected is None:
            return work()
        with pytest.raises(expected) as refused:
            work()
        return refused.value and None

    def taken_by(self, email, username):
        if self.owner_of(email) is not None:
            return Taken
        return Taken if any(one.username == username for one in self.accounts.values()) else None

    def created(self, result, **about):
        self.accounts[result.id] = SimpleNamespace(id=result.id, is_active=True, **about)

    # ---- registrations ---------------------------------------------------------------------------------------------------------------
    @rule(email=EMAILS, username=NAMES, password=PASSWORDS)
    def register(self, email, username, password):
        owner = self.owner_of(email)
        token = self.links.of_registration(email, password=password, username=username)
        found = registrations.find(email, self.log)
        salt = owner.salt if owner else self.salt_for(email)
        about = {"email": email, "username": username, "password": password, "salt": salt, "at": self.now}
        for other in self.pending.values():
            other.is_newest = other.is_newest and other.email != email
        self.pending[found.id] = SimpleNamespace(id=found.id, is_newest=True, **about)
        self.issue(token, LinkPurpose.VERIFY_EMAIL, found.id)

    @rule(email=EMAILS)
    def request_verification(self, email):
        registrations.request_verification(email=email, command=self.command(), log=self.log)
        newest = self.newest_pending(email)
        if newest is not None and self.now < newest.at + LIFETIME:
            self.issue(self.links.of_stream(newest.id), LinkPurpose.VERIFY_EMAIL, newest.id)

    @precondition(lambda self: self.has(LinkPurpose.VERIFY_EMAIL))
    @rule(index=INDEXES, password=PASSWORDS, username=NAMES)
    def verify(self, index, password, username):
        link = self.chosen(LinkPurpose.VERIFY_EMAIL, index)
        self.now += timedelta(seconds=1)
        pending = self.pending.get(link.about)
        if pending is None or not self.is_valid(link):
            expected = InvalidLink
        else:
            expected = Forbidden if password != pending.password else self.taken_by(pending.email, username)
        self.now -= timedelta(seconds=1)

        def work():
            ports = {**self.ports, "links": self.links.links, "sign_in_limits": self.links.sign_in_limits}
            about = {"token": link.token, "password": password, "username": username, "network": "192.0.2.1"}
            return registrations.verify(**about, command=self.command(), **ports)

        result = self.attempt(expected, work)
        if result is not None:
            self.created(result, email=pending.email, username=username, password=password, salt=pending.salt)
            self.gone(pending.id)

    def gone(self, registration_id):
        del self.pending[registration_id]
        self.close(registration_id)
        self.end(registration_id)

    @rule()
    def discard_expired(self):
        for registration_id in list(self.pending):
            registrations.discard_expired(registration_id, command=self.command(ADMIN), log=self.log, tokens=self.tokens)
            if self.now >= self.pending[registration_id].at + LIFETIME:
                self.gone(registration_id)

    # ---- invitations -----------------------------------------------------------------------------------------------------------------
    @rule(email=EMAILS)
    def invite(self, email):
        expected = Taken if self.owner_of(email) or any(one == email for one in self.invited.values()) else None
        result = self.attempt(
            expected, lambda: invitations.invite(email=email, role=Role.VIEWER, command=self.command(ADMIN), log=self.log)
        )
        if result is not None:
            self.invited[result.id] = email
            self.issue(self.links.of_stream(result.id), LinkPurpose.ACCEPT_INVITATION, result.id)

    @precondition(lambda self: self.has(LinkPurpose.ACCEPT_INVITATION))
    @rule(index=INDEXES, password=PASSWORDS, username=NAMES)
    def accept(self, index, password, username):
        link = self.chosen(LinkPurpose.ACCEPT_INVITATION, index)
        self.now += timedelta(seconds=1)
        email = self.invited.get(link.about)
        expected = InvalidLink if email is None or not self.is_valid(link) else self.taken_by(email, username)
        self.now -= timedelta(seconds=1)
        names = {"username": username, "first_name": "A", "last_name": "B", "password": password, "network": "192.0.2.1"}
        ports = {"log": self.log, "links": self.links.links, "passwords": self.passwords, "sign_in_limits": self.links.sign_in_limits}
        result = self.attempt(expected, lambda: invitations.accept(token=link.token, **names, command=self.command(), **ports))
        if result is not None:
            self.created(result, email=email, username=username, password=password, salt=self.salt_for(email))
            del self.invited[link.about]
            self.close(link.about)

    @precondition(lambda self: self.invited)
    @rule(index=INDEXES)
    def withdraw(self, index):
        invitation_id = list(self.invited)[index % len(self.invited)]
        invitations.withdraw(invitation_id, command=self.command(ADMIN), log=self.log)
        del self.invited[invitation_id]
        self.close(invitation_id)

    # ---- passwords and addresses -------------------------------------------------------------------------------------------------------
    @rule(email=EMAILS)
    def request_reset(self, email):
        owner = self.owner_of(email)
        password_resets.request(email=email, command=self.command(), log=self.log)
        if owner is not None and owner.is_active:
            self.issue(self.links.of_stream(owner.id), LinkPurpose.RESET_PASSWORD, owner.id)

    @precondition(lambda self: self.has(LinkPurpose.RESET_PASSWORD))
    @rule(index=INDEXES, password=PASSWORDS)
    def reset(self, index, password):
        link = self.chosen(LinkPurpose.RESET_PASSWORD, index)
        self.now += timedelta(seconds=1)
        owner = self.accounts.get(link.about)
        expected = None if owner is not None and owner.is_active and self.is_valid(link) else InvalidLink
        self.now -= timedelta(seconds=1)
        about = {"token": link.token, "password": password, "network": "192.0.2.1"}
        result = self.attempt(
            expected, lambda: password_resets.reset(**about, command=self.command(), links=self.links.links, **self.ports)
        )
        if result is not None:
            owner.password = password
            self.close(owner.id)
            self.end(owner.id)

    @precondition(lambda self: any(one.is_active for one in self.accounts.values()))
    @rule(index=INDEXES, email=EMAILS)
    def request_email_change(self, index, email):
        owners = [one for one in self.accounts.values() if one.is_active]
        owner = owners[index % len(owners)]
        by = self.command(Actor(id=owner.id, role=Role.VIEWER))
        about = {"email": email, "network": "192.0.2.1", "sign_in_limits": self.links.sign_in_limits}
        email_changes.request(owner.id, **about, command=by, log=self.log)
        if email != owner.email:
            owner.new_email = email
            self.issue(self.links.of_stream(owner.id, LinkPurpose.CHANGE_EMAIL), LinkPurpose.CHANGE_EMAIL, owner.id)

    @precondition(lambda self: self.has(LinkPurpose.CHANGE_EMAIL))
    @rule(index=INDEXES)
    def confirm_email(self, index):
        link = self.chosen(LinkPurpose.CHANGE_EMAIL, index)
        self.now += timedelta(seconds=1)
        owner = self.accounts.get(link.about)
        if owner is None or not owner.is_active or not self.is_valid(link):
            expected = InvalidLink
        else:
            expected = Taken if self.owner_of(owner.new_email) not in (None, owner) else None
        self.now -= timedelta(seconds=1)
        result = self.attempt(
            expected, lambda: email_changes.confirm(token=link.token, command=self.command(), log=self.log, links=self.links.links)
        )
        if result is not None:
            owner.email = owner.new_email
            self.close(owner.id)

    # ---- administration --------------------------------------------------------------------------------------------------------------
    @precondition(lambda self: self.accounts)
    @rule(index=INDEXES, is_active=st.booleans())
    def change_status(self, index, is_active):
        owner = list(self.accounts.values())[index % len(self.accounts)]
        status = Status.ACTIVE if is_active else Status.SUSPENDED
        accounts.update(owner.id, profile={}, status=status, command=self.command(ADMIN), **self.ports)
        if not is_active or not owner.is_active:
            self.end(owner.id)
        owner.is_active = is_active

    @precondition(lambda self: self.accounts)
    @rule(index=INDEXES)
    def delete(self, index):
        owner = list(self.accounts.values())[index % len(self.accounts)]
        accounts.delete(owner.id, command=self.command(ADMIN), log=self.log, tokens=self.tokens)
        del self.accounts[owner.id]
        self.end(owner.id)

    # ---- sessions --------------------------------------------------------------------------------------------------------------------
    @rule(email=EMAILS, password=PASSWORDS)
    def sign_in(self, email, password):
        self.now += timedelta(seconds=1)
        owner = self.owner_of(email)
        pending = self.newest_pending(email)
        if owner is not None and owner.password == password:
            expected = owner.id if owner.is_active else None
        elif pending is not None and pending.password == password and (owner is None or owner.salt == pending.salt):
            expected = pending.id if self.now < pending.at + LIFETIME else None
        else:
            expected = None
        before = self.passwords.computed

        def work():
            about = {"email": email, "password": password, **FROM, "sign_in_limits": self.links.sign_in_limits}
            return sessions.sign_in(**about, command=self.command(), **self.ports)

        if expected is None:
            with pytest.raises(NotAuthenticated):
                work()
        else:
            started = work()
            assert started.user.id == expected
            self.sessions.append((started.session_id, expected, True))
        assert self.passwords.computed == before + 1

    @rule(minutes=st.sampled_from([1, 29, 31, 23 * 60, 25 * 60, 8 * 24 * 60]))
    def wait(self, minutes):
        self.now += timedelta(minutes=minutes)

    # ---- what holds always -------------------------------------------------------------------------------------------------------------
    @invariant()
    def sessions_are_valid_as_long_as_they_should(self):
        for session_id, owner, is_valid in self.sessions[-5:]:
            try:
                found = signed_in(session_id, self.log)[1].id
            except DomainError:
                found = None
            assert found == (owner if is_valid else None)

    @invariant()
    def addresses_and_names_belong_to_the_accounts_of_the_model(self):
        for email in ("ada@example.org", "bob@example.org", "eve@example.org"):
            owner, found = self.owner_of(email), accounts.find(email, self.log)
            assert (found and found.id) == (owner and owner.id)


def test_accounts_behave_as_the_model_says_in_any_order():
    started = []

    class Counted(Accounts):
        def __init__(self):
            super().__init__()
            started.append(self)

    run_state_machine_as_test(Counted, settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None))
    assert len(started) >= EXAMPLES
