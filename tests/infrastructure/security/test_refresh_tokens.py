"""Refresh tokens: each has one child, which is repeated within the grace period; later uses are reuse."""

import base64
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.access import Role
from domain.errors import NotAuthenticated, RefreshTokenReused, Unavailable
from infrastructure.security.access_tokens import SignedAccessTokens
from infrastructure.security.key_ring import Purpose
from infrastructure.security.keyed_digest import KeyedDigest
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


def test_thirty_two_rotations_at_once_give_one_child(tokens, started, owner_url):
    session, _, token = started
    for turn in range(5):
        at = NOW + turn * HOUR
        with ThreadPoolExecutor(32) as threads:
            children = {call.token for call in threads.map(lambda _: tokens.rotate(token, at=at), range(32))}  # noqa: B023
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


def child_by(keys, token):
    """The successor of a token as another installation would derive it."""
    digest = KeyedDigest(keys, Purpose.REFRESH_TOKENS).of(token.encode())
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


FORGED = {
    "nothing": lambda _: "",
    "another random token": lambda _: base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("="),
    "a token of zeros": lambda _: "A" * 43,
    "the digest of the token": lambda token: hashlib.sha256(token.encode()).hexdigest(),
    "the raw digest": lambda token: base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).decode(),
    "the bytes of the token": lambda token: base64.urlsafe_b64decode(token + "=").hex(),
    "the first character missing": lambda token: token[1:],
    "the last character missing": lambda token: token[:-1],
    "one character more": lambda token: f"{token}A",
    "padded": lambda token: f"{token}=",
    "twice": lambda token: token * 2,
    "twice with a separator": lambda token: f"{token} {token}",
    "in the other case": lambda token: token.swapcase(),
    "reversed": lambda token: token[::-1],
    "the last bits written in another way": lambda token: token[:-1] + chr(ord(token[-1]) + 1),
    "with a blank before": lambda token: f" {token}",
    "with a blank after": lambda token: f"{token} ",
    "with a line end": lambda token: f"{token}\n",
    "with a NUL": lambda token: f"{token}\0",
    "with a NUL before": lambda token: f"\0{token}",
    "with a lone surrogate": lambda token: f"{token}\ud800",
    "with a zero-width space": lambda token: f"{token}\N{ZERO WIDTH SPACE}",
    "in full-width letters": lambda token: "".join(chr(ord(one) + 0xFEE0) for one in token),
    "quoted": lambda token: f'"{token}"',
    "with its scheme": lambda token: f"Bearer {token}",
    "as a cookie": lambda token: f"refresh_token={token}",
    "in percent encoding": lambda token: "".join(f"%{ord(one):02x}" for one in token),
    "in plain base64": lambda token: base64.b64encode(token.encode()).decode(),
    "as a pattern": lambda token: f"{token[:-1]}%",
    "as SQL": lambda token: f"{token}' or '1'='1",
    "a megabyte that begins with it": lambda token: token + "A" * 1_000_000,
    "longer than any token": lambda _: "x" * 129,
    "a derived form of another key": lambda token: child_by(RootKey(os.urandom(32)), token),
    "an access token": lambda _: SignedAccessTokens(ROOT, ttl=600).issue(user=uuid4(), session=uuid4(), role=Role.ADMIN, at=NOW),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED.keys())
def test_a_forged_token_is_refused_and_the_real_one_still_works(tokens, started, forge):
    session, _, token = started
    forged = forge(token)
    assert forged != token
    assert refused(tokens, forged, NOW)
    assert tokens.session_of(forged) is None
    assert tokens.rotate(token, at=NOW).session_id == session


CHANGES = {
    "session_id": "update es.refresh_tokens set session_id = %s where session_id = %s",
    "user_id": "update es.refresh_tokens set user_id = %s where session_id = %s",
    "absolute_at": "update es.refresh_tokens set absolute_at = %s where session_id = %s",
    "mac": "update es.refresh_tokens set mac = %s where session_id = %s",
}


@pytest.mark.parametrize("column", ["session_id", "user_id", "absolute_at", "mac", "digest"])
def test_a_row_that_was_changed_in_the_database_is_no_token(tokens, started, owner_url, column):
    other = uuid4(), uuid4(), tokens.issue(session=uuid4(), user=uuid4(), at=NOW + HOUR)
    values = {"session_id": uuid4(), "user_id": uuid4(), "absolute_at": NOW + timedelta(days=90), "mac": b"x" * 32}
    with psycopg.connect(owner_url, autocommit=True) as connection:
        if column == "digest":
            connection.execute("update es.refresh_tokens set digest = sha256('known') where session_id = %s", (started[0],))
            assert refused(tokens, "known", NOW)
        else:
            connection.execute(CHANGES[column], (values[column], started[0]))
            assert refused(tokens, started[2], NOW)
    assert tokens.rotate(other[2], at=NOW + HOUR)


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
