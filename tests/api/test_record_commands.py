"""`bioscope dead-letters` and `bioscope audit`, on the server's machine."""

import socket

import pytest

from infrastructure.eventstore.event_store import open_event_store
from projections.process.composition import projector_over
from tests.api.test_users_command import bioscope
from tests.projections.laboratory import Laboratory
from tests.projections.test_projector import damage

__all__ = ["bioscope"]
pytestmark = pytest.mark.anyio


async def test_a_dead_letter_is_listed_given_up_and_told_in_the_trail(lab_settings, app_url, owner_url, bioscope):
    with open_event_store(lab_settings) as log:
        lab = Laboratory(log, None)
        ada = lab.user(name="Ada")
        image = lab.image(ada, lab.dataset(ada), "cell.png")
        position = log.head()
        lab.accept(image)
        topic = damage(owner_url, position)
        projector = projector_over(app_url, log)
        lab.follow(projector=projector)
        damage(owner_url, position, topic)
        listed = (await bioscope("dead-letters", "list")).stdout
        (line,) = [one for one in listed.splitlines() if str(image) in one]
        assert str(position) in line
        await bioscope("dead-letters", "discard", str(position), code=2)  # without a reason
        done = await bioscope("dead-letters", "discard", str(position), "--reason", "torn")
        assert "1 applied that waited for it, 0 dead letters left" in done.stdout
        assert "There are none." in (await bioscope("dead-letters", "list")).stdout
        await bioscope("dead-letters", "discard", str(position), "--reason", "torn", code=1)
        lab.follow(projector=projector)
        projector.close()
    trail = (await bioscope("audit", "trail", str(image))).stdout
    assert "Ada Lab uploaded cell.png" in trail
    assert f"root on {socket.gethostname()} discarded" in trail
    state = (await bioscope("audit", "state", str(image), "--as-of", str(position))).stdout
    assert '"filename": "cell.png"' in state
    wrong = await bioscope("audit", "state", str(image), "--as-of", "2026-03-01T12:00:00", code=2)
    assert "has no time zone" in wrong.stderr
