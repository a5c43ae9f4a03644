"""Live notifications of the projector over Redis. One connection listens, and reconnects when it is lost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import redis.asyncio

from application.cancellation import cancel_and_wait
from application.services import CHANNEL
from infrastructure.retry import repeat_always

CONNECT_TIMEOUT_SECONDS: Final = 2.0
PING_AFTER_SECONDS: Final = 5.0  # without a message, before the connection is checked with a ping
RECONNECT_DELAY_SECONDS: Final = 0.5
MIN_WAKE_INTERVAL_SECONDS: Final = 0.05  # limits floods of messages, since each wake-up makes every subscriber query the database


class RedisSubscription:
    """The wake-ups of one subscriber."""

    def __init__(self) -> None:
        self._notified = asyncio.Event()

    def wake(self) -> None:
        self._notified.set()

    async def wait(self, timeout: float) -> bool:  # noqa: ASYNC109 - the result says whether it was notified
        """Wait for a notification, including one since the last call. False after `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._notified.wait()
        notified = self._notified.is_set()
        self._notified.clear()
        return notified


class RedisNotifications:
    """Implements `LiveNotifications`. Belongs to one event loop. There are no notifications while Redis is unavailable."""

    def __init__(self, url: str) -> None:
        self._redis = redis.asyncio.Redis.from_url(
            url, socket_connect_timeout=CONNECT_TIMEOUT_SECONDS, health_check_interval=PING_AFTER_SECONDS, protocol=2
        )
        self._subscriptions: set[RedisSubscription] = set()
        self._task: asyncio.Task[None] | None = None
        self._woken_at = -MIN_WAKE_INTERVAL_SECONDS
        self._wake_timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._listen_always(), name="live")

    async def stop(self) -> None:
        await cancel_and_wait(self._task)
        if self._wake_timer is not None:
            self._wake_timer.cancel()
        await self._redis.aclose()

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[RedisSubscription]:
        subscription = RedisSubscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    async def _listen_always(self) -> None:
        """Restart the listener after any error, since subscribers would miss all notifications otherwise."""
        warning = "no live notifications: Redis is unavailable"
        await repeat_always(self._listen, warning=warning, errors=(Exception,), delay_seconds=RECONNECT_DELAY_SECONDS)

    async def _listen(self) -> None:
        async with self._redis.pubsub() as listener:
            await listener.subscribe(CHANNEL)
            while True:
                message = await listener.get_message(timeout=PING_AFTER_SECONDS)
                if message is not None and message["type"] in {"subscribe", "message"}:
                    self._wake_soon()

    def _wake_soon(self) -> None:
        """Wake subscribers, after the minimum interval. Also called after each new connection, since messages may have been missed."""
        if self._wake_timer is None:
            loop = asyncio.get_running_loop()
            self._wake_timer = loop.call_at(max(loop.time(), self._woken_at + MIN_WAKE_INTERVAL_SECONDS), self._wake)

    def _wake(self) -> None:
        self._woken_at, self._wake_timer = asyncio.get_running_loop().time(), None
        for subscription in self._subscriptions:
            subscription.wake()
