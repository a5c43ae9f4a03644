"""Hear what the database notifies of. Only a hint: a notification may be lost while the connection is."""

import asyncio
from collections.abc import Callable, Mapping

import structlog
from psycopg import Error
from psycopg.sql import SQL, Identifier

from infrastructure.postgres.connections import MonitoredAsyncConnection, notifications

log = structlog.get_logger()

RECONNECT_DELAY_SECONDS = 0.5  # seconds


async def listen(url: str, heard: Mapping[str, Callable[[], object]]) -> None:
    """Call what is named by the channel at each notification, and all after each new connection. For ever; a lost one is made again."""
    while True:
        try:
            async with await MonitoredAsyncConnection.connect(url, autocommit=True) as connection:
                for channel in heard:
                    await connection.execute(SQL("listen {}").format(Identifier(channel)))
                for call in heard.values():
                    call()
                async for notification in notifications(connection):
                    heard[notification.channel]()
        except (Error, OSError) as error:
            log.warning("cannot listen", channels=sorted(heard), error=type(error).__name__)
        await asyncio.sleep(RECONNECT_DELAY_SECONDS)
