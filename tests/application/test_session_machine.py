"""Sessions under any sequence of sign-ins, refreshes, replays, ends, changes of the account and jumps of the clock."""

from datetime import timedelta
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, precondition, rule

from application import accounts, open_sessions, sessions
from application.limits.sign_in_attempts import SignInLimits
from application.passwords import NewPassword
from application.services import Claims
from domain.access import Actor, Role
from domain.errors import NotAuthenticated, NotFound
from domain.user import Status
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.security.keys import RootKey
from infrastructure.security.rate_limits import LocalRateLimiter
from tests.given import NOW, command
from tests.twins.event_store import MemoryRecorder
from tests.twins.key_uses import identity_cache
from tests.twins.known_addresses import MemoryKnownAddresses
from tests.twins.passwords import MemoryPasswords
from tests.twins.refresh_tokens import GRACE_PERIOD, MemoryRefreshTokens

ROOT = RootKey(bytes(32))
EMAIL, FIRST = "ada@example.org", "a long and winding road"
FROM = {"address": "192.0.2.1", "network": "192.0.2.1"}
LIFETIME = timedelta(days=7)
ADMINISTRATOR = Actor(id=uuid4(), role=Role.ADMIN)
JUMPS = [timedelta(seconds=1), timedelta(seconds=9), timedelta(seconds=12), timedelta(hours=2), timedelta(days=6), timedelta(days=8)]


class Expected:
    """What must be true of one session: its tokens in order, when each was used, and when it can no longer be refreshed."""

    def __init__(self, token, at):
        self.tokens, self.used, self.is_open, self.expires_at = [token], {}, True, at + LIFETIME


