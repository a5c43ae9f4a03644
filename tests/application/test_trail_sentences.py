"""Sentences of the audit trail: one for each event type, with the names of users, models and results."""

from uuid import uuid4

import pytest
from hypothesis import given

from application import datasets
from application.history import audit
from application.history.trail_sentences import SENTENCES, Scene, sentence
from domain.access import Grant
from domain.api_key import KeyIssued, OwnerKind
from domain.classification import ImageFilter, PlaneSelection, Projection
from domain.events import new_stream
from domain.registry import EVENTS
from domain.session import Reason, SessionRevoked
from infrastructure.eventstore.event_store import RecorderEventStore
from tests.contracts.conftest import ROOT
from tests.given import NOW
from tests.rigs.scenario import Scenario
from tests.strategies import events
from tests.twins.event_store import MemoryRecorder

KEY, BOB, ROBOT = uuid4(), uuid4(), uuid4()


@pytest.fixture
def scenario():
    return Scenario(RecorderEventStore(MemoryRecorder(ROOT), ROOT), None)


def told(scenario, about, others=()):
    return [entry.sentence for entry in audit.trail(about, others=others, log=scenario.log)]


def test_every_type_of_event_has_a_sentence():
    assert set(SENTENCES) == set(EVENTS.values())


@given(events())
def test_a_sentence_is_one_line_for_every_event_whoever_acted(event):
    for actor in ({}, {"kind": "user", "id": str(uuid4())}, {"kind": "system", "name": "the projector"}, {"kind": "service", "id": "?"}):
        said = sentence(event, Scene(event.originator_id, actor, {}))
        assert said == " ".join(said.split()) != ""


def test_the_end_of_a_session_is_said_in_words():
    user = uuid4()
    said = {
        reason: sentence(
            SessionRevoked(**new_stream(uuid4(), by=user, at=NOW), user_id=user, reason=reason), Scene(user, {}, {user: "Ada"})
        )
        for reason in Reason
    }
    assert said[Reason.LOGOUT] == "A session of Ada ended: signed out"
    assert said[Reason.ADMINISTRATOR] == "A session of Ada ended: ended by an administrator"
    assert said[Reason.ACCOUNT] == "A session of Ada ended: the account was no longer active"
    assert said[Reason.RESET] == "A session of Ada ended: password reset"
    assert not any("_" in words for words in said.values())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"owner_id": BOB, "dataset_ids": None}, "Bob issued the key night: images:read, jobs:run"),
        ({"owner_id": BOB, "dataset_ids": (KEY,)}, "Bob issued the key night: images:read, jobs:run, for 1 dataset only"),
        (
            {"owner_id": ROBOT, "owner_kind": OwnerKind.SERVICE, "dataset_ids": (KEY, BOB)},
            "Bob issued the key night to the service account microscope: images:read, jobs:run, for 2 datasets only",
        ),
    ],
)
def test_a_sentence_about_a_new_key_names_its_owner_and_its_limits(fields, words):
    given = {"owner_kind": OwnerKind.USER, "name": "night", "scopes": ("images:read", "jobs:run"), "expires_at": NOW, "commitment": ""}
    issued = KeyIssued(**new_stream(KEY, by=BOB, at=NOW), **given | fields)
    actor, names = {"kind": "user", "id": str(BOB)}, {BOB: "Bob", ROBOT: "microscope"}
    assert sentence(issued, Scene(KEY, actor, names)) == words


def test_people_datasets_and_images_are_named(scenario):
    ada, bob = scenario.user(name="Ada"), scenario.user(name="Bob")
    cells = scenario.dataset(ada, name="cells")
    scenario.share(ada, cells, bob, Grant.VIEWER)
    picture = scenario.image(ada, cells, filename="cell.jpg")
    assert told(scenario, cells) == ["Ada Lab created the dataset cells", "Ada Lab shared the dataset cells with Bob Lab as viewer"]
    assert told(scenario, picture) == ["Ada Lab uploaded cell.jpg"]


