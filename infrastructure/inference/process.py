"""The composition root of the inference process: it reads tasks from Kafka and appends results to the log."""

import asyncio
from typing import Final, NoReturn

from application.jobs.topics import BULK, URGENT
from infrastructure.blobs.store import open_blobs
from infrastructure.configuration.settings import Settings
from infrastructure.eventstore.capabilities import capabilities_of
from infrastructure.eventstore.event_store import postgres_event_store
from infrastructure.inference.worker import InferenceWorker
from infrastructure.kafka.consumer_process import ConsumerProcess
from infrastructure.kafka.producer import Sender
from infrastructure.kafka.task_consumer import TaskConsumer
from infrastructure.postgres.notifications import listen
from infrastructure.postgres.wake_ups import DISPATCHED
from infrastructure.security.process_keys import process_keys

CONSUMER_GROUP: Final = "bioscope-inference"
WORKER_STOP_TIMEOUT_SECONDS: Final = 1.0


def run_inference(settings: Settings) -> NoReturn:
    """Handle tasks until SIGTERM, as one member of a consumer group. The process has no keys, so private fields stay encrypted."""
    keys = process_keys(settings, "inference")
    log = postgres_event_store(settings, keys)
    capabilities = capabilities_of(log, "inference")
    worker = InferenceWorker(settings, log=log, blobs=open_blobs(settings, keys))
    consumer = TaskConsumer(
        worker.handle,
        send=Sender(settings.kafka_url),
        concurrency=worker.concurrency,
        retry_seconds=settings.chunk_lease_seconds,
        is_unavailable=worker.is_blob_store_unavailable,
    )
    process = ConsumerProcess(settings, group=CONSUMER_GROUP, topics=(BULK, URGENT), reader=consumer, name="inference")
    stopping, stopped = asyncio.Event(), asyncio.Event()

    async def run_worker() -> None:
        async with worker.running(leased_work=consumer.leased_work):
            await stopping.wait()
        stopped.set()

    async def finish() -> None:
        await consumer.finish(process.commit)
        stopping.set()
        await asyncio.wait_for(stopped.wait(), WORKER_STOP_TIMEOUT_SECONDS)
        await asyncio.to_thread(capabilities.stop)

    capabilities.start()
    process.run(
        run_worker,
        lambda: consumer.commit_always(process.commit),
        lambda: listen(settings.postgres_url, {DISPATCHED: process.wake}),
        finish=finish,
        prepared=worker.warmed.wait,
    )
