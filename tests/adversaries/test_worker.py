"""A worker that lies or errs: results for chunks and images that were not requested are not recorded."""

import asyncio
import hashlib
import math
from functools import partial
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from application.jobs.chunk_results import ChunkAnswers, JobPlans, record_chunk_results
from application.jobs.topics import BULK, URGENT
from application.ports import Command, Secret
from domain import classification, dataset, image
from domain.access import Actor
from domain.classification import ChunkJudged, ImageFailure, ImageResult, PlannedImage, Verdict
from domain.errors import Refused
from domain.image import ImageAccepted, ImageRejected
from domain.model import ModelVersionAdded
from domain.model_check import ModelCheckFailed, ModelCheckPassed
from domain.registry import EVENTS
from domain.values import chunk_id, system_actor
from infrastructure.audit.log_verification import verify_log
from infrastructure.audit.record_rules import RecordAudit
from infrastructure.eventstore.event_store import RecorderEventStore, open_event_store
from infrastructure.eventstore.group_commit import APPEND
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.inference.models.bundled import micrographs
from infrastructure.kafka.producer import Sender
from infrastructure.security.key_ring import NO_KEYS
from infrastructure.security.keys import RootKey
from tests.given import NOW, actor, command, provenance
from tests.older_release import at_version
from tests.twins.event_store import MemoryRecorder

ROOT = RootKey(bytes(32))
PERSON = actor()
SCHEDULER = Actor(id=system_actor("scheduler"), kind="system")
WORKER = Actor(id=system_actor("inference"), kind="system")
LABELS = ("round", "flat", "long")
FOUND = image.Inspection(width=8, height=8, bands=3, dtype="uint8", pages=1, axes="YXS", pixel_size_um=None, reader=2, warnings=())


def log_as(postgres, database, role, keys=None):
    """With the keys of the role's process, unless others were stolen."""
    keys = keys or (NO_KEYS if role == "bioscope_inference" else ROOT)
    return RecorderEventStore(PostgresRecorder(postgres.url(user=role, database=database), keys), keys)


@pytest.fixture
def open_as(postgres, database):
    opened = []

    def open_as(role, **stolen):
        opened.append(log_as(postgres, database, role, **stolen))
        return opened[-1]

    yield open_as
    for log in opened:
        log.close()


@pytest.fixture
def record(open_as):
    """The log, as the processes that behave see it."""
    return open_as("bioscope_app")


@pytest.fixture
def worker(open_as):
    """The log, as an inference process reaches it."""
    return open_as("bioscope_inference")


def a_job(log, count=10):
    """A planned job over images, each with a sha256 of its own."""
    about = {"model_id": uuid4(), "model_name": "shapes", "model_version": 1, "model_sha256": "f" * 64, "threshold": 0.5}
    (requested,) = classification.request(uuid4(), dataset=uuid4(), image=None, **about, by=PERSON.id, at=NOW)
    log.append(command(PERSON), requested)
    images = [PlannedImage(one := uuid4(), one.hex * 2) for _ in range(count)]
    state = classification.evolve(None, requested)
    log.append(command(SCHEDULER), *classification.plan(state, images, by=SCHEDULER.id, at=NOW))
    return log.load(requested.originator_id, classification.evolve)


def result(planned, *, label=LABELS[0], scores=(0.7, 0.2, 0.1)):
    return ImageResult(
        image_id=planned.id, sha256=planned.sha256, label=label, confidence=scores[0], verdict=Verdict.CLEAR, scores=tuple(scores)
    )


def judged(log, job, number=0, **changed):
    """The right answer for a chunk, but for what was `changed`."""
    chunk = JobPlans(log).chunk(job.id, number) or JobPlans(log).chunk(job.id, 0)
    right = ChunkJudged(
        originator_id=chunk_id(job.id, number),
        originator_version=1,
        at=NOW,
        by=WORKER.id,
        job_id=job.id,
        number=number,
        dataset_id=job.dataset_id,
        model_name=job.model_name,
        model_version=job.model_version,
        labels=LABELS,
        results=tuple(map(result, chunk.images)),
        failures=(),
        provenance=provenance(job.model_sha256),
    )
    return msgspec.structs.replace(right, **changed)


