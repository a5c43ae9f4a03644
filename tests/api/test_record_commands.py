"""`bioscope dead-letters` and `bioscope audit`, on the server's machine."""

import json
import socket
from datetime import UTC, datetime
from uuid import uuid4

import msgspec
import psycopg
import pytest

from application.history.access_records import Access, AccessKind, AccessOutcome
from infrastructure.audit.access_log import AccessLog
from infrastructure.eventstore.event_store import open_event_store
from projections.process.composition import projector_over
from tests.api.test_users_command import bioscope
from tests.projections.test_projector import damage
from tests.rigs.scenario import Scenario

__all__ = ["bioscope"]
pytestmark = pytest.mark.anyio

LOOKED = Access(
    at=datetime.now(UTC),
    kind=AccessKind.DOWNLOAD,
    outcome=AccessOutcome.ALLOWED,
    actor_kind="user",
    noun="image",
    route="GET /api/images/{image_id}/download",
    request_id="one",
    address="192.0.2.7",
)


def record(url, *accesses):
    """Append accesses to the trail, as the API does."""
    trail = AccessLog(url)
    for access in accesses:
        trail.record(access)
    trail.start()
    trail.stop()
    trail.close()


async def test_a_dead_letter_is_listed_discarded_and_shown_in_the_trail(lab_settings, app_url, owner_url, bioscope):
    with open_event_store(lab_settings) as log:
        scenario = Scenario(log, None)
        ada = scenario.user(name="Ada")
        image = scenario.image(ada, scenario.dataset(ada), "cell.png")
        position = log.head()
        scenario.accept(image)
        topic = damage(owner_url, position)
        projector = projector_over(app_url, log)
        scenario.follow(projector=projector)
        damage(owner_url, position, topic)
        listed = (await bioscope("dead-letters", "list")).stdout
        (line,) = [one for one in listed.splitlines() if str(image) in one]
        assert str(position) in line
        (letter,) = json.loads((await bioscope("dead-letters", "list", "--json")).stdout)
        assert (letter["position"], letter["stream"], letter["parked"]) == (position, str(image), 1)
        await bioscope("dead-letters", "discard", str(position), code=2)  # without a reason
        done = await bioscope("dead-letters", "discard", str(position), "--reason", "torn", "--json")
        assert json.loads(done.stdout) == {"applied": 2, "remaining": 0}
        assert "There are none." in (await bioscope("dead-letters", "list")).stdout
        await bioscope("dead-letters", "discard", str(position), "--reason", "torn", code=1)
        scenario.follow(projector=projector)
        projector.close()
    trail = (await bioscope("audit", "trail", str(image))).stdout
    assert "Ada Lab uploaded cell.png" in trail
    assert f"root on {socket.gethostname()} discarded" in trail
    state = (await bioscope("audit", "state", str(image), "--as-of", str(position))).stdout
    assert '"filename": "cell.png"' in state
    wrong = await bioscope("audit", "state", str(image), "--as-of", "2026-03-01T12:00:00", code=2)
    assert "has no time zone" in wrong.stderr


async def test_the_trail_shows_who_looked_at_an_image_and_what_a_person_did(lab_settings, app_url, bioscope):
    with open_event_store(lab_settings) as log:
        scenario = Scenario(log, None)
        ada, eve = scenario.user(name="Ada"), scenario.user(name="Eve")
        cells = scenario.dataset(ada)
        image = scenario.image(ada, cells, "cell.png")
        projector = projector_over(app_url, log)
        scenario.follow(projector=projector)
        projector.close()
    looked = msgspec.structs.replace(LOOKED, actor_id=ada.id, person=ada.id, object_id=image, dataset_id=cells)
    record(app_url, looked, looked, msgspec.structs.replace(looked, actor_id=eve.id, person=eve.id, kind=AccessKind.PREVIEW))
    for about in (image, cells):
        looks = json.loads((await bioscope("audit", "who", str(about), "--json")).stdout)
        assert {(look["name"], look["kind"], look["times"]) for look in looks} == {("Ada Lab", "download", 2), ("Eve Lab", "preview", 1)}
    assert "No events found" in (await bioscope("audit", "who", str(uuid4()), code=1)).stderr
    assert "Ada Lab" in (await bioscope("audit", "who", str(image))).stdout
    lines = json.loads((await bioscope("audit", "log", "--object", str(image), "--json")).stdout)
    assert [line["sentence"] for line in lines] == [
        "Ada Lab uploaded cell.png",
        "Ada Lab downloaded cell.png (dataset cells)",
        "Ada Lab downloaded cell.png (dataset cells)",
        "Eve Lab looked at cell.png (dataset cells)",
    ]
    did = (await bioscope("audit", "log", "--actor", str(eve.id), "--kind", "preview", "--since", "2026-01-01")).stdout
    assert "Eve Lab looked at cell.png" in did
    assert "Ada" not in did
    assert "Nothing was recorded" in (await bioscope("audit", "log", "--actor", str(eve.id), "--outcome", "refused")).stderr
    await bioscope("audit", "log", "--actor", "nobody@example.org", code=1)


async def test_a_changed_record_of_access_is_found(lab_settings, app_url, owner_url, bioscope):
    with open_event_store(lab_settings):
        record(app_url, *[msgspec.structs.replace(LOOKED, actor_kind="service")] * 3)
    assert "3 records of access since" in (await bioscope("audit", "verify")).stdout
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("set session_replication_role = replica")
        owner.execute("update ops.access_log set kind = 'preview' where position = 2")
    found = json.loads((await bioscope("audit", "verify", "--json", code=4)).stdout)
    assert (found["intact"], found["accesses"]) == (False, 0)
    assert "the trail of access: tampered at position 2" in found["problem"]
