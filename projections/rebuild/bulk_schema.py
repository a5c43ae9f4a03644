"""Tables for a bulk load: without the indexes that only readers need, and unlogged.

A crash empties unlogged tables. So nothing may read them before `finish`, and an interrupted rebuild starts again.
"""

from collections.abc import Sequence
from typing import Final

import psycopg
from psycopg.sql import SQL, Identifier

NEEDED_TO_FILL: Final = (
    "results_of_job",  # used to hide results with their job or image
    "results_of_image",
    "team_members_of",  # used by triggers that follow grants
    "api_keys_of_owner",
)
MEMORY: Final = "set maintenance_work_mem = '128MB'"  # for creating an index with less sorting on disk

SECONDARY: Final = """select i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid)
  from pg_index i join pg_class c on c.oid = i.indexrelid
  where c.relnamespace = %s::regnamespace and c.relname <> all(%s)
    and not exists (select from pg_constraint k where k.conindid = i.indexrelid)
  order by 1"""
TABLES_IN: Final = """select relname, relpersistence = 'u' from pg_class
  where relnamespace = %s::regnamespace and relkind = 'r' order by relname"""


class NotDurable(Exception):
    """A table is unlogged, so it would be empty after a crash."""


def prepare(owner: psycopg.Connection, schema: str) -> Sequence[str]:
    """Drop the secondary indexes of empty read models and make them unlogged; return the index definitions for `finish`."""
    found = owner.execute(SECONDARY, (schema, list(NEEDED_TO_FILL))).fetchall()
    for name, _ in found:
        owner.execute(_sql(f"drop index {name}"))
    for name, _ in _tables(owner, schema):
        owner.execute(SQL("alter table {} set unlogged").format(Identifier(schema, name)))
    return [definition for _, definition in found]


def finish(owner: psycopg.Connection, schema: str, omitted: Sequence[str]) -> None:
    """Make filled read models logged, and create the indexes; each table and index in its own transaction."""
    owner.execute(MEMORY)
    for name, _ in _tables(owner, schema):
        owner.execute(SQL("alter table {} set logged").format(Identifier(schema, name)))
    for definition in omitted:
        owner.execute(_sql(definition))
    for name, _ in _tables(owner, schema):
        owner.execute(SQL("analyze {}").format(Identifier(schema, name)))
    owner.execute("reset maintenance_work_mem")


def require_logged(owner: psycopg.Connection, schema: str) -> None:
    """Raises NotDurable if a table is unlogged."""
    if lost := [name for name, unlogged in _tables(owner, schema) if unlogged]:
        raise NotDurable(f"these tables would be empty after a crash: {', '.join(lost)}")


def _tables(owner: psycopg.Connection, schema: str) -> list[tuple[str, bool]]:
    return owner.execute(TABLES_IN, (schema,)).fetchall()


def _sql(text: str) -> SQL:
    """SQL with names and definitions from Postgres' own catalog."""
    return SQL(text)