def uploaded(log, sha256="a" * 64):
    about = {"filename": "cell.png", "size": 10, "media_type": "image/png", "width": 8, "height": 8}
    event = image.upload(uuid4(), dataset=uuid4(), device=None, sha256=sha256, **about, by=PERSON.id, at=NOW)
    log.append(command(PERSON), event)
    return log.load(event.originator_id, image.evolve)


def takes(log, *events):
    """Whether the record takes it from a worker."""
    try:
        log.append(Command(id=uuid4(), actor=WORKER, at=NOW), *events)
    except Refused:
        return False
    return True


# ---- chunks ------------------------------------------------------------------------------------------------------------------------
def test_a_right_answer_is_taken_once(record, worker):
    job = a_job(record)
    assert takes(worker, judged(record, job))
    chunk, again = JobPlans(record).chunk(job.id, 0), judged(record, job)
    answers = ChunkAnswers(results=again.results, labels=again.labels, provenance=again.provenance)
    assert not record_chunk_results(chunk, answers, command=Command(id=uuid4(), actor=WORKER, at=NOW), log=worker)
    assert len(record.history(chunk_id(job.id, 0))) == 1


def test_a_chunk_that_was_not_planned_is_refused(record, worker):
    job = a_job(record)
    assert not takes(worker, judged(record, job, 777))
    assert not takes(worker, judged(record, job, 0, job_id=uuid4()))


def test_swapped_digests_are_refused(record, worker):
    job = a_job(record)
    first, second, *others = judged(record, job).results
    swapped = (
        msgspec.structs.replace(first, sha256=second.sha256),
        msgspec.structs.replace(second, sha256=first.sha256),
        *others,
    )
    assert not takes(worker, judged(record, job, results=swapped))


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, -0.1, 1.5, "0.5"])
def test_scores_that_are_no_probabilities_are_refused(record, worker, score):
    job = a_job(record)
    first, *others = judged(record, job).results
    assert not takes(worker, judged(record, job, results=(msgspec.structs.replace(first, scores=(0.7, 0.2, score)), *others)))
    assert not takes(worker, judged(record, job, results=(msgspec.structs.replace(first, confidence=score), *others)))


def test_a_foreign_image_an_image_twice_and_another_jobs_image_are_refused(record, worker):
    job, other = a_job(record), a_job(record)
    right = judged(record, job)
    stranger = result(PlannedImage(uuid4(), "a" * 64))
    assert not takes(worker, judged(record, job, results=(*right.results, stranger)))
    assert not takes(worker, judged(record, job, results=(*right.results, right.results[0])))
    assert not takes(worker, judged(record, job, results=judged(record, other).results))
    failed = ImageFailure(image_id=right.results[0].image_id, reason="damaged_image", detail="It is torn.")
    assert not takes(worker, judged(record, job, failures=(failed,)))
    assert not takes(worker, judged(record, job, results=(), failures=(failed, failed)))


def test_an_answer_in_the_stream_of_another_chunk_is_refused(record, worker):
    job, victim = a_job(record), a_job(record)
    assert not takes(worker, judged(record, job, originator_id=chunk_id(victim.id, 0)))
    assert not takes(worker, judged(record, job, originator_id=uuid4()))
    assert takes(worker, judged(record, victim)), "whose chunk can be answered still"


def test_results_in_another_dataset_or_of_another_model_are_refused(record, worker):
    job = a_job(record)
    right = judged(record, job).provenance
    assert not takes(worker, judged(record, job, dataset_id=uuid4()))
    assert not takes(worker, judged(record, job, model_name="others"))
    assert not takes(worker, judged(record, job, model_version=2))
    assert not takes(worker, judged(record, job, provenance=msgspec.structs.replace(right, model_sha256="0" * 64)))


def test_results_that_do_not_say_what_computed_them_are_refused_and_failures_are_not(record, worker):
    job = a_job(record)
    right, failed = judged(record, job), ImageFailure(image_id=judged(record, job).results[0].image_id, reason="torn", detail="It is torn.")
    repeated = msgspec.structs.replace(right.results[1], reused=uuid4())
    for log in (record, worker):
        assert not takes(log, judged(record, job, provenance=None))
        assert not takes(log, judged(record, job, provenance=None, results=(right.results[0], repeated)))
    chunk = JobPlans(record).chunk(job.id, 0)
    answers = ChunkAnswers(results=right.results, labels=LABELS)
    with pytest.raises(Refused, match="nothing says what computed"):
        record_chunk_results(chunk, answers, command=Command(id=uuid4(), actor=WORKER, at=NOW), log=worker)
    assert takes(worker, judged(record, job, provenance=None, results=(), failures=(failed,)))


