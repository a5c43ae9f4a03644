"""One crash at each call of a port, during one use case through all processes."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import UUID

from application import accounts, classifications, datasets, devices, images
from application.classifications import ImageSelection
from application.ports import Command
from domain import image
from domain.access import Grant
from infrastructure.eventstore.event_store import RecorderEventStore
from projections.engine.checkpoints import Checkpoint
from projections.engine.projector import Projector
from projections.process.composition import LogDecoder
from tests.simulation.clients import ADMIN, MODEL, Act, Client, Direct, KnownIds, NoSessions, Passwords, opened, uploaded
from tests.simulation.invariants import at_rest
from tests.simulation.simulate import Story, run
from tests.simulation.world import ROOT, Plan, Process, World
from tests.twins.read_models import MemoryModels

STEADY = Plan(slow=0.001, yields=1.0)


Doom = Callable[[int, Process, str, bool], bool]


class Call(NamedTuple):
    """The n-th call, and how far everything was when it was made."""

    number: int
    process: str
    point: str
    stood: tuple[Any, ...]


class OneAct(Story):
    """A system at rest, with one process of each kind, in which one use case runs."""

    clients, of_each = 1, 1

    def __init__(self, act: Callable[[Client, KnownIds], Any], doom: Doom) -> None:
        self._act, self._doom = act, doom

    def before(self, world: World, known: KnownIds) -> None:
        opened(world, known)
        _at_work(world, known)
        _known(world)
        self._known = known

    async def tell(self, world: World, people: list[Client]) -> None:
        while not at_rest(world):
            await asyncio.sleep(0.1)
        world.doom = self._doom
        await self._act(people[0], self._known)


class Start(Story):
    """Nothing is done but what is left to do when everything starts."""

    clients, of_each = 0, 1

    def __init__(self, doom: Doom) -> None:
        self._doom = doom

    def before(self, world: World, known: KnownIds) -> None:
        opened(world, known)
        _at_work(world, known)
        _asked_for(world, known)
        _known(world)
        world.doom = self._doom


def _at_work(world: World, known: KnownIds) -> None:
    """Three pictures, a device, and an account."""
    log = RecorderEventStore(world.recorder, ROOT)
    api: Any = Direct(log, world.blobs)

    def command() -> Command:
        return Command(id=world.new_id(), actor=ADMIN, at=world.clock.today())

    about = {
        "width": 8,
        "height": 8,
        "bands": 3,
        "dtype": "uint8",
        "pages": 1,
        "axes": "YXC",
        "pixel_size_um": None,
        "reader": 2,
        "warnings": (),
    }
    for number in range(3):
        done = uploaded(command(), api, known.datasets[0], None, b"picture %d" % number)
        state = log.load(done.id, image.evolve)
        assert state is not None
        log.append(command(), *image.accept(state, image.Inspection(**about), by=ADMIN.id, at=world.clock.today()))  # type: ignore[arg-type]
        known.images.append(done.id)
    known.devices.append(
        devices.register(name="Scope", hostname="scope", location=None, firmware_version=None, command=command(), log=log).id
    )
    person = {"email": "old@example.org", "username": "old", "first_name": "A", "last_name": "B", "password": "a long password, see"}
    known.users.append(accounts.register(**person, command=command(), log=log, passwords=Passwords()).id)  # type: ignore[arg-type]
    datasets.share(known.datasets[0], user_id=known.users[0], grant=Grant.VIEWER, command=command(), log=log)


def _asked_for(world: World, known: KnownIds) -> None:
    """A job, over the pictures."""
    command = Command(id=world.new_id(), actor=ADMIN, at=world.clock.today())
    known.jobs.append(
        classifications.run(**_asked(dataset=known.datasets[0]), command=command, log=RecorderEventStore(world.recorder, ROOT)).id
    )


def _known(world: World) -> None:
    """The read models have all of it; the rest is young enough to be done before our eyes."""
    log = RecorderEventStore(world.recorder, ROOT)
    head = world.recorder.max_notification_id() or 0
    projector = Projector(lambda: MemoryModels(world.database), LogDecoder(log))
    projector.checkpoint()
    projector.apply(world.recorder.select_recorded(0, head), Checkpoint(head))


def _asked(*, dataset: Any = None, one: Any = None, several: Any = None) -> dict[str, Any]:
    selection = ImageSelection(dataset_id=dataset, image_id=one, image_ids=several)
    return {"selection": selection, "model_name": MODEL, "threshold": None, "known_models": []}


def _doing(act: Callable[[KnownIds], Act], *, keyed: bool = True, expected: int | None = None) -> Callable[[Client, KnownIds], Any]:
    return lambda client, known: client.do("it", ADMIN, act(known), keyed=keyed, expected=expected)


def _of_a_job(act: Callable[[UUID], Act]) -> Callable[[Client, KnownIds], Any]:
    """While it is under way."""

    async def ask(client: Client, known: KnownIds) -> None:
        _asked_for(client.world, known)
        await client.do("it", ADMIN, act(known.jobs[0]))

    return ask


def _person(name: str) -> dict[str, Any]:
    about = {"email": f"{name}@example.org", "username": name, "first_name": "A", "last_name": "B", "password": "a long password, see"}
    return about | {"passwords": Passwords()}


def _profile(email: str) -> dict[str, Any]:
    return {"profile": {"email": email}, "role": None, "passwords": Passwords(), "tokens": NoSessions()}


USE_CASES: dict[str, Callable[[Client, KnownIds], Any]] = {
    "register": _doing(lambda known: lambda it, api: accounts.register(**_person("new"), command=it, log=api.log)),
    "change profile": _doing(lambda known: lambda it, api: accounts.update(known.users[0], **_profile("n@e.org"), command=it, log=api.log)),
    "close account": _doing(lambda known: lambda it, api: accounts.delete(known.users[0], command=it, log=api.log, tokens=NoSessions())),
    "erase account": _doing(lambda known: lambda it, api: accounts.erase(known.users[0], command=it, log=api.log, tokens=NoSessions())),
    "create dataset": _doing(lambda known: lambda it, api: datasets.create(name="new", description=None, command=it, log=api.log)),
    "describe dataset": _doing(
        lambda known: lambda it, api: datasets.describe(known.datasets[0], name="new", expected=2, command=it, log=api.log), expected=2
    ),
    "share": _doing(
        lambda known: (
            lambda it, api: datasets.share(known.datasets[1], user_id=known.users[0], grant=Grant.ANALYST, command=it, log=api.log)
        )
    ),
    "withdraw": _doing(lambda known: lambda it, api: datasets.withdraw(known.datasets[0], user_id=known.users[0], command=it, log=api.log)),
    "delete dataset": _doing(lambda known: lambda it, api: datasets.delete(known.datasets[0], command=it, log=api.log)),
    "upload": _doing(lambda known: lambda it, api: uploaded(it, api, known.datasets[0], known.devices[0], b"another picture")),
    "describe image": _doing(lambda known: lambda it, api: images.describe(known.images[0], filename="new.png", command=it, log=api.log)),
    "delete image": _doing(lambda known: lambda it, api: images.delete(known.images[0], command=it, log=api.log)),
    "run image": _doing(lambda known: lambda it, api: classifications.run(**_asked(one=known.images[0]), command=it, log=api.log)),
    "run dataset": _doing(lambda known: lambda it, api: classifications.run(**_asked(dataset=known.datasets[0]), command=it, log=api.log)),
    "run list": _doing(lambda known: lambda it, api: classifications.run(**_asked(several=tuple(known.images)), command=it, log=api.log)),
    "cancel": _of_a_job(lambda job: lambda it, api: classifications.cancel(job, command=it, log=api.log)),
    "delete job": _of_a_job(lambda job: lambda it, api: classifications.delete(job, command=it, log=api.log)),
    "report device": _doing(
        lambda known: lambda it, api: devices.report(known.devices[0], online=True, command=it, log=api.log, last_seen=known.last_seen)
    ),
    "remove device": _doing(
        lambda known: lambda it, api: devices.remove(known.devices[0], command=it, log=api.log, last_seen=known.last_seen)
    ),
    "add model": lambda client, known: client.add_model(),
}


def _story(use_case: str, doom: Doom) -> Story:
    return OneAct(USE_CASES[use_case], doom) if use_case != "start" else Start(doom)


def calls_of(use_case: str) -> list[Call]:
    """Every call that is made on its way, each where things stood as they stand only there: a look that sees nothing new is one."""
    calls: dict[tuple[Any, ...], Call] = {}

    def look(number: int, process: Process, point: str, after: bool) -> bool:
        if not after:
            call = Call(number, process.name, point, _stood(process.world))
            calls.setdefault(call[1:], call)
        return False

    world = run(1, plan=STEADY, story=_story(use_case, look))
    assert not world.broken, (use_case, world.broken)
    return list(calls.values())


def _stood(world: World) -> tuple[Any, ...]:
    database, sent = world.database, sum(map(len, world.broker.partitions.values()))
    done = len(database.releases), len(world.blobs.kept), len(world.database.workers)
    return world.recorder.max_notification_id(), database.token, world.published.checkpoint, sent, done


def crashed(use_case: str, call: Call, *, after: bool) -> World:
    """The same story, but for one process that dies at this call."""

    def doom(number: int, process: Process, point: str, late: bool) -> bool:
        return (number, late) == (call.number, after)

    world = run(1, plan=STEADY, story=_story(use_case, doom))
    assert world.deaths == 1 or after, (use_case, call)  # a call that raised has no after
    return world


def broken_by_a_crash(use_case: str, calls: list[Call]) -> Iterator[str]:
    for call in calls:
        for after in (False, True):
            if broken := crashed(use_case, call, after=after).broken:
                yield f"{use_case}: {call.process} dies {'after' if after else 'before'} {call.point} (call {call.number}): {broken}"
