"""Jobs of a model whose classifier is a program outside of the system, on the embedded broker and on Apache Kafka."""

import random
import time
from collections import Counter

import msgspec
import pytest

from infrastructure.container import verify_log
from tests.kafka.external_system import LABELS, MODEL, PROCESSES, ApacheKafka, EmbeddedBroker, ExternalSystem
from tests.kafka.fixture import KafkaNode, what_is_lacking
from tests.rigs.external_classifier import is_one_of, label_of
from tests.rigs.waiting import wait_until

IMAGES = 2000
FAULTS = ("inference-bridge", "projector", "relay", "classifier", "broker")
ANSWERS_BETWEEN_FAULTS = 120


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.long)])
def broker(request, tmp_path):
    if request.param == "embedded":
        broker = EmbeddedBroker(tmp_path)
    elif (lacking := what_is_lacking()) is not None:
        pytest.skip(f"no real Kafka: {lacking}")
    else:
        broker = ApacheKafka(KafkaNode(tmp_path / "kafka"))
    yield broker
    broker.close()


@pytest.fixture
def started(settings, broker):
    """Starts a system with a classifier that behaves in some way."""
    systems = []

    def start(*, lease=60.0, **behaviour):
        given = msgspec.structs.replace(settings, kafka_url=broker.url, chunk_lease_seconds=lease, **broker.settings)
        systems.append(ExternalSystem(given, **behaviour))
        systems[-1].start_all()
        return systems[-1]

    yield start
    for system in systems:
        system.close()


def letters(system):
    return system.times_logged("inference-bridge", "record refused")


@pytest.mark.long
def test_false_repeated_and_lost_answers_leave_one_result_for_each_image(started):
    system = started(lease=4.0, twice_every=5, false_every=7, lost_every=11)
    cells = system.dataset().id
    pictures = system.upload(cells, 60)
    job = system.run(dataset=cells, model=MODEL)
    assert system.until_ended(job) == ("completed", 60, 0)
    assert system.outcomes(job) == {image: [label_of(str(image), LABELS)] for image in pictures}
    assert system.row("select count(*), count(distinct image_id) from read.results") == (60, 60)
    false = sum(is_one_of(str(image), 7) for image in pictures)
    system.until(lambda: letters(system) >= 9 * false)
    single = system.run(image=pictures[0], model=MODEL)
    assert system.until_ended(single) == ("completed", 1, 0)
    assert system.outcomes(single) == {pictures[0]: [label_of(str(pictures[0]), LABELS)]}
    assert system.stop(*PROCESSES) == [0, 0, 0]


@pytest.mark.long
def test_a_deaf_classifier_makes_images_fail_and_shows_since_when_they_wait(started):
    system = started(lease=3.0, deaf_after=1)
    cells = system.dataset().id
    pictures = system.upload(cells, 12)
    job = system.run(dataset=cells, model=MODEL)
    system.until(lambda: (system.row("select images, waiting_since, answered_at from ops.external_waits") or (0,))[0] > 0)
    status, succeeded, failed = system.until_ended(job)
    assert (status, succeeded + failed) == ("completed" if succeeded else "failed", 12)
    assert succeeded <= 1
    assert set(system.outcomes(job)) == set(pictures)
    assert Counter(found for (found,) in system.outcomes(job).values())["no_answer"] == failed
    assert system.row("select count(*) from ops.external_waits")[0] == 0


@pytest.mark.long
def test_a_single_image_is_readable_well_under_a_second_if_its_inference_takes_0_4_s(started, capsys):
    system = started(seconds=0.4)
    cells = system.dataset().id
    pictures = system.upload(cells, 12)
    system.until_shown()
    took = []
    for image in pictures:
        began = time.monotonic()
        job = system.run(image=image, model=MODEL)
        wait_until(lambda job=job: system.row("select 1 from read.results where classification_id = %s", job))
        took.append(time.monotonic() - began)
    with capsys.disabled():
        print(f"\nseconds until a single image is readable: {sorted(round(one, 3) for one in took)}")
    assert all(system.row("select count(*) from read.results where image_id = %s", image)[0] == 1 for image in pictures)


@pytest.mark.long
def test_every_image_of_a_large_job_has_one_outcome_however_often_parts_are_killed(started, broker, capsys):
    chance = random.Random(11)
    system = started(lease=15.0, seconds=0.002, silent_every=101, twice_every=50, false_every=200, lost_every=150, restarts=True)
    cells = system.dataset().id
    pictures = system.upload(cells, IMAGES)
    system.until_shown()
    began, told = time.monotonic(), []
    job = system.run(dataset=cells, model=MODEL)
    for fault in chance.sample(FAULTS * 2, k=2 * len(FAULTS)):
        before = system.answered()
        wait_for_answers(system, job, before + chance.randint(1, ANSWERS_BETWEEN_FAULTS))
        told.append(f"{fault} killed after {system.answered()} answers, {time.monotonic() - began:.0f} s")
        kill(system, broker, fault)
    wait_for_end(system, job)
    took = time.monotonic() - began
    outcomes = system.outcomes(job)
    found = Counter(one for each in outcomes.values() for one in each)
    with capsys.disabled():
        print("\n" + "\n".join(told) + f"\n{IMAGES} images in {took:.0f} s: {dict(found)}")
    assert {image: len(found) for image, found in outcomes.items()} == dict.fromkeys(pictures, 1)
    silent = {image for image in pictures if is_one_of(str(image), 101)}
    assert {image for image, (one,) in outcomes.items() if one not in LABELS} == silent
    assert {one for image, (one,) in outcomes.items() if image in silent} == {"no_answer"}
    assert all(one == label_of(str(image), LABELS) for image, (one,) in outcomes.items() if image not in silent)
    system.until_shown()
    shown = "select (select count(*) from read.results), (select count(*) from read.failures), (select count(*) from read.dead_letters)"
    assert system.row(shown) == (IMAGES - len(silent), len(silent), 0)
    assert verify_log(system.settings, system.log).problem is None


def kill(system, broker, fault):
    """The part comes back at once."""
    if fault == "broker":
        broker.kill(system)
        return
    system.kill(fault)
    system.start_classifier() if fault == "classifier" else system.start(fault)


def wait_for_answers(system, job, number):
    """Parts that ended by themselves are started again, as their supervisor does."""

    def reached():
        system.start_dead_ones()
        return system.answered() >= number or not system.is_open(job)

    wait_until(reached, within=180, explain=lambda: "\n".join(map(system.said, PROCESSES)))


def wait_for_end(system, job):
    def ended():
        system.start_dead_ones()
        return not system.is_open(job)

    wait_until(ended, within=400, explain=lambda: "\n".join(map(system.said, PROCESSES)))
