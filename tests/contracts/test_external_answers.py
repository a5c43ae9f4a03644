"""The contract of the images that wait for external classifiers, and of their answers: Postgres and the in-memory twin."""

from uuid import uuid4

import psycopg
import pytest

from application.jobs.external_answers import Arrival, ArrivedAnswer, ImageKey
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.postgres.system.external_answers import PostgresExternalAnswers
from tests.contracts.conftest import ROOT
from tests.twins.external_answers import MemoryExternalAnswers

CELLS, BONES = "cells", "bones"


@pytest.fixture(params=["memory", "bioscope_app", "bioscope_inference"])
def answers(request):
    if request.param == "memory":
        yield MemoryExternalAnswers()
        return
    url = request.getfixturevalue("postgres").url(user=request.param, database=request.getfixturevalue("database"))
    recorder = PostgresRecorder(url, ROOT)
    yield PostgresExternalAnswers(recorder.rows)
    recorder.close()


def arrived(key, label="round", confidence=0.75):
    return ArrivedAnswer(key, label, confidence)


def test_an_image_is_expected_then_sent_then_answered(answers):
    job, image = uuid4(), uuid4()
    key = ImageKey(job, image)
    assert answers.expect(job, 0, CELLS, [image]) == [(key, 0, None, None, None, None)]
    answers.mark_sent({key: 1})
    (sent,) = answers.expect(job, 0, CELLS, [image])
    assert (sent.key, sent.attempts, sent.label) == (key, 1, None)
    assert 0 <= sent.sent_seconds_ago < 60
    assert answers.answered([key]) == []
    assert answers.take([arrived(key)], model_names=[CELLS]) == {key: Arrival.TAKEN}
    (answered,) = answers.answered([key, ImageKey(job, uuid4())])
    assert (answered.key, answered.attempts, answered.label, answered.confidence) == (key, 1, "round", 0.75)
    assert 0 <= answered.answered_seconds_ago <= answered.sent_seconds_ago
    assert [one[:2] + one[3:5] for one in answers.expect(job, 0, CELLS, [image])] == [(key, 1, "round", 0.75)]


def test_the_first_answer_to_an_image_stays(answers):
    job, image = uuid4(), uuid4()
    key = ImageKey(job, image)
    answers.expect(job, 0, CELLS, [image])
    assert answers.take([arrived(key)], model_names=[CELLS]) == {key: Arrival.TAKEN}
    assert answers.take([arrived(key, "flat", 0.5)], model_names=[CELLS]) == {key: Arrival.DUPLICATE}
    assert [one.label for one in answers.answered([key])] == ["round"]


def test_an_image_that_was_never_expected_takes_no_answer(answers):
    job, image = uuid4(), uuid4()
    answers.expect(job, 0, CELLS, [image])
    others = [ImageKey(job, uuid4()), ImageKey(uuid4(), image)]
    assert answers.take([arrived(key) for key in others], model_names=[CELLS]) == dict.fromkeys(others, Arrival.UNEXPECTED)
    assert answers.answered(others) == []


def test_several_answers_are_judged_one_by_one(answers):
    job, images = uuid4(), [uuid4() for _ in range(3)]
    keys = [ImageKey(job, image) for image in images]
    answers.expect(job, 0, CELLS, images[:2])
    answers.take([arrived(keys[0])], model_names=[CELLS])
    found = answers.take([arrived(key) for key in keys], model_names=[CELLS])
    assert found == {keys[0]: Arrival.DUPLICATE, keys[1]: Arrival.TAKEN, keys[2]: Arrival.UNEXPECTED}


def test_a_chunk_that_is_finished_takes_no_late_answer(answers):
    job, (early, late, other) = uuid4(), [uuid4() for _ in range(3)]
    answers.expect(job, 0, CELLS, [early, late])
    answers.expect(job, 1, CELLS, [other])
    answers.take([arrived(ImageKey(job, early))], model_names=[CELLS])
    answers.finish(job, 0)
    found = answers.take([arrived(ImageKey(job, image)) for image in (late, other)], model_names=[CELLS])
    assert found == {ImageKey(job, late): Arrival.DUPLICATE, ImageKey(job, other): Arrival.TAKEN}


def test_attempts_are_counted_for_each_image(answers):
    job, images = uuid4(), [uuid4(), uuid4()]
    keys = [ImageKey(job, image) for image in images]
    answers.expect(job, 0, CELLS, images)
    answers.mark_sent(dict.fromkeys(keys, 1))
    answers.mark_sent({keys[0]: 2})
    answers.mark_sent({ImageKey(uuid4(), uuid4()): 1})
    assert {one.key: one.attempts for one in answers.expect(job, 0, CELLS, images)} == {keys[0]: 2, keys[1]: 1}


