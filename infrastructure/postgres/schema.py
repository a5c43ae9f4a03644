"""Migrations: numbered, applied once each and in order, under a lock. Also checks whether a database suits this release."""

import re
import time
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from typing import Final

import psycopg
import structlog
from psycopg.sql import SQL

from infrastructure.postgres.advisory_locks import AdvisoryLock, lock
from infrastructure.postgres.errors import DatabaseAway, database_error
from infrastructure.postgres.profiles import MIGRATIONS

log = structlog.get_logger()

OLDEST_RELEASE: Final = re.compile(r"-- Oldest release: (\d+\.\d+\.\d+)\n")
RETRY_DELAY_SECONDS: Final = 0.5
TABLE: Final = """create table if not exists ops.migrations
  (number int primary key, applied_at timestamptz not null default now(), oldest_release text)"""
COLUMN: Final = "alter table ops.migrations add column if not exists oldest_release text"
APPLIED: Final = "select number, to_jsonb(m) ->> 'oldest_release' from ops.migrations m"  # the column was added after the table

Applied = Mapping[int, str | None]
"""The migrations of a database by number, each with the oldest release that may run on it; None if that is not recorded."""


class SchemaBehind(Exception):
    """The database lacks migrations. The message says how to apply them."""


class SchemaAhead(Exception):
    """The database was migrated by a release that is incompatible with this one. The message says which release to install."""


def migrations() -> dict[int, str]:
    """The SQL of all migrations, by number."""
    folder = files("infrastructure.postgres") / "migrations"
    return {
        int(file.name[:4]): file.read_text() for file in sorted(folder.iterdir(), key=lambda file: file.name) if file.name.endswith(".sql")
    }


def oldest_release(migration: str) -> str:
    """The oldest release that may run on a database with this migration, from its first line."""
    header = OLDEST_RELEASE.match(migration)
    if header is None:
        raise ValueError("a migration must begin with the line `-- Oldest release: X.Y.Z`")
    return header[1]


def this_release() -> str:
    return version("bioscope")


def migrate(url: str, *, known: Mapping[int, str] | None = None, release: str | None = None) -> list[int]:
    """Apply the missing migrations, each in its own transaction; return their numbers. Raises SchemaAhead, psycopg.Error.

    `known` are the migrations of `release`, by default those of this release.
    """
    scripts = migrations() if known is None else known
    with MIGRATIONS.connect_unmonitored(url) as connection:
        lock(connection, AdvisoryLock.MIGRATIONS)
        applied = _applied(connection)
        _refuse_newer(applied, release or this_release())
        missing = [number for number in scripts if number not in applied]
        if missing or None in applied.values():
            _record(connection, {number: oldest_release(scripts[number]) for number in scripts.keys() & applied.keys()})
        for number in missing:
            _apply(connection, number, scripts[number])
        return missing


def check(url: str, *, release: str | None = None) -> None:
    """Raises SchemaBehind if migrations are missing, SchemaAhead if this release is too old, and psycopg.Error."""
    with MIGRATIONS.connect_unmonitored(url) as connection:
        applied = _applied(connection)
    _refuse_newer(applied, release or this_release())
    if missing := sorted(set(migrations()) - set(applied)):
        raise SchemaBehind(f"the database lacks migrations {missing}: run `bioscope migrate`")


def check_when_reachable(url: str, *, seconds: float) -> None:
    """As `check`, but wait up to `seconds` for a database that does not answer, since it may be starting.

    Raises SchemaBehind, SchemaAhead, DatabaseRefused, and DatabaseAway after that time.
    """
    deadline, reported = time.monotonic() + seconds, ""
    while True:
        try:
            return check(url)
        except psycopg.Error as error:
            problem = database_error(error)
            if not isinstance(problem, DatabaseAway) or time.monotonic() >= deadline:
                raise (problem or error) from error
        if str(problem) != reported:
            reported = str(problem)
            log.warning("waiting for the database", reason=reported, seconds=seconds)
        time.sleep(RETRY_DELAY_SECONDS)


def _applied(connection: psycopg.Connection) -> Applied:
    row = connection.execute("select to_regclass('ops.migrations')").fetchone()
    return dict(connection.execute(APPLIED).fetchall()) if row and row[0] else {}


def _refuse_newer(applied: Applied, release: str) -> None:
    known = migrations()
    for number, oldest in sorted(applied.items()):
        if oldest is not None and _numbers(oldest) > _numbers(release):
            raise SchemaAhead(f"the database needs bioscope {oldest} or newer, and this is {release}: install that release")
        if oldest is None and number not in known:
            raise SchemaAhead(f"the database has migration {number}, which bioscope {release} does not know: install a newer release")


def _numbers(release: str) -> list[int]:
    """The numbers of a release: [1, 2, 3] for 1.2.3 and 1.2.3rc1."""
    return [int(number) for number in re.findall(r"\d+", release)[:3]]


def _record(connection: psycopg.Connection, releases: Mapping[int, str]) -> None:
    """Store the oldest releases of migrations that were applied before this column existed."""
    connection.execute("create schema if not exists ops")
    connection.execute(TABLE)
    connection.execute(COLUMN)
    for number, release in releases.items():
        connection.execute("update ops.migrations set oldest_release = %s where number = %s", (release, number))


def _apply(connection: psycopg.Connection, number: int, text: str) -> None:
    with connection.transaction():
        connection.execute(SQL(text))
        connection.execute("insert into ops.migrations (number, oldest_release) values (%s, %s)", (number, oldest_release(text)))
