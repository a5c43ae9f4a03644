"""Read models that are filled from nothing: until they are full, without what only readers need, and outside the write-ahead log.

A crash meanwhile empties such tables, so nothing may read them before `finish`: a rebuild that was cut off begins again.
"""

from collections.abc import Sequence
from typing import Final

import psycopg
from psycopg.sql import SQL, Identifier

NEEDED_TO_FILL: Final = ("results_of_job", "results_of_image")  # results are hidden with their job or image
MEMORY: Final = "set maintenance_work_mem = '128MB'"  # of one index that is made; else it would be sorted on disk more often

SECONDARY: Final = """select i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid)
  from pg_index i join pg_class c on c.oid = i.indexrelid
  where c.relnamespace = %s::regnamespace and c.relname <> all(%s)
    and not exists (select from pg_constraint k where k.conindid = i.indexrelid)
  order by 1"""
TABLES_IN: Final = """select relname, relpersistence = 'u' from pg_class
  where relnamespace = %s::regnamespace and relkind = 'r' order by relname"""


class NotDurable(Exception):
    """A table would be empty after a crash."""


def prepare(owner: psycopg.Connection, schema: str) -> Sequence[str]:
    """Take from empty read models what costs time while they are filled; the indexes left out, for `finish`."""
    found = owner.execute(SECONDARY, (schema, list(NEEDED_TO_FILL))).fetchall()
    for name, _ in found:
        owner.execute(_sql(f"drop index {name}"))
    for name, _ in _tables(owner, schema):
        owner.execute(SQL("alter table {} set unlogged").format(Identifier(schema, name)))
    return [definition for _, definition in found]


def finish(owner: psycopg.Connection, schema: str, omitted: Sequence[str]) -> None:
    """Make full read models durable, and what readers need. One table or index at a time, each in a transaction of its own."""
    owner.execute(MEMORY)
    for name, _ in _tables(owner, schema):
        owner.execute(SQL("alter table {} set logged").format(Identifier(schema, name)))
    for definition in omitted:
        owner.execute(_sql(definition))
    for name, _ in _tables(owner, schema):
        owner.execute(SQL("analyze {}").format(Identifier(schema, name)))
    owner.execute("reset maintenance_work_mem")


def require_logged(owner: psycopg.Connection, schema: str) -> None:
    """Raises NotDurable."""
    if lost := [name for name, unlogged in _tables(owner, schema) if unlogged]:
        raise NotDurable(f"these tables would be empty after a crash: {', '.join(lost)}")


def _tables(owner: psycopg.Connection, schema: str) -> list[tuple[str, bool]]:
    return owner.execute(TABLES_IN, (schema,)).fetchall()


def _sql(text: str) -> SQL:
    """As Postgres wrote it: names and definitions out of its own catalogue."""
    return SQL(text)
