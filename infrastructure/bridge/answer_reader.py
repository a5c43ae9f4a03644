"""The reader of the answers of external classifiers. It verifies and stores each, and nothing that it reads can stop it."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar
from uuid import UUID

import structlog
from aiokafka import TopicPartition

from application.jobs.external_answers import Arrival, ArrivedAnswer, ExternalAnswers, ImageKey
from domain.errors import Unavailable
from infrastructure.bridge.external_jobs import ExternalJob, ExternalJobs
from infrastructure.bridge.messages import Answer, RefusedAnswer, read_answer, require_fitting
from infrastructure.kafka.batches import OffsetRange, RecordBatch
from infrastructure.kafka.refused_records import Send, send_dead_letter
from infrastructure.kafka.task_consumer import Commit
from infrastructure.observability.metrics import EXTERNAL_ANSWERS
from infrastructure.retry import Retry

log = structlog.get_logger()
P = ParamSpec("P")
T = TypeVar("T")

COMMIT_INTERVAL_SECONDS: Final = 0.5
TAKEN, DUPLICATE, ENDED, REFUSED = "taken", "duplicate", "ended", "refused"
NOT_SENT: Final = "the image was not sent for this job"


class Refusal(NamedTuple):
    record: Any
    reason: str


class SortedAnswers(NamedTuple):
    """The answers of a batch: the first one to each image with its record, and what is refused. Others are counted only, by outcome.

    `model_names` are those of all jobs that were answered.
    """

    arrived: Mapping[ImageKey, tuple[ArrivedAnswer, Any]]
    refused: list[Refusal]
    model_names: set[str]
    counts: Mapping[str, int]


class AnswerReader:
    """Reads batches of answers. `deliver` gets those that were stored, and says whether this process waits for all of them.

    `on_foreign` is called if another process may wait for some.
    """

    def __init__(
        self,
        jobs: ExternalJobs,
        answers: ExternalAnswers,
        *,
        deliver: Callable[[Iterable[ArrivedAnswer]], bool],
        on_foreign: Callable[[], object],
        send: Send,
        retry: Retry,
    ) -> None:
        self._jobs, self._answers, self._deliver, self._on_foreign = jobs, answers, deliver, on_foreign
        self._send, self._retry = send, retry
        self._processed: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}
        self.is_waiting = False  # for the database

    # ---- the port `BatchReader` ----
    async def starting_offsets(self, _cluster: str, ranges: Mapping[TopicPartition, OffsetRange]) -> dict[TopicPartition, int]:
        """The committed offsets, and the beginning in a new group."""
        offsets = {partition: span.start for partition, span in ranges.items()}
        self._processed, self._committed = dict(offsets), dict(offsets)
        return offsets

    async def process(self, batch: RecordBatch) -> None:
        """Store the answers of a batch. Waits as long as the database is unavailable."""
        read = [(record, _read(record)) for record in batch.records]
        named = {answer.classification_id for _, answer in read if isinstance(answer, Answer)}
        jobs = await self._persistently(self._jobs.find_all, named)
        ended = await self._persistently(self._jobs.ended, named)
        found = sort_answers(read, jobs, ended)
        arrived = [answer for answer, _ in found.arrived.values()]
        arrivals = await self._persistently(self._answers.take, arrived, model_names=found.model_names)
        taken = [answer for answer in arrived if arrivals[answer.key] is Arrival.TAKEN]
        if taken and not self._deliver(taken):
            self._on_foreign()
        refused = [*found.refused, *(Refusal(record, NOT_SENT) for record in _unexpected(found, arrivals))]
        await asyncio.gather(*(send_dead_letter(self._send, batch.partition, one.record, one.reason) for one in refused))
        duplicates = sum(arrival is Arrival.DUPLICATE for arrival in arrivals.values())
        _count({TAKEN: len(taken), DUPLICATE: duplicates, REFUSED: len(refused)})
        _count(found.counts)
        self._processed[batch.partition] = batch.next_offset

    # ---- commits ----
    async def commit_always(self, commit: Commit) -> None:
        while True:
            await asyncio.sleep(COMMIT_INTERVAL_SECONDS)
            await self.commit(commit)

    async def commit(self, commit: Commit) -> None:
        advanced = {partition: offset for partition, offset in self._processed.items() if offset > self._committed.get(partition, 0)}
        if not advanced:
            return
        try:
            await commit(advanced)
        except Exception as error:  # Kafka is unavailable, or the partitions were reassigned; some answers are read again
            log.debug("offsets not committed", error=type(error).__name__)
        else:
            self._committed |= advanced

    async def _persistently(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            while True:
                try:
                    return await self._retry(call, *args, **kwargs)
                except Unavailable as unavailable:
                    self.is_waiting = True
                    log.warning("answers wait", reason=unavailable.detail)
                    await asyncio.sleep(COMMIT_INTERVAL_SECONDS)
        finally:
            self.is_waiting = False


def _read(record: Any) -> Answer | RefusedAnswer:
    try:
        return read_answer(record.value)
    except RefusedAnswer as refused:
        return refused


def sort_answers(
    read: Iterable[tuple[Any, Answer | RefusedAnswer]], jobs: Mapping[UUID, ExternalJob], ended: Collection[UUID]
) -> SortedAnswers:
    """Decide on each record, as far as the log shows. `jobs` are the external jobs that exist, `ended` are jobs that have ended."""
    arrived: dict[ImageKey, tuple[ArrivedAnswer, Any]] = {}
    refused: list[Refusal] = []
    model_names: set[str] = set()
    counts = {DUPLICATE: 0, ENDED: 0}
    for record, answer in read:
        try:
            accepted = _accepted(answer, jobs)
        except RefusedAnswer as reason:
            refused.append(Refusal(record, str(reason)))
            continue
        model_names.add(jobs[accepted.key.job].request.model_name)
        if accepted.key.job in ended:
            counts[ENDED] += 1
        elif accepted.key in arrived:
            counts[DUPLICATE] += 1
        else:
            arrived[accepted.key] = accepted, record
    return SortedAnswers(arrived, refused, model_names, counts)


def _unexpected(found: SortedAnswers, arrivals: Mapping[ImageKey, Arrival]) -> list[Any]:
    return [record for key, (_, record) in found.arrived.items() if arrivals[key] is Arrival.UNEXPECTED]


def _accepted(answer: Answer | RefusedAnswer, jobs: Mapping[UUID, ExternalJob]) -> ArrivedAnswer:
    """Raises RefusedAnswer."""
    if isinstance(answer, RefusedAnswer):
        raise answer
    job = jobs.get(answer.classification_id)
    if job is None:
        raise RefusedAnswer("there is no job of an external model with this classification_id")
    require_fitting(answer, model_name=job.request.model_name, labels=job.version.labels)
    return ArrivedAnswer(ImageKey(answer.classification_id, answer.image_id), answer.label, answer.confidence)


def _count(numbers: Mapping[str, int]) -> None:
    for outcome, number in numbers.items():
        EXTERNAL_ANSWERS.labels(outcome).inc(number)
