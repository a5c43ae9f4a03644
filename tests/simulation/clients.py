"""Clients that work through the real use cases, record the promises that they got, and retry."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

import msgspec

from application import accounts, classifications, datasets, devices, images, models
from application.classifications import ImageSelection
from application.commands import CommandResult, idempotent
from application.ports import Command, OpenSession, PasswordRequester
from domain import user
from domain.access import Actor, Grant, Role
from domain.classification import ImageFilter, Priority, RunOptions
from domain.errors import DomainError, KeyReused, Unavailable
from domain.model import Version
from domain.values import system_actor
from infrastructure.eventstore.event_store import RecorderEventStore
from tests.simulation.processes import LABELS, Api
from tests.simulation.world import ROOT, World
from tests.twins.last_seen import MemoryLastSeen

TRIES = 12
VISIBLE_WITHIN = 2.0
MODEL = "shapes"
SAME = b"a picture that is uploaded again and again"
NAMES = ("ada", "bob", "eve")
ADMIN = Actor(id=system_actor("simulation"), role=Role.ADMIN)

Act = Callable[[Command, Api], CommandResult]


class Promise(msgspec.Struct, frozen=True):
    """An answer that says that it was done: `expected` is the version that If-Match named."""

    kind: str
    command: UUID
    done: CommandResult
    expected: int | None


class Journal:
    """All that was asked, and all that was promised."""

    def __init__(self) -> None:
        self.asked: set[UUID] = set()
        self.promises: list[Promise] = []
        self.answers: dict[UUID, CommandResult] = {}


class Passwords:
    """Quick ones, without a salt."""

    service_names = ()

    def is_common(self, password: str) -> bool:
        return False

    def hash(self, password: str, *, requester: PasswordRequester, like: bytes | None = None) -> bytes:
        return hashlib.sha256(password.encode()).digest()

    def matching(self, password: str, candidates: Sequence[bytes], *, requester: PasswordRequester) -> int | None:
        computed = self.hash(password, requester=requester)
        return candidates.index(computed) if computed in candidates else None

    def verify(self, password: str, known: bytes | None, *, requester: PasswordRequester) -> bool:
        return known == self.hash(password, requester=requester)

    def outdated(self, known: bytes) -> bool:
        return False


class NoSessions:
    """Nobody has signed in."""

    def open_sessions(self, user_id: UUID, *, at: datetime) -> list[OpenSession]:
        return []

    def revoke_user(self, user_id: UUID, *, but: UUID | None = None) -> list[UUID]:
        return []


class Lost(Exception):
    """The connection broke: nobody knows what became of it."""


class KnownIds:
    """The ids in the answers that the clients received."""

    def __init__(self) -> None:
        self.people: list[Actor] = []
        self.datasets: list[UUID] = []
        self.images: list[UUID] = []
        self.jobs: list[UUID] = []
        self.devices: list[UUID] = []
        self.last_seen = MemoryLastSeen()  # type: ignore[no-untyped-call]
        self.users: list[UUID] = []


def opened(world: World, known: KnownIds, *, people: int = 3) -> None:
    """The first day, before anything can go wrong. Of an upload long ago bytes are left that nobody refers to."""
    world.blobs.keep_since(SAME, world.clock.today() - timedelta(days=30))
    log = RecorderEventStore(world.recorder, ROOT)
    for number in range(people):
        role = (Role.RESEARCHER, Role.RESEARCHER, Role.ANALYST)[number % 3]
        member, at = uuid5(system_actor("people"), str(number)), world.clock.today()
        about = {"email": f"{number}@example.org", "username": f"person{number}", "first_name": "A", "last_name": "B"}
        log.append(Command(id=world.new_id(), actor=ADMIN, at=at), user.register(member, **about, role=role, by=member, at=at))
        known.people.append(Actor(id=member, role=role))
        dataset = datasets.create(
            name=f"set {number}", description=None, command=Command(id=world.new_id(), actor=known.people[0], at=at), log=log
        )
        known.datasets.append(dataset.id)
    _model(world, b"weights")(Command(id=world.new_id(), actor=ADMIN, at=world.clock.today()), Direct(log, world.blobs))  # type: ignore[arg-type]


class Direct:
    def __init__(self, log: Any, blobs: Any) -> None:
        self.log, self.blobs = log, blobs


class Client:
    """One after the other it does what chance tells."""

    def __init__(self, world: World, known: KnownIds, journal: Journal, apis: list[Api], name: str) -> None:
        self.world, self._known, self._journal, self._apis, self._name = world, known, journal, apis, name
        self._chance = world.chance
        self._thinks = self._chance.choice([0.01, 0.05, 0.2])  # seconds between two acts
        self._weights = [(act, weight * self._chance.choice([0, 1, 1, 3])) for act, weight in ACTS]

    async def work(self, acts: int) -> None:
        for _ in range(acts):
            await asyncio.sleep(self._chance.expovariate(1 / self._thinks))
            choices, weights = zip(*self._weights, strict=True)
            act = self._chance.choices(choices, weights if any(weights) else None)[0]
            await act(self)

    # ---- asking ----
    async def do(self, kind: str, actor: Actor, act: Act, *, expected: int | None = None, keyed: bool = True) -> CommandResult | None:
        """Ask until somebody answers: with a key the same command again, without one a new command each time."""
        key = self.world.new_id()
        digest = key.bytes if keyed else None
        for _ in range(TRIES):
            command = self._command(actor, key if keyed else self.world.new_id(), digest)
            try:
                done = await self._ask(command, act)
            except (Lost, Unavailable):
                await asyncio.sleep(self._chance.expovariate(1 / 0.3))
                continue
            except DomainError as refused:
                self.world.tell(f"{self._name} {kind} refused: {refused.code}")
                self.world.counted[f"refused {refused.code}"] += 1
                return None
            except Exception as unexpected:
                self.world.breaks(f"{kind} answered with {unexpected!r}")
                return None
            self._promised(kind, command, done, expected)
            if keyed and self.world.happens(0.15):
                await self._ask_again(kind, actor, command, act, done)
            await self._look(kind, done)
            return done
        self.world.tell(f"{self._name} gave up on {kind}")
        self.world.counted["given up"] += 1
        return None

    def _command(self, actor: Actor, key: UUID, digest: bytes | None) -> Command:
        self._journal.asked.add(key)
        return Command(id=key, actor=actor, at=self.world.clock.today(), digest=digest)

    async def _ask(self, command: Command, act: Act) -> CommandResult:
        """Of one of the API's processes. Raises Lost when it dies, or there is none."""
        if not self._apis:
            raise Lost
        api = self._chance.choice(self._apis)
        request = api.process.start(asyncio.to_thread(lambda: idempotent(api.log, command, lambda: act(command, api))))
        await asyncio.wait({request, api.process.died}, return_when=asyncio.FIRST_COMPLETED)
        if not request.done() or request.cancelled() or not api.process.is_alive:
            raise Lost
        return request.result()

    def _promised(self, kind: str, command: Command, done: CommandResult, expected: int | None) -> None:
        self.world.tell(f"{self._name} {kind}: {done.id} version {done.version} at {done.position}")
        self.world.counted[f"done {kind}"] += 1
        self._journal.promises.append(Promise(kind, command.id, done, expected))
        if not done.position:
            return  # nothing was changed, so nothing is remembered
        before = self._journal.answers.setdefault(command.id, done)
        if (before.id, before.version, before.position) != (done.id, done.version, done.position):
            self.world.breaks(f"R9 {kind} was answered {before}, its repeat {done}")

    async def _ask_again(self, kind: str, actor: Actor, command: Command, act: Act, done: CommandResult) -> None:
        """A repeat is answered as the first time; another request with its key never is."""
        same = self.world.happens(0.7)
        again = self._command(actor, command.id, command.digest if same else b"another request")
        try:
            repeated = await self._ask(again, act)
        except (Lost, Unavailable):
            return
        except KeyReused:
            if same:
                self.world.breaks(f"R9 a repeat of {kind} was taken for another request")
            return
        except DomainError as refused:
            if not done.position:
                return  # nothing was changed, so nothing is remembered
            self.world.breaks(f"R9 a repeat of {kind} that was done is refused: {refused.code}")
            return
        if not same and done.position:
            self.world.breaks(f"R9 another {kind} under a used key was answered {repeated}")
        elif same:
            self._promised(kind, again, repeated, None)

    async def _look(self, kind: str, done: CommandResult) -> None:
        """R20: what is read at `min_position` is never older than that."""
        database = self.world.database
        until = self.world.clock.passed + VISIBLE_WITHIN
        while database.token.checkpoint.position < done.position and self.world.clock.passed < until:
            await asyncio.sleep(0.1)
        if not done.position or database.token.checkpoint.position < done.position or done.id in database_blocked(self.world):
            return
        for table in database.tables.values():
            row = table.get(done.id)
            if row is not None and getattr(row, "version", done.version) < done.version:
                self.world.breaks(f"R20 after {kind} at {done.position} the read model shows version {row.version}, not {done.version}")

    # ---- what there is to do ----
    def _one(self, known: list[Any]) -> Any:
        return self._chance.choice(known)

    def _dataset(self) -> UUID:
        """Often the first: then it holds something."""
        return self._known.datasets[0] if self.world.happens(0.4) else self._chance.choice(self._known.datasets)

    def _person(self) -> Actor:
        return self._one(self._known.people[:2])

    async def register(self) -> None:
        name = self._one(list(NAMES))
        about = {"email": f"{name}@example.org", "username": name, "first_name": "A", "last_name": "B", "password": "a long password, see"}
        done = await self.do(
            "register", ADMIN, lambda command, api: accounts.register(**about, command=command, log=api.log, passwords=Passwords())
        )
        if done is not None:
            self._known.users.append(done.id)

    async def close_account(self) -> None:
        if self._known.users:
            gone, erased = self._one(self._known.users), self.world.happens(0.5)
            act = accounts.erase if erased else accounts.delete
            await self.do(
                "erase" if erased else "close", ADMIN, lambda command, api: act(gone, command=command, log=api.log, tokens=NoSessions())
            )  # type: ignore[operator]

    async def change_profile(self) -> None:
        if self._known.users:
            whom, name = self._one(self._known.users), self._one(list(NAMES))
            about: dict[str, Any] = {"profile": {"email": f"{name}2@example.org", "phone": str(self._chance.random())}, "role": None}
            rest = {"passwords": Passwords(), "tokens": NoSessions()}
            await self.do(
                "profile", ADMIN, lambda command, api: accounts.update(whom, **about, **rest, command=command, log=api.log), keyed=False
            )

    async def create_dataset(self) -> None:
        done = await self.do(
            "dataset", self._person(), lambda command, api: datasets.create(name="cells", description="x", command=command, log=api.log)
        )
        if done is not None:
            self._known.datasets.append(done.id)

    async def describe_dataset(self) -> None:
        """Half of the time by If-Match, with the version that the read model shows."""
        dataset, name = self._one(self._known.datasets), f"name {self._chance.random()}"
        row = self.world.database.tables["datasets"].get(dataset)
        expected = row.version if row is not None and self.world.happens(0.6) else None
        await self.do(
            "describe dataset",
            self._person(),
            lambda command, api: datasets.describe(dataset, name=name, expected=expected, command=command, log=api.log),
            expected=expected,
            keyed=False,
        )

    async def share(self) -> None:
        dataset, whom = self._one(self._known.datasets), self._one([*self._known.users, *(one.id for one in self._known.people)])
        grant, away = self._one([Grant.VIEWER, Grant.ANALYST]), self.world.happens(0.3)
        owner = self._known.people[0]
        await self.do(
            "withdraw" if away else "share",
            owner,
            lambda command, api: (
                datasets.withdraw(dataset, user_id=whom, command=command, log=api.log)
                if away
                else datasets.share(dataset, user_id=whom, grant=grant, command=command, log=api.log)
            ),
        )

    async def delete_dataset(self) -> None:
        if len(self._known.datasets) > 2:
            dataset = self._one(self._known.datasets[1:])
            await self.do("delete dataset", ADMIN, lambda command, api: datasets.delete(dataset, command=command, log=api.log), keyed=False)

    async def upload(self) -> None:
        dataset = self._dataset()
        device = self._one(self._known.devices) if self._known.devices and self.world.happens(0.3) else None
        data = self._chance.choice([SAME, self._chance.randbytes(12)])
        done = await self.do("upload", ADMIN, lambda command, api: uploaded(command, api, dataset, device, data))
        if done is not None:
            self._known.images.append(done.id)

    async def describe_image(self) -> None:
        if self._known.images:
            image, name = self._one(self._known.images), f"{self._chance.random()}.png"

            def act(command: Command, api: Api) -> CommandResult:
                return images.describe(image, filename=name, command=command, log=api.log)

            await self.do("describe image", ADMIN, act, keyed=False)

    async def delete_image(self) -> None:
        if self._known.images:
            image = self._one(self._known.images)
            await self.do("delete image", ADMIN, lambda command, api: images.delete(image, command=command, log=api.log), keyed=False)

    async def run(self) -> None:
        """Over one image or a dataset, or seldom over a list or a filter. Researchers may repeat results, unlike the administrator."""
        kind = self._chance.choices(["dataset", "image", "list", "filter"], [4, 4, 2, 2])[0] if self._known.images else "dataset"
        asked: dict[str, Any] = {"model_name": MODEL, "threshold": self._one([None, None, 0.9]), "known_models": []}
        asked |= {"selection": self._selection(kind), "options": self._options()}
        who = ADMIN if self.world.happens(0.2) else self._known.people[0]
        done = await self.do(f"run {kind}", who, lambda command, api: classifications.run(**asked, command=command, log=api.log))
        if done is not None:
            self._known.jobs.append(done.id)

    def _selection(self, kind: str) -> ImageSelection:
        match kind:
            case "image":
                return ImageSelection(image_id=self._one(self._known.images))
            case "list":
                home = self.world.database.tables["images"].get(first := self._one(self._known.images))
                known = [one.id for one in self.world.database.tables["images"].values() if home and one.dataset_id == home.dataset_id]
                return ImageSelection(
                    image_ids=tuple(self._chance.sample(known, self._chance.randint(1, len(known)))) if known else (first,)
                )
            case "filter":
                asked = self._one([ImageFilter(label=self._one(list(LABELS))), ImageFilter(without_result=True), ImageFilter()])
                return ImageSelection(dataset_id=self._dataset(), filter=asked, path=self._one([None, "*.png", "0*"]))
            case _:
                return ImageSelection(dataset_id=self._dataset())

    def _options(self) -> RunOptions:
        later = timedelta(seconds=self._chance.uniform(0.2, 10.0))
        return RunOptions(
            priority=self._one(list(Priority)),
            deadline=self.world.clock.today() + later if self.world.happens(0.2) else None,
            fresh=self.world.happens(0.2),
        )

    async def retry(self) -> None:
        if self._known.jobs:
            job = self._one(self._known.jobs)
            done = await self.do("retry", ADMIN, lambda command, api: classifications.retry(job, command=command, log=api.log))
            if done is not None:
                self._known.jobs.append(done.id)

    async def cancel(self) -> None:
        if self._known.jobs:
            job = self._one(self._known.jobs)
            await self.do("cancel", ADMIN, lambda command, api: classifications.cancel(job, command=command, log=api.log))

    async def delete_job(self) -> None:
        if self._known.jobs:
            job = self._one(self._known.jobs)
            await self.do("delete job", ADMIN, lambda command, api: classifications.delete(job, command=command, log=api.log), keyed=False)

    async def register_device(self) -> None:
        host = self._one(["scope-1", "scope-2"])
        about = {"name": "Scope", "hostname": host, "location": None, "firmware_version": None}
        done = await self.do("device", ADMIN, lambda command, api: devices.register(**about, command=command, log=api.log))
        if done is not None:
            self._known.devices.append(done.id)

    async def remove_device(self) -> None:
        if self._known.devices:
            device = self._one(self._known.devices)
            online = self._one([None, True, False])
            await self.do(
                "device report",
                ADMIN,
                lambda command, api: (
                    devices.remove(device, command=command, log=api.log, last_seen=self._known.last_seen)
                    if online is None
                    else devices.report(device, online=online, command=command, log=api.log, last_seen=self._known.last_seen)
                ),
                keyed=False,
            )

    async def add_model(self) -> None:
        await self.do("model", ADMIN, _model(self.world, self._chance.randbytes(8)), keyed=False)


