"""News from the projector by Redis: one connection listens, made again when it is lost, and wakes whoever watches."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import redis.asyncio
import structlog

from application.cancellation import cancel_and_wait
from application.services import CHANNEL

log = structlog.get_logger()

CONNECT_TIMEOUT_SECONDS: Final = 2.0  # seconds
PING_AFTER_SECONDS: Final = 5.0  # seconds without a message after which the connection is tried with a ping
RECONNECT_DELAY_SECONDS: Final = 0.5  # seconds
MIN_WAKE_INTERVAL_SECONDS: Final = (
    0.05  # seconds: each ring makes every watcher look into the database, so a flood of messages rings no more often
)


class RedisSubscription:
    """One watcher's bell."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def wake(self) -> None:
        self._rung.set()

    async def wait(self, timeout: float) -> bool:  # noqa: ASYNC109 - the answer says whether there was news
        """Whether there was news within `timeout` seconds; news that came before the call counts."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._rung.wait()
        there_was = self._rung.is_set()
        self._rung.clear()
        return there_was


class RedisNotifications:
    """The port `LiveNotifications`. Belongs to one event loop. While Redis is away nothing rings."""

    def __init__(self, url: str) -> None:
        self._redis = redis.asyncio.Redis.from_url(
            url, socket_connect_timeout=CONNECT_TIMEOUT_SECONDS, health_check_interval=PING_AFTER_SECONDS, protocol=2
        )
        self._watchers: set[RedisSubscription] = set()
        self._task: asyncio.Task[None] | None = None
        self._rung_at = -MIN_WAKE_INTERVAL_SECONDS
        self._next: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._listen_always(), name="live")

    async def stop(self) -> None:
        await cancel_and_wait(self._task)
        if self._next is not None:
            self._next.cancel()
        await self._redis.aclose()

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[RedisSubscription]:
        news = RedisSubscription()
        self._watchers.add(news)
        try:
            yield news
        finally:
            self._watchers.discard(news)

    async def _listen_always(self) -> None:
        while True:
            try:
                await self._listen()
            except Exception as error:  # a client that gave up would be missed by nobody, and by every watcher
                log.warning("no live news: Redis is away", error=type(error).__name__)
            await asyncio.sleep(RECONNECT_DELAY_SECONDS)

    async def _listen(self) -> None:
        async with self._redis.pubsub() as listener:
            await listener.subscribe(CHANNEL)
            while True:
                said = await listener.get_message(timeout=PING_AFTER_SECONDS)
                if said is not None and said["type"] in {"subscribe", "message"}:
                    self._wake_soon()

    def _wake_soon(self) -> None:
        """Also after each new connection: something may have been said in between. What was said is not looked at."""
        if self._next is None:
            loop = asyncio.get_running_loop()
            self._next = loop.call_at(max(loop.time(), self._rung_at + MIN_WAKE_INTERVAL_SECONDS), self._wake)

    def _wake(self) -> None:
        self._rung_at, self._next = asyncio.get_running_loop().time(), None
        for news in self._watchers:
            news.wake()
