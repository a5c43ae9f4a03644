"""The composition root of the projector process."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, NoReturn

import redis.asyncio

from application.jobs.job_scheduler import Scheduler
from application.jobs.topics import EVENTS
from application.jobs.work_queue import OutgoingTask
from infrastructure.configuration.settings import Settings
from infrastructure.eventstore.capabilities import capabilities_of
from infrastructure.eventstore.event_store import PostgresEventStore, postgres_event_store
from infrastructure.eventstore.garbage_collection import infrequent_collection
from infrastructure.kafka.cloud_events import RecordKey, authenticated
from infrastructure.kafka.consumer_process import ConsumerProcess
from infrastructure.kafka.producer import Sender
from infrastructure.postgres.notifications import listen
from infrastructure.postgres.profiles import SCHEDULER
from infrastructure.postgres.system.work_queue import PostgresWorkQueue
from infrastructure.postgres.wake_ups import APPENDED, DISPATCHED, PROJECTED, PUBLISHED, WakeUps
from infrastructure.security.process_keys import process_keys
from projections.engine import postgres_store
from projections.engine.batches import BatchResult
from projections.engine.sequencer import Sequencer
from projections.engine.subscription import DEFAULT_LIMITS, CatchUpSubscription, SubscriptionLimits
from projections.process.background import BackgroundTasks
from projections.process.composition import projector_over
from projections.process.housekeeping import remove_old_rows, sweep
from projections.process.live_notifier import LiveNotifier
from projections.process.policies import apply_policies

CONSUMER_GROUP: Final = "bioscope-projector"
BACKGROUND_STOP_TIMEOUT_SECONDS: Final = 0.75
REDIS_TIMEOUT_SECONDS: Final = 1.0
ADD_TO_COUNTERS = """insert into ops.counters (name, label, value) select %s, unnest(%s::text[]), unnest(%s::bigint[])
  on conflict (name, label) do update set value = counters.value + excluded.value returning 1"""


def run_projector(settings: Settings, *, subscription_limits: SubscriptionLimits = DEFAULT_LIMITS) -> NoReturn:
    """Apply events to read models and schedule jobs until SIGTERM. A second process stands by. Raises WrongRootKey."""
    keys = process_keys(settings, "projector")
    log = postgres_event_store(settings, keys)
    capabilities = capabilities_of(log, "projector")
    wakes = WakeUps(settings.postgres_url)

    def owns_log() -> bool | None:
        return member.owns(EVENTS)

    def on_applied(result: BatchResult) -> None:
        wakes.send(PROJECTED, str(result.position))
        background.on_applied(result)

    background = BackgroundTasks(
        _scheduler(settings, log, wakes, owns_log),
        LiveNotifier(redis_publisher(settings.redis_url)),
        Sender(settings.kafka_url),
        chores=(partial(sweep, settings), partial(remove_old_rows, settings)),
        apply_policies=partial(apply_policies, settings.postgres_url),
    )
    subscription = CatchUpSubscription(
        Sequencer(projector_over(settings.postgres_url, log), log, on_applied=on_applied),
        log,
        authenticated=partial(authenticated, key=RecordKey(keys)),
        owns=owns_log,
        count=partial(_add_to_counters, log),
        on_pause=capabilities.pausing,
        limits=subscription_limits,
    )
    member: ConsumerProcess = ConsumerProcess(settings, group=CONSUMER_GROUP, topics=(EVENTS,), reader=subscription, name="projector")

    async def finish() -> None:
        await subscription.finish()
        await asyncio.wait_for(asyncio.to_thread(background.stop), BACKGROUND_STOP_TIMEOUT_SECONDS)
        await asyncio.to_thread(capabilities.stop)

    capabilities.start()
    background.start()
    wake_ups = {PUBLISHED: member.wake, APPENDED: subscription.wake}
    with infrequent_collection():
        member.run(subscription.follow_store, lambda: listen(settings.postgres_url, wake_ups), finish=finish)


class PartitionOwnerScheduler(Scheduler):
    """A scheduler that leads only in the process that owns the log's partition, where every applied batch wakes it at once.

    `owns` returns whether this process does; None while Kafka is unavailable, when any process may lead.
    """

    def __init__(self, *args: Any, owns: Callable[[], bool | None], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._owns = owns

    def tick(self) -> list[OutgoingTask]:
        if self._owns() is False:
            self.is_idle = False  # this process may own the partition soon, and the check is cheap
            self.close()
            return []
        return super().tick()


def redis_publisher(url: str) -> Callable[[str, bytes], Awaitable[object]]:
    """A function that publishes on Redis, or does nothing if no Redis is configured."""
    if not url:
        return _discard
    client = redis.asyncio.Redis.from_url(url, socket_timeout=REDIS_TIMEOUT_SECONDS, socket_connect_timeout=REDIS_TIMEOUT_SECONDS)
    return client.publish


def _scheduler(settings: Settings, log: PostgresEventStore, wakes: WakeUps, owns: Callable[[], bool | None]) -> Scheduler:
    def open_queue() -> PostgresWorkQueue:
        connection = postgres_store.connect(settings.postgres_url, monitored=True, profile=SCHEDULER)
        return PostgresWorkQueue(connection, on_dispatched=partial(wakes.send, DISPATCHED))

    return PartitionOwnerScheduler(open_queue, log, lease=settings.chunk_lease_seconds, attempts=settings.chunk_attempts, owns=owns)


def _add_to_counters(log: PostgresEventStore, name: str, numbers: Mapping[str, int]) -> None:
    log.recorder.rows(ADD_TO_COUNTERS, name, list(numbers), list(numbers.values()))


async def _discard(_channel: str, _message: bytes) -> None:
    return None
