"""Typical programming errors, planted into the production code: the simulator must find each."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import msgspec

from api.live.feed import LiveFeed
from application import accounts, commands, datasets
from application.blob_gc import sweep_orphans
from application.jobs import job_scheduler
from application.jobs.planner import Planner
from application.jobs.work_queue import Lease
from application.ports import AppendRejected, AppendResult, ChainedEvent
from domain.classification import chunk
from domain.errors import ConcurrencyConflict, NotFound, Unavailable
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.kafka import cloud_events
from infrastructure.relay import publisher
from projections.engine import batches, projector
from projections.engine.batches import BatchResult, Changes, CheckpointToken
from projections.engine.dead_letters import TouchedIds
from projections.engine.projector import Projector
from projections.engine.sequencer import Sequencer
from tests.simulation import processes
from tests.twins.blobs import MemoryBlobs
from tests.twins.event_store import MemoryRecorder
from tests.twins.read_models import MemoryModels

Fault = Callable[[], AbstractContextManager[None]]


@contextmanager
def planted(*places: tuple[Any, str, Any]) -> Iterator[None]:
    """In the place of `what.name` stands something else, until the block ends."""
    with ExitStack() as undone:
        for where, name, what in places:
            undone.callback(setattr, where, name, getattr(where, name))
            setattr(where, name, what)
        yield


def checkpoint_before_effect() -> AbstractContextManager[None]:
    def write(self: Any, to: Any, changed: Changes) -> None:
        self._connected_models().write(self._token, to, Changes())
        self._token = CheckpointToken(to, self._token.generation)
        self._connected_models().write(self._token, to, changed)

    return planted((Projector, "_write", write))


def acknowledged_before_it_is_committed() -> AbstractContextManager[None]:
    append = RecorderEventStore.append

    def hasty(self: RecorderEventStore, command: Any, *events: Any, **more: Any) -> AppendResult:
        expected = self.head() + len(events)
        try:
            return append(self, command, *events, **more)
        except Unavailable:
            return AppendResult(position=expected, subject=more.get("subject"))

    return planted((RecorderEventStore, "append", hasty))


def gap_skipped() -> AbstractContextManager[None]:
    def over(self: Any, last: int) -> bool:
        if self.checkpoint.position < last:
            (event,) = self._store.read(last - 1, 1)
            checkpoint = self.checkpoint._replace(position=last, hash=event.hash)
            self._projector._write(checkpoint, Changes())
            self.checkpoint = checkpoint
        return True

    return planted((Sequencer, "_fill_up_to", over))


def claim_forgotten() -> AbstractContextManager[None]:
    def start(log: Any, command: Any, events: Any, *, claims: Any = (), **more: Any) -> Any:
        return commands.create_stream(log, command, events, **more)

    return planted((accounts, "create_stream", start))


def key_forgotten() -> AbstractContextManager[None]:
    append = RecorderEventStore.append

    def anew(self: RecorderEventStore, command: Any, *events: Any, **more: Any) -> AppendResult:
        return append(self, msgspec.structs.replace(command, id=uuid4()), *events, **more)

    return planted((RecorderEventStore, "append", anew))


def conflict_taken_for_success() -> AbstractContextManager[None]:
    append = RecorderEventStore.append

    def careless(self: RecorderEventStore, command: Any, *events: Any, **more: Any) -> AppendResult:
        try:
            return append(self, command, *events, **more)
        except ConcurrencyConflict:
            return AppendResult(position=self.head(), subject=more.get("subject"))

    return planted((RecorderEventStore, "append", careless))


def if_match_ignored() -> AbstractContextManager[None]:
    def change(*given: Any, expected: int | None = None, **more: Any) -> Any:
        return commands.execute(*given, **more)

    return planted((datasets, "execute", change))


def guard_without_effect() -> AbstractContextManager[None]:
    append = RecorderEventStore.append

    def unguarded(self: RecorderEventStore, command: Any, *events: Any, guards: Any = (), **more: Any) -> AppendResult:
        return append(self, command, *events, **more)

    return planted((RecorderEventStore, "append", unguarded))


def plan_begins_again_after_a_crash() -> AbstractContextManager[None]:
    resumed = Planner._resumed

    def from_the_beginning(self: Planner, job: Any, work: Any) -> Any:
        progress = resumed(self, job, work)
        return progress and progress._replace(last=0)

    return planted((Planner, "_resumed", from_the_beginning))


def lost_work_never_given_out_again() -> AbstractContextManager[None]:
    return planted((job_scheduler, "expired_leases", lambda *_, **__: []))


def chunk_judged_twice() -> AbstractContextManager[None]:
    return planted((chunk, "chunk_id", lambda job, number: uuid4()), (chunk, "violation_of", lambda *_, **__: None))


def poison_skipped() -> AbstractContextManager[None]:
    def skip(self: Any, event: Any, to: Any, error: Exception) -> BatchResult:
        self._write(to, Changes())
        return BatchResult(event.position)

    return planted((Projector, "_apply_again_or_give_up", skip))


def nothing_parked_behind_poison() -> AbstractContextManager[None]:
    def all_of_it(self: Any, batch: Any) -> Any:
        return batches.decode_batch(self._decoder, batch), [], self._waiting

    return planted((Projector, "_partition", all_of_it))


def what_touches_a_parked_row_goes_on() -> AbstractContextManager[None]:
    def only_itself(tables: Any, happened: Any) -> TouchedIds:
        return TouchedIds(happened.event.originator_id, {happened.event.originator_id})

    return planted((projector, "touched_ids", only_itself))


def outrun_projector_writes_all_the_same() -> AbstractContextManager[None]:
    def write(self: Any, to: Any, changed: Changes) -> None:
        self._connected_models().write(self._connected_models().read_checkpoint(), to, changed)
        self._token = CheckpointToken(to, self._token.generation)

    return planted((Projector, "_write", write))


def unacked_taken_for_published() -> AbstractContextManager[None]:
    def acknowledged(outcomes: Any) -> Any:
        return (outcome if isinstance(outcome, int) else -1 for outcome in outcomes)

    return planted((publisher, "_acknowledged", acknowledged))


def results_of_the_deleted_shown() -> AbstractContextManager[None]:
    def project(models: Any, batch: Any) -> Any:
        changed, applied = batches.project(models, batch)
        return changed._replace(hidden_jobs=(), hidden_images=()), applied

    return planted((projector, "project", project))


def upload_swept_before_its_event() -> AbstractContextManager[None]:
    return planted((processes, "sweep_orphans", partial(sweep_orphans, min_age=timedelta(0))))


def forged_records_believed() -> AbstractContextManager[None]:
    """Neither is the MAC of a record looked at, nor whether the log holds what is applied."""

    def parsed(record: Any, key: Any) -> ChainedEvent:
        try:
            return cloud_events._parsed(dict(record.headers), record.value)
        except Exception:
            raise AppendRejected("malformed", "") from None

    def believed(self: Any, at: Any) -> bool:
        return True

    return planted((processes, "authenticated", parsed), (MemoryModels, "_in_log", believed))


def lies_taken() -> AbstractContextManager[None]:
    return planted((MemoryRecorder, "_ruled", lambda self, events: None))


def other_bytes_believed() -> AbstractContextManager[None]:
    """What the store gives is not compared with its name."""

    def read(self: MemoryBlobs, sha256: str) -> bytes:
        if sha256 not in self.kept:
            raise NotFound("There is no such file")
        return self.kept[sha256]

    return planted((MemoryBlobs, "read", read))


def swept_by_a_clock_a_day_ahead() -> AbstractContextManager[None]:
    """Files are kept for hours, which is long enough while clocks are right."""
    return planted((processes, "sweep_orphans", partial(sweep_orphans, min_age=timedelta(hours=12))))


def held_until_a_time_to_come() -> AbstractContextManager[None]:
    """What was given out before the database's clock was set back."""

    def lost(leases: Any, workers: Any, *, duration: timedelta, now: datetime) -> list[Lease]:
        last_beat = max((worker.seen_at for worker in workers), default=now)
        return [one for one in leases if not one.abandoned and now - one.held_at > duration and last_beat > one.held_at]

    return planted((job_scheduler, "expired_leases", lost))


