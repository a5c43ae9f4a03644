"""An API that adds versions which nobody declared, and a bridge that lies about the answers of an external classifier."""

import math
from hashlib import sha256
from uuid import uuid4

import msgspec
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from application import models
from application.jobs.chunk_results import JobPlans
from application.ports import Command
from domain import classification, model
from domain.access import Role
from domain.classification import EXTERNAL_RUNTIME, ImageResult, PlannedImage, Verdict
from domain.declaration import declare
from domain.errors import ConcurrencyConflict, Refused
from domain.model import CANDIDATE, OutputKind
from domain.values import model_id
from infrastructure.audit.record_rules import RecordAudit
from infrastructure.eventstore.event_store import RecorderEventStore
from tests.adversaries.test_worker import PERSON, ROOT, SCHEDULER, WORKER, judged, lied_to, log_as, takes
from tests.given import NOW, actor, add_model, command
from tests.twins.event_store import MemoryRecorder

ADA = actor(Role.RESEARCHER)
LABELS = ("round", "flat", "long")
THRESHOLD = 0.5
DECLARED = {"description": "", "labels": LABELS, "label_texts": {"flat": "Flat ones"}, "review_below": 0.6}


@pytest.fixture
def open_as(postgres, database):
    opened = []

    def open_as(role):
        opened.append(log_as(postgres, database, role))
        return opened[-1]

    yield open_as
    for log in opened:
        log.close()


@pytest.fixture
def record(open_as):
    """The log, as the processes that behave see it."""
    return open_as("bioscope_app")


@pytest.fixture
def api(open_as):
    """The log, as the API reaches it."""
    return open_as("bioscope_api")


@pytest.fixture
def bridge(open_as):
    """The log, as a bridge reaches it."""
    return open_as("bioscope_inference")


# ---- declarations ------------------------------------------------------------------------------------------------------------------
def add(log, name="cells", *, by=ADA, **changes):
    return models.add_external(name=name, **DECLARED | changes, command=command(by), log=log)


def added(log, name="cells", *, by=ADA, **changed):
    """The events that add a version, but for what was `changed` in the version."""
    version = declare(name=name, **DECLARED).version
    about = {"name": name, "description": "", "version": version, "alias": CANDIDATE, "by": by.id, "at": NOW}
    event, moved = model.add_version(model_id(name), log.load(model_id(name), model.evolve), **about)
    return [msgspec.structs.replace(event, version=msgspec.structs.replace(event.version, **changed)), moved]


def with_event(events, **changed):
    return [msgspec.structs.replace(events[0], **changed), *events[1:]]


def forged(**changes):
    """A record that was changed, with the digest that belongs to it."""
    fields = msgspec.to_builtins(declare(name="cells", **DECLARED)) | changes
    record = msgspec.json.encode(fields, order="sorted").decode()
    digest = sha256(record.encode()).hexdigest()
    return {"record": record, "sha256": digest, "digest": digest}


def is_taken(log, *events, by=ADA):
    try:
        log.append(Command(id=uuid4(), actor=by, at=NOW), *events)
    except (Refused, ConcurrencyConflict):
        return False
    return True


LIES = {
    "of another kind": lambda log: added(log, kind=OutputKind.SOFTMAX),
    "with a package": lambda log: added(log, package="ab" * 32),
    "with a size": lambda log: added(log, size=5),
    "with the digest of something else": lambda log: added(log, digest="ab" * 32),
    "with the sha256 of something else": lambda log: added(log, sha256="ab" * 32),
    "with another record": lambda log: added(log, record="{}"),
    "with labels that were not declared": lambda log: added(log, labels=("square",)),
    "with a threshold that was not declared": lambda log: added(log, review_below=0.1),
    "with words that were not declared": lambda log: added(log, label_texts={}),
    "with a release": lambda log: added(log, release="2"),
    "whose weights are known": lambda log: added(log, **forged(weights="known")),
    "with more than a declaration": lambda log: added(log, **forged(network="resnet")),
    "with the declaration of another model": lambda log: added(log, **forged(name="others")),
    "with a label that is declared twice": lambda log: added(log, labels=("flat", "flat"), **forged(labels=("flat", "flat"))),
    "without any label": lambda log: added(log, labels=(), label_texts={}, **forged(labels=(), label_texts={})),
    "with another number": lambda log: added(log, number=7),
    "under another name": lambda log: with_event(added(log), name="others"),
    "in the stream of another model": lambda log: with_event(added(log), originator_id=model_id("others"))[:1],
    "with another description": lambda log: with_event(added(log), description="Others"),
    "in the name of another": lambda log: added(log, by=actor()),
    "with a check that nobody asked for": lambda log: with_event(added(log), check_id=uuid4()),
}


