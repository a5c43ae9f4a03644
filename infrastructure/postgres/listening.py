"""Hear what the database notifies of. Only a hint: a notification may be lost while the connection is."""

import asyncio
from collections.abc import Callable

import structlog
from psycopg import AsyncConnection, Error
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

log = structlog.get_logger()

RECONNECT_WAIT = 0.5  # seconds


async def hear(url: str, channel: str, heard: Callable[[], object]) -> None:
    """Call `heard` at each notification. For ever; a lost connection is made again."""
    address = make_conninfo(url, connect_timeout=3)
    while True:
        try:
            async with await AsyncConnection.connect(address, autocommit=True) as connection:
                await connection.execute(SQL("listen {}").format(Identifier(channel)))
                heard()
                async for _ in connection.notifies():
                    heard()
        except (Error, OSError) as error:
            log.warning("cannot listen", channel=channel, error=type(error).__name__)
        await asyncio.sleep(RECONNECT_WAIT)
