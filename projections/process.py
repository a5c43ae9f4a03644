"""The composition root of `bioscope projector`, and of what the command line does to read models."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from typing import NoReturn
from uuid import UUID

import psycopg
import redis.asyncio
import structlog

from application.blob_gc import sweep_orphans
from application.job_scheduler import Scheduler
from application.ports import Command, RecordedEvent
from application.topics import EVENTS
from application.work_queue import OutgoingTask
from domain import dead_letter
from domain.errors import NotFound
from domain.events import Event
from infrastructure.blobs.store import open_blobs
from infrastructure.configuration.settings import Settings
from infrastructure.eventstore.capabilities import capabilities_of
from infrastructure.eventstore.codec import Undecodable
from infrastructure.eventstore.event_store import RecorderEventStore, open_event_store, postgres_event_store
from infrastructure.eventstore.garbage_collection import infrequent_collection
from infrastructure.eventstore.pruning import prune
from infrastructure.kafka.cloud_events import RecordKey, authenticated
from infrastructure.kafka.consumer_process import ConsumerProcess
from infrastructure.kafka.producer import Sender
from infrastructure.observability.metrics import ORPHANS_FREED, ORPHANS_LEFT, ORPHANS_SWEPT_AT
from infrastructure.postgres.errors import database_unavailable
from infrastructure.postgres.notifications import listen
from infrastructure.postgres.profiles import OWNER, READ_MODELS, SCHEDULER
from infrastructure.postgres.system.work_queue import PostgresWorkQueue
from infrastructure.postgres.wake_ups import APPENDED, DISPATCHED, PROJECTED, PUBLISHED, WakeUps
from infrastructure.security.key_ring import NO_KEYS
from infrastructure.security.keys import WrongRootKey
from infrastructure.security.process_keys import process_keys
from projections import activity
from projections.background import BackgroundTasks
from projections.blob_references import in_use
from projections.engine import batches, postgres_store
from projections.engine import dead_letters as letters
from projections.engine.batches import BatchResult, ReadModels
from projections.engine.checkpoints import CheckpointUnfit, FoldsDiffer
from projections.engine.dead_letters import DeadLetter, Retried
from projections.engine.postgres_store import PostgresReadModels
from projections.engine.projection import PositionedEvent
from projections.engine.projector import Projector
from projections.engine.row_cache import RowCache
from projections.engine.sequencer import Sequencer
from projections.engine.subscription import CatchUpSubscription
from projections.live_notifier import LiveNotifier
from projections.rebuild import rebuilding
from projections.rebuild.digests import LIVE
from projections.rebuild.rebuilding import Rebuilt
from projections.rebuild.write_behind import WriteBehind

logger = structlog.get_logger()

GROUP = "bioscope-projector"
STOP_TIMEOUT_SECONDS = 0.75  # seconds that what goes on aside may take to end
PATIENT = READ_MODELS.having(statement_timeout="30s")
ADD = """insert into ops.counters (name, label, value) select %s, unnest(%s::text[]), unnest(%s::bigint[])
  on conflict (name, label) do update set value = counters.value + excluded.value returning 1"""


class LogDecoder:
    """Events out of the log, with the keys of their subjects."""

    def __init__(self, log: RecorderEventStore) -> None:
        self._log = log

    def prefetch(self, recorded: Sequence[RecordedEvent]) -> None:
        self._log.codec.prefetch(recorded)

    def decode(self, recorded: RecordedEvent) -> Event:
        return self._log.decode(recorded)

    def forget(self, subject: UUID) -> None:
        self._log.codec.forget(subject)


def projector_over(url: str, log: RecorderEventStore, schema: str = LIVE, *, alone: bool = False) -> Projector:
    """Over the read models in `schema`. `alone`: nobody else reads or writes them, so they may be a batch behind."""

    def models() -> ReadModels:
        found = PostgresReadModels(postgres_store.connect(url, schema=schema, monitored=True))
        return RowCache(WriteBehind(found) if alone else found)

    return Projector(models, LogDecoder(log), discarded=log.discarded, fatal=(WrongRootKey,))


# ---- the process -------------------------------------------------------------------------------------------------------------------
def run_projector(given: Settings) -> NoReturn:
    """Build the read models, and schedule, until SIGTERM. A second one stands by. Raises WrongRootKey."""
    keys = process_keys(given, "projector")
    log = postgres_event_store(given, keys)
    capabilities = capabilities_of(log, "projector")

    wakes = WakeUps(given.postgres_url)

    def count(name: str, numbers: Mapping[str, int]) -> None:
        log.recorder.rows(ADD, name, list(numbers), list(numbers.values()))

    scheduler = OwnersScheduler(
        lambda: PostgresWorkQueue(
            postgres_store.connect(given.postgres_url, monitored=True, profile=SCHEDULER),
            on_dispatched=partial(wakes.send, DISPATCHED),
        ),
        log,
        lease=given.chunk_lease_seconds,
        attempts=given.chunk_attempts,
    )
    scheduler.owns = lambda: member.owns(EVENTS)
    aside = BackgroundTasks(
        scheduler,
        LiveNotifier(publisher(given.redis_url)),
        Sender(given.kafka_url),
        chores=(partial(sweep, given), partial(remove_old_rows, given)),
    )

    def applied(news: BatchResult) -> None:
        wakes.send(PROJECTED, str(news.position))
        aside.applied(news)

    feed = Sequencer(projector_over(given.postgres_url, log), log, applied=applied)
    follower = CatchUpSubscription(
        feed,
        log,
        authenticated=partial(authenticated, key=RecordKey(keys)),
        owns=lambda: member.owns(EVENTS),
        count=count,
        pausing=capabilities.pausing,
    )
    member: ConsumerProcess = ConsumerProcess(given, group=GROUP, topics=(EVENTS,), reader=follower, name="projector")

    async def finish() -> None:
        await follower.finish()
        await asyncio.wait_for(asyncio.to_thread(aside.stop), STOP_TIMEOUT_SECONDS)
        await asyncio.to_thread(capabilities.stop)

    capabilities.start()
    aside.start()
    heard = {PUBLISHED: member.wake, APPENDED: follower.wake}
    with infrequent_collection():
        member.run(follower.follow_store, lambda: listen(given.postgres_url, heard), finish=finish)


def sweep(given: Settings) -> None:
    """Free the stored files that nothing refers to any more, and report what was left.

    Raises FoldsDiffer (what read models of another release refer to, this one does not know), Unavailable, psycopg.Error.
    """
    with postgres_store.connect(given.postgres_url, monitored=True) as connection:
        PostgresReadModels(connection).target()
        swept = sweep_orphans(open_blobs(given, NO_KEYS), partial(in_use, connection), now=datetime.now(UTC))
    ORPHANS_FREED.inc(swept.freed)
    ORPHANS_LEFT.set(swept.waiting)
    ORPHANS_SWEPT_AT.set_to_current_time()
    if swept.waiting:
        logger.warning("orphans left", blobs=swept.waiting, reason="events that could not be applied may refer to them")
    if swept.freed:
        logger.info("orphans swept", blobs=swept.freed)


def remove_old_rows(given: Settings) -> None:
    """Raises psycopg.Error."""
    with postgres_store.connect(given.postgres_url, monitored=True) as connection:
        removed = prune(connection)
    if any(removed.values()):
        logger.info("old rows removed", **removed)


class OwnersScheduler(Scheduler):
    """Leaves the lead to the member that the log's topic belongs to: there every batch wakes it at once."""

    owns: Callable[[], bool | None] = staticmethod(lambda: None)

    def tick(self) -> list[OutgoingTask]:
        if self.owns() is False:
            self.is_idle = False  # it may be ours in a moment, and this look costs nothing
            self.close()
            return []
        return super().tick()


