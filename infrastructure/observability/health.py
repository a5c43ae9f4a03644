"""Whether each thing that the system needs is there, asked at once, each with its own patience."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from struct import pack, unpack
from typing import Final

import redis.asyncio

from application.ports import BlobStore
from application.services import DependencyHealth, QueryDatabase
from domain.values import printable
from infrastructure.configuration.settings import Settings
from infrastructure.observability.crash_counts import crash_loops, crashes_file
from infrastructure.postgres.system.status import DeclaredProcess, SystemStatus, system_status

CHECK_TIMEOUT_SECONDS: Final = 1.5  # seconds
CACHE_SECONDS: Final = 1.0  # seconds for which an answer serves everybody who asks
MAX_LAG_SECONDS: Final = 30.0  # seconds that an event may wait to be published or shown
MAX_PROCESSES_NAMED: Final = 3  # processes that are named
NOBODY: Final = "0" * 64  # a blob that does not exist
API_VERSIONS: Final = pack(">ihhih", 10, 18, 0, 1, -1)  # what every Kafka client asks first: length, call, version, number, no name

CHANGED: Final = "somebody changed it, and nothing is published until that is mended (docs/operations.md)"

SUPERVISED: Final = {"kafka": "broker", "scheduler": "projector"}
"""The supervisor's name of what a dependency depends on, where it has another one."""

HealthProbe = Callable[[], Awaitable[list[DependencyHealth]]]


class DependencyChecks:
    """The port `HealthChecks`."""

    def __init__(self, settings: Settings, *, reads: QueryDatabase, blobs: BlobStore) -> None:
        self._settings, self._reads, self._blobs = settings, reads, blobs
        self._redis = redis.asyncio.Redis.from_url(
            settings.redis_url,
            socket_connect_timeout=CHECK_TIMEOUT_SECONDS,
            socket_timeout=CHECK_TIMEOUT_SECONDS,
            protocol=2,
            max_connections=2,
        )
        self._looking_at_blobs: asyncio.Task[bool] | None = None
        self._turn = asyncio.Lock()
        self._known: tuple[float, list[DependencyHealth]] = (0.0, [])

    async def close(self) -> None:
        await self._redis.aclose()

    async def examine(self) -> list[DependencyHealth]:
        async with self._turn:
            until, found = self._known
            if time.monotonic() >= until:
                found = await self._examine()
                self._known = (time.monotonic() + CACHE_SECONDS, found)
            return found

    async def _examine(self) -> list[DependencyHealth]:
        looks: Mapping[str, HealthProbe] = {
            "postgres relay projector scheduler inference": self._look_at_postgres,
            "kafka": self._look_at_kafka,
            "redis": self._look_at_redis,
            "blobs": self._look_at_blobs,
        }
        found = await asyncio.gather(*(_in_time(names.split(), look) for names, look in looks.items()))
        loops = crash_loops(crashes_file(self._settings.data))
        return [_crashing(dependency, loops) for some in found for dependency in some]

    async def _look_at_postgres(self) -> list[DependencyHealth]:
        stands = await system_status(self._reads)
        return [_good("postgres", f"the log has {stands.head} events"), *readiness_of(stands)]

    async def _look_at_kafka(self) -> list[DependencyHealth]:
        brokers = self._settings.kafka_url.split(",")
        answers = await asyncio.gather(*map(_broker_answers, brokers), return_exceptions=True)
        there = sum(answer is True for answer in answers)
        said = f"{there} of {len(brokers)} brokers answer"
        return [_good("kafka", said) if there else _bad("kafka", f"{said}: commands are taken, results wait")]

    async def _look_at_redis(self) -> list[DependencyHealth]:
        await self._redis.ping()
        return [_good("redis", "answers")]

    async def _look_at_blobs(self) -> list[DependencyHealth]:
        """One look at a time: a store that does not answer must not gather threads."""
        if self._looking_at_blobs is None or self._looking_at_blobs.done():
            self._looking_at_blobs = asyncio.create_task(asyncio.to_thread(self._blobs.exists, NOBODY))
            self._looking_at_blobs.add_done_callback(lambda look: look.cancelled() or look.exception())
        await asyncio.shield(self._looking_at_blobs)
        return [_good("blobs", "answers")]


