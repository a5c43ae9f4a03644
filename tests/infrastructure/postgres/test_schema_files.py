"""docs/schema shows the schema that the migrations make, and docs/ERD.md draws it."""

import psycopg
import pytest

from scripts import erd
from scripts.catalog import read_catalog
from scripts.schema import FILES, sql

FROM_FILES = "from_schema_files"


@pytest.fixture
def migrated(owner_url):
    with psycopg.connect(owner_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def from_files(postgres):
    """An empty database in which the files of docs/schema were executed."""
    with psycopg.connect(postgres.url(user="postgres", database="postgres"), autocommit=True) as server:
        server.execute(f"create database {FROM_FILES}")
        with psycopg.connect(postgres.url(user="postgres", database=FROM_FILES), autocommit=True) as connection:
            for file in FILES:
                connection.execute(file.path.read_text())
            yield connection
        server.execute(f"drop database {FROM_FILES}")


def comparable(catalog):
    """The files hold comments as comments of SQL, which do not reach a catalog, and create functions in another order."""
    relations = [
        relation._replace(comment=None, columns=[column._replace(comment=None) for column in relation.columns])
        for relation in catalog.relations
    ]
    return catalog._replace(relations=relations, functions=sorted(catalog.functions))


def tables(connection):
    return [relation for file in FILES for relation in read_catalog(connection, *file.schemas).relations]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_schema_file_makes_what_the_migrations_make(migrated, from_files, file):
    made, expected = (comparable(read_catalog(connection, *file.schemas)) for connection in (from_files, migrated))
    assert made == expected
    assert len(expected.relations) > 15


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_schema_file_is_what_make_schema_writes(migrated, file):
    assert file.path.read_text() == sql(file, read_catalog(migrated, *file.schemas)), "run `make schema`"


@pytest.mark.parametrize(
    "change",
    [
        "alter table read.images add column colour text",
        "alter table read.images alter column size drop not null",
        "create index images_by_size on read.images (size)",
        "alter table es.head add check (position < 5)",
        "create or replace function es.partition_size() returns bigint language sql immutable parallel safe return 5",
        "grant select on read.users to bioscope_relay",
        "revoke select (id) on ops.releases from bioscope_inference",
        "drop trigger tally_removed on read.results",
    ],
)
def test_a_difference_is_noticed(migrated, change):
    before = [read_catalog(migrated, *file.schemas) for file in FILES]
    migrated.execute(change)
    assert [read_catalog(migrated, *file.schemas) for file in FILES] != before


def test_the_diagrams_are_what_make_schema_writes(migrated):
    assert erd.PAGE.read_text() == erd.page(tables(migrated)), "run `make schema`"


def test_every_table_and_view_has_a_comment(migrated):
    assert [table.full_name for table in tables(migrated) if not table.comment and not table.parent] == []


def test_every_table_has_one_owner_and_no_other_table_is_listed(migrated):
    listed = erd.owners(erd.OWNERS.read_text())
    assert set(listed) == {table.full_name for table in tables(migrated) if not table.parent}


def test_every_relation_leads_to_a_table(migrated):
    known = {table.full_name for table in tables(migrated)}
    references = erd.references(tables(migrated))
    assert len(references) > 20
    assert {one.target for one in references} <= known
