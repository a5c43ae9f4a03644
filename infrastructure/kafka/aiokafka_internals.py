"""All uses of private names of aiokafka. tests/kafka/test_client_internals.py checks each name."""

from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from infrastructure.kafka.fetch_throttle import FetchThrottle


# ---- producers ---------------------------------------------------------------------------------------------------------------------
def set_transactional_id(producer: AIOKafkaProducer, transactional_id: str | None, *, timeout_ms: int | None = None) -> None:
    """Set the id before the start and remove it afterwards, because aiokafka requests an epoch only for transactions."""
    manager = producer._txn_manager
    manager.transactional_id = transactional_id
    if timeout_ms is not None:
        manager.transaction_timeout_ms = timeout_ms


def has_given_up(producer: AIOKafkaProducer) -> bool:
    """Whether a started producer has failed permanently."""
    return bool(producer._sender.sender_task.done())


async def close_sender(producer: AIOKafkaProducer) -> None:
    """Stop sending at once. `AIOKafkaProducer.stop` has no timeout."""
    await producer._sender.close()


# ---- consumers ---------------------------------------------------------------------------------------------------------------------
def is_member(consumer: AIOKafkaConsumer, *, grouped: bool) -> bool:
    coordinator = consumer._coordinator
    return coordinator is not None and (not grouped or coordinator.generation > 0)


async def leave_group(consumer: AIOKafkaConsumer) -> None:
    await consumer._coordinator._maybe_leave_group()


async def partitions_of(consumer: AIOKafkaConsumer, topics: Iterable[str]) -> list[TopicPartition]:
    """All partitions of topics. Waits for their metadata, since a broker may create a topic at this request."""
    return [TopicPartition(topic, number) for topic in topics for number in await consumer._client._wait_on_metadata(topic)]


def set_fetch_wait(consumer: AIOKafkaConsumer, milliseconds: int) -> None:
    """Set how long a broker holds a fetch without records. To be called before the start."""
    consumer._fetch_max_wait_ms = milliseconds


def throttle_fetches(consumer: AIOKafkaConsumer, throttle: FetchThrottle) -> None:
    """Delay each fetch until `throttle` allows it. To be called after the start."""
    fetcher: Any = consumer._fetcher
    fetch = fetcher._proc_fetch_request

    async def throttled(assignment: Any, node: Any, request: Any) -> bool:
        requested = sum(len(partitions) for _, partitions in request.topics)
        return await throttle.fetch(lambda: fetch(assignment, node, request), of_all=requested >= len(assignment.tps))

    fetcher._proc_fetch_request = throttled


PRIVATE_NAMES: Mapping[str, tuple[str, ...]] = {
    "AIOKafkaProducer": ("_txn_manager", "_sender"),
    "AIOKafkaConsumer": ("_coordinator", "_client", "_fetch_max_wait_ms", "_fetcher"),
    "AIOKafkaClient": ("_wait_on_metadata",),
    "Fetcher": ("_proc_fetch_request",),
    "GroupCoordinator": ("_maybe_leave_group", "generation"),
    "TransactionManager": ("transactional_id", "transaction_timeout_ms"),
    "Sender": ("sender_task", "close"),
}
"""All private names by class, for the test."""
