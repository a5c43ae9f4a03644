"""Bridges in this process: their log, jobs of an external model, a topic that tests read and answer, and the store that they share."""

import asyncio
import json
import time
from collections import Counter
from contextlib import asynccontextmanager
from itertools import count
from typing import NamedTuple
from uuid import uuid4

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from application.cancellation import cancel_and_wait
from application.jobs.external_answers import ImageKey
from application.jobs.tasks import Kind, Task
from application.jobs.topics import DEAD_LETTERS, EXTERNAL
from domain import classification, image
from domain.classification import PlannedImage
from domain.model import OutputKind
from domain.values import chunk_id, model_id
from infrastructure.bridge.answer_reader import AnswerReader
from infrastructure.bridge.bridge import Bridge, BridgeIntervals
from infrastructure.bridge.external_jobs import ExternalJobs
from infrastructure.bridge.request_sender import RequestSender
from infrastructure.bridge.waiting_images import BridgeLimits
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.kafka.batches import RecordBatch
from infrastructure.retry import Retry
from infrastructure.security.keys import RootKey
from tests.given import NOW, actor, add_model, command
from tests.rigs.waiting import wait_until_async
from tests.twins.event_store import MemoryRecorder
from tests.twins.external_answers import MemoryExternalAnswers

ROOT = RootKey(bytes(32))
SYSTEM = actor(None, kind="system")
JOBS, ANSWERS = "classification-job", "classification-result"
HERE = TopicPartition(ANSWERS, 0)
LABELS = ("round", "flat")
SHA256, DECLARATION = "ab" * 32, "cd" * 32
LONG_LEASE = BridgeLimits(lease_seconds=60.0)
SHORT_LEASE = BridgeLimits(lease_seconds=0.3)
QUICK = BridgeIntervals(check_seconds=0.02, forget_seconds=0.02, retry_delay_seconds=0.02)


class Record(NamedTuple):
    offset: int
    value: bytes | None
    key: bytes | None = None


class BridgeRig:
    def __init__(self, log=None, answers=None):
        self.log = log or RecorderEventStore(MemoryRecorder(ROOT), ROOT)
        self.answers = answers or MemoryExternalAnswers()
        self.requests, self.dead_letters, self.is_away = [], [], False
        self.readers, self._offsets = [], count()
        about = {"sha256": DECLARATION, "digest": DECLARATION, "size": 0, "labels": LABELS, "review_below": 0.6, "record": "{}"}
        add_model(name="cells", kind=OutputKind.EXTERNAL, **about, command=command(SYSTEM), log=self.log)

    # ---- jobs ----
    def job(self, number=3, *, single=False, external=True, threshold=0.6, stream=None):
        """A planned job over `number` images, and the task of its first chunk."""
        images = [PlannedImage(self.image(), SHA256) for _ in range(number)]
        about = {"model_id": model_id("cells"), "model_name": "cells", "model_version": 1, "model_sha256": DECLARATION}
        about |= {"threshold": threshold, "by": SYSTEM.id, "at": NOW}
        requested, *planned = classification.request(stream or uuid4(), dataset=uuid4(), image=images[0] if single else None, **about)
        self.log.append(command(SYSTEM), msgspec.structs.replace(requested, external=external), *planned)
        job = requested.originator_id
        if not single:
            state = self.log.load(job, classification.evolve)
            self.log.append(command(SYSTEM), *classification.plan(state, images, by=SYSTEM.id, at=NOW))
        return Task(kind=Kind.CLASSIFY, job=job, number=0), [one.id for one in images]

    def image(self):
        new = uuid4()
        about = {"filename": "a.jpg", "sha256": SHA256, "size": 1, "media_type": "image/jpeg", "width": 9, "height": 9, "device": None}
        self.log.append(command(SYSTEM), image.upload(new, dataset=uuid4(), **about, by=SYSTEM.id, at=NOW))
        return new

    def change(self, stream, noun, decide):
        state = self.log.load(stream, noun.evolve)
        decided = decide(state)
        self.log.append(command(SYSTEM), *(decided if isinstance(decided, list) else [decided]))

    def delete(self, image_id):
        self.change(image_id, image, lambda it: image.delete(it, by=SYSTEM.id, at=NOW))

    def reject(self, image_id):
        self.change(image_id, image, lambda it: image.reject(it, reason="damaged_image", detail="torn", by=SYSTEM.id, at=NOW))

    def cancel(self, job):
        self.change(job, classification, lambda it: classification.cancel(it, by=SYSTEM.id, at=NOW))

    def recorded(self, task):
        """What the log holds of a chunk: at most one event."""
        events = self.log.history(chunk_id(task.job, task.number))
        assert len(events) <= 1
        return self.log.decode(events[0]) if events else None

    async def until_recorded(self, task):
        return await wait_until_async(lambda: self.recorded(task))

    # ---- Kafka ----
    async def send(self, topic, key, value):
        if self.is_away:
            raise KafkaConnectionError("away")
        (self.dead_letters if topic == DEAD_LETTERS else self.requests).append(json.loads(value))

    async def partitions(self, _topic):
        if self.is_away:
            raise KafkaConnectionError("away")
        return 2

    def asked(self, task):
        """How often each image of a job was sent."""
        return Counter(one["image_id"] for one in self.requests if one["classification_id"] == str(task.job))

    async def until_asked(self, task, images, times=1):
        await wait_until_async(lambda: all(self.asked(task)[str(image)] >= times for image in images))

    async def answer(self, task, *images, label="round", confidence=0.75, reader=0, **changed):
        about = {"model_name": "cells", "label": label, "confidence": confidence} | changed
        values = [{"classification_id": str(task.job), "image_id": str(image)} | about for image in images]
        await self.read(*(json.dumps(value).encode() for value in values), reader=reader)

    async def read(self, *values, reader=0):
        """A bridge reads these records of the topic of answers."""
        records = [Record(next(self._offsets), value) for value in values]
        await self.readers[reader].process(RecordBatch("one", HERE, records))

    # ---- bridges ----
    @asynccontextmanager
    async def bridge(self, limits=LONG_LEASE, *, intervals=QUICK, clock=time.monotonic):
        """A bridge at work. What one stores wakes the others."""
        jobs, retry = ExternalJobs(self.log), Retry(None, delays_seconds=[0.01])
        requests = RequestSender(self.send, self.partitions, topic=JOBS)
        parts = {"log": self.log, "jobs": jobs, "answers": self.answers, "requests": requests, "retry": retry}
        bridge = Bridge(**parts, worker="bench", limits=limits, intervals=intervals, clock=clock)
        about = {"deliver": bridge.deliver, "on_foreign": self._wake_all, "send": self.send, "retry": retry}
        reader = AnswerReader(jobs, self.answers, **about)
        reader.bridge = bridge
        self.readers.append(reader)
        work = [asyncio.create_task(one()) for one in (bridge.send_always, bridge.check_always, bridge.forget_always)]
        try:
            yield bridge
        finally:
            for one in work:
                await cancel_and_wait(one)
            self.readers.remove(reader)

    @asynccontextmanager
    async def handling(self, bridge, *tasks):
        """The bridge handles tasks during the block."""
        work = [asyncio.create_task(bridge.handle(EXTERNAL, task)) for task in tasks]
        try:
            yield work
        finally:
            for one in work:
                await cancel_and_wait(one)

    def _wake_all(self):
        for reader in self.readers:
            reader.bridge.notice_answers()

    def known(self, task, images):
        return {one.key.image: one for one in self.answers.expect(task.job, task.number, "cells", images)}

    def key(self, task, image_id):
        return ImageKey(task.job, image_id)
