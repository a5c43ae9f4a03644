"""Migrations: a database fits this release or is refused; upgraded, new and rebuilt ones have the same tables."""

import threading
import time
from contextlib import closing
from uuid import uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from infrastructure.postgres import schema
from infrastructure.postgres.errors import DatabaseAway
from infrastructure.postgres.schema import (
    SchemaAhead,
    SchemaBehind,
    check,
    check_when_reachable,
    migrate,
    migrations,
    oldest_release,
    this_release,
)
from projections.access import ADMINISTRATORS
from projections.engine import postgres_store
from projections.engine.batches import FOLD_VERSIONS
from projections.engine.postgres_store import PostgresReadModels
from tests.rigs.waiting import wait_until

COLUMNS = """select table_name, ordinal_position, column_name, data_type, is_nullable, collation_name from information_schema.columns
  where table_schema = %s order by table_name, ordinal_position"""
INDEXES = "select tablename, indexname, replace(indexdef, schemaname || '.', '') from pg_indexes where schemaname = %s order by indexname"
LAST_WITH_SESSIONS = 20
OLD_IMAGE = """insert into read.images (id, version, dataset_id, filename, sha256, size, media_type, width, height, uploaded_by,
    uploaded_at, analyzed, accepted, deleted, position)
  values (gen_random_uuid(), 1, gen_random_uuid(), %s, '', 1, 'image/png', 1, 1, gen_random_uuid(), now(), false, false, false, 1)"""


@pytest.fixture
def owner(owner_url):
    with psycopg.connect(owner_url, autocommit=True) as connection:
        yield connection


def test_rebuilt_read_models_have_the_columns_and_indexes_of_the_live_ones(owner):
    owner.execute("call ops.create_read_models('read_next')")
    for query in (COLUMNS, INDEXES):
        live, rebuilt = (owner.execute(query, (schema,)).fetchall() for schema in ("read", "read_next"))
        assert live == rebuilt
        assert len(live) > 20


GRANTS = """select table_name, grantee, privilege_type from information_schema.role_table_grants
  where table_schema = %s and grantee like 'bioscope%%' order by 1, 2, 3"""


def test_the_roles_of_the_processes_have_the_same_rights_on_rebuilt_read_models(owner):
    owner.execute("call ops.create_read_models('read_next')")
    live, rebuilt = (owner.execute(GRANTS, (schema,)).fetchall() for schema in ("read", "read_next"))
    assert live == rebuilt
    assert {role for _, role, _ in live} == {"bioscope_app", "bioscope_api", "bioscope_relay", "bioscope_projector", "bioscope_inference"}


COMMENTS = """select c.relname, d.objsubid, d.description from pg_description d join pg_class c on c.oid = d.objoid
  where d.classoid = 'pg_class'::regclass and c.relnamespace = %s::regnamespace order by 1, 2"""


def test_rebuilt_read_models_have_the_comments_of_the_live_ones(owner):
    owner.execute("call ops.create_read_models('read_next')")
    live, rebuilt = (owner.execute(COMMENTS, (schema,)).fetchall() for schema in ("read", "read_next"))
    assert live == rebuilt
    assert len(live) > 100


def test_one_procedure_defines_the_read_models(owner):
    procedures = owner.execute(
        "select proname from pg_proc where pronamespace = 'ops'::regnamespace and prokind = 'p' order by 1"
    ).fetchall()
    assert [name for (name,) in procedures] == ["create_read_models", "fill_open_chunks"]


