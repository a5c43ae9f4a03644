"""Advisory locks of this system. A lock is released when its connection ends, if not earlier."""

from enum import IntEnum
from typing import Any

from psycopg import AsyncConnection, Connection

TRY = "select pg_try_advisory_lock(%s)"


class AdvisoryLock(IntEnum):
    """The number of each lock in the database: its name in ASCII."""

    MIGRATIONS = 0x62696F73
    RELAY = 0x72656C6179
    SCHEDULER = 0x7363686564
    REBUILD = 0x72656275696C64
    POLICIES = 0x706F6C69636965
    MAIL = 0x6D61696C


def lock(connection: Connection[Any], which: AdvisoryLock) -> None:
    """Wait for the lock. Raises psycopg.Error."""
    connection.execute("select pg_advisory_lock(%s)", (which.value,))


def try_lock(connection: Connection[Any], which: AdvisoryLock) -> bool:
    """Try to take the lock; return whether the connection holds it. A holder may take it again."""
    row = connection.execute(TRY, (which.value,)).fetchone()
    return bool(row and row[0])


async def try_lock_async(connection: AsyncConnection[Any], which: AdvisoryLock) -> bool:
    """As `try_lock`, for coroutines."""
    row = await (await connection.execute(TRY, (which.value,))).fetchone()
    return bool(row and row[0])


def unlock(connection: Connection[Any], which: AdvisoryLock) -> None:
    connection.execute("select pg_advisory_unlock(%s)", (which.value,))


def held(which: AdvisoryLock) -> str:
    """The SQL condition that any session of this database holds the lock."""
    return f"""exists (select from pg_locks l where l.locktype = 'advisory' and l.granted and l.classid = {which >> 32}
      and l.objid = {which & 0xFFFFFFFF}
      and l.database = (select d.oid from pg_database d where d.datname = current_database()))"""  # noqa: S608 - constants