def publisher(url: str) -> Callable[[str, bytes], Awaitable[object]]:
    """Publishes on Redis; without one, nowhere."""
    if not url:
        return _send_nowhere
    client = redis.asyncio.Redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=1.0)
    return client.publish


async def _send_nowhere(_: str, __: bytes) -> None:
    return None


# ---- what the command line does ----------------------------------------------------------------------------------------------------
def rebuild(given: Settings, *, check: bool, progress: rebuilding.Progress = lambda *_: None) -> Rebuilt:
    """Make the read models anew from the log; with `check` only compare them with the live ones. Raises AlreadyRebuilding."""
    url = given.postgres_owner_url or given.postgres_url
    with open_event_store(given) as log, OWNER.connect_unmonitored(url) as owner, infrequent_collection():
        over = partial(projector_over, url, log, alone=True)
        return rebuilding.rebuild(owner, projector_over=over, log=log, check=check, progress=progress)


def rebuild_if_folds_differ(given: Settings, *, beginning: Callable[[str], object] = lambda _: None) -> bool:
    """Make the read models anew, beside the live ones, where an older release folded them by other rules; whether that was done.

    `beginning` gets the reason first. They stay as they are where a newer release wrote events, which raises UpgradeNeeded, or folded
    them, which raises FoldsDiffer: this one may have been started again in the middle of an upgrade.
    """
    with closing(PostgresReadModels(postgres_store.connect(given.postgres_owner_url or given.postgres_url))) as models:
        try:
            models.target()
        except FoldsDiffer as difference:
            if difference.is_newer:
                raise
            beginning(difference.reason)
        except CheckpointUnfit:
            return False  # `/health/ready` says so, and what to do
        else:
            return False
    rebuild(given, check=False)
    return True


