"""The brokers: what they are asked for, which topics they must have, and how little is said while they are away."""

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from application.topics import BULK, DEAD_LETTERS, EVENTS, URGENT
from infrastructure.kafka.limits import MAX_RECORD_BYTES

log = structlog.get_logger()

PARTITIONS: Final = {EVENTS: 1, BULK: 12, URGENT: 12, DEAD_LETTERS: 1}
"""One partition of events: the topic is the log, in its order. Many of tasks: that many members may share them."""

REPLICATION_FACTOR: Final = 3  # where there are so many brokers
RETRY_DELAY_SECONDS: Final = 0.5  # seconds between two tries to reach them
LOG_INTERVAL_SECONDS: Final = 10.0  # seconds
METADATA_TIMEOUT_SECONDS: Final = 5.0  # seconds from a topic made until a broker knows of it
UNAVAILABLE_ERRORS: Final = (KafkaError, OSError, TimeoutError)
"""What clients raise while brokers are away, or not ready yet."""


@asynccontextmanager
async def _admin(brokers: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers, request_timeout_ms=5000)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def make_topics(brokers: str) -> str:
    """Make the topics that are not there yet, and wait until they can be used; the cluster's id. Harmless to repeat. Raises one of AWAY.

    The embedded broker has no controller to be told: it makes each topic, with four partitions, when it is first asked about.
    """
    async with _admin(brokers) as admin:
        cluster: dict[str, Any] = await admin.describe_cluster()
        copies = min(REPLICATION_FACTOR, len(cluster["brokers"]))
        kept = {"max.message.bytes": str(MAX_RECORD_BYTES)} | ({"min.insync.replicas": "2"} if copies == REPLICATION_FACTOR else {})
        wanted = [NewTopic(name, partitions, copies, topic_configs=kept) for name, partitions in PARTITIONS.items()]
        if any(broker["node_id"] == cluster["controller_id"] for broker in cluster["brokers"]):
            _check(await admin.create_topics(wanted))
            async with asyncio.timeout(METADATA_TIMEOUT_SECONDS):
                await _is_known(admin)
        return str(cluster["cluster_id"])


def _check(response: Any) -> None:
    for topic, code, *_ in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            raise error(f"topic {topic}")


async def _is_known(admin: AIOKafkaAdminClient) -> None:
    """A controller answers before its brokers have heard: for some milliseconds they do not know a topic that was made."""
    while True:
        described = await admin.describe_topics(list(PARTITIONS))
        if not any(topic["error_code"] for topic in described):
            return
        await asyncio.sleep(RETRY_DELAY_SECONDS / 20)


async def make_topics_when_reachable(brokers: str) -> str:
    """As `make_topics`, waiting for the brokers as long as it takes."""
    while True:
        try:
            return await make_topics(brokers)
        except UNAVAILABLE_ERRORS as error:
            log.warning("waiting for Kafka", brokers=brokers, error=type(error).__name__)
            await asyncio.sleep(RETRY_DELAY_SECONDS)


def is_answering(brokers: str) -> bool:
    """Whether one of them takes a connection. Blocks for half a second each, at worst."""
    for broker in brokers.split(","):
        host, _, port = broker.strip().rpartition(":")
        with suppress(OSError), socket.create_connection((host, int(port)), 0.5):
            return True
    return False


class RateLimitedFilter(logging.Filter):
    """Lets each message through once in ten seconds: the client writes 75 lines a second while a broker is away."""

    def __init__(self) -> None:
        super().__init__()
        self._due: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now, message = time.monotonic(), str(record.msg)
        if now < self._due.get(message, 0.0):
            return False
        self._due[message] = now + LOG_INTERVAL_SECONDS
        return True


def quiet_clients() -> None:
    """Limit what the clients log. On each of their loggers: a filter on the parent would not be asked."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(("aiokafka", "faust", "mode", "infrastructure.kafka")):
            logger = logging.getLogger(name)
            logger.setLevel(logging.WARNING)
            if not any(isinstance(one, RateLimitedFilter) for one in logger.filters):
                logger.addFilter(RateLimitedFilter())
