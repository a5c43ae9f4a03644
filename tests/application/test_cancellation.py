"""Cancellation: a task ends even if it swallows a cancellation."""

import asyncio
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import permutations

import pytest
from structlog.testing import capture_logs

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


async def fails_with(error):
    raise error


@pytest.mark.parametrize("errors", list(permutations([LookupError(), OSError(), ValueError()])))
async def test_of_several_that_fail_together_the_first_argument_counts_and_the_others_are_logged(errors):
    with capture_logs() as logs, pytest.raises(type(errors[0])):
        await run_until_first_ends(*(fails_with(error) for error in errors))
    assert [entry["error"] for entry in logs] == [type(error).__name__ for error in errors[1:]]


async def test_an_error_is_raised_though_another_one_ended_well_at_the_same_moment():
    with pytest.raises(LookupError):
        await run_until_first_ends(asyncio.sleep(0), asyncio.sleep(60), fails_with(LookupError()))


async def fails_when_cancelled():
    try:
        await asyncio.sleep(60)
    finally:
        raise OSError


async def test_an_error_of_a_cancelled_one_is_logged():
    with capture_logs() as logs:
        await run_until_first_ends(asyncio.sleep(0), fails_when_cancelled())
    assert [entry["error"] for entry in logs] == ["OSError"]


async def test_a_caller_that_is_cancelled_leaves_no_error_unseen():
    with capture_logs() as logs:
        await cancel_and_wait(await started(run_until_first_ends(asyncio.sleep(60), fails_when_cancelled())))
    assert [entry["error"] for entry in logs] == ["OSError"]


async def test_a_caller_that_is_cancelled_again_still_waits_for_all():
    ended = []

    async def slow_to_end():
        try:
            await asyncio.sleep(60)
        finally:
            for _ in range(3):
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)
            ended.append(True)

    caller = await started(run_until_first_ends(slow_to_end(), asyncio.sleep(60)))
    for _ in range(3):
        caller.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended == [True]


async def started(work):
    """A task that has begun to wait."""
    task = asyncio.create_task(work)
    for _ in range(3):
        await asyncio.sleep(0)
    return task


DEAF_RELAY = """
import asyncio
from contextlib import suppress
from infrastructure.relay.process import _run_until_signal

async def deaf():
    print("ready", flush=True)
    while True:
        with suppress(asyncio.CancelledError):
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
            assert "process did not exit in time" in relay.stdout.read()
        finally:
            relay.kill()
