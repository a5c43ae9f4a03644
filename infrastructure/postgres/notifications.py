"""LISTEN with automatic reconnection. Notifications are hints, since some are lost with their connection."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NoReturn

from psycopg import Error
from psycopg.sql import SQL, Identifier

from infrastructure.postgres.connections import notifications
from infrastructure.postgres.profiles import LISTENER
from infrastructure.retry import repeat_always

RECONNECT_DELAY_SECONDS: Final = 0.5
CONNECTION_LOST: Final = (Error, OSError)


async def reconnect_always(
    work: Callable[[], Awaitable[object]],
    *,
    warning: str,
    lost: tuple[type[Exception], ...] = CONNECTION_LOST,
    delay_seconds: float = RECONNECT_DELAY_SECONDS,
) -> NoReturn:
    """Run `work` again and again; log `warning` if it raises one of `lost`. `work` opens its own connection."""
    await repeat_always(work, warning=warning, errors=lost, delay_seconds=delay_seconds)


async def listen(url: str, handlers: Mapping[str, Callable[[], object]]) -> NoReturn:
    """Call a channel's handler for each notification, and all handlers after each new connection."""

    async def listen_once() -> None:
        async with await LISTENER.connect_async(url) as connection:
            for channel in handlers:
                await connection.execute(SQL("listen {}").format(Identifier(channel)))
            for handler in handlers.values():
                handler()
            async for notification in notifications(connection):
                handlers[notification.channel]()

    await reconnect_always(listen_once, warning=f"cannot listen to {', '.join(sorted(handlers))}")