def test_a_declaration_is_taken_from_the_api_and_is_the_next_version(record, api):
    first = add(api)
    assert add(api).position == 0
    add(api, review_below=0.7)
    state = record.load(first.id, model.evolve)
    assert (state.numbers, state.aliases) == ({1, 2}, {CANDIDATE: 2})
    assert is_taken(api, *added(api, "others"))


@pytest.mark.parametrize("lie", LIES)
def test_the_api_adds_no_version(lie, record, api):
    assert not is_taken(api, *LIES[lie](record))
    assert record.load(model_id("cells"), model.evolve) is None


def test_the_api_adds_no_version_to_a_retired_model(record, api):
    add(api)
    models.retire(name="cells", reason=None, command=command(actor(Role.ADMIN)), log=record)
    event, _ = model.add_version(
        model_id("cells"),
        record.load(model_id("cells"), model.evolve),
        name="cells",
        description="",
        version=declare(name="cells", **DECLARED | {"review_below": 0.7}).version,
        by=ADA.id,
        at=NOW,
    )
    with pytest.raises(Refused, match="the model is retired"):
        api.append(Command(id=uuid4(), actor=ADA, at=NOW), event)


def test_a_worker_declares_nothing(record, bridge):
    assert not is_taken(bridge, *added(record, by=WORKER), by=WORKER)
    assert not is_taken(bridge, *with_event(added(record, by=WORKER), check_id=uuid4()), by=WORKER)


@pytest.mark.parametrize("role", ["bioscope_projector", "bioscope_relay"])
def test_no_other_process_declares_anything(record, open_as, role):
    with pytest.raises((Refused, psycopg.Error)):
        open_as(role).append(command(SCHEDULER), *added(record, by=SCHEDULER))


OF_COMMANDS = {"in the name of another", "of another kind"}
"""Rules that need the command: an audit takes a version of another kind for one that came with a release."""


@pytest.mark.parametrize("lie", [lie for lie in LIES if lie not in OF_COMMANDS])
def test_an_audit_finds_a_version_that_was_not_declared_so(lie):
    log = lied_to(RecorderEventStore(MemoryRecorder(ROOT), ROOT))
    add(log, "before")
    assert [RecordAudit(log).violation_of(one) for one in log.read(0, 100)] == [None] * log.head()
    log.append(command(ADA), *LIES[lie](log))
    assert any(RecordAudit(log).violation_of(one) for one in log.read(0, 100))


# ---- answers -----------------------------------------------------------------------------------------------------------------------
def an_external_job(log, count=3, *, external=True, kind=OutputKind.EXTERNAL):
    """A planned job of a model that is external, unless it is of another `kind`."""
    name = f"cells-{uuid4().hex[:8]}"
    if kind is OutputKind.EXTERNAL:
        add(log, name)
    else:
        about = {"sha256": uuid4().hex * 2, "size": 1, "labels": LABELS, "review_below": 0.6, "record": "{}"}
        add_model(name=name, kind=kind, **about, command=command(actor(Role.ADMIN)), log=log)
    version = log.load(model_id(name), model.evolve).numbered(1)
    about = {"model_id": model_id(name), "model_name": name, "model_version": 1, "model_sha256": version.sha256}
    about |= {"threshold": THRESHOLD, "external": external, "by": PERSON.id, "at": NOW}
    (requested,) = classification.request(uuid4(), dataset=uuid4(), image=None, **about)
    log.append(command(PERSON), requested)
    images = [PlannedImage(one := uuid4(), one.hex * 2) for _ in range(count)]
    state = classification.evolve(None, requested)
    log.append(command(SCHEDULER), *classification.plan(state, images, by=SCHEDULER.id, at=NOW))
    return log.load(requested.originator_id, classification.evolve)


def answer(planned, *, label="round", confidence=0.7, verdict=Verdict.CLEAR, **more):
    about = {"label": label, "confidence": confidence, "verdict": verdict, "scores": ()}
    return ImageResult(image_id=planned.id, sha256=planned.sha256, **about | more)


def answered(log, job, *, computed=(), **changed):
    """The right answers to the first chunk, but for what was `changed`, and for what they say in `computed` of their origin."""
    event = judged(log, job)
    images = JobPlans(log).chunk(job.id, 0).images
    right = msgspec.structs.replace(event.provenance, **{"runtime": EXTERNAL_RUNTIME} | dict(computed))
    about = {"results": tuple(map(answer, images)), "provenance": right, "labels": LABELS}
    return msgspec.structs.replace(event, **about | changed)


def images_of(log, job):
    return JobPlans(log).chunk(job.id, 0).images


def test_right_answers_are_taken_once(record, bridge):
    job = an_external_job(record)
    assert takes(bridge, answered(record, job))
    with pytest.raises(ConcurrencyConflict):
        takes(bridge, answered(record, job))


