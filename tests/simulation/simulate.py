"""One seed, one run: processes, clients and faults over a world in memory; then recovery, and a check of the invariants."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from application.ports import Command
from infrastructure.eventstore.event_store import RecorderEventStore
from projections.engine.checkpoints import CheckpointConflict
from projections.process.dead_letters import retry_with
from tests.simulation import invariants
from tests.simulation.adversaries import clock_set_back, lying_store, lying_worker, set_a_clock, wrong_clocks
from tests.simulation.clients import ADMIN, SAME, Client, Direct, Journal, KnownIds, opened, uploaded
from tests.simulation.processes import (
    Api,
    MemoryCheckpointStore,
    api,
    inference,
    log_of,
    models_of,
    projector,
    projector_of,
    relay,
    sweeper,
)
from tests.simulation.watchers import MemoryLive, all_is_heard, broken_promises, forger, watcher
from tests.simulation.world import ROOT, Plan, Process, World, every_task_belongs_to_its_process

RESTS_WITHIN = 240.0  # seconds after the last misfortune
SERVICES = ("database", "kafka", "blobs")


class Story:
    """Three people at work, `of_each` process two."""

    clients, acts, of_each = 3, 14, 2
    adversaries: tuple[tuple[str, Callable[[Process], Any]], ...] = ()

    def before(self, world: World, known: KnownIds) -> None:
        opened(world, known)

    async def tell(self, world: World, people: list[Client]) -> None:
        await asyncio.gather(*(one.work(self.acts) for one in people))
        await asyncio.sleep(world.chance.uniform(0.0, 2.0))

    async def after(self, world: World) -> None:
        """When everything has come to rest: what else must hold."""


class StoryOfJobs(Story):
    """Three people run models again and again over a few images, some of which are equal."""

    def before(self, world: World, known: KnownIds) -> None:
        super().before(world, known)
        direct: Any = Direct(RecorderEventStore(world.recorder, ROOT), world.blobs)
        for data in (SAME, b"one", SAME, b"two", b"three"):
            command = Command(id=world.new_id(), actor=ADMIN, at=world.clock.today())
            known.images.append(uploaded(command, direct, known.datasets[0], None, data).id)

    async def tell(self, world: World, people: list[Client]) -> None:
        await asyncio.gather(*(self._run_jobs(world, one) for one in people))

    async def _run_jobs(self, world: World, client: Client) -> None:
        acts = [Client.run, Client.run, Client.run, Client.run, Client.retry, Client.cancel, Client.upload, Client.delete_job]
        for _ in range(self.acts):
            await asyncio.sleep(world.chance.expovariate(2.0))
            await world.chance.choice(acts)(client)


class StoryOfALyingWorker(Story):
    """One worker of the installation lies."""

    adversaries = (("lying worker", lying_worker),)


class StoryOfAClockSetBack(Story):
    """Tasks are lost that were dispatched while the database's clock was ahead."""

    adversaries = (("clock set back", clock_set_back),)


class StoryOfAdversaries(Story):
    """Besides, the blob store gives other bytes, clocks are set wrong, and whoever watches gets forged notifications."""

    adversaries = (
        *StoryOfALyingWorker.adversaries,
        ("lying store", lying_store),
        ("wrong clocks", wrong_clocks),
        ("forger", forger),
        ("watcher", watcher),
    )

    def before(self, world: World, known: KnownIds) -> None:
        super().before(world, known)
        world.live = MemoryLive()

    async def after(self, world: World) -> None:
        await all_is_heard(world)
        for broken in broken_promises(world, world.database.tables["activity"]):
            world.breaks(broken)


def run(seed: int, *, plan: Plan | None = None, story: Story | None = None) -> World:
    """The world as the story leaves it; what must not be is in its `broken`."""
    world = World(seed, plan)
    world.published = MemoryCheckpointStore(world)
    with nothing_logged():
        world.loop.set_task_factory(every_task_belongs_to_its_process)  # type: ignore[arg-type]
        try:
            world.loop.run_until_complete(_told(world, story or Story()))
        finally:
            world.loop.run_until_complete(_end(world))
            world.loop.end()
    return world


