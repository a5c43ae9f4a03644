"""Authentication: the identity behind an access token, from the log or from a cache."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import pytest

from application.authentication import CACHE_SECONDS, IdentityCache, signed_in
from application.key_identities import RECOGNISED_SECONDS, KeyIdentities
from application.services import Claims
from domain import session, user
from domain.access import Role
from domain.errors import NotAuthenticated
from domain.session import Reason
from domain.user import Status
from tests.given import NOW
from tests.rigs.scenario import SYSTEM, Scenario
from tests.twins.key_uses import MemoryKeyUses


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def scenario(log):
    return Scenario(log, None)


@pytest.fixture
def ada(scenario):
    return scenario.user(name="ada")


@pytest.fixture
def session_id(scenario, ada):
    return scenario.session(ada)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def cache(log, clock):
    return IdentityCache(log, KeyIdentities(log, MemoryKeyUses(), count_refusal=lambda _: None, clock=clock, now=lambda: NOW), clock=clock)


def claims(subject, session_id=None, scopes=()):
    return Claims(
        subject=subject, session_id=session_id, role=None, scopes=frozenset(scopes), issued_at=NOW, expires_at=NOW + timedelta(minutes=10)
    )


def revoke(scenario, session_id, ada):
    scenario.change(session_id, session, lambda it: session.revoke(it, Reason.LOGOUT, by=ada.id, at=NOW))


def suspend(scenario, ada):
    scenario.change(ada.id, user, lambda it: user.change_status(it, Status.SUSPENDED, by=SYSTEM.id, at=NOW))


def test_a_session_belongs_to_its_user(log, ada, session_id):
    found, account = signed_in(session_id, log)
    assert (found.id, account.id) == (session_id, ada.id)


def test_an_unknown_or_revoked_session_and_a_suspended_user_are_refused(log, scenario, ada, session_id):
    with pytest.raises(NotAuthenticated, match="Invalid token"):
        signed_in(uuid4(), log)
    other = scenario.session(ada)
    revoke(scenario, other, ada)
    with pytest.raises(NotAuthenticated, match="Invalid token"):
        signed_in(other, log)
    suspend(scenario, ada)
    with pytest.raises(NotAuthenticated, match="User disabled"):
        signed_in(session_id, log)


def test_an_identity_is_cached_for_some_seconds(scenario, ada, session_id, clock, cache):
    identity = cache.signed_in(session_id)
    assert (identity.actor.id, identity.actor.role, identity.holder.id) == (ada.id, Role.RESEARCHER, session_id)
    revoke(scenario, session_id, ada)
    clock.now += CACHE_SECONDS - 0.1
    assert cache.signed_in(session_id) == identity
    clock.now += 0.2
    with pytest.raises(NotAuthenticated):
        cache.signed_in(session_id)


def test_what_changes_a_user_is_forgotten_at_once(scenario, ada, session_id, cache):
    cache.signed_in(session_id)
    suspend(scenario, ada)
    cache.forget(uuid4())
    assert cache.cached_in(session_id) is not None
    cache.forget(ada.id)
    assert cache.cached_in(session_id) is None
    with pytest.raises(NotAuthenticated, match="User disabled"):
        cache.signed_in(session_id)


def test_a_token_of_another_user_for_the_session_is_refused(ada, session_id, cache):
    assert cache.authenticate(claims(ada.id, session_id)).actor.id == ada.id
    with pytest.raises(NotAuthenticated, match="Invalid token"):
        cache.authenticate(claims(uuid4(), session_id))


def test_a_service_has_its_scopes_and_no_session(cache):
    service = uuid4()
    identity = cache.authenticate(claims(service, scopes={"events:read"}))
    assert (identity.actor.kind, identity.actor.scopes, identity.holder.id) == ("service", {"events:read"}, service)


def test_a_session_is_recognised_for_some_minutes_after_it_was_accepted(cache, clock, scenario, ada, session_id):
    assert not cache.recognises(session_id)
    cache.signed_in(session_id)
    revoke(scenario, session_id, ada)
    assert cache.recognises(session_id)
    clock.now += RECOGNISED_SECONDS
    with pytest.raises(NotAuthenticated):
        cache.signed_in(session_id)
    assert not cache.recognises(session_id)