def test_the_audit_accepts_results_without_provenance_which_earlier_releases_took():
    log = RecorderEventStore(MemoryRecorder(ROOT), ROOT)
    job = a_job(log)
    with pytest.MonkeyPatch.context() as earlier:
        earlier.setattr(classification, "violation_of", partial(classification.violation_of, needs_provenance=False))
        assert takes(log, judged(log, job, provenance=None))
    audit = RecordAudit(log)
    assert [audit.violation_of(one) for one in log.read(0, 100)] == [None] * log.head()


def test_a_worker_hides_no_result_from_statistics_as_a_repeated_one(record, worker):
    job = a_job(record)
    repeated = tuple(msgspec.structs.replace(one, reused=uuid4()) for one in judged(record, job).results)
    assert not takes(worker, judged(record, job, results=repeated))
    assert not takes(worker, judged(record, job, results=repeated, provenance=None))
    assert not takes(record, judged(record, job, results=repeated)), "since nothing computed them now"
    assert takes(record, judged(record, job, results=repeated, provenance=None))


@pytest.mark.parametrize("ending", ["cancel", "delete", "fail"])
def test_a_job_that_has_ended_takes_no_answer_even_without_the_guard(record, worker, ending):
    job = a_job(record)
    more = {"reason": "", "failed": 0} if ending == "fail" else {}
    record.append(command(PERSON), getattr(classification, ending)(job, **more, by=PERSON.id, at=NOW))
    assert not takes(worker, judged(record, job))


# ---- the database and the domain say the same ---------------------------------------------------------------------------------------
changes = st.sampled_from(
    [
        {},
        {"number": 1},
        {"number": -1},
        {"originator_id": uuid4()},
        {"dataset_id": uuid4()},
        {"model_version": 2},
        {"labels": LABELS[:2]},
        {"labels": (*LABELS, "more")},
        {"provenance": None},
        {"results": ()},
    ]
)
scores = st.lists(st.sampled_from([0.0, 0.25, 1.0, 1e-9, 1.0000001, -0.1, math.nan]), min_size=2, max_size=4)
answers = st.tuples(
    st.integers(0, 99),  # which image
    st.sampled_from(["right", "right", "right", "failed", "foreign", "wrong sha256"]),
    st.sampled_from([*LABELS, *LABELS, "unknown"]),
    st.one_of(st.just([0.5, 0.25, 0.25]), st.just([0.5, 0.25, 0.25]), scores),
)


def answered(chunk, said):
    results, failures = [], []
    for which, how, label, numbers in said:
        planned = chunk[which % len(chunk)] if how != "foreign" else PlannedImage(uuid4(), "a" * 64)
        if how == "failed":
            failures.append(ImageFailure(image_id=planned.id, reason="damaged_image", detail="It is torn."))
        else:
            sha256 = "b" * 64 if how == "wrong sha256" else planned.sha256
            results.append(result(PlannedImage(planned.id, sha256), label=label, scores=numbers))
    return {"results": tuple(results), "failures": tuple(failures)}


@pytest.fixture(scope="module")
def both(postgres):
    """One database for all examples."""
    name = "adversary_worker"
    with psycopg.connect(postgres.url(user="postgres", database="postgres"), autocommit=True) as connection:
        connection.execute(f"create database {name} template template_bioscope")
    logs = [log_as(postgres, name, role) for role in ("bioscope_app", "bioscope_inference")]
    yield logs
    for log in logs:
        log.close()


@settings(max_examples=150)
@given(count=st.integers(1, 150), number=st.integers(0, 3), said=st.none() | st.lists(answers, max_size=4), changed=changes)
def test_the_database_takes_exactly_what_the_domain_takes(both, count, number, said, changed):
    record, worker = both
    job = a_job(record, count)
    plans = JobPlans(record)
    chunk = plans.chunk(job.id, number) or plans.chunk(job.id, 0)
    answer = answered(chunk.images, said) if said is not None else {}
    event = msgspec.structs.replace(judged(record, job, number), **answer | changed)
    plan = plans.chunk(job.id, event.number)
    right = classification.violation_of(event, job=job, plan=plan and plan.plan) is None
    assert takes(worker, event) is right
    twin = RecorderEventStore(MemoryRecorder(ROOT), ROOT)
    for recorded in record.history(job.id):
        twin.append(command(), record.decode(recorded))
    assert takes(twin, event) is right