def _model(world: World, weights: bytes) -> Act:
    def add(command: Command, api: Api) -> CommandResult:
        writer = api.blobs.begin()
        writer.write(weights)
        sha256, size = writer.commit()
        version = Version(number=1, sha256=sha256, size=size, labels=LABELS, review_below=0.6, record="{}")
        return models.add_version(name=MODEL, description="", version=version, command=command, log=api.log)

    return add


def uploaded(command: Command, api: Api, dataset: UUID, device: UUID | None, data: bytes) -> CommandResult:
    """As `api.uploads`: asked first, then stored, then recorded."""
    images.may_upload(dataset, device_id=device, command=command, log=api.log)
    writer = api.blobs.begin()
    writer.write(data)
    sha256, size = writer.commit()
    about: dict[str, Any] = {"filename": "cell.png", "media_type": "image/png", "width": 8, "height": 8}
    return images.upload(dataset_id=dataset, device_id=device, sha256=sha256, size=size, **about, command=command, log=api.log)


def database_blocked(world: World) -> set[UUID]:
    return {letter.stream for letter in world.database.letters.values()} | set(world.database.parked.values())


ACTS: list[tuple[Callable[[Client], Any], int]] = [
    (Client.register, 2),
    (Client.close_account, 1),
    (Client.change_profile, 1),
    (Client.create_dataset, 2),
    (Client.describe_dataset, 4),
    (Client.share, 2),
    (Client.delete_dataset, 1),
    (Client.upload, 12),
    (Client.describe_image, 3),
    (Client.delete_image, 2),
    (Client.run, 6),
    (Client.cancel, 2),
    (Client.retry, 2),
    (Client.delete_job, 1),
    (Client.register_device, 1),
    (Client.remove_device, 1),
    (Client.add_model, 1),
]
