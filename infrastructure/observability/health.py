"""Health checks of all dependencies, run concurrently, each with a timeout."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from struct import pack, unpack
from typing import Final, NamedTuple

import msgspec
import redis.asyncio

from application.ports import BlobStore
from application.services import DependencyHealth, QueryDatabase
from domain.values import printable
from infrastructure.configuration.settings import Settings
from infrastructure.observability.crash_counts import crash_loops, crashes_file
from infrastructure.postgres.system.status import DeclaredProcess, SystemStatus, system_status

MAX_LAG_SECONDS: Final = 30.0  # for an event to be published or projected
MAX_NAMED_PROCESSES: Final = 3  # in one message
MAX_NAMED_MODELS: Final = 3
ABSENT_BLOB: Final = "0" * 64  # a blob that does not exist
API_VERSIONS: Final = pack(">ihhih", 10, 18, 0, 1, -1)  # length, API key, version, correlation id, no client id

CHANGED: Final = "the checkpoint was changed or the log truncated; nothing is published until you repair it (docs/operations.md)"

SUPERVISED: Final = {"kafka": "broker", "scheduler": "projector"}
"""The supervisor's process for a dependency, if its name differs."""

HealthProbe = Callable[[], Awaitable[list[DependencyHealth]]]


class HealthLimits(NamedTuple):
    """`check_seconds` is the timeout of a check; results are cached for `cache_seconds`."""

    check_seconds: float = 1.5
    cache_seconds: float = 1.0


DEFAULT_LIMITS: Final = HealthLimits()


class DependencyChecks:
    """Implements `HealthChecks`."""

    def __init__(
        self,
        settings: Settings,
        *,
        reads: QueryDatabase,
        blobs: BlobStore,
        limits: HealthLimits = DEFAULT_LIMITS,
        access_trail_fails: Callable[[], float | None] = lambda: None,
    ) -> None:
        """`access_trail_fails` is the number of seconds for which the trail of access could not be written; None while it can."""
        self._settings, self._reads, self._blobs, self._limits = settings, reads, blobs, limits
        self._access_trail_fails = access_trail_fails
        self._redis = redis.asyncio.Redis.from_url(
            settings.redis_url,
            socket_connect_timeout=limits.check_seconds,
            socket_timeout=limits.check_seconds,
            protocol=2,
            max_connections=2,
        )
        self._blobs_probe: asyncio.Task[bool] | None = None
        self._lock = asyncio.Lock()
        self._cached: tuple[float, list[DependencyHealth]] = (0.0, [])

    async def close(self) -> None:
        await self._redis.aclose()

    async def examine(self) -> list[DependencyHealth]:
        async with self._lock:
            expires_at, results = self._cached
            if time.monotonic() >= expires_at:
                results = await self._examine()
                self._cached = (time.monotonic() + self._limits.cache_seconds, results)
            return results

    async def _examine(self) -> list[DependencyHealth]:
        probes: Mapping[str, HealthProbe] = {
            "postgres relay projector scheduler inference inference-bridge mail": self._probe_postgres,
            "kafka": self._probe_kafka,
            "redis": self._probe_redis,
            "blobs": self._probe_blobs,
        }
        seconds = self._limits.check_seconds
        results = await asyncio.gather(*(_within_timeout(names.split(), probe, seconds) for names, probe in probes.items()))
        loops = crash_loops(crashes_file(self._settings.data))
        return [*(_crashing(dependency, loops) for group in results for dependency in group), *self._access_trail()]

    def _access_trail(self) -> list[DependencyHealth]:
        """Reported only while it cannot be written."""
        seconds = self._access_trail_fails()
        return [] if seconds is None else [_unhealthy("access-trail", f"no record could be written for {seconds:.0f} s: they wait")]

    async def _probe_postgres(self) -> list[DependencyHealth]:
        status = await system_status(self._reads)
        return [
            _healthy("postgres", f"the log has {status.head} events"),
            *readiness_of(status, silence_seconds=self._settings.chunk_lease_seconds),
        ]

    async def _probe_kafka(self) -> list[DependencyHealth]:
        brokers = self._settings.kafka_url.split(",")
        answers = await asyncio.gather(*map(_broker_answers, brokers), return_exceptions=True)
        answering = sum(answer is True for answer in answers)
        details = f"{answering} of {len(brokers)} brokers answer"
        return [_healthy("kafka", details) if answering else _unhealthy("kafka", f"{details}: commands work, results wait")]

    async def _probe_redis(self) -> list[DependencyHealth]:
        await self._redis.ping()
        return [_healthy("redis", "answers")]

    async def _probe_blobs(self) -> list[DependencyHealth]:
        """Run one probe at a time, so that a store that does not answer does not accumulate threads."""
        if self._blobs_probe is None or self._blobs_probe.done():
            self._blobs_probe = asyncio.create_task(asyncio.to_thread(self._blobs.exists, ABSENT_BLOB))
            self._blobs_probe.add_done_callback(lambda probe: probe.cancelled() or probe.exception())
        await asyncio.shield(self._blobs_probe)
        return [_healthy("blobs", "answers")]


