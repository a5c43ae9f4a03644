"""API keys over HTTP: what programs may do with them, and until when."""

import pytest

from domain.access import Role
from tests.api.http_calls import PICTURE

pytestmark = pytest.mark.anyio


async def test_a_microscope_uploads_with_its_key_until_the_key_is_revoked(api):
    admin = await api.client(Role.ADMIN)
    dataset = (await admin.post("/api/datasets", json={"name": "cells"})).json()["id"]
    service = await admin.post("/api/service-accounts", json={"name": "scope-1", "description": "Room 3"})
    assert service.status_code == 201, service.text
    path = f"/api/service-accounts/{service.json()['id']}"
    issued = await admin.post(f"{path}/keys", json={"name": "uploads", "scopes": ["images:write", "images:read"]})
    assert issued.status_code == 201, issued.text
    microscope = api.anonymous(Authorization=f"Bearer {issued.json()['key']}")
    uploaded = await microscope.post("/api/images/upload", data={"dataset_id": dataset}, files={"file": ("a.jpg", PICTURE)})
    assert uploaded.status_code == 201, uploaded.text
    image = f"/api/images/{uploaded.json()['id']}"
    assert (await microscope.get(image)).status_code == 200
    assert [one["id"] for one in (await microscope.get("/api/images")).json()] == [uploaded.json()["id"]]
    assert (await microscope.get("/api/datasets")).status_code == 403
    listed = (await admin.get(f"{path}/keys")).json()
    assert [(one["name"], one["status"], one["last_used_from"]) for one in listed] == [("uploads", "working", "127.0.0.1")]
    assert (await admin.delete(f"/api/keys/{issued.json()['id']}")).status_code == 204
    assert (await microscope.get(image)).status_code == 401
