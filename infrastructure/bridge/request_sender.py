"""Sends requests to external classifiers: one record for each image."""

from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from aiokafka.partitioner import murmur2

from domain.classification import Classification
from domain.errors import Unavailable
from infrastructure.bridge.messages import request_for
from infrastructure.kafka.refused_records import Send
from infrastructure.kafka.topics import UNAVAILABLE_ERRORS

RETRY_AFTER_SECONDS: Final = 1


class RequestSender:
    """Sends to `topic`. `count_partitions` returns the number of partitions of a topic. Calls raise Unavailable while Kafka is."""

    def __init__(self, send: Send, count_partitions: Callable[[str], Awaitable[int]], *, topic: str) -> None:
        self._send, self._count_partitions, self._topic = send, count_partitions, topic

    async def partitions(self) -> int:
        try:
            return await self._count_partitions(self._topic)
        except UNAVAILABLE_ERRORS:
            raise _unavailable() from None

    async def send(self, image: UUID, job: Classification) -> None:
        """Ask for the classification of an image. A job over a single image names no dataset."""
        dataset = None if job.image_id else job.dataset_id
        request = request_for(image, job=job.id, dataset=dataset, model_name=job.model_name)
        try:
            await self._send(self._topic, request.key, request.value)
        except UNAVAILABLE_ERRORS:
            raise _unavailable() from None


def partition_of(image: UUID, partitions: int) -> int:
    """The partition that Kafka's clients choose for the key of the image."""
    return int((murmur2(str(image).encode()) & 0x7FFFFFFF) % partitions)


def _unavailable() -> Unavailable:
    return Unavailable("Kafka does not answer", retry_after=RETRY_AFTER_SECONDS)
