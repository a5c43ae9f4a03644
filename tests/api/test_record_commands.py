"""`bioscope dead-letters` and `bioscope audit`, on the server's machine."""

import json
import socket

import pytest

from infrastructure.eventstore.event_store import open_event_store
from projections.process.composition import projector_over
from tests.api.test_users_command import bioscope
from tests.projections.test_projector import damage
from tests.rigs.scenario import Scenario

__all__ = ["bioscope"]
pytestmark = pytest.mark.anyio


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