def positions_about(given: Settings, about: UUID) -> list[int]:
    """The positions of all events that touch a thing, without a check of access. Raises Unavailable."""
    asked = activity.EVERYTHING | {"about": about, "position": 0, "maximum": None}
    try:
        with postgres_store.connect(given.postgres_url, profile=PATIENT) as connection:
            return [position for (position,) in connection.execute(activity.ABOUT, asked)]
    except psycopg.OperationalError:
        raise database_unavailable() from None


def dead_letters(given: Settings) -> list[DeadLetter]:
    with open_event_store(given) as log, postgres_store.connect(given.postgres_url) as connection:
        return listed(connection, log)


def listed(connection: psycopg.Connection, log: RecorderEventStore) -> list[DeadLetter]:
    """`connection` is one to the read models."""

    def touches(positions: Sequence[int]) -> dict[int, set[UUID]]:
        events = log.at(positions)
        log.prefetch(events)
        return {event.position: touched(log, event) for event in events}

    return letters.listed(connection, PostgresReadModels(connection), touches=touches)


def retry_dead_letters(given: Settings, position: int | None) -> Retried:
    """Apply a dead letter, or all, again. Harmless to repeat. Raises FoldsDiffer, CheckpointUnfit."""
    with open_event_store(given) as log, postgres_store.connect(given.postgres_url) as connection:
        projector = projector_over(given.postgres_url, log)
        try:
            return retry(projector, PostgresReadModels(connection), log, position)
        finally:
            projector.close()


def discard_dead_letter(given: Settings, position: int, *, reason: str, command: Command) -> Retried:
    """Record that a dead letter is given up, and apply what waits behind it. Harmless to repeat.

    Raises NotFound, Invalid, AlreadyRebuilding, and before anything is recorded FoldsDiffer and CheckpointUnfit.
    """
    with open_event_store(given) as log, postgres_store.connect(given.postgres_url) as connection:
        projector = projector_over(given.postgres_url, log)
        try:
            return discard(projector, connection, log, position, reason=reason, command=command)
        finally:
            projector.close()


def discard(
    projector: Projector, connection: psycopg.Connection, log: RecorderEventStore, position: int, *, reason: str, command: Command
) -> Retried:
    """`connection` is one to the projector's read models. A rebuild would pass the event over in a log that shows it at its beginning."""
    models = PostgresReadModels(connection)
    with rebuilding.rebuild_lock(connection):
        models.target()
        record_discard(connection, log, position, reason=reason, command=command)
        return retry(projector, models, log, position)


def record_discard(connection: psycopg.Connection, log: RecorderEventStore, position: int, *, reason: str, command: Command) -> None:
    found = next((one for one in letters.of(connection) if one.position == position), None)
    if found is None:
        raise NotFound(f"There is no dead letter at position {position}: see `bioscope dead-letters list`")
    event = dead_letter.discard(
        position=position,
        stream=found.stream,
        type_name=found.type,
        error=found.reason,
        reason=reason,
        by=command.actor.id,
        at=command.at,
    )
    if position not in log.discarded():
        log.append(command, event, subject=event.originator_id)


def retry(projector: Projector, models: ReadModels, log: RecorderEventStore, position: int | None = None) -> Retried:
    """`models` are the projector's, over a connection of their own."""
    return letters.retry(projector, models, read=lambda at: log.read(at - 1, 1)[0], touches=partial(touched, log), position=position)


def touched(log: RecorderEventStore, recorded: RecordedEvent) -> set[UUID]:
    try:
        return letters.touched(batches.TABLES, PositionedEvent(recorded.position, log.decode(recorded)))
    except Undecodable:
        return {recorded.stream}
