"""Which requests come into the trail of access."""

import pytest

from application.history.access_records import AccessKind, AccessOutcome
from tests.twins.access_trail import MemoryAccessTrail

pytestmark = pytest.mark.anyio


@pytest.fixture
async def recorded(api):
    return api.with_services(access_trail=MemoryAccessTrail())


def kinds(recorded):
    return [record.kind for record in recorded.services.access_trail.records]


async def test_a_wrong_password_is_recorded_with_the_account_that_was_tried(recorded):
    address = recorded.account()
    http = recorded.anonymous()
    answer = await http.post("/api/auth/login", json={"email": address, "password": "wrong " * 5})
    assert answer.status_code == 401
    (record,) = recorded.services.access_trail.records
    assert (record.kind, record.outcome) == (AccessKind.SIGN_IN, AccessOutcome.REFUSED)
    assert record.person == record.object_id == recorded.services.log.claimed("email", address)
    assert record.request_id == answer.headers["x-request-id"]
    assert record.address == "127.0.0.1"