def test_an_attempt_that_is_stored_again_after_a_lost_connection_counts_once(answers):
    job, image = uuid4(), uuid4()
    answers.expect(job, 0, CELLS, [image])
    for attempt in (1, 1, 2, 2, 1):
        answers.mark_sent({ImageKey(job, image): attempt})
    assert [one.attempts for one in answers.expect(job, 0, CELLS, [image])] == [2]


def test_the_last_answer_of_each_model_is_known_whatever_it_was_worth(answers):
    assert answers.last_answers([CELLS, BONES]) == {}
    answers.take([arrived(ImageKey(uuid4(), uuid4()))], model_names=[CELLS])
    found = answers.last_answers([CELLS, BONES])
    assert list(found) == [CELLS]
    assert 0 <= found[CELLS] < 60
    answers.take([], model_names=[BONES])
    assert set(answers.last_answers([CELLS, BONES])) == {CELLS, BONES}


def test_what_is_forgotten_is_gone_and_other_jobs_stay(answers):
    gone, stays, image = uuid4(), uuid4(), uuid4()
    for job in (gone, stays):
        answers.expect(job, 0, CELLS, [image])
    assert answers.jobs() == {gone, stays}
    answers.forget([gone])
    assert answers.jobs() == {stays}
    assert answers.take([arrived(ImageKey(gone, image))], model_names=[CELLS]) == {ImageKey(gone, image): Arrival.UNEXPECTED}


@pytest.mark.parametrize("role", ["bioscope_api", "bioscope_app", "bioscope_relay", "bioscope_projector", "bioscope_inference"])
def test_only_workers_and_commands_on_the_server_may_write_answers(postgres, database, role):
    allowed = role in {"bioscope_app", "bioscope_inference"}
    with psycopg.connect(postgres.url(user=role, database=database), autocommit=True) as connection:
        for table, right in (("external_answers", "insert"), ("external_answers", "delete"), ("external_models", "update")):
            (has,) = connection.execute("select has_table_privilege(%s, %s)", (f"ops.{table}", right)).fetchone()
            assert has is allowed, (table, right)
        (sees,) = connection.execute("select has_table_privilege('ops.external_waits', 'select')").fetchone()
        assert sees is (role in {"bioscope_api", "bioscope_app"})


OPEN_CHUNK = "insert into ops.open_chunks values (%s, 0, gen_random_uuid(), 'cells', 1, '', '{}', '{}')"
END_JOB = "delete from ops.open_chunks where job = %s"  # as `es.append` does


@pytest.fixture
def monitored(postgres, database, app_url):
    """The answers, and a function that returns what the API sees of them."""
    recorder = PostgresRecorder(app_url, ROOT)

    def waits():
        query = "select model_name, images, now() - waiting_since < interval '1 minute', answered_at is not null from ops.external_waits"
        with psycopg.connect(postgres.url(user="bioscope_api", database=database)) as connection:
            return connection.execute(query).fetchall()

    yield PostgresExternalAnswers(recorder.rows), waits
    recorder.close()


def test_the_api_sees_since_when_images_wait_and_when_the_last_answer_came(monitored, owner_url):
    (answers, waits), job, images = monitored, uuid4(), [uuid4() for _ in range(3)]
    keys = [ImageKey(job, image) for image in images]
    with psycopg.connect(owner_url) as owner:
        owner.execute(OPEN_CHUNK, (job,))
    answers.expect(job, 0, CELLS, images)
    assert waits() == []
    answers.mark_sent(dict.fromkeys(keys[:2], 1))
    assert waits() == [(CELLS, 2, True, False)]
    answers.take([arrived(keys[0])], model_names=[CELLS])
    assert waits() == [(CELLS, 1, True, True)]
    answers.finish(job, 0)
    assert waits() == []


def test_nothing_waits_for_a_job_that_has_ended(monitored, owner_url):
    (answers, waits), ended, open_job, image = monitored, uuid4(), uuid4(), uuid4()
    for job in (ended, open_job):
        with psycopg.connect(owner_url) as owner:
            owner.execute(OPEN_CHUNK, (job,))
        answers.expect(job, 0, CELLS, [image])
        answers.mark_sent({ImageKey(job, image): 1})
    assert waits() == [(CELLS, 2, True, False)]
    with psycopg.connect(owner_url) as owner:
        owner.execute(END_JOB, (ended,))
    assert waits() == [(CELLS, 1, True, False)]
