"""Requests that wait for the read models: a change wakes them, time and number are limited, a disconnect or a shutdown ends them."""

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest

from api.app import COMMAND_THREADS
from api.middleware.admission import Admission
from api.wait_slots import WaitSlots
from domain.errors import NotFound
from infrastructure.postgres.query_database import PositionWaiter

pytestmark = pytest.mark.anyio

HOUR = 3600.0
SOON = 10.0  # seconds in which a test must end that would otherwise wait for an hour


class Client:
    """A connection whose request has no body."""

    def __init__(self):
        self._sent, self._disconnected = False, asyncio.Event()

    async def receive(self):
        if not self._sent:
            self._sent = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._disconnected.wait()
        return {"type": "http.disconnect"}

    def leave(self):
        self._disconnected.set()


class Row:
    """Something in the read models that takes a value at a position; counts how often it is read."""

    def __init__(self, read_position):
        self.reads, self.value = 0, None
        self._read_position, self._read = read_position, asyncio.Event()

    async def read(self):
        self.reads += 1
        self._read.set()
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

    async def read_once(self):
        await self._read.wait()
        await asyncio.sleep(0)

    async def change(self, value=None):
        """The read models move on, and the row has `value` from then on."""
        self.value = value
        await self._read_position._advance_to(self._read_position.position + 1)


@pytest.fixture
def read_position():
    """The real read position, without a database that moves it."""
    return PositionWaiter("")


@pytest.fixture
def row(read_position):
    return Row(read_position)


@pytest.fixture
def admission():
    return Admission()


@pytest.fixture
def slots(read_position, admission):
    return WaitSlots(read_position, admission, slots=2, seconds=HOUR)


def until_set(slots, row, client=None):
    return slots.read_until(lambda value: value is not None, row.read, (client or Client()).receive)


@asynccontextmanager
async def waiting(slots, row, client=None):
    """A request that has read once and waits."""
    async with asyncio.timeout(SOON):
        request = asyncio.create_task(until_set(slots, row, client))
        await row.read_once()
        yield request
        await asyncio.wait([request])
    assert slots._free == 2


async def test_a_request_that_needs_no_wait_is_answered_at_once(slots, row):
    row.value = "accepted"
    assert await until_set(slots, row) == "accepted"
    assert row.reads == 1


async def test_a_waiting_request_reads_again_only_when_the_read_models_have_changed(slots, row):
    async with waiting(slots, row) as request:
        for _ in range(100):
            await asyncio.sleep(0)
        assert row.reads == 1
        await row.change("accepted")
        assert await request == "accepted"
    assert row.reads == 2


async def test_a_change_between_the_first_read_and_the_wait_is_not_missed(slots, row, read_position):
    async def read():
        observed = row.value
        if row.reads == 0:
            await row.change("accepted")
        row.reads += 1
        return observed

    async with asyncio.timeout(SOON):
        assert await slots.read_until(lambda value: value is not None, read, Client().receive) == "accepted"
    assert row.reads == 2


async def test_changes_of_other_things_do_not_end_the_wait(slots, row):
    async with waiting(slots, row) as request:
        for reads in (2, 3, 4):
            await row.change()
            while row.reads < reads:
                await asyncio.sleep(0.001)
            assert not request.done()
        await row.change("accepted")
        assert await request == "accepted"


async def test_many_changes_cost_few_reads(slots, row):
    async with waiting(slots, row) as request:
        for _ in range(10_000):
            await row.change()
            await asyncio.sleep(0)
        await row.change("accepted")
        assert await request == "accepted"
    assert row.reads < 20


async def test_after_its_time_a_request_gets_what_was_read_last(read_position, admission, row):
    slots = WaitSlots(read_position, admission, slots=2, seconds=0.01)
    assert await until_set(slots, row) is None
    assert row.reads >= 2, "a change whose notification was lost is found at the end"


async def test_a_disconnect_ends_the_wait(slots, row):
    client = Client()
    async with waiting(slots, row, client) as request:
        client.leave()
        assert await request is None


async def test_a_client_that_disconnects_before_it_has_sent_its_body_does_not_wait(slots, row):
    pieces = [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}]

    async def receive():
        return pieces.pop(0)

    async with asyncio.timeout(SOON):
        assert await slots.read_until(lambda value: value is not None, row.read, receive) is None
    assert pieces == []


async def test_the_end_of_the_server_ends_all_waits_and_lets_none_begin(slots, row):
    async with waiting(slots, row) as request:
        slots.close()
        assert await request is None
    async with asyncio.timeout(SOON):
        assert await until_set(slots, row) is None


async def test_a_request_without_a_slot_is_answered_at_once(slots, row, read_position):
    others = [Row(read_position), Row(read_position)]
    async with waiting(slots, others[0]), asyncio.timeout(SOON):
        second = asyncio.create_task(until_set(slots, others[1]))
        await others[1].read_once()
        assert await until_set(slots, row) is None
        assert row.reads == 1
        await others[0].change("accepted")
        await others[1].change("accepted")
        assert await second == "accepted"


async def test_requests_that_wait_for_their_bodies_take_no_more_slots_than_there_are(slots, row):
    sent = asyncio.Event()

    class SlowClient(Client):
        async def receive(self):
            await sent.wait()
            return await super().receive()

    async with asyncio.timeout(SOON):
        requests = [asyncio.create_task(until_set(slots, row, SlowClient())) for _ in range(5)]
        await row.read_once()
        sent.set()
        done, pending = await asyncio.wait(requests, timeout=0.1)
        await row.change("accepted")
        assert [await request for request in done] == [None] * 3
        assert [await request for request in pending] == ["accepted"] * 2


async def test_an_error_of_a_later_read_is_raised_and_frees_the_slot(slots, row):
    async with waiting(slots, row) as request:
        await row.change(NotFound("Image not found"))
        with pytest.raises(NotFound):
            await request


async def test_a_cancelled_request_frees_its_slot(slots, row):
    async with waiting(slots, row) as request:
        request.cancel()


async def test_a_waiting_request_is_not_counted_among_those_worked_on(slots, row, admission):
    admission.count = 1
    async with waiting(slots, row) as request:
        while admission.count:
            await asyncio.sleep(0)
        await row.change("accepted")
        await request
    assert admission.count == 1


async def test_nothing_is_left_running_after_a_wait(slots, row):
    before = asyncio.all_tasks()
    async with waiting(slots, row) as request:
        await row.change("accepted")
        await request
    assert asyncio.all_tasks() == before


async def test_a_query_is_answered_while_all_threads_wait_for_the_log(api):
    http, over = await api.client(), threading.Event()
    assert (await http.get("/api/datasets")).status_code == 200, "from now on, the session is known without a thread"
    commands = [asyncio.get_running_loop().run_in_executor(None, over.wait) for _ in range(COMMAND_THREADS)]
    try:
        async with asyncio.timeout(SOON):
            assert (await http.get("/api/datasets")).status_code == 200
    finally:
        over.set()
        await asyncio.gather(*commands)
