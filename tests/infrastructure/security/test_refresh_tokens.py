"""Refresh tokens: each has one child, which is repeated within the grace period; later uses are reuse."""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.errors import NotAuthenticated, RefreshTokenReused, Unavailable
from infrastructure.security.keys import RootKey
from infrastructure.security.refresh_tokens import PostgresRefreshTokens
from tests.given import NOW

ROOT = RootKey(os.urandom(32))
HOUR = timedelta(hours=1)
AFTER_GRACE = timedelta(seconds=11)


@pytest.fixture
def tokens(app_url):
    tokens = PostgresRefreshTokens(app_url, ROOT, idle_seconds=7 * 86400, absolute_seconds=30 * 86400)
    yield tokens
    tokens.close()


@pytest.fixture
def started(tokens):
    """A session's id, its user's, and its first token."""
    session, user = uuid4(), uuid4()
    return session, user, tokens.issue(session=session, user=user, at=NOW)


def live(owner_url, session, at):
    with psycopg.connect(owner_url) as connection:
        query = "select count(*) from es.refresh_tokens where session_id = %s and used_at is null and expires_at > %s"
        return connection.execute(query, (session, at)).fetchone()[0]


def refused(tokens, token, at):
    with pytest.raises(NotAuthenticated) as error:
        tokens.rotate(token, at=at)
    return error.value.detail == "Invalid or expired refresh token"


def test_a_token_gives_a_child_of_the_same_session(tokens, started):
    session, user, token = started
    child = tokens.rotate(token, at=NOW + HOUR)
    assert (child.session_id, child.user_id) == (session, user)
    assert child.token != token
    assert len(child.token) == 48
    assert tokens.rotate(child.token, at=NOW + 2 * HOUR).session_id == session


def test_only_digests_are_kept(tokens, started, owner_url):
    child = tokens.rotate(started[2], at=NOW)
    with psycopg.connect(owner_url) as connection:
        kept = str(connection.execute("select t::text from es.refresh_tokens t").fetchall())
    assert started[2] not in kept
    assert child.token not in kept


def test_twenty_rotations_at_once_give_one_child(tokens, started, owner_url):
    session, _, token = started
    for turn in range(5):
        at = NOW + turn * HOUR
        with ThreadPoolExecutor(20) as threads:
            children = {call.token for call in threads.map(lambda _: tokens.rotate(token, at=at), range(20))}  # noqa: B023
        assert len(children) == 1
        assert live(owner_url, session, at) == 1
        token = children.pop()


def test_within_the_grace_every_process_gives_the_same_child(tokens, started, app_url):
    child = tokens.rotate(started[2], at=NOW)
    other = PostgresRefreshTokens(app_url, ROOT, idle_seconds=60, absolute_seconds=60)
    assert other.rotate(started[2], at=NOW + timedelta(seconds=10)) == child
    other.close()


@pytest.mark.parametrize("generations", [1, 2])
def test_after_the_grace_an_earlier_token_is_reuse_and_says_whose(tokens, started, generations):
    session, user, token = started
    newest, at = token, NOW
    for _ in range(generations):
        newest = tokens.rotate(newest, at=at).token
    with pytest.raises(RefreshTokenReused) as reused:
        tokens.rotate(token, at=at + AFTER_GRACE)
    assert (reused.value.session_id, reused.value.user_id) == (session, user)


def test_what_is_unknown_malformed_or_ended_is_refused_alike(tokens, started):
    for odd in ("", "x" * 43, "x" * 100_000, "\0\ud800", started[2][:-1], started[2] + "=", started[2] + "A"):
        assert refused(tokens, odd, NOW)
        assert tokens.session_of(odd) is None
    assert refused(tokens, started[2], NOW + timedelta(days=7))


def test_a_session_ends_absolutely_however_often_it_is_refreshed(tokens, started):
    token = started[2]
    for day in range(5, 30, 5):
        token = tokens.rotate(token, at=NOW + timedelta(days=day)).token
    assert refused(tokens, token, NOW + timedelta(days=30))


