"""Read models during a rebuild: durable and indexed before they go live."""

import os
import signal

import psycopg
import pytest

from infrastructure.embedded.postgres.server import Postgres
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.postgres.schema import migrate
from infrastructure.security.keys import RootKey
from projections.process.composition import projector_over
from projections.rebuild.bulk_schema import NEEDED_TO_FILL, NotDurable, finish, prepare, require_logged
from projections.rebuild.digests import digests
from projections.rebuild.rebuilding import NEXT_SCHEMA, RebuildLimits, rebuild
from tests.rigs.scenario import Scenario

INDEXES = "select replace(indexdef, schemaname || '.', '') from pg_indexes where schemaname = %s order by 1"


@pytest.fixture
def owner(owner_url):
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("call ops.create_read_models('filled')")
        yield owner


def test_what_was_left_out_comes_back(owner):
    whole = owner.execute(INDEXES, ("read",)).fetchall()
    left_out = prepare(owner, "filled")
    fewer = owner.execute(INDEXES, ("filled",)).fetchall()
    assert len(fewer) == len(whole) - len(left_out) < len(whole)
    assert all(any(f" {name} " in definition for (definition,) in fewer) for name in NEEDED_TO_FILL)
    finish(owner, "filled", left_out)
    assert owner.execute(INDEXES, ("filled",)).fetchall() == whole


def test_tables_that_a_crash_would_empty_are_refused(owner):
    left_out = prepare(owner, "filled")
    with pytest.raises(NotDurable, match="activity, api_keys, checkpoint, "):
        require_logged(owner, "filled")
    finish(owner, "filled", left_out)
    require_logged(owner, "filled")
    owner.execute("alter table filled.results set unlogged")
    with pytest.raises(NotDurable, match=r"after a crash: results$"):
        require_logged(owner, "filled")


def test_a_crash_during_a_rebuild_loses_the_rebuild_and_never_the_live_read_models(tmp_path):
    root = RootKey(bytes(32))

    def rebuilt(server, log, *, check, progress=lambda *_: None):
        with psycopg.connect(server.owner_url, autocommit=True) as owner:
            return rebuild(
                owner,
                projector_over=lambda schema: projector_over(server.owner_url, log, schema=schema),
                log=log,
                check=check,
                progress=progress,
                limits=RebuildLimits(events_per_batch=1),
            )

    def crash(*_):
        postmaster = int((tmp_path / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        with psycopg.connect(server.owner_url, autocommit=True) as connection:
            connection.execute("checkpoint")
            assert connection.execute(f"select count(*) > 0 from {NEXT_SCHEMA}.users").fetchone() == (True,)
        os.kill(postmaster, signal.SIGQUIT)

    with Postgres(tmp_path) as server:
        migrate(server.owner_url)
        log = RecorderEventStore(PostgresRecorder(server.app_url, root), root)
        scenario = Scenario(log, None)
        ada = scenario.user()
        scenario.image(ada, scenario.dataset(ada))
        rebuilt(server, log, check=False)
        with psycopg.connect(server.owner_url) as connection:
            live = digests(connection)
        with pytest.raises(psycopg.OperationalError):
            rebuilt(server, log, check=False, progress=crash)
        log.close()
    with Postgres(tmp_path) as server:
        log = RecorderEventStore(PostgresRecorder(server.app_url, root), root)
        with psycopg.connect(server.owner_url, autocommit=True) as connection:
            assert digests(connection) == live
            assert connection.execute(f"select count(*) from {NEXT_SCHEMA}.users").fetchone() == (0,)
        assert rebuilt(server, log, check=True).differing == ()
        rebuilt(server, log, check=False)
        with psycopg.connect(server.owner_url, autocommit=True) as connection:
            assert digests(connection) == live
            assert connection.execute("select to_regnamespace(%s)", (NEXT_SCHEMA,)).fetchone() == (None,)
        log.close()
