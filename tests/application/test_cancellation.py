"""Cancellation: a task ends even if it swallows a cancellation."""

import asyncio
import signal
import subprocess
import sys
import time

import pytest

from application.cancellation import GRACE_SECONDS, cancel_and_wait, run_until_first_ends
from infrastructure.embedded.stack import StackLimits

pytestmark = pytest.mark.anyio


async def deaf(times):
    """Goes on as often as a library's wait does that an answer reaches together with the cancellation."""
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if times == 0:
                raise
            times -= 1


@pytest.mark.parametrize("times", [0, 1, 3])
async def test_a_task_ends_however_many_cancellations_it_swallows(times):
    task = asyncio.create_task(deaf(times))
    await asyncio.sleep(0)
    await asyncio.wait_for(cancel_and_wait(task), 5)
    assert task.cancelled()
    await cancel_and_wait(task)


async def test_nothing_that_never_began_or_failed_is_waited_for():
    await cancel_and_wait(None)

    async def fails():
        raise LookupError

    task = asyncio.create_task(fails())
    await asyncio.wait([task])
    await cancel_and_wait(task)
    assert isinstance(task.exception(), LookupError)


async def test_the_others_end_though_a_cancellation_of_one_is_lost():
    ended = []

    async def ends():
        try:
            await deaf(2)
        finally:
            ended.append("at the third cancellation")

    await asyncio.wait_for(run_until_first_ends(ends(), asyncio.sleep(0.01)), 10 * GRACE_SECONDS)
    assert ended == ["at the third cancellation"]


async def test_a_task_that_ends_in_time_is_cancelled_once():
    finished = []

    async def finishes():
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(GRACE_SECONDS / 4)
            finished.append(True)

    await run_until_first_ends(finishes(), asyncio.sleep(0.01))
    assert finished == [True]


async def test_what_the_first_one_raised_is_raised():
    async def fails():
        raise LookupError

    with pytest.raises(LookupError):
        await run_until_first_ends(fails(), asyncio.sleep(60))


DEAF_RELAY = """
import asyncio, contextlib
from infrastructure.relay.process import _run_until_signal

async def deaf():
    print("ready", flush=True)
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

asyncio.run(_run_until_signal(deaf))
"""


def test_a_relay_ends_on_sigterm_though_its_work_hears_no_cancellation():
    with subprocess.Popen([sys.executable, "-c", DEAF_RELAY], stdout=subprocess.PIPE, text=True) as relay:
        try:
            assert relay.stdout.readline() == "ready\n"
            began = time.monotonic()
            relay.send_signal(signal.SIGTERM)
            assert relay.wait(timeout=20) == 0
            assert time.monotonic() - began < StackLimits().processes_stop_seconds, "the supervisor would have killed it"
            assert "did not end by itself" in relay.stdout.read()
        finally:
            relay.kill()