@pytest.mark.parametrize(
    ("actor", "words"),
    [
        ({"kind": "anonymous"}, "Ada Lab registered"),
        ({"kind": "user", "id": str(uuid4())}, "A user registered Ada Lab"),
        ({"kind": "system", "name": "root on laboratory"}, "root on laboratory registered Ada Lab"),
        ({"kind": "user", "id": str(uuid4()), "key": str(KEY)}, "A user registered Ada Lab with the key night shift"),
    ],
)
def test_a_sentence_names_the_actor_and_its_key(scenario, actor, words):
    ada = scenario.user(name="Ada")
    registered = scenario.log.decode(scenario.log.event(ada.id, 1))
    assert sentence(registered, Scene(ada.id, actor, {ada.id: "Ada Lab", KEY: "night shift"})) == words


def test_things_are_named_as_they_are_called_now(scenario):
    ada = scenario.user(name="Ada")
    cells = scenario.dataset(ada, name="cells")
    datasets.describe(cells, name="better cells", command=scenario.command(ada), log=scenario.log)
    assert told(scenario, cells) == ["Ada Lab created the dataset better cells", "Ada Lab changed the dataset better cells: name"]


def test_a_sentence_about_a_result_names_model_and_confidence(scenario):
    ada = scenario.user(name="Ada")
    cells = scenario.dataset(ada)
    seen, torn, other = (scenario.image(ada, cells, filename=f"{number}.png") for number in range(3))
    for one in (seen, torn, other):
        scenario.accept(one)
    scenario.model()
    job = scenario.job(ada, dataset=cells)
    scenario.plan(job, [seen, torn, other])
    scenario.judge(job, 0, [seen, other], [torn], confidence=0.98)
    judged = [scenario.log.head()]
    assert told(scenario, seen, judged)[-1] == "shapes version 1 classified it as round, 98 %"
    assert told(scenario, torn, judged)[-1] == "shapes version 1 could not classify it: It is torn."
    of_job = told(scenario, job, judged)
    assert of_job[0] == "Ada Lab asked shapes version 1 to classify the dataset cells"
    assert of_job[-1] == "shapes version 1 classified 2 images, and could not classify 1"


def test_a_sentence_about_a_number_names_the_quantity_and_no_confidence(scenario):
    ada = scenario.user(name="Ada")
    cell = scenario.image(ada, scenario.dataset(ada))
    scenario.model()
    job = scenario.job(ada, image=cell)
    scenario.judge(job, 0, [cell], value=87.5)
    assert told(scenario, cell, [scenario.log.head()])[-1] == "shapes version 1 measured round: 87.5"


@pytest.mark.parametrize(
    ("planes", "shown"),
    [
        (None, ""),
        ({"z": Projection.MAX}, " (z=max)"),
        ({"z": 0, "c": (2, 0), "t": 0}, " (z=0, c=2,0, t=0)"),
    ],
)
def test_a_sentence_about_a_job_names_the_planes_that_were_chosen(scenario, planes, shown):
    ada = scenario.user(name="Ada")
    scenario.model()
    job = scenario.job(ada, dataset=scenario.dataset(ada), planes=planes and PlaneSelection(**planes))
    assert told(scenario, job) == [f"Ada Lab asked shapes version 1 to classify the dataset cells{shown}"]


def test_an_erased_person_reads_erased(scenario):
    ada = scenario.user(name="Ada")
    cells = scenario.dataset(ada)
    scenario.erase(ada)
    scenario.log.codec.forget(ada.id)
    assert told(scenario, cells)[0].startswith("[erased] created the dataset")


def test_a_request_names_what_the_job_covers(scenario):
    ada = scenario.user(name="Ada")
    scenario.model()
    cells = scenario.dataset(ada)
    images = tuple(scenario.image(ada, cells) for _ in range(2))
    for covers, words in (
        ({"images": images}, "2 images of the dataset cells"),
        ({"dataset": cells, "path": "A*"}, "a part of the dataset cells"),
        ({"dataset": cells, "where": ImageFilter(without_result=True)}, "a part of the dataset cells"),
    ):
        job = scenario.job(ada, **covers)
        assert told(scenario, job) == [f"Ada Lab asked shapes version 1 to classify {words}"]
    scenario.plan(job, images)
    scenario.cancel(ada, job)
    assert told(scenario, scenario.retry(ada, job)) == ["Ada Lab asked shapes version 1 to classify a part of the dataset cells again"]
