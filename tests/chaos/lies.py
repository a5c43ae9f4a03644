"""Faults that are lies: forged records and tasks, other bytes in files, forged notifications and counters."""

import hashlib
import os
import random
import time
from contextlib import suppress
from uuid import uuid4

import msgspec
import redis
from aiokafka.errors import KafkaError

from application.jobs.tasks import Kind, Task, encode
from application.jobs.topics import BULK, URGENT
from application.services import CHANNEL
from tests.adversaries.attackers import Attacker
from tests.adversaries.forging import forgeries
from tests.chaos.hit import Hit
from tests.chaos.workload import PICTURES

COPIED = 20  # records of the topic that are forged, repeated and swapped
NEVER_PLANNED = 777
NOTIFICATIONS = 2000
SWAPPED = 6  # files at most
STAYS_SWAPPED = (1.0, 4.0)  # seconds


def forged_records(stack):
    """Each kind of forgery, records again and in the wrong order, and tasks that nobody gave out."""
    attacker = Attacker(stack.settings.kafka_url)
    with suppress(KafkaError):
        records = attacker.records(last=COPIED)
        again = [(list(record.headers), record.value) for record in reversed(records)]
        forged = [one for record in records[-2:] for one in forgeries(record, stack.chance)]
        attacker.send(*forged, *again)
        for topic in (BULK, URGENT):
            attacker.send_to(topic, *_forged_tasks(stack))
    yield Hit(time.monotonic())


def _forged_tasks(stack):
    """Chunks that were never planned, those of jobs that have ended, images of nobody, and garbage."""
    chance, known = stack.chance, [*stack.journal.of("job"), uuid4()]
    classify = [Task(kind=Kind.CLASSIFY, job=chance.choice(known), number=number) for number in (0, 1, -1, NEVER_PLANNED)]
    images = [*stack.journal.of("image")[-3:], uuid4()]
    return [*map(encode, classify), encode(Task(kind=Kind.INSPECT, image_ids=tuple(images))), b"garbage", b"{}", chance.randbytes(1000)]


def files_swapped(stack):
    """Some hold the bytes of other pictures, or a part of their own, for a while."""
    lasts = stack.chance.uniform(*STAYS_SWAPPED)
    right = {hashlib.sha256(path.read_bytes()).hexdigest(): path.read_bytes() for path in PICTURES}
    there = [path for name in right for path in stack.files.glob(f"sha256/{name[:2]}/{name[2:4]}/{name}")]
    chosen = stack.chance.sample(there, min(SWAPPED, len(there)))
    for path in chosen:
        _put(stack, path, _other_bytes(right, path.name, stack.chance))
    time.sleep(lasts)
    for path in chosen:
        _put(stack, path, right[path.name])
    yield Hit(time.monotonic(), lasts)


def _other_bytes(right, name, chance: random.Random):
    another = chance.choice([one for one in right if one != name])
    return chance.choice([right[another], right[another], right[name][:1000], b""])


def _put(stack, path, data):
    """Whole, in the place of the file: whoever uploads the same picture meanwhile puts the right one there too."""
    part = stack.files.parent / f"swapped-{uuid4().hex}"
    part.write_bytes(data)
    os.utime(part, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    part.replace(path)


def forged_notifications(stack):
    """A flood of what did not happen, and other things in every counter."""
    users, datasets = [str(uuid4())], [str(one) for one in stack.journal.of("dataset")[-3:]]
    position = stack.chance.choice([0, -1, 10**9, 2**62])
    message = msgspec.json.encode({"position": position, "datasets": datasets, "users": users})
    with suppress(redis.RedisError), redis.Redis.from_url(stack.settings.redis_url, socket_timeout=5) as client:
        with client.pipeline(transaction=False) as pipe:
            for number in range(NOTIFICATIONS):
                pipe.publish(CHANNEL, message if number % 10 else b"garbage")
            pipe.execute()
        for key in client.keys("limit:*"):
            client.set(key, "garbage")
    yield Hit(time.monotonic())