def test_the_unread_table_of_sessions_is_dropped_and_the_other_read_models_stay(postgres):
    with psycopg.connect(postgres.url(user="postgres", database="postgres"), autocommit=True) as server:
        server.execute("create database with_sessions")
    url = postgres.url(user="postgres", database="with_sessions")
    migrate(url, known={number: text for number, text in migrations().items() if number <= LAST_WITH_SESSIONS})
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("insert into read.sessions values (gen_random_uuid(), gen_random_uuid(), now(), false)")
        folds = {"sessions": 1} | FOLD_VERSIONS
        connection.execute("insert into read.folds select * from unnest(%s::text[], %s::int[])", (list(folds), list(folds.values())))
        connection.execute(OLD_IMAGE, ("kept.png",))
        (generation,) = connection.execute("select generation from read.checkpoint").fetchone()
        migrate(url)
        assert connection.execute("select to_regclass('read.sessions')").fetchone() == (None,)
        assert connection.execute("select filename from read.images").fetchall() == [("kept.png",)]
        with closing(PostgresReadModels(postgres_store.connect(url))) as models:
            token = models.read_checkpoint()
        assert token.generation == generation + 1, "a projector of an earlier release must notice"


LAST_WITHOUT_TEAMS = 24
OLD_DATASET = """insert into read.datasets (id, name, owner_id, created_at, version, deleted) values (%s, 'cells', %s, now(), 1, %s)"""
OLD_ACCESS = "insert into read.dataset_access (subject, dataset, role) values (%s, %s, %s)"
VISIBLE = "select subject, dataset, role from read.visible order by 1, 2"
NEW_FOLDS = {"registrations", "invitations", "service_accounts", "api_keys", "teams", "team_members"}


def test_everybody_sees_the_same_datasets_after_the_migration_to_teams_and_nothing_is_rebuilt(postgres):
    with psycopg.connect(postgres.url(user="postgres", database="postgres"), autocommit=True) as server:
        server.execute("create database before_teams")
    url = postgres.url(user="postgres", database="before_teams")
    migrate(url, known={number: text for number, text in migrations().items() if number <= LAST_WITHOUT_TEAMS})
    ada, bob, cells, deleted = (uuid4() for _ in range(4))
    with psycopg.connect(url, autocommit=True) as connection:
        for dataset, is_deleted in ((cells, False), (deleted, True)):
            connection.execute(OLD_DATASET, (dataset, ada, is_deleted))
            for subject, role in ((ada, "owner"), (bob, "viewer"), (ADMINISTRATORS, "owner")):
                connection.execute(OLD_ACCESS, (subject, dataset, role))
        folds = {name: version for name, version in FOLD_VERSIONS.items() if name not in NEW_FOLDS}
        connection.execute("insert into read.folds select * from unnest(%s::text[], %s::int[])", (list(folds), list(folds.values())))
        connection.execute("update read.checkpoint set position = 9 where projection = 'main'")
        before = connection.execute(VISIBLE).fetchall()
        migrate(url)
        assert len(before) == 3
        assert connection.execute(VISIBLE).fetchall() == before
        assert dict(connection.execute("select name, version from read.folds").fetchall()) == FOLD_VERSIONS
        connection.execute("delete from read.dataset_access where subject = %s", (bob,))
        assert connection.execute(VISIBLE).fetchall() == [row for row in before if row[0] != bob]


def test_images_of_before_paths_get_none_and_names_in_nfc(postgres):
    with psycopg.connect(postgres.url(user="postgres", database="postgres"), autocommit=True) as server:
        server.execute("create database before_paths")
    url = postgres.url(user="postgres", database="before_paths")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create schema ops")
        connection.execute("create table ops.migrations (number int primary key, applied_at timestamptz not null default now())")
        for number, text in migrations().items():
            if number < 6:
                connection.execute(text)
                connection.execute("insert into ops.migrations (number) values (%s)", (number,))
        for name in ("Gro\u0308\u00dfe.png", "plain.png"):
            connection.execute(OLD_IMAGE, (name,))
        migrate(url)
        assert sorted(connection.execute("select filename, path from read.images").fetchall()) == [("Größe.png", None), ("plain.png", None)]


# ---- results of before statistics ----------------------------------------------------------------------------------------------------
LAST_WITHOUT_STATISTICS = 23
OLD_RESULT = """insert into {}.results (id, image_id, dataset_id, classification_id, label, confidence, verdict, scores, model_name,
    model_version, warnings, created_at, hidden)
  values (gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'round', 0.5, 'clear', '{{}}', 'shapes', 1, '[]',
    now(), false)"""
