"""Tasks that are told to end, end: also those that a first word was lost on."""

import asyncio
import contextlib

import pytest

from infrastructure.patience import ended

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
    await asyncio.wait_for(ended(task), 5)
    assert task.cancelled()
    await ended(task)


async def test_nothing_that_never_began_or_failed_is_waited_for():
    await ended(None)
    task = asyncio.create_task(asyncio.sleep(0))
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await ended(task)
