"""The simulated world: durable parts (log, read models, blobs, Kafka), processes that crash, and one random generator for all."""

import asyncio
import contextvars
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from infrastructure.eventstore.codec import EncodedEvent
from infrastructure.eventstore.group_commit import Append, Outcome
from infrastructure.security.keys import RootKey
from tests.simulation.broker import MemoryBroker
from tests.simulation.turns import Clock, Strand, VirtualLoop
from tests.twins.blobs import MemoryBlobs
from tests.twins.event_store import MemoryRecorder
from tests.twins.read_models import MemoryDatabase

ROOT = RootKey(bytes(range(32)))
HERE: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("process", default=None)


class Killed(BaseException):
    """The process is gone: nothing that it would still do happens."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much goes wrong. Chances are those of one call of a port; `every` are seconds between two misfortunes of a kind, 0 for never."""

    dies: float = 0.0
    away: float = 0.0
    answer_lost: float = 0.0
    paused: float = 0.0
    slow: float = 0.002
    yields: float = 0.5
    child_lost: float = 0.0
    news_lost: float = 0.0
    mangled: float = 0.0
    forged: float = 0.0
    older: float = 0.0
    deaths_every: float = 0.0
    outages_every: float = 0.0
    lost_logs_every: float = 0.0
    rebalances_every: float = 0.0
    jumps_every: float = 0.0
    mends_every: float = 0.0
    poison: float = 0.0
    deaths_most: int = 12

    @classmethod
    def drawn(cls, chance: random.Random) -> "Plan":
        """Each kind of misfortune is there in half of the worlds, seldom or often: what often happens together hides what does not."""

        def rate(*choices: float) -> float:
            return chance.choice(choices) if chance.random() < 0.5 else 0.0

        return cls(
            dies=rate(0.0005, 0.002, 0.01),
            away=rate(0.002, 0.01, 0.05),
            answer_lost=rate(0.002, 0.01, 0.05),
            paused=rate(0.0005, 0.002),
            slow=chance.choice([0.0005, 0.002, 0.01, 0.03]),
            yields=chance.choice([0.1, 0.5, 1.0]),
            child_lost=rate(0.02, 0.2),
            news_lost=rate(0.2, 0.9),
            mangled=rate(0.02, 0.2),
            older=rate(0.1, 0.5),
            deaths_every=rate(1.0, 3.0),
            outages_every=rate(2.0, 5.0),
            lost_logs_every=rate(3.0, 6.0),
            rebalances_every=rate(0.7, 3.0),
            jumps_every=rate(2.0, 4.0),
            mends_every=rate(1.0, 3.0),
            poison=rate(0.01, 0.05),
            forged=rate(0.05, 0.5),
        )


CALM = Plan()


class Recorder(MemoryRecorder):
    """Remembers too how many events each command asked for. Some events are written by a newer release: they have a field more."""

    def __init__(self, world: "World") -> None:
        super().__init__(ROOT, world.clock.today_of_the_database)
        self._world = world
        self.asked: dict[UUID, set[int]] = {}

    def insert(self, events: Sequence[EncodedEvent], append: Append) -> Outcome:
        self.asked.setdefault(append.command.id, set()).add(len(events))
        world = self._world
        if world.happens(world.plan.older):
            events = [msgspec.structs.replace(one, data=one.data[:-1] + b',"of_a_later_release":[1,{}]}') for one in events]
        outcome = super().insert(events, append)
        if outcome.outcome == "appended" and outcome.position is not None and world.happens(world.plan.poison):
            poisoned = self._log[outcome.position - 1]
            world.tell(f"poisoned: {poisoned.type} at {poisoned.position}")
            world.poisoned.add(poisoned.event_id)
            world.counted["poisoned"] += 1
        return outcome