TRIGGERS = """select tgname, pg_get_functiondef(tgfoid) from pg_trigger where tgrelid = %s::regclass and not tgisinternal order by 1"""
FILE_OF_RESULTS = "select pg_relation_filenode('read.results')"


@pytest.fixture
def earlier(postgres, request):
    """A database of the release before, in the middle of a rebuild, with a result in the live and in the rebuilt read models."""
    name = f"before_statistics_{len(request.node.name)}"
    with psycopg.connect(postgres.url(user="postgres", database="postgres"), autocommit=True) as server:
        server.execute(f"create database {name}")
    url = postgres.url(user="postgres", database=name)
    migrate(url, known={number: text for number, text in migrations().items() if number <= LAST_WITHOUT_STATISTICS})
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("call ops.create_read_models('read_next')")
        for schema_name in ("read", "read_next"):
            connection.execute(OLD_RESULT.format(schema_name))
        yield url, connection


def of_results(connection, query, schema_name="read"):
    return [row[1:] for row in connection.execute(query, (schema_name,)).fetchall() if row[0] == "results"]


def test_results_keep_their_file_indexes_and_triggers_until_they_are_rebuilt(earlier, owner):
    url, connection = earlier
    before = [of_results(connection, INDEXES), connection.execute(TRIGGERS, ("read.results",)).fetchall()]
    (file,) = connection.execute(FILE_OF_RESULTS).fetchone()
    migrate(url)
    assert [of_results(connection, INDEXES), connection.execute(TRIGGERS, ("read.results",)).fetchall()] == before
    assert connection.execute(FILE_OF_RESULTS).fetchone() == (file,)
    assert of_results(connection, COLUMNS) == of_results(owner, COLUMNS)
    connection.execute("drop schema read_next cascade")
    connection.execute("call ops.create_read_models('read_next')")
    for query in (COLUMNS, INDEXES, GRANTS, COMMENTS):
        assert connection.execute(query, ("read_next",)).fetchall() == owner.execute(query, ("read",)).fetchall()


def test_an_earlier_release_goes_on_with_the_results_that_it_knows_and_with_its_rebuild(earlier):
    url, connection = earlier
    (folds,) = connection.execute("select array_agg(name) from read.folds").fetchone()
    migrate(url)
    assert connection.execute("select array_agg(name) from read.folds").fetchone() == (folds,)
    for schema_name in ("read", "read_next"):
        connection.execute(OLD_RESULT.format(schema_name))
        assert connection.execute(f"select sum(count) from {schema_name}.tallies").fetchone() == (2,)


def test_a_new_installation_has_the_indexes_and_triggers_of_rebuilt_results(owner):
    owner.execute("call ops.create_read_models('read_next')")
    live, rebuilt = (owner.execute(TRIGGERS, (f"{schema_name}.results",)).fetchall() for schema_name in ("read", "read_next"))
    assert live == rebuilt
    assert [name for name, _ in live] == ["tally_added", "tally_counted", "tally_removed", "tally_uncounted"]


# ---- releases ----------------------------------------------------------------------------------------------------------------------
UNKNOWN = max(migrations()) + 1  # the number of a migration that a newer release brought


def add_migration(owner, release):
    owner.execute("insert into ops.migrations (number, oldest_release) values (%s, %s)", (UNKNOWN, release))


def test_each_migration_names_a_release_that_is_not_newer_than_this_one():
    for number, text in migrations().items():
        assert schema._numbers(oldest_release(text)) <= schema._numbers(this_release()), number


def test_a_migration_without_a_release_is_refused():
    with pytest.raises(ValueError, match="must begin with the line"):
        oldest_release("create table x ();")