@pytest.mark.parametrize("count", [1, 7, 8, 9, 63, 64, 65, 72, 100, 499, 500])
def test_the_database_cuts_a_plan_into_the_chunks_of_the_domain(record, postgres, database, count):
    job = a_job(record, count)
    with psycopg.connect(postgres.url(user="postgres", database=database)) as owner:
        rows = owner.execute("select number, images from ops.open_chunks where job = %s order by number", (job.id,)).fetchall()
    plans = JobPlans(record)
    assert [list(images) for _, images in rows] == [[one.id for one in plans.chunk(job.id, number).images] for number, _ in rows]
    assert [number for number, _ in rows] == list(range(job.chunks))


@given(job=st.uuids(), number=st.integers(0, 2**31 - 1))
def test_the_database_names_the_stream_of_a_chunk_as_the_domain_does(postgres, job, number):
    with psycopg.connect(postgres.url(user="postgres", database="template_bioscope")) as owner:
        assert owner.execute("select ops.chunk_stream(%s, %s)", (job, number)).fetchone() == (chunk_id(job, number),)


def test_open_chunks_are_found_again_in_a_log_of_before(record, postgres, database):
    done, left, cancelled = a_job(record, 20), a_job(record, 20), a_job(record)
    record.append(command(WORKER), judged(record, done))
    record.append(command(PERSON), classification.cancel(cancelled, by=PERSON.id, at=NOW))
    query = "select c::text from ops.open_chunks c order by job, number"
    with psycopg.connect(postgres.url(user="postgres", database=database), autocommit=True) as owner:
        kept = owner.execute(query).fetchall()
        owner.execute("delete from ops.open_chunks")
        owner.execute("call ops.fill_open_chunks()")
        assert owner.execute(query).fetchall() == kept
    assert len(kept) == done.chunks - 1 + left.chunks


# ---- images ------------------------------------------------------------------------------------------------------------------------
def accepted(state, **changed):
    (event,) = image.accept(state, FOUND, by=WORKER.id, at=NOW)
    return msgspec.structs.replace(event, **changed)


def test_an_inspection_of_what_was_not_uploaded_is_refused(record, worker):
    state = uploaded(record)
    assert not takes(worker, accepted(state, originator_id=uuid4(), originator_version=1))
    assert not takes(worker, accepted(state, sha256="b" * 64))
    place = dataset.create(uuid4(), name="cells", description=None, by=PERSON.id, at=NOW)
    record.append(command(PERSON), place)
    assert not takes(worker, accepted(state, originator_id=place.originator_id))
    assert takes(worker, accepted(state))


def test_an_image_is_inspected_once_and_not_after_it_was_deleted(record, worker):
    state, gone = uploaded(record), uploaded(record)
    assert takes(worker, accepted(state))
    assert not takes(worker, accepted(state, originator_version=3))
    record.append(command(PERSON), image.delete(gone, by=PERSON.id, at=NOW))
    assert not takes(worker, accepted(gone, originator_version=3))


@pytest.mark.parametrize("twin", [True, False])
def test_an_upload_and_its_inspection_may_be_one_command(record, twin):
    log = RecorderEventStore(MemoryRecorder(ROOT), ROOT) if twin else record
    about = {"filename": "cell.png", "size": 10, "media_type": "image/png", "width": 8, "height": 8}
    for sha256, is_taken in (("a" * 64, True), ("b" * 64, False)):
        event = image.upload(uuid4(), dataset=uuid4(), device=None, sha256="a" * 64, **about, by=PERSON.id, at=NOW)
        assert takes(log, event, accepted(image.evolve(None, event), sha256=sha256)) is is_taken


# ---- rights ------------------------------------------------------------------------------------------------------------------------
def some_events(record):
    return {
        "DatasetCreated": dataset.create(uuid4(), name="cells", description=None, by=WORKER.id, at=NOW),
        "ImageDeleted": image.delete(uploaded(record), by=WORKER.id, at=NOW),
        "ImageDescribed": image.describe(uploaded(record), analyzed=True, by=WORKER.id, at=NOW)[0],
        "ClassificationCancelled": classification.cancel(a_job(record), by=WORKER.id, at=NOW),
        "ImageAccepted": accepted(uploaded(record)),
    }