def readiness_of(stands: SystemStatus) -> list[DependencyHealth]:
    """Those parts of the system of which the database knows, for an operator."""
    return [
        _follower("relay", "published", stands.unpublished, stands.unpublished_age)
        if stands.is_published_in_log
        else _bad("relay", f"ops.relay stands at position {stands.published}, and the log ends at {stands.head}: {CHANGED}", stands.head),
        _projector(stands),
        _good("scheduler", "leads") if stands.scheduling else _bad("scheduler", "nobody leads: jobs wait. Is a projector process running?"),
        _good("inference", f"{stands.workers} at work")
        if stands.workers
        else _bad("inference", "no worker was seen for 10 s: images wait. Is an inference process running?"),
        *_upgrades(stands),
    ]


def _projector(stands: SystemStatus) -> DependencyHealth:
    """Not well while an event waits that could not be applied: what is shown lacks something, and nothing but a person can mend it. That
    degrades the system; it goes on, and is not restarted or taken out of service for it."""
    lag, projectors = stands.head - stands.projected, [one for one in stands.processes if one.kind == "projector"]
    if not stands.fits:
        return _bad("projector", f"the read models stand at position {stands.projected} of another log: run `bioscope rebuild`")
    if lag > 0 and projectors and all(one.paused for one in projectors):
        return _bad("projector", f"{lag} events are not shown yet: {projectors[0].paused}", lag)
    found = _follower("projector", "shown", lag, stands.unprojected_age, also=_letters(stands))
    return _bad(found.name, found.detail, found.lag) if stands.dead_letters else found


def _upgrades(stands: SystemStatus) -> list[DependencyHealth]:
    """The processes that pause, and those that would as soon as they met what is written already; nothing where there are none."""
    said = [f"{_name(one)} pauses: {one.paused}" for one in stands.processes if one.paused]
    said += [
        f"{_name(one)} does not understand {', '.join(one.lacks)}: upgrade it" for one in stands.processes if one.lacks and not one.paused
    ]
    return [_bad("upgrade", "; ".join(said[:MAX_PROCESSES_NAMED]))] if said else []


def _name(one: DeclaredProcess) -> str:
    return printable(f"{one.kind} {one.process} (release {one.release})")


def _crashing(dependency: DependencyHealth, loops: Mapping[str, int]) -> DependencyHealth:
    """What answers just now is not well where its process keeps ending. Postgres is left out: while it answers, requests are served."""
    name = SUPERVISED.get(dependency.name, dependency.name)
    if name not in loops or dependency.name == "postgres":
        return dependency
    return _bad(dependency.name, f"{name} ended {loops[name]} times within a minute: see {name}.log in the logs of the data folder")


def _follower(name: str, done: str, lag: int, age: float, also: str = "") -> DependencyHealth:
    if lag > 0 and age > MAX_LAG_SECONDS:
        return _bad(name, f"{lag} events are not {done} yet, the oldest for {age:.0f} s. Is a {name} process running?{also}", lag)
    return _good(name, (f"{lag} events behind" if lag > 0 else f"all events are {done}") + also, max(0, lag))


def _letters(stands: SystemStatus) -> str:
    if not stands.dead_letters:
        return ""
    return f"; {stands.dead_letters} dead letters, {stands.parked} events parked behind them: see `bioscope dead-letters list`"


async def _in_time(names: list[str], look: HealthProbe) -> list[DependencyHealth]:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            return await look()
    except TimeoutError:
        return [_bad(name, f"no answer within {CHECK_TIMEOUT_SECONDS} s") for name in names[:1]] + [_unknown(name) for name in names[1:]]
    except Exception as error:  # whatever a driver says: the one thing that is asked is whether it works
        return [_bad(name, f"away ({type(error).__name__})") for name in names[:1]] + [_unknown(name) for name in names[1:]]


async def _broker_answers(address: str) -> bool:
    """It speaks Kafka: it repeats the number of what we asked."""
    host, _, port = address.strip().rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    try:
        writer.write(API_VERSIONS)
        _, number = unpack(">ii", await reader.readexactly(8))
        return bool(number == 1)
    finally:
        writer.close()


def _good(name: str, detail: str, lag: int | None = None) -> DependencyHealth:
    return DependencyHealth(name=name, ok=True, detail=detail, lag=lag)


def _bad(name: str, detail: str, lag: int | None = None) -> DependencyHealth:
    return DependencyHealth(name=name, ok=False, detail=detail, lag=lag)


def _unknown(name: str) -> DependencyHealth:
    return _bad(name, "not known: Postgres does not say")
