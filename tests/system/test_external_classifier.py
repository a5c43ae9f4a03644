"""A classifier outside of the system, which downloads each image with a service token, as the laboratory's own does."""

from datetime import UTC, datetime

import pytest

from infrastructure.security.access_tokens import SignedAccessTokens
from infrastructure.security.process_keys import operator_keys
from tests.chaos.workload import PICTURES
from tests.rigs import external_classifier
from tests.rigs.external_classifier import label_of
from tests.rigs.waiting import wait_until

LABELS = ["round", "flat"]
ENDED = {"completed", "failed"}


def service_token(settings, *scopes):
    tokens = SignedAccessTokens(operator_keys(settings), ttl=settings.access_ttl)
    return tokens.issue_service(name="classifier", scopes=frozenset(scopes), seconds=3600, at=datetime.now(UTC))


@pytest.fixture
def classifier(stack, tmp_path):
    about = {"api": stack.base_url, "token": service_token(stack, "images:read"), "labels": LABELS}
    child = external_classifier.started(stack.kafka_url, log=tmp_path / "classifier.log", **about)
    yield tmp_path / "classifier.log"
    child.kill()


def ended(client, job):
    def found():
        state = client.get(f"/api/classifications/{job}")
        return state if state["status"] in ENDED else None

    return wait_until(found, within=60)


def test_uploaded_images_are_downloaded_and_answered_one_by_one(researcher, classifier):
    researcher.post("/api/models/external", {"name": "smears", "labels": LABELS})
    cells = researcher.create_dataset("smears")
    pictures = [researcher.upload(cells, path).id for path in PICTURES[:3]]
    job = researcher.run(cells, "smears@candidate")
    state = ended(researcher, job)
    assert (state["status"], state["succeeded"], state["failed"]) == ("completed", 3, 0), classifier.read_text()
    results = {one["image_id"]: one for one in researcher.results(job)}
    assert {image: one["label"] for image, one in results.items()} == {image: label_of(image, tuple(LABELS)) for image in pictures}
    assert {(one["confidence"], one["verdict"]) for one in results.values()} == {(0.75, "clear")}
    single = researcher.post("/api/classifications/run", {"image_id": pictures[0], "model_name": "smears@candidate"})
    assert ended(researcher, single["id"])["succeeded"] == 1
    assert "failed" not in classifier.read_text()
