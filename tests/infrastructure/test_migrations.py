"""Migrations: a database that is upgraded, one that is new, and read models that are rebuilt have the same tables."""

import psycopg
import pytest

from infrastructure.postgres.schema import migrate, migrations

COLUMNS = """select table_name, ordinal_position, column_name, data_type, is_nullable, collation_name from information_schema.columns
  where table_schema = %s order by table_name, ordinal_position"""
INDEXES = "select tablename, indexname, replace(indexdef, schemaname || '.', '') from pg_indexes where schemaname = %s order by indexname"
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
