"""Versions in production are run once before a job needs them."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple, NoReturn
from uuid import UUID

import psycopg
import structlog

from application.ports import EventStore
from domain import model
from domain.errors import CorruptBlob, DomainError, Unavailable
from domain.model import Version
from infrastructure.inference.children.child_process import ChildFailed, ChildLost

log = structlog.get_logger()

FIRST_DELAY_SECONDS: Final = 1.0
MAX_DELAY_SECONDS: Final = 300.0
POLL_SECONDS: Final = 0.25


class _Attempt(NamedTuple):
    """The last attempt to run version `number`. `due`: when to try again, None if never."""

    number: int
    failures: int
    due: float | None


class ModelWarmer:
    """`ready` is set when a version in production has run, or if there is none.

    A version that cannot run is reported when a job needs it. One that hangs, or whose file is unavailable, is tried again with growing
    delays (seconds, by `clock`).
    """

    def __init__(
        self, events: EventStore, warm: Callable[[Version], Awaitable[None]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._events, self._warm, self._clock = events, warm, clock
        self._in_production: Mapping[UUID, int] = {}
        self._attempts: dict[UUID, _Attempt] = {}
        self.ready = asyncio.Event()

    @property
    def attempted(self) -> Mapping[UUID, int]:
        """The version of each model that was tried last, whether it could run or not."""
        return {model_id: attempt.number for model_id, attempt in self._attempts.items()}

    def set_in_production(self, numbers: Mapping[UUID, int]) -> None:
        """The number of the version in production, by the id of its model; only of models that have one."""
        self._in_production = numbers

    def nothing_to_warm(self) -> None:
        """No model has a version in production."""
        log.warning("no model is in production: images can be uploaded, and a job must name the version of its model")
        self.ready.set()

    async def run_always(self) -> NoReturn:
        while True:
            await self.run_due()
            await asyncio.sleep(POLL_SECONDS)

    async def run_due(self) -> None:
        """Run each version in production that has not run yet, and is not waiting for another attempt."""
        for model_id, number in self._in_production.items():
            last = self._attempts.get(model_id)
            if last is None or last.number != number:
                await self._attempt(model_id, number, failures=0)
            elif last.due is not None and last.due <= self._clock():
                await self._attempt(model_id, number, failures=last.failures)

    async def _attempt(self, model_id: UUID, number: int, *, failures: int) -> None:
        due = None
        try:
            state = await asyncio.to_thread(self._events.load, model_id, model.evolve)
            if state is not None:
                await self._warm(state.numbered(number))
                self.ready.set()
        except (Unavailable, psycopg.Error, OSError, ChildLost) as error:
            due = self._clock() + min(FIRST_DELAY_SECONDS * 2**failures, MAX_DELAY_SECONDS)
            _log_failure(model_id, number, error)
        except (ChildFailed, CorruptBlob, DomainError) as error:
            _log_failure(model_id, number, error)
        self._attempts[model_id] = _Attempt(number, failures + 1, due)


def _log_failure(model_id: UUID, number: int, error: Exception) -> None:
    log.warning("model not warmed", model=str(model_id), version=number, reason=f"{type(error).__name__}: {error}")
