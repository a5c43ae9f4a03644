"""Simulated time: an event loop whose clock jumps to the next event, and threads that run one at a time in its order."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

BEGIN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Clock:
    """Seconds since the beginning, which only pass; and the time of day, of the processes and of the database, which may jump."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.jumped = self.database_jumped = timedelta(0)

    def monotonic(self) -> float:
        return 1_000_000.0 + self.passed

    def today(self) -> datetime:
        return BEGIN + timedelta(seconds=self.passed) + self.jumped

    def today_of_the_database(self) -> datetime:
        return BEGIN + timedelta(seconds=self.passed) + self.database_jumped


class Stuck(Exception):
    """Nothing will ever happen again."""


class _Passing:
    """In the place of a selector: nothing comes from outside, so waiting is only time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def select(self, timeout: float | None) -> tuple[()]:
        if timeout is None:
            raise Stuck
        self._clock.passed += max(timeout, 0.0)
        return ()

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.BaseEventLoop):
    """What production code gets for its event loop. What it hands to an executor runs on a Strand, at a point of our choice."""

    def __init__(self, clock: Clock, began: Callable[[], float] = lambda: 0.0) -> None:
        super().__init__()
        self._clock, self._began = clock, began
        self._selector = _Passing(clock)
        self._clock_resolution = 1e-9
        self._idle: list[Strand] = []
        self._busy: dict[Any, deque[Callable[[], None]]] = {}
        self.running: set[Strand] = set()
        self.set_exception_handler(lambda *_: None)  # what ends a process is looked at by who started it

    def time(self) -> float:
        return self._clock.monotonic()

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
        """An executor of one thread takes one call after the other."""
        future = self.create_future()
        lone = executor if getattr(executor, "_max_workers", 0) == 1 else None

        def begin() -> None:
            strand = self._idle.pop() if self._idle else Strand()
            self.running.add(strand)
            strand.begin(lambda: func(*args))
            self._go_on(strand, future, lone)

        if lone is not None and lone in self._busy:
            self._busy[lone].append(begin)
        else:
            if lone is not None:
                self._busy[lone] = deque()
            self.call_later(self._began(), begin)
        return future

    def _go_on(self, strand: "Strand", future: "asyncio.Future[Any]", lone: Any) -> None:
        pause = strand.go_on()
        if pause is not None:
            self.call_later(pause, self._go_on, strand, future, lone)
            return
        self.running.discard(strand)
        self._idle.append(strand)
        if not future.done():
            if strand.error is None:
                future.set_result(strand.result)
            else:
                future.set_exception(strand.error)
        if lone is not None:
            if waiting := self._busy[lone]:
                self.call_later(self._began(), waiting.popleft())
            else:
                del self._busy[lone]

    async def shutdown_default_executor(self) -> None:
        pass

    def end(self) -> None:
        """Every call that is under way is run to its end: whoever made it is dead, and can do nothing any more."""
        while self.running:
            strand = self.running.pop()
            while strand.go_on() is not None:
                pass
            self._idle.append(strand)
        for strand in self._idle:
            strand.end()
        self._idle.clear()
        self.close()


class Strand:
    """A thread that runs only while the loop waits for it: until it pauses, or its work is done."""

    _mine = threading.local()

    def __init__(self) -> None:
        self._turn, self._back = threading.Lock(), threading.Lock()
        self._turn.acquire()
        self._back.acquire()
        self._work: Callable[[], Any] | None = None
        self._pause: float | None = None
        self.result: Any = None
        self.error: BaseException | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def begin(self, work: Callable[[], Any]) -> None:
        self._work, self.result, self.error = work, None, None

    def go_on(self) -> float | None:
        """Run on; how long it wants to pause then, None when its work is done."""
        self._pause = None
        self._turn.release()
        self._back.acquire()
        return self._pause

    def end(self) -> None:
        self._work = None
        self._turn.release()

    @classmethod
    def pause(cls, seconds: float) -> bool:
        """Let others have their turn for `seconds`; False when the caller runs on no strand."""
        strand = getattr(cls._mine, "strand", None)
        if strand is None:
            return False
        strand._pause = seconds
        strand._back.release()
        strand._turn.acquire()
        return True

    def _run(self) -> None:
        self._mine.strand = self
        while True:
            self._turn.acquire()
            if self._work is None:
                return
            try:
                self.result = self._work()
            except BaseException as error:  # whatever it is, the loop's future gets it
                self.error = error
            self._work = None
            self._pause = None
            self._back.release()


def sleep(seconds: float) -> None:
    """In the place of `time.sleep`."""
    if not Strand.pause(seconds):
        raise AssertionError(f"the loop itself must not sleep ({seconds} s)")
