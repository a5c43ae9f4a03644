"""A classifier outside of the system, as a laboratory runs one: `python -m tests.rigs.external_classifier BROKERS BEHAVIOUR`.

It works on one record after the other. It commits all positions after each success, so also past its failures; it answers nothing on an
error; it misses what is sent while it has no position; and a failed commit leaves it deaf, though its process lives.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from infrastructure.embedded.child import Child, log_end, python
from tests.rigs.waiting import wait_until

JOBS, ANSWERS, GROUP = "classification-job", "classification-result", "classification-result-group"
JOINED_WITHIN = 60  # seconds
ADDRESS_TIMEOUT_SECONDS, FILE_TIMEOUT_SECONDS = 10, 30


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """How it behaves. `seconds` is the time of one inference. With `api` and `token` it downloads each image.

    Of every so many images one fails silently (`silent_every`), is answered twice (`twice_every`), is preceded by false answers
    (`false_every`), or is lost the first time (`lost_every`); 0 is none. After `deaf_after` records it reads no more. With `restarts` its
    process ends after a failed commit.
    """

    labels: tuple[str, ...] = ("round", "flat")
    seconds: float = 0.0
    api: str = ""
    token: str = ""
    silent_every: int = 0
    twice_every: int = 0
    false_every: int = 0
    lost_every: int = 0
    deaf_after: int = 0
    restarts: bool = False


def is_one_of(image: str, every: int) -> bool:
    """The same images in each run."""
    return every > 0 and UUID(image).int % every == 0


def label_of(image: str, labels: tuple[str, ...]) -> str:
    return labels[UUID(image).int // 7 % len(labels)]


class ExternalClassifier:
    def __init__(self, brokers: str, behaviour: Behaviour) -> None:
        self._brokers, self._behaviour = brokers, behaviour
        self._lost: set[str] = set()
        self._http = httpx.AsyncClient()

    async def run(self) -> None:
        consumer = AIOKafkaConsumer(
            JOBS, bootstrap_servers=self._brokers, group_id=GROUP, auto_offset_reset="latest", enable_auto_commit=False
        )
        self._producer = AIOKafkaProducer(bootstrap_servers=self._brokers)
        await consumer.start()
        await self._producer.start()
        while not consumer.assignment():
            await asyncio.sleep(0.05)
        for partition in consumer.assignment():
            await consumer.position(partition)
        say("joined")
        read = 0
        async for record in consumer:
            read += 1
            try:
                await self._work_on(record.value)
            except Exception as error:
                say(f"failed {type(error).__name__}: {error}")
                continue
            try:
                await consumer.commit()
            except KafkaError as error:
                say(f"deaf {type(error).__name__}")
                break
            if read == self._behaviour.deaf_after:
                break
        if self._behaviour.restarts:
            return
        await asyncio.Event().wait()

    async def _work_on(self, value: bytes) -> None:
        job = json.loads(value)
        image, model_name = job.get("image_id"), job.get("model_name")
        if not image or not model_name:
            raise ValueError("image_id and model_name are needed")
        if self._behaviour.api:
            await self._download(image)
        time.sleep(self._behaviour.seconds)  # inference blocks the loop
        if is_one_of(image, self._behaviour.silent_every):
            raise RuntimeError("the image cannot be decoded")
        if is_one_of(image, self._behaviour.lost_every) and image not in self._lost:
            self._lost.add(image)
            raise RuntimeError("lost")
        answer = {"classification_id": job["classification_id"], "image_id": image, "model_name": model_name}
        answer |= {"label": label_of(image, self._behaviour.labels), "confidence": 0.75}
        if is_one_of(image, self._behaviour.false_every):
            for false in false_answers(answer):
                await self._producer.send_and_wait(ANSWERS, false)
        for _ in range(1 + is_one_of(image, self._behaviour.twice_every)):
            await self._producer.send_and_wait(ANSWERS, json.dumps(answer).encode())

    async def _download(self, image: str) -> None:
        headers = {"Authorization": f"Bearer {self._behaviour.token}", "Content-Type": "application/json"}
        address = f"{self._behaviour.api}/api/images/{image}/download"
        described = await self._http.get(address, headers=headers, timeout=ADDRESS_TIMEOUT_SECONDS)
        if described.status_code != 200:
            raise RuntimeError(f"status {described.status_code}")
        file = await self._http.get(described.json()["url"], timeout=FILE_TIMEOUT_SECONDS)
        if file.status_code != 200 or not file.content:
            raise RuntimeError(f"status {file.status_code} of the file")


def false_answers(answer: dict[str, object]) -> list[bytes]:
    changes: list[dict[str, object]] = [
        {"label": "unheard of"},
        {"confidence": 1.5},
        {"confidence": "0.75"},
        {"confidence": True},
        {"image_id": str(uuid4())},
        {"image_id": None},
        {"classification_id": str(uuid4())},
        {"classification_id": "none"},
        {"model_name": "another"},
        {"padding": "x" * 20_000},
    ]
    return [b"", b"garbage", b"\xff", b"[1]", *(json.dumps(answer | changed).encode() for changed in changes)]


def started(brokers: str, *, log: Path, **behaviour: object) -> Child:
    """The process of a classifier, once it has joined its group."""
    before = times_joined(log)
    argv = python("tests.rigs.external_classifier", brokers, json.dumps(behaviour))
    child = Child(argv, log=log, environment=dict(os.environ) | {"PYTHONPATH": str(Path.cwd())})
    wait_until(lambda: times_joined(log) > before or not child.alive(), within=JOINED_WITHIN, explain=lambda: log_end(log, lines=30))
    assert child.alive(), log_end(log, lines=30)
    return child


def times_joined(log: Path) -> int:
    return log.read_text().splitlines().count("joined") if log.exists() else 0


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(ExternalClassifier(sys.argv[1], msgspec.json.decode(sys.argv[2], type=Behaviour)).run())