def notifications_believed() -> AbstractContextManager[None]:
    """A watcher goes on behind the position that it was notified of."""

    async def ring(self: Any) -> None:
        async with self._services.notifications.subscribe() as news:
            while True:
                if await news.wait(1.0) and self._subscription is not None:
                    with suppress(msgspec.DecodeError, KeyError):
                        self._subscription.position = msgspec.json.decode(self._services.notifications.said)["position"] - 1
                self._wake_up.set()

    return planted((LiveFeed, "watch_notifications", ring))


FAULTS_THAT_LIES_SHOW: tuple[Fault, ...] = (
    lies_taken,
    other_bytes_believed,
    swept_by_a_clock_a_day_ahead,
    held_until_a_time_to_come,
    notifications_believed,
)
FAULTS: tuple[Fault, ...] = (
    checkpoint_before_effect,
    acknowledged_before_it_is_committed,
    gap_skipped,
    claim_forgotten,
    key_forgotten,
    conflict_taken_for_success,
    if_match_ignored,
    guard_without_effect,
    plan_begins_again_after_a_crash,
    lost_work_never_given_out_again,
    chunk_judged_twice,
    poison_skipped,
    nothing_parked_behind_poison,
    what_touches_a_parked_row_goes_on,
    outrun_projector_writes_all_the_same,
    unacked_taken_for_published,
    results_of_the_deleted_shown,
    upload_swept_before_its_event,
    forged_records_believed,
)