def broken_in(seeds: range, *, story: Story | None = None) -> dict[int, list[str]]:
    """What does not hold, by seed."""
    return {seed: world.broken for seed in seeds if (world := run(seed, story=story)).broken}


async def _told(world: World, story: Story) -> None:
    known, journal, apis = KnownIds(), Journal(), list[Api]()
    story.before(world, known)
    supervised = [asyncio.create_task(world.run_always(name, main)) for name, main in _mains(story, apis)]
    misfortunes = [asyncio.create_task(_always(world, kind, happen)) for kind, happen in MISFORTUNES]
    people = [Client(world, known, journal, apis, f"client-{number}") for number in range(story.clients)]
    await story.tell(world, people)
    for task in misfortunes:
        task.cancel()
    world.calm()
    world.tell("peace")
    rested = await _rests(world)
    if rested:
        await story.after(world)
    world.over = True
    invariants.check_invariants(world, journal, rested=rested)
    for task in supervised:
        task.cancel()


async def _end(world: World) -> None:
    for process in list(world.alive):
        process.kill()
    if left := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=60.0)


def _mains(story: Story, apis: list[Api]) -> Iterator[tuple[str, Callable[[Process], Any]]]:
    for number in range(story.of_each):
        yield f"api-{number}", lambda process: api(process, apis)
        for main in (relay, projector, inference):
            yield f"{main.__name__}-{number}", main
    yield "sweeper", sweeper
    yield from story.adversaries


async def _rests(world: World) -> bool:
    """Let the read models come to the head, whatever is poisoned (R10); mend it, and wait until nothing is left to do."""
    until = world.clock.passed + RESTS_WITHIN
    while invariants.lags(world):
        await asyncio.sleep(0.25)
        if world.clock.passed > until:
            return False
    await mended(world)
    while world.clock.passed < until:
        await asyncio.sleep(0.25)
        if world.database.letters or world.database.parked:
            await mended(world)
        if invariants.at_rest(world):
            return True
    return False


async def mended(world: World) -> None:
    """As `bioscope dead-letters retry`, after the release that knows the events."""
    world.poisoned.clear()
    process = Process(world, "mender")
    await process.until_dead(process.start(asyncio.to_thread(_retried, process)))


def _retried(process: Process) -> None:
    log = log_of(process)
    own = projector_of(process, log)
    try:
        healed = retry_with(own, models_of(process), log)
        process.world.counted["healed"] += healed.applied
    except CheckpointConflict:
        process.world.counted["retry outrun"] += 1
    finally:
        own.close()


# ---- misfortunes -------------------------------------------------------------------------------------------------------------------
async def _always(world: World, kind: str, happen: Callable[[World], Any]) -> None:
    while every := getattr(world.plan, kind):
        await asyncio.sleep(world.chance.expovariate(1 / every))
        outcome = happen(world)
        if outcome is not None:
            await outcome


def _death(world: World) -> None:
    if world.alive and world.deaths < world.plan.deaths_most:
        victim = world.chance.choice(sorted(world.alive, key=lambda process: process.name))
        world.deaths += 1
        world.tell(f"{victim.name} is killed")
        victim.kill()


def _outage(world: World) -> None:
    service = world.chance.choice(SERVICES)
    world.away_until[service] = world.clock.passed + world.chance.uniform(0.2, 3.0)
    world.tell(f"{service} is away until {world.away_until[service]:.1f}")


def _lost_log(world: World) -> None:
    world.tell("kafka loses everything")
    world.broker.lose_everything()


def _rebalance(world: World) -> None:
    for group in world.broker.groups.values():
        if world.happens(0.6):
            world.broker.rebalance(group)


MISFORTUNES: tuple[tuple[str, Callable[[World], Any]], ...] = (
    ("deaths_every", _death),
    ("outages_every", _outage),
    ("lost_logs_every", _lost_log),
    ("rebalances_every", _rebalance),
    ("jumps_every", set_a_clock),
    ("mends_every", mended),
)


@contextmanager
def nothing_logged() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    try:
        yield
    finally:
        structlog.configure(**before)
