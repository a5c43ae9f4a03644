"""Numbered migrations, applied once each, in order, under a lock."""

from importlib.resources import files

import psycopg
from psycopg.sql import SQL

from domain.errors import Unavailable

LOCK = 0x62696F73  # one migration at a time, whatever started it
CONNECT_TIMEOUT_SECONDS = 5


class SchemaBehind(Exception):
    """The database lacks migrations; the text says how to apply them."""


def migrations() -> dict[int, str]:
    """The SQL of each migration by its number."""
    folder = files("infrastructure.postgres") / "migrations"
    return {
        int(file.name[:4]): file.read_text() for file in sorted(folder.iterdir(), key=lambda file: file.name) if file.name.endswith(".sql")
    }


def migrate(url: str) -> list[int]:
    """Apply what is missing, each in a transaction of its own; the numbers applied."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("select pg_advisory_lock(%s)", (LOCK,))
        connection.execute("create schema if not exists ops")
        connection.execute(
            "create table if not exists ops.migrations (number int primary key, applied_at timestamptz not null default now())"
        )
        return [number for number, text in migrations().items() if _apply(connection, number, text)]


def _apply(connection: psycopg.Connection, number: int, text: str) -> bool:
    with connection.transaction():
        if connection.execute("select from ops.migrations where number = %s", (number,)).fetchone() is not None:
            return False
        connection.execute(SQL(text))
        connection.execute("insert into ops.migrations (number) values (%s)", (number,))
        return True


def require_current(url: str) -> None:
    """As `check`, for a command: a database that cannot be reached is told in a sentence. Raises Unavailable too."""
    try:
        check(url)
    except psycopg.Error as error:
        reason = str(error).partition("\n")[0] if isinstance(error, psycopg.OperationalError) else "its address is not understood"
        raise Unavailable(f"the database cannot be reached ({reason}): is it running, and is BIOSCOPE_POSTGRES_URL right?") from None


def check(url: str) -> None:
    """Raises SchemaBehind unless every migration has been applied."""
    with psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_SECONDS) as connection:
        there = connection.execute("select to_regclass('ops.migrations')").fetchone()
        applied = {row[0] for row in connection.execute("select number from ops.migrations")} if there and there[0] else set()
    if missing := sorted(set(migrations()) - applied):
        raise SchemaBehind(f"the database lacks migrations {missing}: run `bioscope migrate`")
