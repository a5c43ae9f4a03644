"""Live subscribers: the real `api.live.connection.LiveConnection` over a socket in memory; and a forger of notifications."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import msgspec

from api.live.connection import LiveConnection
from api.live.hub import LiveHub
from api.middleware.access_recording import AccessRecorder
from api.middleware.admission import Admission
from api.options import WebOptions
from application.authentication import Identity
from application.services import CHANNEL, Claims
from domain.access import Actor, Role
from domain.values import system_actor
from infrastructure.realtime.redis_pubsub import RedisSubscription
from projections.activity import VISIBLE_AFTER, Activity, ActivityScan
from tests.simulation.invariants import at_rest
from tests.simulation.processes import store_away
from tests.simulation.world import AsyncPort, Process, World
from tests.twins.access_trail import MemoryAccessTrail

FORGED_EVERY_SECONDS = 0.1
TOLD_WITHIN_SECONDS = 30.0
NEVER = datetime(9999, 1, 1, tzinfo=UTC)
WATCHER = Actor(id=system_actor("watcher"), role=Role.ADMIN)


class MemoryLive:
    """The port `LiveNotifications`: whatever anybody publishes rings. `said` is the newest message, at which nobody should look."""

    def __init__(self) -> None:
        self._watchers: list[RedisSubscription] = []
        self.said = b""

    def publish(self, channel: str, message: bytes) -> None:
        assert channel == CHANNEL
        self.said = message
        for news in self._watchers:
            news.wake()

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[RedisSubscription]:
        news = RedisSubscription()
        self._watchers.append(news)
        try:
            yield news
        finally:
            self._watchers.remove(news)


class MemoryReads:
    """The port `QueryDatabase`, for an administrator who watches; jobs are told without their progress."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def rows(self, query: str, parameters: Mapping[str, Any], *, into: Any) -> list[Any]:
        if query is not VISIBLE_AFTER:
            return []
        activity = self._world.database.tables["activity"]
        found = [activity[position] for position in sorted(activity) if position > parameters["position"]][: parameters["window"]]
        reached, is_full = found[-1].position if found else parameters["position"], len(found) == parameters["window"]
        return [ActivityScan(items=found, reached=reached, more=is_full, visited=len(found))]


class MemoryReadPosition:
    """How far the read models are."""

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def position(self) -> int:
        return self._world.database.token.checkpoint.position


class Socket:
    """What a client hears goes into `heard`; it says who it is, subscribes behind what it has heard, and answers pings."""

    scope: Mapping[str, Any] = {"client": None, "headers": [], "extensions": {}}

    def __init__(self, heard: list[dict[str, Any]]) -> None:
        self._heard, self._said = heard, asyncio.Queue[dict[str, Any]]()
        after = heard[-1]["position"] if heard else 0
        for message in ({"type": "auth", "token": "made up"}, {"type": "subscribe", "after": after}):
            self._send(message)

    def _send(self, message: dict[str, Any]) -> None:
        self._said.put_nowait({"type": "websocket.receive", "text": msgspec.json.encode(message).decode()})

    async def receive(self) -> dict[str, Any]:
        return await self._said.get()

    async def send_data(self, text: str) -> None:
        told = msgspec.json.decode(text)
        if told["type"] == "event":
            self._heard.append(told)
        elif told["type"] == "ping":
            self._send({"type": "pong"})


async def watcher(process: Process) -> None:
    """Connects again, and resumes behind what it heard, whenever its socket closes."""
    world = process.world
    claims = Claims(subject=WATCHER.id, session_id=None, role=None, scopes=frozenset(), issued_at=NEVER, expires_at=NEVER)
    services: Any = SimpleNamespace(
        access_tokens=SimpleNamespace(verify=lambda *_, **__: claims),
        live_reads=AsyncPort(process, MemoryReads(world), "database", store_away),
        notifications=world.live,
        read_position=MemoryReadPosition(world),
    )
    identities: Any = SimpleNamespace(authenticate=lambda _, network: Identity(actor=WATCHER))
    options = WebOptions(base_url="http://localhost", live_rows_per_second=10**9)
    accesses = AccessRecorder(MemoryAccessTrail(), ())
    while True:
        hub = LiveHub(services, options, identities, Admission(), accesses, clock=world.clock.monotonic)
        ended = await LiveConnection(Socket(world.heard), hub).run()  # type: ignore[arg-type]
        world.tell(f"the watcher's socket closed: {ended}")
        await asyncio.sleep(0.5)


async def forger(process: Process) -> None:
    """Publishes what did not happen, in the form of what does, and garbage."""
    world = process.world
    while not world.is_calm:
        await asyncio.sleep(world.chance.expovariate(1 / FORGED_EVERY_SECONDS))
        head = world.recorder.max_notification_id() or 0
        position = world.chance.choice([0, -1, head + 1, head + 1000, 2**62])
        forged = msgspec.json.encode({"position": position, "datasets": [], "users": [str(WATCHER.id)]})
        world.live.publish(CHANNEL, world.chance.choice([forged, forged, b"garbage", b""]))
        world.counted["notifications forged"] += 1
    await asyncio.Event().wait()


async def all_is_heard(world: World) -> None:
    """Return once the watcher has heard of the newest event and nothing is under way, or after a while."""
    until = world.clock.passed + TOLD_WITHIN_SECONDS
    while world.clock.passed < until:
        if world.heard and world.heard[-1]["position"] == world.recorder.max_notification_id() and at_rest(world):
            return
        await asyncio.sleep(0.25)


def broken_promises(world: World, activity: Mapping[int, Activity]) -> list[str]:
    """What a watcher heard is what happened: all of it, once, in order. What could not be applied in its turn is not told later."""
    positions = [one["position"] for one in world.heard]
    missing = [] if world.counted["poisoned"] else sorted(set(activity) - set(positions))
    false = [one["position"] for one in world.heard if _differs(one, activity.get(one["position"]))]
    return [
        *(["R21 a watcher heard something twice, or out of order"] if positions != sorted(set(positions)) else []),
        *([f"R21 a watcher never heard of {missing[:3]}"] if missing else []),
        *([f"R21 a watcher heard of what did not happen at {false[:3]}"] if false else []),
    ]


def _differs(told: Mapping[str, Any], activity: Activity | None) -> bool:
    return activity is None or (told["event"], told["stream"]) != (activity.type, str(activity.stream))
