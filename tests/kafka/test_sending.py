"""Single records are sent surely, also by a sender whose producer gave up."""

import asyncio
from contextlib import suppress

import pytest

from infrastructure.kafka.broker import EVENTS
from infrastructure.kafka.sending import Sender

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
