"""The contract of refresh tokens: Postgres and the in-memory twin."""

import os
from datetime import timedelta
from uuid import uuid4

import pytest

from domain.errors import NotAuthenticated, RefreshTokenReused
from infrastructure.security.keys import RootKey
from infrastructure.security.refresh_tokens import PostgresRefreshTokens
from tests.given import NOW
from tests.twins.refresh_tokens import MemoryRefreshTokens

WITHIN_GRACE, AFTER_GRACE = timedelta(seconds=10), timedelta(seconds=11)


@pytest.fixture(params=["memory", "postgres"])
def tokens(request):
    if request.param == "memory":
        yield MemoryRefreshTokens()
        return
    url = request.getfixturevalue("app_url")
    tokens = PostgresRefreshTokens(url, RootKey(os.urandom(32)), idle_seconds=7 * 86400, absolute_seconds=30 * 86400)
    yield tokens
    tokens.close()


def test_a_token_is_rotated_to_one_child_which_is_given_again_within_the_grace(tokens):
    session, user = uuid4(), uuid4()
    token = tokens.issue(session=session, user=user, at=NOW)
    child = tokens.rotate(token, at=NOW)
    assert (child.session_id, child.user_id) == (session, user)
    assert tokens.rotate(token, at=NOW + WITHIN_GRACE) == child
    assert tokens.rotate(child.token, at=NOW).token not in {token, child.token}


def test_a_token_that_is_used_after_the_grace_is_reused(tokens):
    session, user = uuid4(), uuid4()
    token = tokens.issue(session=session, user=user, at=NOW)
    tokens.rotate(token, at=NOW)
    with pytest.raises(RefreshTokenReused) as reused:
        tokens.rotate(token, at=NOW + AFTER_GRACE)
    assert (reused.value.session_id, reused.value.user_id) == (session, user)


def test_an_unknown_an_expired_and_a_revoked_token_are_refused(tokens):
    session, user = uuid4(), uuid4()
    expired, revoked = tokens.issue(session=session, user=user, at=NOW), tokens.issue(session=uuid4(), user=user, at=NOW)
    tokens.revoke(tokens.session_of(revoked))
    for token, at in (("unknown", NOW), (expired, NOW + timedelta(days=7)), (revoked, NOW)):
        with pytest.raises(NotAuthenticated):
            tokens.rotate(token, at=at)
    assert tokens.session_of(revoked) is None


def test_all_sessions_of_a_user_but_one_are_revoked(tokens):
    user, kept, ended = uuid4(), uuid4(), uuid4()
    kept_token, _, _ = (tokens.issue(session=session, user=user, at=NOW) for session in (kept, ended, ended))
    other = tokens.issue(session=uuid4(), user=uuid4(), at=NOW)
    assert tokens.revoke_user(user, but=kept) == [ended]
    assert tokens.rotate(kept_token, at=NOW).session_id == kept
    assert tokens.session_of(other) is not None


def test_a_token_that_was_used_is_reused_even_after_it_would_have_expired(tokens):
    session, user = uuid4(), uuid4()
    token = tokens.issue(session=session, user=user, at=NOW)
    tokens.rotate(token, at=NOW)
    with pytest.raises(RefreshTokenReused):
        tokens.rotate(token, at=NOW + timedelta(days=8))


def test_sessions_are_open_while_they_can_be_refreshed_the_last_used_first(tokens):
    user, (one, other, ended, expired) = uuid4(), (uuid4() for _ in range(4))
    tokens.issue(session=expired, user=user, at=NOW - timedelta(days=8))
    first, _, last = (tokens.issue(session=session, user=user, at=NOW) for session in (one, other, ended))
    tokens.issue(session=uuid4(), user=uuid4(), at=NOW)
    tokens.rotate(first, at=NOW + timedelta(hours=2))
    tokens.revoke(tokens.session_of(last))
    at = NOW + timedelta(hours=3)
    assert tokens.open_sessions(user, at=at) == [(one, NOW + timedelta(hours=2)), (other, NOW)]
    assert tokens.open_sessions(user, at=NOW + timedelta(days=7)) == [(one, NOW + timedelta(hours=2))]
    assert tokens.open_sessions(user, at=NOW + timedelta(days=30)) == []
    assert tokens.open_sessions(uuid4(), at=at) == []
