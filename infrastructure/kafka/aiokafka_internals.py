"""Every private name of aiokafka that this project uses. tests/kafka/test_client_internals.py names each of them."""

from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from infrastructure.kafka.fetch_throttle import FetchThrottle


# ---- producers ---------------------------------------------------------------------------------------------------------------------
def set_transactional_id(producer: AIOKafkaProducer, transactional_id: str | None, *, timeout_ms: int | None = None) -> None:
    """aiokafka asks for an epoch for transactions only: set the id before the start, and remove it afterwards."""
    manager = producer._txn_manager
    manager.transactional_id = transactional_id
    if timeout_ms is not None:
        manager.transaction_timeout_ms = timeout_ms


def has_given_up(producer: AIOKafkaProducer) -> bool:
    """Whether a started producer would raise the same error for ever."""
    return bool(producer._sender.sender_task.done())


async def close_sender(producer: AIOKafkaProducer) -> None:
    """`AIOKafkaProducer.stop` has no timeout of its own."""
    await producer._sender.close()


# ---- consumers ---------------------------------------------------------------------------------------------------------------------
def is_member(consumer: AIOKafkaConsumer, *, grouped: bool) -> bool:
    coordinator = consumer._coordinator
    return coordinator is not None and (not grouped or coordinator.generation > 0)


async def leave_group(consumer: AIOKafkaConsumer) -> None:
    await consumer._coordinator._maybe_leave_group()


async def partitions_of(consumer: AIOKafkaConsumer, topics: Iterable[str]) -> list[TopicPartition]:
    """All partitions of topics, waiting for their metadata; a broker may create a topic only now."""
    return [TopicPartition(topic, number) for topic in topics for number in await consumer._client._wait_on_metadata(topic)]


def set_fetch_wait(consumer: AIOKafkaConsumer, milliseconds: int) -> None:
    """Before the start: how long a broker keeps a fetch that has no records yet."""
    consumer._fetch_max_wait_ms = milliseconds


def throttle_fetches(consumer: AIOKafkaConsumer, throttle: FetchThrottle) -> None:
    """After the start: hold back each fetch until `throttle` lets it through."""
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
"""By class, for the test."""
