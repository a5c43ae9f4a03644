"""The tables, views and functions of a database, read from the catalog of Postgres."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import psycopg

from infrastructure.embedded.postgres.server import APP_ROLE, Postgres
from infrastructure.embedded.supervisor import PROCESSES
from infrastructure.postgres.schema import migrate

MIGRATED: Final = "migrated"
ROLES: Final = tuple(dict.fromkeys((APP_ROLE, *(process.database_role for process in PROCESSES))))
SEARCH_NOTHING: Final = "set search_path = ''"  # names and definitions then carry their schema

TABLES: Final = """select c.oid, n.nspname, c.relname, c.relkind, c.reloptions, pg_get_partkeydef(c.oid),
    (select i.inhparent::regclass::text from pg_inherits i where i.inhrelid = c.oid), pg_get_expr(c.relpartbound, c.oid),
    case c.relkind when 'v' then pg_get_viewdef(c.oid) end, obj_description(c.oid, 'pg_class')
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where n.nspname = any(%s) and c.relkind in ('r', 'p', 'v') order by n.nspname, c.relname"""
COLUMNS: Final = """select a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
    case when a.attcollation <> t.typcollation then a.attcollation::regcollation::text end,
    case when a.attstorage <> t.typstorage then a.attstorage end, col_description(a.attrelid, a.attnum)
  from pg_attribute a join pg_type t on t.oid = a.atttypid left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where a.attrelid = %s and a.attnum > 0 and not a.attisdropped order by a.attnum"""
CONSTRAINTS: Final = """select conname, pg_get_constraintdef(oid), array(
      select a.attname from unnest(conkey) with ordinality k (number, place)
      join pg_attribute a on a.attrelid = conrelid and a.attnum = k.number order by k.place
    ), contype
  from pg_constraint where conrelid = %s and contype in ('p', 'u', 'f', 'c') order by contype <> 'p', conname"""
INDEXES: Final = """select pg_get_indexdef(i.indexrelid) from pg_index i join pg_class c on c.oid = i.indexrelid
  where i.indrelid = %s and not exists (select from pg_constraint k where k.conindid = i.indexrelid) order by c.relname"""
TRIGGERS: Final = "select pg_get_triggerdef(oid) from pg_trigger where tgrelid = %s and not tgisinternal order by tgname"
FUNCTIONS: Final = """select n.nspname, p.oid::regprocedure::text, p.prokind, pg_get_functiondef(p.oid), obj_description(p.oid, 'pg_proc'),
    not exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x where x.grantee = 0)
  from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = any(%s) order by p.oid"""
"""In the order in which they were created, so that each finds those that it calls."""
GRANTS: Final = """select what, array_agg(grantee order by grantee), privileges from (
    select what, grantee::regrole::text, string_agg(privilege, ', ' order by privilege) as privileges from (
      select 'schema ' || quote_ident(n.nspname) as what, x.grantee, lower(x.privilege_type) as privilege
        from pg_namespace n, aclexplode(n.nspacl) x where n.nspname = any(%(schemas)s) and x.grantee <> n.nspowner
      union all
      select 'table ' || c.oid::regclass, x.grantee, lower(x.privilege_type)
        from pg_class c join pg_namespace n on n.oid = c.relnamespace, aclexplode(c.relacl) x
        where n.nspname = any(%(schemas)s) and x.grantee <> c.relowner
      union all
      select 'table ' || c.oid::regclass, x.grantee,
          format('%%s (%%s)', lower(x.privilege_type), string_agg(a.attname, ', ' order by a.attnum))
        from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace, aclexplode(a.attacl) x
        where n.nspname = any(%(schemas)s) and x.grantee <> c.relowner group by c.oid, x.grantee, x.privilege_type
      union all
      select case p.prokind when 'p' then 'procedure ' else 'function ' end || p.oid::regprocedure, x.grantee, lower(x.privilege_type)
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace, aclexplode(p.proacl) x
        where n.nspname = any(%(schemas)s) and x.grantee <> p.proowner and x.grantee <> 0
    ) single group by what, grantee
  ) together group by what, privileges order by what, privileges"""


class Column(NamedTuple):
    """`collation` and `storage` are given where they are not those of the type."""

    name: str
    type: str
    not_null: bool
    default: str | None
    collation: str | None
    storage: str | None
    comment: str | None


class Constraint(NamedTuple):
    """`kind` is p (primary key), u (unique), f (foreign key) or c (check)."""

    name: str
    definition: str
    columns: Sequence[str]
    kind: str


class Relation(NamedTuple):
    """A table or a view. `bounds` are those of a partition of `parent`."""

    schema: str
    name: str
    kind: str
    options: Sequence[str] | None
    partition_key: str | None
    parent: str | None
    bounds: str | None
    query: str | None
    comment: str | None
    columns: Sequence[Column]
    constraints: Sequence[Constraint]
    indexes: Sequence[str]
    triggers: Sequence[str]

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def key(self) -> set[str]:
        """The columns of the primary key."""
        return {column for constraint in self.constraints if constraint.kind == "p" for column in constraint.columns}


class Function(NamedTuple):
    """`is_private`: the right to execute it was revoked from public."""

    schema: str
    signature: str
    kind: str
    definition: str
    comment: str | None
    is_private: bool


class Grants(NamedTuple):
    on: str
    roles: Sequence[str]
    privileges: str


class Catalog(NamedTuple):
    relations: Sequence[Relation]
    functions: Sequence[Function]
    grants: Sequence[Grants]


def read_catalog(connection: psycopg.Connection[Any], *schemas: str) -> Catalog:
    """Of an autocommitting connection."""
    names = list(schemas)
    connection.execute(SEARCH_NOTHING)
    relations = [_relation(connection, *row) for row in connection.execute(TABLES, (names,)).fetchall()]
    functions = [Function(*row) for row in connection.execute(FUNCTIONS, (names,)).fetchall()]
    grants = [Grants(*row) for row in connection.execute(GRANTS, {"schemas": names}).fetchall()]
    return Catalog(relations, functions, grants)


def _relation(connection: psycopg.Connection[Any], oid: int, *about: Any) -> Relation:
    columns = [Column(*row) for row in connection.execute(COLUMNS, (oid,)).fetchall()]
    constraints = [Constraint(*row) for row in connection.execute(CONSTRAINTS, (oid,)).fetchall()]
    indexes, triggers = ([text for (text,) in connection.execute(query, (oid,)).fetchall()] for query in (INDEXES, TRIGGERS))
    return Relation(*about, columns, constraints, indexes, triggers)


@contextmanager
def migrated_database() -> Iterator[psycopg.Connection[Any]]:
    """A database in a Postgres of its own, with all migrations applied."""
    with TemporaryDirectory() as folder, Postgres(Path(folder), roles=ROLES) as server:
        with psycopg.connect(server.url(user="postgres", database="postgres"), autocommit=True) as connection:
            connection.execute(f"create database {MIGRATED}")
        url = server.url(user="postgres", database=MIGRATED)
        migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            yield connection