class Sessions(RuleBasedStateMachine):
    steps = 0
    known = Bundle("known")

    @initialize()
    def register(self):
        self.log, self.passwords, self.tokens = RecorderEventStore(MemoryRecorder(ROOT), ROOT), MemoryPasswords(), MemoryRefreshTokens()
        self.at, self.password, self.role, self.status, self.expected = NOW, FIRST, Role.VIEWER, Status.ACTIVE, {}
        names = {"username": "ada", "first_name": "Ada", "last_name": "Lab"}
        about = {"email": EMAIL, "password": FIRST} | names
        self.ada = accounts.register(**about, command=command(), log=self.log, passwords=self.passwords).id
        other = about | {"email": "bob@example.org", "username": "bob", "role": Role.ADMIN}
        accounts.register(**other, command=command(), log=self.log, passwords=self.passwords)

    def by(self, actor=None):
        return command(actor or Actor(id=self.ada, role=self.role), at=self.at)

    @property
    def ports(self):
        return {"log": self.log, "tokens": self.tokens}

    @property
    def limits(self):
        """Fresh ones, so that none is reached."""
        return SignInLimits(limits=LocalRateLimiter(), known_addresses=MemoryKnownAddresses())

    def ended(self, *ids):
        for each in ids:
            self.expected[each].is_open = False

    def open_ids(self):
        return {each for each, one in self.expected.items() if one.is_open}

    # ---- what people do ----
    @rule(target=known, right=st.booleans())
    def sign_in(self, right):
        Sessions.steps += 1
        about = {"email": EMAIL, "password": self.password if right else "a wrong password 12", "agent": "curl/8", **FROM}
        ports = self.ports | {"passwords": self.passwords, "sign_in_limits": self.limits}
        before = self.passwords.computed
        try:
            signed_in = sessions.sign_in(**about, command=self.by(), **ports)
        except NotAuthenticated:
            assert not (right and self.status is Status.ACTIVE)
            return multiple()
        finally:
            assert self.passwords.computed == before + 1
        assert right
        assert self.status is Status.ACTIVE
        self.expected[signed_in.session_id] = Expected(signed_in.refresh_token, self.at)
        return signed_in.session_id

    @rule(session=known, back=st.integers(0, 3))
    def refresh(self, session, back):
        """With the newest token, or with one that was used `back` refreshes ago."""
        Sessions.steps += 1
        one = self.expected[session]
        place = max(0, len(one.tokens) - 1 - back)
        token, used_at = one.tokens[place], one.used.get(place)
        works = one.is_open and self.status is Status.ACTIVE
        try:
            refreshed = sessions.refresh(token=token, **FROM, command=self.by(), **self.ports, sign_in_limits=self.limits)
        except NotAuthenticated:
            is_reuse = one.is_open and used_at is not None and self.at - used_at > GRACE_PERIOD
            assert not works or is_reuse or self.at >= one.expires_at
            if is_reuse:
                self.ended(session)
            return
        assert works
        assert refreshed.session_id == session
        if used_at is None:
            assert self.at < one.expires_at
            one.used[place], one.expires_at = self.at, self.at + LIFETIME
            one.tokens.append(refreshed.refresh_token)
        else:
            assert self.at - used_at <= GRACE_PERIOD
            assert refreshed.refresh_token == one.tokens[place + 1], "one child"

    @rule(session=known)
    def sign_out(self, session):
        Sessions.steps += 1
        assert sessions.sign_out(session, command=self.by(), **self.ports) == self.ada
        self.ended(session)

    @rule(session=known, by_administrator=st.booleans())
    def end(self, session, by_administrator):
        Sessions.steps += 1
        open_sessions.end(session, user_id=self.ada, command=self.by(ADMINISTRATOR if by_administrator else None), **self.ports)
        self.ended(session)

    @rule(session=known)
    def end_that_of_another_user(self, session):
        Sessions.steps += 1
        for absent in (session, uuid4()):
            with pytest.raises(NotFound, match=r"^Session not found$"):
                open_sessions.end(absent, user_id=ADMINISTRATOR.id, command=self.by(ADMINISTRATOR), **self.ports)

    @rule(session=known)
    def end_all_others(self, session):
        Sessions.steps += 1
        open_sessions.end_all(self.ada, but=session, command=self.by(), **self.ports)
        self.ended(*(self.open_ids() - {session}))

    @rule()
    def end_all(self):
        Sessions.steps += 1
        open_sessions.end_all(self.ada, command=self.by(ADMINISTRATOR), **self.ports)
        self.ended(*self.open_ids())

    @precondition(lambda self: self.status is Status.ACTIVE)
    @rule(keep=known, number=st.integers(0, 10**6))
    def change_password(self, keep, number):
        Sessions.steps += 1
        new = f"another winding road, number {number}"
        asked = NewPassword(password=new, current=self.password, signed_in_for=1e9, keep=keep)
        self.update(Actor(id=self.ada, role=self.role), password=asked)
        self.password = new
        self.ended(*(self.open_ids() - {keep}))

    @rule(number=st.integers(0, 10**6))
    def reset_password(self, number):
        Sessions.steps += 1
        self.password = f"a third winding road, number {number}"
        accounts.reset_password(self.ada, self.password, command=self.by(ADMINISTRATOR), passwords=self.passwords, **self.ports)
        self.ended(*self.open_ids())

    @rule(role=st.sampled_from(Role))
    def change_role(self, role):
        Sessions.steps += 1
        self.update(ADMINISTRATOR, role=role)
        self.role = role

    @rule(status=st.sampled_from([Status.ACTIVE, Status.SUSPENDED, Status.INACTIVE]))
    def change_status(self, status):
        Sessions.steps += 1
        self.update(ADMINISTRATOR, status=status)
        if status is not Status.ACTIVE or self.status is not Status.ACTIVE:
            self.ended(*self.open_ids())
        self.status = status

    def update(self, actor, **changes):
        ports = self.ports | {"passwords": self.passwords, "sign_in_limits": self.limits}
        accounts.update(self.ada, profile={}, **changes, command=self.by(actor), **ports)

    @rule(jump=st.sampled_from(JUMPS))
    def pass_time(self, jump):
        Sessions.steps += 1
        self.at += jump

    @rule(session=consumes(known))
    def forget(self, session):
        """No later step is about this session, so that others are."""
        Sessions.steps += 1

    # ---- what is true after each step ----
    @invariant()
    def those_are_listed_that_can_be_refreshed(self):
        found = open_sessions.listed(self.ada, actor=ADMINISTRATOR, at=self.at, **self.ports)
        lasting = {each for each in self.open_ids() if self.at < self.expected[each].expires_at}
        assert {each.id for each in found} == lasting
        assert [each.last_used_at for each in found] == sorted((each.last_used_at for each in found), reverse=True)
        assert all((each.device, each.address) == ("curl", "192.0.2.1") and each.started_at <= each.last_used_at for each in found)

    @invariant()
    def access_tokens_work_in_open_sessions_alone_and_with_the_present_role(self):
        identities = identity_cache(self.log)
        for each, one in self.expected.items():
            claims = Claims(
                subject=self.ada, session_id=each, role=Role.ADMIN, issued_at=NOW, expires_at=NOW + LIFETIME, scopes=frozenset()
            )
            try:
                identity = identities.authenticate(claims)
            except NotAuthenticated:
                assert not one.is_open or self.status is not Status.ACTIVE
            else:
                assert one.is_open
                assert identity.actor == Actor(id=self.ada, role=self.role)

    @invariant()
    def no_ended_session_has_a_token(self):
        assert not [each for each, one in self.expected.items() if not one.is_open and any(map(self.tokens.session_of, one.tokens))]


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
