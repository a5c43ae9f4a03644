"""Single records are delivered, also after the producer gave up."""

import asyncio
from contextlib import suppress

import pytest

from application.jobs.topics import EVENTS
from infrastructure.embedded.broker import Broker
from infrastructure.kafka.producer import Sender, create_producer, stop_producer

pytestmark = pytest.mark.anyio


async def test_a_producer_that_gave_up_for_good_is_replaced(broker_url):
    sender = Sender(broker_url)
    await sender(EVENTS, b"key", b"first")
    gone = sender._producer
    gone._sender.sender_task.cancel()
    with suppress(asyncio.CancelledError):
        await gone._sender.sender_task
    await sender(EVENTS, b"key", b"second")
    assert sender._producer is not gone
    await sender.close()


async def test_the_end_does_not_wait_for_a_kafka_that_is_away(tmp_path):
    with Broker(tmp_path) as broker:
        sending = create_producer(broker.url)
        await sending.start()
        await sending.send_and_wait(EVENTS, b"first")
    under_way = await sending.send(EVENTS, b"second")
    async with asyncio.timeout(10):
        await stop_producer(sending)
    assert not under_way.done() or under_way.exception() is not None
    assert sending._sender.sender_task.done()