def test_failures_alone_need_neither_labels_nor_what_computed_them(record, bridge):
    job = an_external_job(record)
    failures = tuple(classification.ImageFailure(image_id=one.id, reason="no_answer", detail="No.") for one in images_of(record, job))
    assert takes(bridge, answered(record, job, results=(), failures=failures, labels=(), provenance=None))


WRONG = {
    "a label that was not declared": lambda log, job: {"results": (answer(images_of(log, job)[0], label="square"),)},
    "a label that the event adds": lambda log, job: {
        "results": (answer(images_of(log, job)[0], label="square"),),
        "labels": (*LABELS, "square"),
    },
    "labels in another order": lambda *_: {"labels": tuple(reversed(LABELS))},
    "scores": lambda log, job: {"results": (answer(images_of(log, job)[0], scores=(0.7, 0.2, 0.1)),)},
    "a number": lambda log, job: {"results": (answer(images_of(log, job)[0], value=3.0),)},
    "the result of another job": lambda log, job: {"results": (answer(images_of(log, job)[0], reused=uuid4()),)},
    "a confidence above 1": lambda log, job: {"results": (answer(images_of(log, job)[0], confidence=1.5),)},
    "no confidence": lambda log, job: {"results": (answer(images_of(log, job)[0], confidence=math.nan),)},
    "a clear one below the threshold": lambda log, job: {"results": (answer(images_of(log, job)[0], confidence=0.2),)},
    "one to review above the threshold": lambda log, job: {
        "results": (answer(images_of(log, job)[0], verdict=Verdict.NEEDS_REVIEW),),
    },
    "one out of domain": lambda log, job: {"results": (answer(images_of(log, job)[0], verdict=Verdict.OUT_OF_DOMAIN),)},
    "nothing that computed it": lambda *_: {"provenance": None},
    "another runtime": lambda *_: {"computed": {"runtime": "onnxruntime 1.23.2"}},
    "another declaration": lambda *_: {"computed": {"model_sha256": "0" * 64}},
}


@pytest.mark.parametrize("how", WRONG)
def test_wrong_answers_are_refused_and_found_by_an_audit(how, record, bridge):
    job = an_external_job(record)
    assert not takes(bridge, answered(record, job, **WRONG[how](record, job)))
    log = lied_to(RecorderEventStore(MemoryRecorder(ROOT), ROOT))
    job = an_external_job(log)
    log.append(command(WORKER), answered(log, job, **WRONG[how](log, job)))
    assert RecordAudit(log).violation_of(log.read(log.head() - 1, 1)[0]) is not None


def test_a_job_that_only_says_to_be_external_takes_no_result(record, bridge):
    job = an_external_job(record, kind=OutputKind.SOFTMAX)
    assert not takes(bridge, answered(record, job))


def test_a_job_of_our_own_takes_no_result_without_scores(record, bridge):
    job = an_external_job(record, external=False, kind=OutputKind.SOFTMAX)
    assert not takes(bridge, answered(record, job))
    assert not takes(bridge, answered(record, job, labels=()))


# ---- the database and the domain say the same ---------------------------------------------------------------------------------------
results = st.tuples(
    st.integers(0, 99),  # which image
    st.sampled_from([*LABELS, "unknown"]),
    st.sampled_from([0.0, 0.49, 0.5, 0.9, 1.0, 1e-9, -0.1, 1.0000001, math.nan]),
    st.sampled_from([*Verdict]),
    st.sampled_from([{}, {}, {}, {"scores": (0.5, 0.25, 0.25)}, {"value": 1.0}, {"reused": uuid4()}]),
)
changes = st.sampled_from([{}, {}, {}, {"labels": LABELS[:2]}, {"labels": (*LABELS, "unknown")}, {"provenance": None}])


@pytest.fixture(scope="module")
def both(postgres):
    """One database for all examples."""
    name = "adversary_bridge"
    with psycopg.connect(postgres.url(user="postgres", database="postgres"), autocommit=True) as connection:
        connection.execute(f"create database {name} template template_bioscope")
    logs = [log_as(postgres, name, role) for role in ("bioscope_app", "bioscope_inference")]
    yield logs
    for log in logs:
        log.close()


@settings(max_examples=100)
@given(said=st.lists(results, max_size=3), changed=changes, runtime=st.sampled_from([EXTERNAL_RUNTIME] * 3 + [""]))
def test_the_database_takes_exactly_what_the_domain_takes(both, said, changed, runtime):
    record, bridge = both
    job = an_external_job(record)
    plan = JobPlans(record).chunk(job.id, 0)
    given_ = tuple(
        answer(plan.images[which % len(plan.images)], label=label, confidence=confidence, verdict=verdict, **more)
        for which, label, confidence, verdict, more in said
    )
    event = answered(record, job, computed={"runtime": runtime}, results=given_, **changed)
    right = classification.violation_of(event, job=plan.job, plan=plan.plan, labels=LABELS) is None
    assert takes(bridge, event) is right