ALLOWED = {
    "bioscope_inference": {"ImageAccepted"},
    "bioscope_projector": {"ClassificationCancelled"},
    "bioscope_api": {"DatasetCreated", "ImageDeleted", "ImageDescribed", "ClassificationCancelled"},
    "bioscope_app": {"DatasetCreated", "ImageDeleted", "ImageDescribed", "ClassificationCancelled", "ImageAccepted"},
}


@pytest.mark.parametrize("role", ALLOWED)
def test_a_role_appends_its_own_types_of_events_and_no_others(record, open_as, role):
    log, taken = open_as(role, keys=ROOT), set()
    by = SCHEDULER if role == "bioscope_projector" else WORKER
    for name, event in some_events(record).items():
        try:
            log.append(Command(id=uuid4(), actor=by, at=NOW), event)
            taken.add(name)
        except Refused:
            pass
    assert taken == ALLOWED[role]


OF_OPERATORS = {"DeadLetterDiscarded", "UserErased", "ImageReinspected"}


def test_each_type_of_event_has_processes_that_append_it_or_is_left_to_operators(postgres):
    with psycopg.connect(postgres.url(user="postgres", database="template_bioscope")) as owner:
        rows = owner.execute("select topics from ops.writers where topics <> '{*}'").fetchall()
    granted = {topic for (topics,) in rows for topic in topics}
    assert granted == set(EVENTS) - OF_OPERATORS, "add the type to ops.writers in a migration, or to OF_OPERATORS"


@pytest.mark.parametrize("kind", [ChunkJudged, ImageAccepted, ImageRejected, ModelCheckPassed, ModelCheckFailed, ModelVersionAdded])
def test_the_schema_version_that_the_database_takes_is_the_newest(kind):
    assert kind.schema_version == 1, "es.append refuses others: bring a migration"


def test_an_event_of_an_unknown_schema_version_is_refused(record, worker):
    job = a_job(record)
    with at_version("ChunkJudged", 99):
        assert not takes(worker, judged(record, job))
    assert takes(worker, judged(record, job))


def test_a_worker_acts_for_nobody_else_and_touches_no_secrets(record, worker):
    job = a_job(record)
    for impostor in (PERSON, SCHEDULER):
        with pytest.raises(Refused, match="may not act for others"):
            worker.append(Command(id=uuid4(), actor=impostor, at=NOW), judged(record, job))
    stolen = Secret(kind="password", owner=uuid4(), value=b"known to me")
    with pytest.raises(Refused, match="may not change claims or secrets"):
        worker.append(Command(id=uuid4(), actor=WORKER, at=NOW), judged(record, job), secrets=[stolen])
    assert takes(worker, judged(record, job))


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        *((role, "insert into es.events select * from es.events") for role in ALLOWED),
        *((role, "delete from ops.open_chunks") for role in ALLOWED),
        *((role, "insert into ops.open_chunks select * from ops.open_chunks") for role in ALLOWED),
        *((role, "update ops.writers set topics = '{*}'") for role in ALLOWED),
        ("bioscope_inference", "select value from es.secrets"),
        ("bioscope_inference", "select * from es.refresh_tokens"),
        ("bioscope_inference", "select * from es.claims"),
        ("bioscope_inference", "select * from read.users"),
        ("bioscope_inference", "update read.models set name = ''"),
        ("bioscope_inference", "update ops.releases set attempts = 0"),
        ("bioscope_inference", "select ops.advance(0, 0, 0, '', '', 0, 0)"),
        ("bioscope_relay", "select value from es.secrets"),
        ("bioscope_relay", "select * from read.users"),
        ("bioscope_api", "update read.users set role = 'admin'"),
        ("bioscope_api", "update ops.relay set position = 0"),
        ("bioscope_projector", "select * from es.refresh_tokens"),
        ("bioscope_projector", "update ops.relay set position = 0"),
    ],
)
def test_a_role_reaches_no_table_that_its_process_does_not_need(postgres, database, role, statement):
    with psycopg.connect(postgres.url(user=role, database=database)) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)


def test_a_relay_appends_nothing(postgres, database):
    with psycopg.connect(postgres.url(user="bioscope_relay", database=database)) as connection:
        arguments = ",".join(["'{}'"] * APPEND.count("%s"))
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="function append"):
            connection.execute(f"select es.append({arguments})")


