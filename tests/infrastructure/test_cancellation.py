"""Tasks that are told to end, end: also those that a first word was lost on."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import time

import pytest

from application.cancellation import GRACE_SECONDS, cancel_and_wait, run_until_first_ends

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
async def test_a_task_ends_however_often_it_must_be_told(times):
    task = asyncio.create_task(deaf(times))
    await asyncio.sleep(0)
    await asyncio.wait_for(cancel_and_wait(task), 5)
    assert task.cancelled()
    await cancel_and_wait(task)


async def test_nothing_that_never_began_or_failed_is_waited_for():
    await cancel_and_wait(None)
    task = asyncio.create_task(asyncio.sleep(0))
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await cancel_and_wait(task)


async def test_the_others_end_though_a_cancellation_of_one_is_lost():
    async with asyncio.timeout(GRACE_SECONDS + 2):
        await run_until_first_ends(deaf(2), asyncio.sleep(0.01))


async def test_whoever_ends_in_time_is_told_once():
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
            assert relay.wait(timeout=10) == 0
            assert time.monotonic() - began < 3.0, "the supervisor would have killed it"
            assert "process did not exit in time" in relay.stdout.read()
        finally:
            relay.kill()
