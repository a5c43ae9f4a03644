"""Which requests come into the trail of access."""

import asyncio

import pytest

from application.history.access_records import AccessKind, AccessOutcome
from tests.api.http_calls import PICTURE
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


async def recorded_items(http, expected, **query):
    """The trail as an administrator reads it, once it has `expected` items of accesses."""
    async with asyncio.timeout(10):
        while True:
            answer = await http.get("/api/audit", params=query)
            assert answer.status_code == 200, answer.text
            items = answer.json()
            if len(items) >= expected:
                return items
            await asyncio.sleep(0.05)


async def test_an_administrator_reads_who_looked_at_an_image(api):
    ada, admin = await api.client("researcher"), await api.client("admin")
    dataset = (await ada.post("/api/datasets", json={"name": "Biopsies"})).json()["id"]
    files = {"file": ("scan-12.png", PICTURE, "image/png")}
    image = (await ada.post("/api/images/upload", files=files, data={"dataset_id": dataset})).json()["id"]
    address = (await ada.get(f"/api/images/{image}/download")).json()["url"]
    assert (await api.anonymous().get(address)).status_code == 200
    eve = await api.client("researcher")
    assert (await eve.get(f"/api/images/{image}")).status_code == 404
    await admin.get(f"/api/images/{image}")
    items = await recorded_items(admin, 4, object=image)
    assert [item["sentence"] for item in items] == [
        "Ada Byron read scan-12.png (dataset Biopsies) as an administrator",
        "Ada Byron asked for scan-12.png, and found nothing",
        "Ada Byron downloaded scan-12.png (dataset Biopsies)",
        "Ada Byron uploaded scan-12.png",
    ]