def readiness_of(status: SystemStatus, *, silence_seconds: float = 60.0) -> list[DependencyHealth]:
    """The health of the processes, as the database shows it. An external classifier that stays silent for longer is reported."""
    return [
        _lag_of("relay", "published", status.unpublished, status.unpublished_age, cause=_may_be_missing("relay"))
        if status.is_published_in_log
        else _unhealthy("relay", f"ops.relay is at position {status.published}, but the log ends at {status.head}: {CHANGED}", status.head),
        _projector(status),
        _healthy("scheduler", "leads")
        if status.scheduling
        else _unhealthy("scheduler", "no process leads: jobs wait. Is a projector process running?"),
        _healthy("inference", f"{status.workers} running")
        if status.workers
        else _unhealthy("inference", "no worker was seen for 10 s: images wait. Is an inference process running?"),
        _bridge(status, silence_seconds),
        _mail(status),
        *_pending_upgrades(status),
    ]


def _projector(status: SystemStatus) -> DependencyHealth:
    """The health of the projector: unhealthy while there are dead letters, since only an operator can complete the read models.

    The system is degraded then, but is neither restarted nor taken out of service.
    """
    lag, projectors = status.head - status.projected, [process for process in status.processes if process.kind == "projector"]
    if not status.fits:
        return _unhealthy("projector", f"the read models are at position {status.projected} of another log: run `bioscope rebuild`")
    if lag > 0 and projectors and all(process.paused for process in projectors):
        return _unhealthy("projector", f"{lag} events are not shown yet: {projectors[0].paused}", lag)
    is_running = bool(projectors) or status.scheduling
    cause = ": a projector runs, but does not apply them; see its log" if is_running else _may_be_missing("projector")
    health = _lag_of("projector", "shown", lag, status.unprojected_age, cause=cause, also=_dead_letters(status))
    return _unhealthy(health.name, health.detail, health.lag) if status.dead_letters else health


def _bridge(status: SystemStatus, silence_seconds: float) -> DependencyHealth:
    """The health of the bridges, and of the external classifiers as far as their answers show it."""
    name = "inference-bridge"
    if not status.bridges:
        if not status.external_jobs:
            return _healthy(name, "none is running, and no job needs one")
        waiting = f"no bridge was seen for 10 s: {status.external_jobs} jobs of external classifiers wait"
        return _unhealthy(name, f"{waiting}. Is an inference-bridge process running?")
    silent = [one for one in status.external_waits if one.silence > silence_seconds]
    if silent:
        images, seconds = sum(one.images for one in silent), max(one.silence for one in silent)
        counts = f"models: {len(silent)}, images that wait: {images}, longest silence: {seconds:.0f} s"
        health = _unhealthy(name, f"no answer comes from external classifiers ({counts}): see docs/models/external.md, section Silence")
        return msgspec.structs.replace(health, silent_models=tuple(printable(one.model) for one in silent[:MAX_NAMED_MODELS]))
    return _healthy(name, f"{status.bridges} running; images that wait for an answer: {sum(one.images for one in status.external_waits)}")


