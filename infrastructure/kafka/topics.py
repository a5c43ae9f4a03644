"""Topics and brokers: create topics, check that a broker answers, limit the clients' logs."""

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from application.jobs.topics import BULK, DEAD_LETTERS, EVENTS, EXTERNAL, URGENT
from infrastructure.configuration.settings import Settings
from infrastructure.kafka.limits import MAX_RECORD_BYTES

log = structlog.get_logger()

PARTITIONS: Final = {EVENTS: 1, BULK: 12, URGENT: 12, EXTERNAL: 12, DEAD_LETTERS: 1}
"""Events have one partition, which keeps the order of the log. Tasks have many, so that many workers can share them."""

JOB_PARTITIONS: Final = 12  # as many external classifiers may share the images
RESULT_PARTITIONS: Final = 4
REPLICATION_FACTOR: Final = 3  # if there are as many brokers
RETRY_DELAY_SECONDS: Final = 0.5
METADATA_POLL_INTERVAL_SECONDS: Final = 0.025
CONNECT_TIMEOUT_SECONDS: Final = 0.5
REQUEST_TIMEOUT_MS: Final = 5000
LOG_INTERVAL_SECONDS: Final = 10.0
METADATA_TIMEOUT_SECONDS: Final = 5.0  # for brokers to know a new topic
UNAVAILABLE_ERRORS: Final = (KafkaError, OSError, TimeoutError)
"""Errors of clients while brokers are unavailable or not ready."""


def all_topics(settings: Settings) -> dict[str, int]:
    """The number of partitions of each topic: of ours, and of those of external classifiers."""
    return {
        **PARTITIONS,
        settings.classification_job_topic: JOB_PARTITIONS,
        settings.classification_result_topic: RESULT_PARTITIONS,
    }


@asynccontextmanager
async def _admin(brokers: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers, request_timeout_ms=REQUEST_TIMEOUT_MS)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def create_topics(brokers: str, partitions: Mapping[str, int] = PARTITIONS) -> str:
    """Create missing topics, wait until they can be used, and return the cluster's id. Idempotent.

    The embedded broker has no controller: it creates a topic with four partitions when somebody asks for it. Raises one of
    UNAVAILABLE_ERRORS.
    """
    async with _admin(brokers) as admin:
        cluster: dict[str, Any] = await admin.describe_cluster()
        replicas = min(REPLICATION_FACTOR, len(cluster["brokers"]))
        config = {"max.message.bytes": str(MAX_RECORD_BYTES)} | ({"min.insync.replicas": "2"} if replicas == REPLICATION_FACTOR else {})
        new_topics = [NewTopic(name, number, replicas, topic_configs=config) for name, number in partitions.items()]
        if any(broker["node_id"] == cluster["controller_id"] for broker in cluster["brokers"]):
            _check(await admin.create_topics(new_topics))
        async with asyncio.timeout(METADATA_TIMEOUT_SECONDS):
            await _wait_until_known(admin, partitions)
        return str(cluster["cluster_id"])


def _check(response: Any) -> None:
    for topic, code, *_ in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            raise error(f"topic {topic}")


async def _wait_until_known(admin: AIOKafkaAdminClient, names: Iterable[str]) -> None:
    """Wait until the brokers know the topics, which takes some milliseconds after the controller's answer."""
    while True:
        described = await admin.describe_topics(list(names))
        if not any(topic["error_code"] for topic in described):
            return
        await asyncio.sleep(METADATA_POLL_INTERVAL_SECONDS)


async def create_topics_when_reachable(brokers: str, partitions: Mapping[str, int] = PARTITIONS) -> str:
    """As `create_topics`, waiting for the brokers as long as necessary."""
    while True:
        try:
            return await create_topics(brokers, partitions)
        except UNAVAILABLE_ERRORS as error:
            log.warning("waiting for Kafka", brokers=brokers, error=type(error).__name__)
            await asyncio.sleep(RETRY_DELAY_SECONDS)


def is_answering(brokers: str) -> bool:
    """Whether any broker accepts a connection. Blocks for at most CONNECT_TIMEOUT_SECONDS per broker."""
    for broker in brokers.split(","):
        host, _, port = broker.strip().rpartition(":")
        with suppress(OSError), socket.create_connection((host, int(port)), CONNECT_TIMEOUT_SECONDS):
            return True
    return False


class RateLimitedFilter(logging.Filter):
    """Passes each message once per LOG_INTERVAL_SECONDS. Clients write 75 lines per second while a broker is unavailable."""

    def __init__(self) -> None:
        super().__init__()
        self._next_at: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now, message = time.monotonic(), str(record.msg)
        if now < self._next_at.get(message, 0.0):
            return False
        self._next_at[message] = now + LOG_INTERVAL_SECONDS
        return True


def limit_client_logs() -> None:
    """Limit the clients' logs. The filter is added to each logger, since filters of parent loggers do not apply."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(("aiokafka", "faust", "mode", "infrastructure.kafka")):
            logger = logging.getLogger(name)
            logger.setLevel(logging.WARNING)
            if not any(isinstance(known, RateLimitedFilter) for known in logger.filters):
                logger.addFilter(RateLimitedFilter())
