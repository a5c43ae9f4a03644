"""Retries of calls to a service that is away, and work that is repeated for ever."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from domain.errors import Invalid, Unavailable, UpgradePending
from infrastructure.retry import Retry, repeat_always

pytestmark = pytest.mark.anyio


class Service:
    """Raises `errors`, one a call, then answers."""

    def __init__(self, *errors):
        self.errors, self.calls = list(errors), 0

    def answer(self, value):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return value


@pytest.fixture
def threads():
    with ThreadPoolExecutor(1) as threads:
        yield threads


def unavailable():
    return Unavailable("The service is away", retry_after=1)


async def test_a_call_is_repeated_until_the_service_is_back(threads):
    service = Service(unavailable(), unavailable())
    assert await Retry(threads, delays_seconds=(0.0, 0.0))(service.answer, "yes") == "yes"
    assert service.calls == 3


async def test_the_last_error_is_raised_after_all_delays(threads):
    service = Service(*(unavailable() for _ in range(9)))
    with pytest.raises(Unavailable):
        await Retry(threads, delays_seconds=(0.0, 0.0))(service.answer, "yes")
    assert service.calls == 3


async def test_attempts_are_apart_by_at_least_half_the_delay(threads):
    service, began = Service(unavailable()), time.monotonic()
    await Retry(threads, delays_seconds=(0.1,))(service.answer, "yes")
    assert time.monotonic() - began >= 0.05


@pytest.mark.parametrize("error", [UpgradePending("upgrade"), Invalid("wrong")], ids=["an upgrade", "a wrong value"])
async def test_what_no_retry_can_mend_is_raised_at_once(threads, error):
    service = Service(error)
    with pytest.raises(type(error)):
        await Retry(threads, delays_seconds=(60.0,))(service.answer, "yes")
    assert service.calls == 1


async def test_work_is_repeated_after_the_errors_it_may_raise_and_no_others():
    runs = []

    async def work():
        runs.append(True)
        if len(runs) == 2:
            raise OSError
        if len(runs) == 3:
            raise LookupError

    with pytest.raises(LookupError):
        await asyncio.wait_for(repeat_always(work, warning="lost", errors=(OSError,), delay_seconds=0.0), 5)
    assert len(runs) == 3