def _mail(status: SystemStatus) -> DependencyHealth:
    """The health of mail. The reason of a problem names the server, so `bioscope mail status` shows it to operators only."""
    if status.mail_problem:
        return _unhealthy("mail", f"mails cannot be sent for {status.mail_waiting:.0f} s and wait: see `bioscope mail status`")
    return _healthy("mail", f"refused mails: {status.mails_refused}")


def _pending_upgrades(status: SystemStatus) -> list[DependencyHealth]:
    """Processes that are paused, and processes that do not understand an event type that was written."""
    details = [f"{_name(process)} is paused: {process.paused}" for process in status.processes if process.paused]
    details += [
        f"{_name(process)} does not understand {', '.join(process.lacks)}: upgrade it"
        for process in status.processes
        if process.lacks and not process.paused
    ]
    return [_unhealthy("upgrade", "; ".join(details[:MAX_NAMED_PROCESSES]))] if details else []


def _name(process: DeclaredProcess) -> str:
    return printable(f"{process.kind} {process.process} (release {process.release})")


def _crashing(dependency: DependencyHealth, loops: Mapping[str, int]) -> DependencyHealth:
    """A dependency in a crash loop is unhealthy even if it answers now. Postgres is not: while it answers, requests are served."""
    name = SUPERVISED.get(dependency.name, dependency.name)
    if name not in loops or dependency.name == "postgres":
        return dependency
    return _unhealthy(dependency.name, f"{name} ended {loops[name]} times within a minute: see {name}.log in the logs of the data folder")


def _may_be_missing(name: str) -> str:
    return f". Is a {name} process running?"


def _lag_of(name: str, done: str, lag: int, age: float, *, cause: str, also: str = "") -> DependencyHealth:
    if lag > 0 and age > MAX_LAG_SECONDS:
        return _unhealthy(name, f"{lag} events are not {done} yet, the oldest for {age:.0f} s{cause}{also}", lag)
    return _healthy(name, (f"{lag} events behind" if lag > 0 else f"all events are {done}") + also, max(0, lag))


def _dead_letters(status: SystemStatus) -> str:
    if not status.dead_letters:
        return ""
    return f"; {status.dead_letters} dead letters, {status.parked} parked events: see `bioscope dead-letters list`"


async def _within_timeout(names: list[str], probe: HealthProbe, seconds: float) -> list[DependencyHealth]:
    try:
        async with asyncio.timeout(seconds):
            return await probe()
    except TimeoutError:
        return [_unhealthy(name, f"no answer within {seconds} s") for name in names[:1]] + [_unknown(name) for name in names[1:]]
    except Exception as error:  # any driver error means that the dependency does not work
        return _failed(names, f"unavailable ({type(error).__name__})")


def _failed(names: list[str], reason: str) -> list[DependencyHealth]:
    """The first dependency is unhealthy; the others are unknown without it."""
    return [_unhealthy(names[0], reason), *map(_unknown, names[1:])]


async def _broker_answers(address: str) -> bool:
    """Whether the server speaks the Kafka protocol: its answer repeats the correlation id of the request."""
    host, _, port = address.strip().rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    try:
        writer.write(API_VERSIONS)
        _, number = unpack(">ii", await reader.readexactly(8))
        return bool(number == 1)
    finally:
        writer.close()


def _healthy(name: str, detail: str, lag: int | None = None) -> DependencyHealth:
    return DependencyHealth(name=name, ok=True, detail=detail, lag=lag)


def _unhealthy(name: str, detail: str, lag: int | None = None) -> DependencyHealth:
    return DependencyHealth(name=name, ok=False, detail=detail, lag=lag)


def _unknown(name: str) -> DependencyHealth:
    return _unhealthy(name, "unknown while Postgres does not answer")
