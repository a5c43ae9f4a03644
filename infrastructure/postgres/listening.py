"""Hear what the database notifies of. Only a hint: a notification may be lost while the connection is."""

import asyncio
from collections.abc import Callable

import structlog
from psycopg import Error
from psycopg.sql import SQL, Identifier

from infrastructure.postgres.silence import AttentiveAsync, notifications

log = structlog.get_logger()

RECONNECT_WAIT = 0.5  # seconds


async def hear(url: str, channel: str, heard: Callable[[], object]) -> None:
    """Call `heard` at each notification. For ever; a lost connection is made again."""
    while True:
        try:
            async with await AttentiveAsync.connect(url, autocommit=True) as connection:
                await connection.execute(SQL("listen {}").format(Identifier(channel)))
                heard()
                async for _ in notifications(connection):
                    heard()
        except (Error, OSError) as error:
            log.warning("cannot listen", channel=channel, error=type(error).__name__)
        await asyncio.sleep(RECONNECT_WAIT)
