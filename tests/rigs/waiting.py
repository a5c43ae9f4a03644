"""Waits for a state that a test can observe. The deadline only guards against waiting for ever."""

import asyncio
import time
from contextlib import suppress

INTERVAL_SECONDS = 0.01


def wait_until(condition, *, within=10.0, ignoring=(), explain=lambda: "it did not happen in time"):
    """The first true result of `condition`, which is repeated after an exception of `ignoring`."""
    deadline = time.monotonic() + within
    while True:
        with suppress(*ignoring):
            if found := condition():
                return found
        assert time.monotonic() < deadline, explain()
        time.sleep(INTERVAL_SECONDS)


async def wait_until_async(condition, *, within=10.0):
    """The same while the event loop runs on."""
    deadline = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(INTERVAL_SECONDS)
    return found