def test_the_release_of_each_migration_is_recorded(owner):
    recorded = dict(owner.execute("select number, oldest_release from ops.migrations").fetchall())
    assert recorded == {number: oldest_release(text) for number, text in migrations().items()}


def test_releases_are_recorded_of_migrations_that_were_applied_before_that(owner, owner_url, app_url):
    owner.execute("alter table ops.migrations drop column oldest_release")
    check(app_url)
    assert migrate(owner_url) == []
    assert owner.execute("select count(*) from ops.migrations where oldest_release is null").fetchone() == (0,)


def test_a_database_that_fits_passes_and_migrating_it_again_changes_nothing(owner_url, app_url):
    check(owner_url)
    check(app_url)
    assert migrate(owner_url) == []
    assert migrate(app_url) == []


def test_a_database_that_lacks_a_migration_is_refused_with_the_remedy(owner, app_url):
    owner.execute("delete from ops.migrations where number = 3")
    with pytest.raises(SchemaBehind, match=r"lacks migrations \[3\]: run `bioscope migrate`"):
        check(app_url)


def test_a_database_without_any_table_lacks_all_migrations(postgres):
    with pytest.raises(SchemaBehind, match=str(sorted(migrations())).replace("[", r"\[")):
        check(postgres.url(user="postgres", database="postgres"))


@pytest.mark.parametrize("refused", [check, migrate])
@pytest.mark.parametrize("release", ["0.2.1", "0.3.0", "99.0.0"])
def test_a_database_that_needs_a_newer_release_is_refused(owner, owner_url, refused, release):
    add_migration(owner, release)
    with pytest.raises(SchemaAhead, match=f"needs bioscope {release} or newer, and this is 0.2.0: install that release"):
        refused(owner_url, release="0.2.0")


@pytest.mark.parametrize("refused", [check, migrate])
def test_an_unknown_migration_that_records_no_release_is_refused(owner, owner_url, refused):
    add_migration(owner, None)
    with pytest.raises(SchemaAhead, match=f"has migration {UNKNOWN}, which bioscope {this_release()} does not know"):
        refused(owner_url)


def test_a_database_that_a_newer_release_migrated_is_used_where_this_release_may_still_run(owner, owner_url, app_url):
    add_migration(owner, this_release())
    check(app_url)
    assert migrate(owner_url) == []


versions = st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))


@given(versions, versions, st.sampled_from(["", "rc1", ".dev2", "+local"]))
def test_releases_are_compared_by_number(one, other, suffix):
    written = [".".join(map(str, version)) for version in (one, other)]
    assert (schema._numbers(written[0] + suffix) > schema._numbers(written[1])) == (one > other)


# ---- a database that is still starting ---------------------------------------------------------------------------------------------
def test_a_database_that_comes_within_the_wait_is_checked(postgres):
    with capture_logs() as logged:
        check_while_created(postgres, logged)
    assert logged[0]["event"] == "waiting for the database"


def check_while_created(postgres, logged):
    """The database is created once the check waits for it."""

    def create():
        wait_until(lambda: logged)
        with psycopg.connect(postgres.url(user="postgres", database="postgres"), autocommit=True) as server:
            server.execute("create database comes_later template template_bioscope")

    creating = threading.Thread(target=create)
    creating.start()
    try:
        check_when_reachable(postgres.url(user="bioscope_app", database="comes_later"), seconds=30)
    finally:
        creating.join()


def test_a_database_that_stays_away_is_named_after_the_wait():
    begun = time.monotonic()
    with pytest.raises(DatabaseAway, match=r"port 1 failed: Connection refused\): check that it runs"):
        check_when_reachable("postgresql://127.0.0.1:1/none", seconds=0.7)
    assert time.monotonic() - begun >= 0.7


def test_a_database_that_does_not_fit_is_not_waited_for(owner, app_url):
    add_migration(owner, "99.0.0")
    with capture_logs() as logged, pytest.raises(SchemaAhead):
        check_when_reachable(app_url, seconds=60)
    assert logged == []
