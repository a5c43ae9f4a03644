"""The example of a downstream consumer against the whole system: it counts each result once, whatever happens."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from domain import classification, dataset
from domain.classification import ChunkJudged, ImageResult, PlannedImage, Verdict
from domain.errors import Refused
from domain.events import new_stream
from domain.values import chunk_id
from infrastructure.security.access_tokens import SignedAccessTokens
from infrastructure.security.keys import RootKey
from tests.adversaries.forging import following_event, forgeries
from tests.adversaries.test_broker import Attacker
from tests.given import NOW, command, provenance
from tests.rigs.waiting import wait_until
from tests.system.conftest import SYSTEM, event_log

pytestmark = pytest.mark.long

CONSUMER = Path(__file__).parents[2] / "examples" / "consumer.py"
LABELS = ("basophil", "eosinophil", "platelet")
SHA256 = "ab" * 32
ENDS_WITHIN = 20.0  # seconds


def judged_job(chance, dataset_id):
    """A job, and the answer to it, at one moment within a week."""
    at, model = NOW + timedelta(hours=chance.randrange(7 * 24)), {"model_name": "shapes", "model_version": 1}
    about = model | {"model_id": uuid4(), "model_sha256": "f" * 64, "threshold": 0.5}
    (requested,) = classification.request(uuid4(), dataset=dataset_id, image=None, **about, by=SYSTEM.id, at=at)
    labels = chance.choices(LABELS, k=chance.randrange(1, 9))
    images = [PlannedImage(uuid4(), SHA256) for _ in labels]
    planned = classification.plan(classification.evolve(None, requested), images, by=SYSTEM.id, at=at)
    seen = tuple(
        ImageResult(image_id=image.id, sha256=SHA256, label=label, confidence=0.9, verdict=Verdict.CLEAR, scores=(0.9, 0.05, 0.05))
        for image, label in zip(images, labels, strict=True)
    )
    job = requested.originator_id
    chunk = {"job_id": job, "number": 0, "dataset_id": dataset_id, "labels": LABELS, "results": seen, "failures": ()}
    chunk |= {"provenance": provenance("f" * 64)}
    return [requested, *planned], ChunkJudged(**new_stream(chunk_id(job, 0), by=SYSTEM.id, at=at), **model, **chunk)


@contextmanager
def flowing(settings, pause):
    """Results are appended all the while; yields what stops it and says how many there were."""
    log, chance, enough, count = event_log(settings), random.Random(11), threading.Event(), 0

    cells = dataset.create(uuid4(), name="cells", description=None, by=SYSTEM.id, at=NOW)
    log.append(command(SYSTEM), cells)

    def write():
        nonlocal count
        while not enough.wait(pause):
            job, judged = judged_job(chance, cells.originator_id)
            log.append(command(SYSTEM), *job)
            with suppress(Refused):  # a worker was faster, and did not find the images
                log.append(command(SYSTEM), judged)
                count += 1

    def stop():
        enough.set()
        writing.join()
        return count

    writing = threading.Thread(target=write)
    writing.start()
    try:
        yield stop
    finally:
        stop()
        log.close()


def truth(settings):
    log, counts, after = event_log(settings), Counter(), 0
    try:
        while piece := log.read(after, 500):
            after = piece[-1].position
            for event in (log.decode(one) for one in piece if one.type == "ChunkJudged"):
                counts.update((f"{event.at:%Y-%m-%d}", result.label) for result in event.results)
    finally:
        log.close()
    return after, counts


class Consumer:
    def __init__(self, settings, folder, *, kafka):
        token = SignedAccessTokens(RootKey.read(settings.root_key_path), ttl=600).issue_service(
            name="counts", scopes=frozenset({"events:read"}), seconds=3600, at=datetime.now(UTC)
        )
        self.database, self.said = folder / "counts.db", folder / "said.txt"
        self.argv = [sys.executable, str(CONSUMER), str(self.database), "--url", settings.base_url]
        self.argv += ["--kafka", settings.kafka_url] if kafka else []
        self.environment = os.environ | {"BIOSCOPE_TOKEN": token}

    @contextmanager
    def running(self, *, end=signal.SIGKILL):
        with self.said.open("a") as said, subprocess.Popen(self.argv, env=self.environment, stderr=said) as process:
            try:
                yield process
            finally:
                process.send_signal(end)
                try:
                    process.wait(ENDS_WITHIN)
                finally:
                    process.kill()

    @property
    def position(self):
        with sqlite3.connect(self.database, timeout=10) as database:
            if not database.execute("select 1 from sqlite_master where name = 'place'").fetchone():
                return 0
            return database.execute("select position from place").fetchone()[0]

    def verify(self):
        argv = [*self.argv, "--verify"]
        return subprocess.run(argv, env=self.environment, capture_output=True, text=True, check=False, timeout=30)

    def compared_heads(self):
        """The finished `verify`, once it compared a head."""
        done = self.verify()
        return None if done.stdout.startswith("0 ") else done

    def counts(self):
        with sqlite3.connect(self.database) as database:
            return {(day, label): results for day, label, results in database.execute("select day, label, results from counts")}

    def until_it_says(self, words, within=60):
        wait_until(lambda: words in self.said.read_text(), within=within, explain=lambda: self.said.read_text()[-2000:])

    def until(self, position, within=60):
        wait_until(
            lambda: self.position >= position,
            within=within,
            explain=lambda: (self.position, position, self.said.read_text()[-2000:]),
        )


@pytest.mark.long
def test_killed_ten_times_it_has_counted_each_result_once(stack, tmp_path):
    consumer, chance = Consumer(stack, tmp_path, kafka=True), random.Random(5)
    with consumer.running():
        consumer.until(1)
        with flowing(stack, pause=0.02):
            consumer.until_it_says(", by kafka")
    with flowing(stack, pause=0.005) as stop:
        for _ in range(10):
            with consumer.running() as process:
                time.sleep(chance.uniform(0.6, 2.5))
                assert process.poll() is None, consumer.said.read_text()
        appended = stop()
    position, counts = truth(stack)
    with consumer.running(end=signal.SIGINT):
        consumer.until(position)
    assert appended > 200
    assert consumer.counts() == counts
    assert ", by http" in consumer.said.read_text()


@pytest.mark.parametrize("kafka", [True, False])
def test_it_follows_as_things_happen_and_alone_by_http(stack, tmp_path, kafka):
    consumer = Consumer(stack, tmp_path, kafka=kafka)
    with consumer.running(end=signal.SIGINT):
        consumer.until(1)
        with flowing(stack, pause=0.02) as stop:
            consumer.until_it_says(", by kafka" if kafka else ", by http")
            consumer.until(consumer.position + 10)
            stop()
        position, counts = truth(stack)
        consumer.until(position)
        assert consumer.counts() == counts
    assert (", by kafka" in consumer.said.read_text()) == kafka


@pytest.mark.long
def test_what_was_followed_is_compared_with_the_signed_heads(stack, tmp_path):
    consumer = Consumer(stack, tmp_path, kafka=True)
    with consumer.running(), flowing(stack, pause=0.001):
        consumer.until_it_says(", by kafka")
        done = wait_until(consumer.compared_heads, within=120)  # the first is signed after 1,000 events
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(consumer.database) as database:
        database.execute("update hashes set hash = ?", ("ab" * 32,))
    done = consumer.verify()
    assert done.returncode == 1
    assert "differs from the event that was counted" in done.stderr


def test_a_forged_record_is_not_counted(stack, tmp_path):
    consumer = Consumer(stack, tmp_path, kafka=True)
    attacker = Attacker(stack.kafka_url)
    with consumer.running(), flowing(stack, pause=0.02) as stop:
        consumer.until_it_says(", by kafka")
        stop()
        position, counts = truth(stack)
        consumer.until(position)
        record = attacker.records()[-1]
        attacker.send(
            following_event(record, type="ChunkJudged", data=record.value, event_id=uuid4()), *forgeries(record, random.Random(3))
        )
    with flowing(stack, pause=0.02), consumer.running():
        consumer.until(position + 3)
    position, counts = truth(stack)
    with consumer.running():
        consumer.until(position)
    assert consumer.counts() == counts


def test_it_says_what_is_wrong_with_its_token(stack, tmp_path):
    consumer = Consumer(stack, tmp_path, kafka=False)
    consumer.environment = consumer.environment | {"BIOSCOPE_TOKEN": "nonsense"}
    done = subprocess.run(consumer.argv, env=consumer.environment, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "events:read" in done.stderr
