"""The composition root of the process `inference-bridge`: it reads tasks and answers from Kafka, and appends results to the log."""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, NoReturn
from uuid import UUID

import psycopg
import structlog
from aiokafka import TopicPartition

from application.jobs.topics import EXTERNAL
from application.jobs.work_queue import EXTERNAL_WORKERS
from infrastructure.bridge.answer_reader import AnswerReader
from infrastructure.bridge.bridge import Bridge
from infrastructure.bridge.external_jobs import ExternalJobs
from infrastructure.bridge.request_sender import RequestSender
from infrastructure.bridge.waiting_images import BridgeLimits
from infrastructure.configuration.settings import Settings
from infrastructure.eventstore.capabilities import capabilities_of
from infrastructure.eventstore.event_store import postgres_event_store
from infrastructure.inference.heartbeats import Heartbeats
from infrastructure.kafka.batches import BatchReader, OffsetRange, RecordBatch
from infrastructure.kafka.consumer_process import ConsumerProcess
from infrastructure.kafka.producer import Sender
from infrastructure.kafka.task_consumer import TaskConsumer, TaskConsumerLimits
from infrastructure.postgres.notifications import listen
from infrastructure.postgres.system.external_answers import PostgresExternalAnswers
from infrastructure.postgres.wake_ups import ANSWERED, DISPATCHED, WakeUps
from infrastructure.retry import Retry
from infrastructure.security.process_keys import process_keys

log = structlog.get_logger()

PROCESS: Final = "inference-bridge"
CONSUMER_GROUP: Final = "bioscope-inference-bridge"
SLOTS: Final = 4
"""What the scheduler counts with: some chunks for each slot, together more images than the window holds, since some wait for silence."""
CHUNKS_AT_ONCE: Final = 1024
BLOCKING_THREADS: Final = 8
HEARTBEAT_INTERVAL_SECONDS: Final = 2.0
FETCH_INTERVAL_SECONDS: Final = 0.03
"""Between fetches from the embedded broker while an answer may come, since it does not end a waiting fetch."""
CONSUMER_LIMITS: Final = TaskConsumerLimits(finish_timeout_seconds=0.1)  # a classifier is not waited for


def run_inference_bridge(settings: Settings) -> NoReturn:
    """Work until SIGTERM, as one member of a consumer group. The process has no keys, so private fields stay encrypted."""
    event_log = postgres_event_store(settings, process_keys(settings, PROCESS))
    capabilities = capabilities_of(event_log, PROCESS)
    name, sender, retry = f"{socket.gethostname()}:{os.getpid()}", Sender(settings.kafka_url), Retry(_threads())
    jobs, answers = ExternalJobs(event_log), PostgresExternalAnswers(event_log.recorder.rows)
    bridge = Bridge(
        log=event_log,
        jobs=jobs,
        answers=answers,
        requests=RequestSender(sender, sender.partitions, topic=settings.classification_job_topic),
        retry=retry,
        worker=name,
        limits=BridgeLimits(window=settings.external_window, lease_seconds=settings.chunk_lease_seconds, attempts=settings.chunk_attempts),
    )
    wake_ups = WakeUps(settings.postgres_url)
    reader = AnswerReader(jobs, answers, deliver=bridge.deliver, on_foreign=partial(wake_ups.send, ANSWERED), send=sender, retry=retry)
    consumer = TaskConsumer(
        bridge.handle,
        send=sender,
        concurrency={EXTERNAL: CHUNKS_AT_ONCE},
        retry_seconds=settings.chunk_lease_seconds,
        limits=CONSUMER_LIMITS,
    )
    topics: dict[str, BatchReader] = {EXTERNAL: consumer, settings.classification_result_topic: reader}
    process = ConsumerProcess(settings, group=CONSUMER_GROUP, topics=tuple(topics), reader=ReaderByTopic(topics), name=PROCESS)
    heartbeats = Heartbeats(settings.postgres_url, {f"{name}/{EXTERNAL_WORKERS}": (EXTERNAL_WORKERS, SLOTS)})

    async def fetch_always() -> NoReturn:
        while True:
            await bridge.until_out()
            process.wake()
            await asyncio.sleep(FETCH_INTERVAL_SECONDS)

    async def finish() -> None:
        await consumer.finish(process.commit)
        await reader.commit(process.commit)
        await asyncio.to_thread(heartbeats.withdraw)
        await asyncio.to_thread(capabilities.stop)

    capabilities.start()
    process.run(
        bridge.send_always,
        bridge.check_always,
        bridge.forget_always,
        fetch_always,
        lambda: consumer.commit_always(process.commit),
        lambda: reader.commit_always(process.commit),
        lambda: _beat_always(heartbeats, consumer.leased_work),
        lambda: listen(settings.postgres_url, {DISPATCHED: process.wake, ANSWERED: bridge.notice_answers}),
        finish=finish,
    )


class ReaderByTopic:
    """Gives each batch to the reader of its topic."""

    def __init__(self, readers: Mapping[str, BatchReader]) -> None:
        self._readers = readers

    @property
    def is_waiting(self) -> bool:
        return any(reader.is_waiting for reader in self._readers.values())

    async def starting_offsets(self, cluster: str, ranges: Mapping[TopicPartition, OffsetRange]) -> dict[TopicPartition, int]:
        offsets: dict[TopicPartition, int] = {}
        for topic, reader in self._readers.items():
            of_topic = {partition: span for partition, span in ranges.items() if partition.topic == topic}
            offsets |= await reader.starting_offsets(cluster, of_topic)
        return offsets

    async def process(self, batch: RecordBatch) -> None:
        await self._readers[batch.partition.topic].process(batch)


async def _beat_always(heartbeats: Heartbeats, leased_work: Callable[[], Sequence[UUID]]) -> NoReturn:
    """Renew the leases of the chunks in progress. An unavailable database only delays that."""
    while True:
        try:
            await asyncio.to_thread(heartbeats.send, leased_work())
        except psycopg.Error as error:
            log.warning("heartbeat not written", error=type(error).__name__)
        await asyncio.sleep(HEARTBEAT_INTERVAL_SECONDS)


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(BLOCKING_THREADS, thread_name_prefix=PROCESS)
