"""Digests of read models: by ranges, in any order."""

import psycopg
import pytest

from projections.rebuild.digests import TABLES_COMPARED, ComparedTable, Digest, Range, digest_at, digests, first_difference, ranges
from tests.rigs.scenario import record_full_history

IMAGES = ComparedTable("images", ("id",))
OUTDATED = ComparedTable("outdated_results", ("id",))
ACCESS = ComparedTable("dataset_access", ("subject", "dataset"))


def of(connection, table, *, salt=b"", rows=20_000, schemas=("read",)):
    """The digest of a live table, added up from ranges of so many rows."""
    total = Digest()
    for span in ranges(connection, schemas, table, rows=rows):
        total = total.merged(digest_at(connection, "read", table, span, salt=salt)[1])
    return total


@pytest.fixture
def full(scenario):
    record_full_history(scenario)
    scenario.follow()


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize("table", TABLES_COMPARED, ids=lambda table: table.name)
def test_ranges_of_any_size_add_up_to_the_digest_of_the_table(connection, table):
    _, whole = digest_at(connection, "read", table, Range(None, None), salt=b"")
    assert whole.rows > 0
    assert [of(connection, table, rows=rows) for rows in (1, 2, 7, 1000)] == [whole] * 4


@pytest.mark.usefixtures("full")
def test_a_range_holds_no_more_rows_than_asked_for(connection):
    found = [digest_at(connection, "read", IMAGES, span, salt=b"")[1].rows for span in ranges(connection, ["read"], IMAGES, rows=5)]
    assert max(found) == 5
    assert sum(found) == 13


@pytest.mark.usefixtures("full")
def test_it_does_not_matter_where_rows_lie(connection):
    before = digests(connection)
    connection.execute("with gone as (delete from images where accepted returning *) insert into images select * from gone")
    assert digests(connection) == before


@pytest.mark.usefixtures("full")
def test_rows_that_swapped_their_values_have_another_digest(connection):
    """Sums of columns, or of a column's digests, would be as before."""
    before = of(connection, IMAGES)
    connection.execute(
        """with two as (select id, filename, row_number() over (order by id) as place from images order by id limit 2)
        update images set filename = other.filename from two one join two other on one.place <> other.place where images.id = one.id"""
    )
    after = of(connection, IMAGES)
    assert after.rows == before.rows
    assert after != before


@pytest.mark.usefixtures("full")
def test_a_value_that_changed_in_a_table_with_a_longer_key_gives_another_digest(connection):
    before = of(connection, ACCESS)
    connection.execute("update dataset_access set role = 'viewer' where role = 'owner'")
    assert of(connection, ACCESS) != before


@pytest.mark.usefixtures("full")
def test_each_salt_gives_another_digest_so_that_nobody_can_choose_rows_for_it(connection):
    assert len({of(connection, IMAGES, salt=salt) for salt in (b"", b"a", b"b")}) == 3


@pytest.mark.usefixtures("full")
def test_the_digest_of_a_range_comes_with_the_position_at_which_it_was_true(connection, log):
    position, _ = digest_at(connection, "read", IMAGES, Range(None, None), salt=b"")
    assert position == log.head()


@pytest.mark.usefixtures("full")
def test_the_first_key_that_differs_is_found_also_where_a_row_is_missing(owner_url):
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("call ops.create_read_models('other')")
        owner.execute("insert into other.images select * from read.images")
        everything = Range(None, None)
        assert first_difference(owner, ("read", "other"), IMAGES, everything) is None
        first, second = owner.execute("select id from read.images order by id limit 2").fetchall()
        owner.execute("update other.images set size = size + 1 where id = %s", second)
        assert first_difference(owner, ("read", "other"), IMAGES, everything) == second
        owner.execute("delete from read.images where id = %s", first)
        assert first_difference(owner, ("read", "other"), IMAGES, everything) == first
        assert first_difference(owner, ("read", "other"), IMAGES, Range(first, None)) == second
        owner.execute("drop schema other cascade")


def test_merging_is_in_any_order_and_has_no_limit():
    parts = [Digest(2**40, 2**70 + number, -(2**70)) for number in range(3)]
    forwards, backwards = Digest(), Digest()
    for part in parts:
        forwards = forwards.merged(part)
    for part in reversed(parts):
        backwards = part.merged(backwards)
    assert forwards == backwards == Digest(3 * 2**40, 3 * 2**70 + 3, -3 * 2**70)


def test_a_range_is_small_in_both_of_two_tables_that_have_no_key_in_common(owner_url):
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("call ops.create_read_models('other')")
        for schema, first in (("read", 0), ("other", 20)):
            numbers = f"generate_series({first + 1}, {first + 20}) n"
            keys = f"select (repeat('0', 30) || lpad(n::text, 2, '0'))::uuid, gen_random_uuid(), 1 from {numbers}"
            owner.execute(f"insert into {schema}.outdated_results {keys}")
        spans = list(ranges(owner, ["read", "other"], OUTDATED, rows=6))
        found = [[digest_at(owner, schema, OUTDATED, span, salt=b"")[1].rows for span in spans] for schema in ("read", "other")]
        assert [sum(counts) for counts in found] == [20, 20]
        assert max(map(max, found)) <= 6
        owner.execute("drop schema other cascade")