# ---- what got in before is found ----------------------------------------------------------------------------------------------------
def lied_to(log):
    """A record without rules."""
    log.recorder._ruled = lambda _: None
    return log


def first_violation(log):
    audit = RecordAudit(log)
    return next(((one.position, what) for one in log.read(0, 1000) if (what := audit.violation_of(one))), None)


def test_an_audit_names_the_first_event_that_breaks_a_rule():
    log = lied_to(RecorderEventStore(MemoryRecorder(ROOT), ROOT))
    job, state = a_job(log), uploaded(log)
    log.append(command(WORKER), judged(log, job))
    log.append(command(WORKER), accepted(state))
    assert first_violation(log) is None
    lies = [
        judged(log, job, 777),
        judged(log, a_job(log), originator_id=uuid4()),
        accepted(state, originator_version=3),
        accepted(uploaded(log), sha256="b" * 64),
    ]
    expected = log.head() + 1
    for lie in lies:
        log.append(command(WORKER), lie)
    assert first_violation(log) == (expected, "the chunk was not planned")


@pytest.mark.parametrize("lie", ["swapped", "twice", "digest", "unseen"])
def test_an_audit_finds_each_kind_of_lie(lie):
    log = lied_to(RecorderEventStore(MemoryRecorder(ROOT), ROOT))
    job, state = a_job(log), uploaded(log)
    right = judged(log, job)
    events = {
        "swapped": lambda: judged(log, job, results=(msgspec.structs.replace(right.results[0], sha256="b" * 64),)),
        "twice": lambda: judged(log, job, originator_id=uuid4()),
        "digest": lambda: accepted(state, sha256="b" * 64),
        "unseen": lambda: ImageAccepted(**msgspec.structs.asdict(accepted(state, originator_id=uuid4(), originator_version=1))),
    }
    log.append(command(WORKER), events[lie]())
    position, _ = first_violation(log)
    assert position == log.head()


# ---- a forged task -----------------------------------------------------------------------------------------------------------------
def forged(job, images):
    """Tasks as release 0.1.0 wrote them: of chunks that were not planned, and with the sha256 of another image for each."""
    swapped = [{"id": one.id, "sha256": other.sha256} for one, other in zip(images, reversed(images), strict=True)]
    about = {"dataset": None, "model_id": None, "model_name": "pbc8", "model_version": 1, "model_sha256": "0" * 64, "threshold": 0.0}
    classify = [{"kind": "classify", "job": str(job), "number": number, "images": swapped} | about for number in (777, 1, 0, -1)]
    inspect = {"kind": "inspect", "images": [{"id": str(one.id), "sha256": images[0].sha256} for one in images]}
    stranger = {"kind": "inspect", "images": [{"id": str(uuid4()), "sha256": images[0].sha256}]}
    return [msgspec.json.encode(task) for task in (*classify, inspect, stranger)]


async def send_all(brokers, values):
    sender = Sender(brokers)
    for value in values:
        for topic in (BULK, URGENT):
            await sender(topic, b"", value)
    await sender.close()


def test_forged_tasks_change_nothing_of_what_the_record_says(stack, researcher):
    data = researcher.create_dataset("forged")
    pictures = sorted(micrographs().rglob("*.jpg"))[:12]
    files = [("file", (path.name, path.read_bytes())) for path in pictures]
    ids = [researcher.call("POST", "/api/images/upload", data={"dataset_id": data}, files=[one]).json()["id"] for one in files]
    digests = {one: hashlib.sha256(path.read_bytes()).hexdigest() for one, path in zip(ids, pictures, strict=True)}
    images = [PlannedImage(one, digest) for one, digest in digests.items()]
    job = UUID(researcher.post("/api/classifications/run", {"dataset_id": data})["id"])
    asyncio.run(send_all(stack.kafka_url, forged(job, images)))
    *_, last = researcher.watch(str(job))
    assert last["status"] == "completed", last
    with open_event_store(stack) as log:
        events = [log.decode(one) for one in log.read(0, 10_000)]
        verdict = verify_log(stack, log)
    said = [event for event in events if isinstance(event, ChunkJudged) and event.job_id == job]
    assert sorted(event.number for event in said) == [0, 1]
    assert {str(one.image_id): one.sha256 for event in said for one in event.results} == digests
    assert verdict.finding is None
