"""Connection profiles and advisory locks, on the real database."""

import psycopg
import pytest

from infrastructure.postgres import profiles
from infrastructure.postgres.advisory_locks import AdvisoryLock, held, lock, try_lock, try_lock_async, unlock
from infrastructure.postgres.profiles import COMMANDS, GROUP_COMMIT, QUERIES, RELAY, Profile

ALL = {name: profile for name, profile in vars(profiles).items() if isinstance(profile, Profile)}


@pytest.mark.parametrize("name", ALL)
def test_the_server_takes_the_settings_of_every_profile(app_url, name):
    profile = ALL[name]
    with profile.connect_unmonitored(app_url) as connection:
        for setting in profile.settings:
            assert connection.execute("select current_setting(%s)", (setting,)).fetchone()[0]


def test_a_profile_with_other_settings_keeps_the_rest(app_url):
    with QUERIES.having(statement_timeout="1s").connect(app_url) as connection:
        shown = connection.execute("select current_setting('statement_timeout'), current_setting('search_path')").fetchone()
    assert shown == ("1s", "read")
    assert GROUP_COMMIT.settings.keys() - COMMANDS.settings.keys() == {"bioscope.wakes"}


def test_one_session_at_a_time_holds_an_advisory_lock(app_url):
    with RELAY.connect(app_url) as leader, RELAY.connect(app_url) as standby:
        assert try_lock(leader, AdvisoryLock.RELAY)
        assert not try_lock(standby, AdvisoryLock.RELAY)
        assert is_held(standby, AdvisoryLock.RELAY)
        unlock(leader, AdvisoryLock.RELAY)
        lock(standby, AdvisoryLock.RELAY)
    with RELAY.connect(app_url) as other:
        assert not is_held(other, AdvisoryLock.RELAY)


@pytest.mark.anyio
async def test_coroutines_take_the_same_locks(app_url):
    with RELAY.connect(app_url) as other:
        async with await RELAY.connect_async(app_url) as leader:
            assert await try_lock_async(leader, AdvisoryLock.RELAY)
            assert not try_lock(other, AdvisoryLock.RELAY)


def test_locks_do_not_exclude_each_other(app_url):
    with RELAY.connect(app_url) as connection, RELAY.connect(app_url) as other:
        assert try_lock(connection, AdvisoryLock.RELAY)
        assert all(try_lock(other, which) for which in AdvisoryLock if which is not AdvisoryLock.RELAY)


def is_held(connection: psycopg.Connection, which):
    return connection.execute(f"select {held(which)}").fetchone()[0]