class Blobs(MemoryBlobs):
    """Remembers too what it ever had."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        super().__init__(clock=clock)
        self.ever: dict[str, bytes] = {}

    def keep(self, data: bytes) -> str:
        sha256 = super().keep(data)
        self.ever[sha256] = data
        return sha256

    def keep_since(self, data: bytes, moment: datetime) -> None:
        self._put[self.keep(data)] = moment


class World:
    """`broken` gathers what must never be; `told` is what happened, for whoever reads a failing seed."""

    def __init__(self, seed: int, plan: Plan | None = None) -> None:
        self.seed, self.chance = seed, random.Random(seed)
        self.clock = Clock()
        self.plan = Plan.drawn(self.chance) if plan is None else plan
        self.loop = VirtualLoop(self.clock, began=lambda: self.chance.expovariate(1 / self.plan.slow) if self.plan.slow else 0.0)
        self.recorder = Recorder(self)
        self.database = MemoryDatabase(self.clock.today_of_the_database, log_hash=self.recorder.hash_at)
        self.blobs = Blobs(self.clock.today)
        self.broker = MemoryBroker(self)
        self.published: Any = None  # set by who runs the relay
        self.live: Any = None  # set where somebody watches
        self.heard: list[dict[str, Any]] = []  # by who watches
        self.away_until: dict[str, float] = {}
        self.alive: set[Process] = set()
        self.deaths = 0
        self.calls = 0
        self.doom: Callable[[int, Process, str, bool], bool] | None = None
        self.poisoned: set[Any] = set()
        self.broken: list[str] = []
        self.told: list[str] = []
        self.counted: Counter[str] = Counter()
        self.over = False

    def tell(self, what: str) -> None:
        self.told.append(f"{self.clock.passed:9.4f} {what}")

    def breaks(self, what: str) -> None:
        self.tell(f"BROKEN {what}")
        self.broken.append(what)

    def new_id(self) -> UUID:
        return UUID(bytes=self.chance.randbytes(16), version=4)

    def happens(self, chance: float) -> bool:
        return chance > 0 and self.chance.random() < chance

    def delay(self) -> float:
        return self.chance.expovariate(1 / self.plan.slow) if self.plan.slow else 0.0

    def calm(self) -> None:
        """From now on nothing goes wrong any more."""
        self.plan = CALM
        self.away_until.clear()

    @property
    def is_calm(self) -> bool:
        return self.plan is CALM

    def is_away(self, service: str) -> bool:
        return self.away_until.get(service, 0.0) > self.clock.passed

    async def run_always(self, name: str, main: Callable[["Process"], Coroutine[Any, Any, None]]) -> None:
        """Like a supervisor: start it, and again when it ended."""
        while not self.over:
            process = Process(self, name)
            await process.until_dead(process.start(main(process)))
            await asyncio.sleep(0.05 + self.delay())


class Process:
    """Something that runs, and whose memory is lost when it dies. `died` is done then."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.is_alive = True
        self.died: asyncio.Future[None] = world.loop.create_future()
        self._tasks: dict[asyncio.Task[Any], None] = {}  # in order: sets would order them by address
        self._leaves: list[Callable[[], None]] = []
        world.alive.add(self)

    def start(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        context = contextvars.copy_context()
        context.run(HERE.set, self)
        return self.world.loop.create_task(work, context=context)

    def owns(self, task: "asyncio.Task[Any]") -> None:
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        if not self.is_alive:
            task.cancel()

    def leaves(self, act: Callable[[], None]) -> None:
        """What the rest of the world does when it sees that this process is gone."""
        self._leaves.append(act)

    async def until_dead(self, main: "asyncio.Task[Any]") -> None:
        await asyncio.wait({main, self.died}, return_when=asyncio.FIRST_COMPLETED)
        if main.done() and not main.cancelled() and (error := main.exception()) is not None and not isinstance(error, Killed):
            self.world.tell(f"{self.name} ended: {error!r}")
            self.world.counted[f"{self.name} ended: {type(error).__name__}"] += 1
        self.kill()

    def kill(self) -> None:
        if not self.is_alive:
            return
        self.is_alive = False
        self.world.alive.discard(self)
        for act in self._leaves:
            act()
        for task in list(self._tasks):
            task.cancel()
        if not self.died.done():
            self.died.set_result(None)

    # ---- calls of ports ----
    def must_live(self) -> None:
        if not self.is_alive:
            raise Killed

    def before(self, point: str) -> int:
        """The number of this call. Raises Killed when the process dies here, before anything has happened."""
        self.must_live()
        self.world.calls += 1
        number = self.world.calls
        self._dies_here(point, number, after=False)
        return number

    def after(self, point: str, number: int) -> None:
        """Raises Killed when it has happened, and nobody was told."""
        self.must_live()
        self._dies_here(point, number, after=True)

    def _dies_here(self, point: str, number: int, *, after: bool) -> None:
        world = self.world
        if world.doom is not None:
            dies = world.doom(number, self, point, after)
        else:
            dies = world.deaths < world.plan.deaths_most and world.happens(world.plan.dies / 2)
        if dies:
            world.deaths += 1
            world.tell(f"{self.name} dies {'after' if after else 'before'} {point}")
            self.kill()
            raise Killed

    def pause(self) -> float:
        """Seconds that this call lets the others go ahead."""
        world = self.world
        if world.happens(world.plan.paused):
            return world.chance.uniform(1.0, 8.0)
        return world.delay() if world.happens(world.plan.yields) else 0.0


def every_task_belongs_to_its_process(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> "asyncio.Task[Any]":
    task = asyncio.Task(work, loop=loop, **more)
    context = more.get("context")
    process = context.get(HERE) if context is not None else HERE.get()
    if process is not None:
        process.owns(task)
    return task


class Port:
    """A process's way to something that lasts. Calls block, as on a thread; `away` is what it raises when the service is not there.

    `safe`: what costs nothing, and cannot fail.
    """

    def __init__(
        self, process: Process, twin: Any, service: str, away: Callable[[], Exception], *, safe: frozenset[str] = frozenset()
    ) -> None:
        self._process, self._twin, self._service, self._away, self._safe = process, twin, service, away, safe

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._twin, name)
        if not callable(attribute) or name in self._safe:
            return attribute
        point = f"{type(self._twin).__name__}.{name}"

        def call(*args: Any, **kwargs: Any) -> Any:
            process = self._process
            number = process.before(point)
            if pause := process.pause():
                Strand.pause(pause)
                process.must_live()
            world = process.world
            if world.is_away(self._service) or world.happens(world.plan.away):
                raise self._away()
            result = attribute(*args, **kwargs)
            process.after(point, number)
            if world.happens(world.plan.answer_lost):
                raise self._away()
            return Port(process, result, self._service, self._away) if name == "begin" else result

        self.__dict__[name] = call
        return call


class AsyncPort:
    """The same, for calls that are awaited."""

    def __init__(self, process: Process, twin: Any, service: str, away: Callable[[], Exception]) -> None:
        self._process, self._twin, self._service, self._away = process, twin, service, away

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._twin, name)
        point = f"{type(self._twin).__name__}.{name}"

        async def call(*args: Any, **kwargs: Any) -> Any:
            process = self._process
            number = process.before(point)
            if pause := process.pause():
                await asyncio.sleep(pause)
                process.must_live()
            world = process.world
            if world.is_away(self._service) or world.happens(world.plan.away):
                raise self._away()
            result = await attribute(*args, **kwargs)
            process.after(point, number)
            if world.happens(world.plan.answer_lost):
                raise self._away()
            return result

        self.__dict__[name] = call
        return call
