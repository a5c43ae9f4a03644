"""Sessions: started, revoked, and the reuse of a refresh token."""

from uuid import uuid4

from domain import session
from tests.given import LATER, NOW, state_after

ME = uuid4()


def test_a_second_revocation_records_nothing():
    started = session.start(uuid4(), user=ME, address="::1", agent="x", at=NOW)
    opened = session.evolve(None, started)
    closed = state_after(session.evolve, [started, *session.revoke(opened, session.Reason.LOGOUT, by=ME, at=NOW)])
    assert closed.revoked
    assert session.revoke(closed, session.Reason.LOGOUT, by=ME, at=LATER) == []
    assert session.detect_reuse(closed, address="::1", by=ME, at=LATER) == []


def test_reuse_is_recorded_and_revokes_at_once():
    opened = session.evolve(None, session.start(uuid4(), user=ME, address="::1", agent="x", at=NOW))
    seen = session.detect_reuse(opened, address="::2", by=ME, at=LATER)
    assert [(type(event).__name__, event.originator_version) for event in seen] == [("RefreshReuseDetected", 2), ("SessionRevoked", 3)]
