"""Dead letters of records that are refused: each fits its topic, since Kafka would refuse a larger one for ever."""

from types import SimpleNamespace

import msgspec
import pytest
from aiokafka import TopicPartition

from infrastructure.kafka.limits import MAX_RECORD_BYTES
from infrastructure.kafka.refused_records import RefusedRecord, send_dead_letter

pytestmark = pytest.mark.anyio
LARGE = MAX_RECORD_BYTES - 100


@pytest.mark.parametrize(
    ("key", "value", "reason"), [(b"k" * LARGE, b"", "short"), (b"", b"v" * LARGE, "r" * LARGE), (None, None, "short")]
)
async def test_a_dead_letter_fits_its_topic_whatever_was_refused(key, value, reason):
    sent = []

    async def send(topic, *letter):
        sent.append((topic, letter))

    record = SimpleNamespace(key=key, value=value, offset=7)
    await send_dead_letter(send, TopicPartition("classification-result", 3), record, reason)
    [(topic, letter)] = sent
    assert topic == "bioscope.dead-letters"
    assert sum(map(len, letter)) < MAX_RECORD_BYTES / 2
    read = msgspec.json.decode(letter[1], type=RefusedRecord)
    assert (read.topic, read.partition, read.offset, read.reason[:1]) == ("classification-result", 3, 7, reason[:1])
