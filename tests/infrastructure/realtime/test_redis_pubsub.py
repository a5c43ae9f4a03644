"""Live notifications through Redis: every subscriber gets them, also after Redis was away."""

import asyncio

import pytest
import redis.asyncio

from application.services import CHANNEL
from infrastructure.embedded.redis import Redis
from infrastructure.realtime.redis_pubsub import RedisNotifications, RedisSubscription

pytestmark = pytest.mark.anyio


@pytest.fixture
async def live(redis_url):
    live = RedisNotifications(redis_url)
    await live.start()
    async with live.subscribe() as news:
        assert await news.wait(5)  # it listens
    yield live
    await live.stop()


async def tell(url):
    async with redis.asyncio.Redis.from_url(url) as client:
        return await client.publish(CHANNEL, b'{"position": 1}')


async def test_every_subscriber_is_notified(live, redis_url):
    async with live.subscribe() as one, live.subscribe() as other:
        waiting = [asyncio.create_task(news.wait(3600)) for news in (one, other)]
        await tell(redis_url)
        assert await asyncio.wait_for(asyncio.gather(*waiting), 10) == [True, True]


async def test_notifications_before_the_wait_count_once():
    news = RedisSubscription()
    for _ in range(3):
        news.wake()
    assert await news.wait(0)
    assert not await news.wait(0)


async def test_the_wait_ends_without_a_notification(live):
    async with live.subscribe() as news:
        assert not await asyncio.wait_for(news.wait(0.1), 10)


async def test_a_subscription_that_ended_is_forgotten(live):
    async with live.subscribe():
        assert len(live._subscriptions) == 1
    assert not live._subscriptions


async def test_without_redis_there_are_no_notifications_and_once_it_is_back_there_are(tmp_path):
    server = Redis(tmp_path)
    live = RedisNotifications(server.url)
    await live.start()
    async with live.subscribe() as news:
        assert not await news.wait(0.2)
        for _ in range(2):
            with server:
                assert await news.wait(5)  # it listens again, and something may have been said meanwhile
                await tell(server.url)
                assert await news.wait(5)
            assert not await news.wait(0.2)
    await live.stop()