def test_an_old_token_of_an_ended_session_is_no_reuse_any_more(tokens, started):
    tokens.rotate(started[2], at=NOW)
    assert refused(tokens, started[2], NOW + timedelta(days=30))


def test_a_revoked_session_has_no_tokens_left_not_even_within_the_grace(tokens, started):
    session, _, token = started
    child = tokens.rotate(token, at=NOW)
    tokens.revoke(session)
    tokens.revoke(session)
    assert refused(tokens, token, NOW)
    assert refused(tokens, child.token, NOW)
    assert tokens.session_of(child.token) is None


def test_all_sessions_of_a_user_end_but_one(tokens, started):
    kept, user, _ = started
    others = [uuid4(), uuid4()]
    for session in others:
        tokens.rotate(tokens.issue(session=session, user=user, at=NOW), at=NOW)
    strangers = tokens.issue(session=uuid4(), user=uuid4(), at=NOW)
    assert sorted(tokens.revoke_user(user, but=kept)) == sorted(others)
    assert tokens.rotate(started[2], at=NOW).session_id == kept
    assert tokens.revoke_user(user) == [kept]
    assert tokens.revoke_user(user) == []
    assert tokens.rotate(strangers, at=NOW)


def test_a_revocation_catches_the_child_of_a_rotation_under_way(tokens, started, owner_url):
    session, user, token = started
    with psycopg.connect(owner_url) as rotating, ThreadPoolExecutor(1) as threads:
        rotating.execute("select es.use_refresh_token(sha256(convert_to(%s, 'UTF8')), %s)", (token, NOW))
        revoked = threads.submit(tokens.revoke, session)
        with psycopg.connect(owner_url, autocommit=True) as watching:
            waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            while not watching.execute(waiting).fetchone()[0]:
                pass
        rotating.execute(
            "insert into es.refresh_tokens values (sha256('child'), %s, %s, %s, %s, %s, null)",
            (session, user, NOW, NOW + HOUR, NOW + HOUR),
        )
        rotating.commit()
        revoked.result(5)
    assert live(owner_url, session, NOW) == 0


def test_a_users_ended_sessions_are_forgotten_at_his_next_sign_in(tokens, started, owner_url):
    tokens.issue(session=uuid4(), user=started[1], at=NOW + timedelta(days=31))
    with psycopg.connect(owner_url) as connection:
        assert connection.execute("select count(*) from es.refresh_tokens").fetchone()[0] == 1


def test_without_its_database_it_says_so():
    tokens = PostgresRefreshTokens("postgresql://127.0.0.1:1/none", ROOT, idle_seconds=60, absolute_seconds=60)
    with pytest.raises(Unavailable) as away:
        tokens.rotate("x" * 43, at=NOW)
    assert away.value.retry_after == 2
    tokens.close()


STEPS = st.lists(st.tuples(st.sampled_from(["newest", "one before", "any"]), st.integers(0, 20)), max_size=12)


@given(steps=STEPS, data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_after_any_rotations_one_token_is_valid_and_none_after_reuse(steps, data, tokens, owner_url):
    session, at = uuid4(), NOW
    line = [tokens.issue(session=session, user=uuid4(), at=at)]
    for which, seconds in steps:
        at += timedelta(seconds=seconds)
        place = {"newest": -1, "one before": -2}.get(which, data.draw(st.integers(0, len(line) - 1)))
        place = len(line) - 1 if place == -1 else max(0, len(line) + place if place < 0 else place)
        try:
            child = tokens.rotate(line[place], at=at).token
        except RefreshTokenReused:
            tokens.revoke(session)
            assert live(owner_url, session, at) == 0
            assert all(refused(tokens, token, at) for token in line)
            return
        assert child == (line[place + 1] if place + 1 < len(line) else child)
        line += [child] if child not in line else []
        assert live(owner_url, session, at) == 1
