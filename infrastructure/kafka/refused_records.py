"""Records that are refused: each is sent to the topic of dead letters, so that nothing stops and nothing is lost."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import structlog
from aiokafka import TopicPartition

from application.jobs.topics import DEAD_LETTERS
from infrastructure.kafka.topics import UNAVAILABLE_ERRORS

log = structlog.get_logger()

MAX_KEPT_BYTES: Final = 65_536
"""Of the value of a refused record. With the two limits that follow, each dead letter fits its topic, whatever was written to another."""
MAX_KEPT_KEY_BYTES: Final = 1024
MAX_REASON: Final = 1000
RETRY_DELAY_SECONDS: Final = 1.0

Send = Callable[[str, bytes, bytes], Awaitable[None]]


class RefusedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The dead letter of a record: a task that cannot be decoded, or an answer of an external classifier that fits no job."""

    topic: str
    partition: int
    offset: int
    reason: str
    value: str  # the first bytes in base64, at most MAX_KEPT_BYTES


async def send_dead_letter(
    send: Send, partition: TopicPartition, record: Any, reason: str, *, retry_delay_seconds: float = RETRY_DELAY_SECONDS
) -> None:
    """Send a record to the dead letters; repeat while Kafka is unavailable."""
    reason = reason[:MAX_REASON]
    refused = RefusedRecord(
        topic=partition.topic,
        partition=partition.partition,
        offset=record.offset,
        reason=reason,
        value=base64.b64encode((record.value or b"")[:MAX_KEPT_BYTES]).decode(),
    )
    log.error("record refused", topic=refused.topic, partition=refused.partition, offset=refused.offset, reason=reason)
    while True:
        try:
            return await send(DEAD_LETTERS, (record.key or b"")[:MAX_KEPT_KEY_BYTES], msgspec.json.encode(refused))
        except UNAVAILABLE_ERRORS:
            await asyncio.sleep(retry_delay_seconds)
