"""API keys over HTTP: what programs may do with them, and until when."""

import base64
from uuid import UUID, uuid4

import psycopg
import pytest

from application.key_text import KeySecret, read_key
from domain.access import Role, Scope
from domain.values import result_id
from tests.api.http_calls import PICTURE, dataset, id_of, image_in, share, upload
from tests.api.worker_events import WorkerEvents, now
from tests.application.test_key_text import UNLIKE_KEYS

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


# ---- dataset limits ----
class TwoDatasets:
    """A person with two datasets, each with an image, a job and a result, and a key that is limited to the first one."""

    async def prepare(self, api, kind):
        self.api, self.admin = api, await api.client(Role.ADMIN)
        self.owner = await api.client(Role.RESEARCHER)
        workers = WorkerEvents(api)
        await workers.model("pbc8")
        self.datasets, self.images, self.jobs, self.results = [], [], [], []
        for name in ("first", "second"):
            made = await dataset(self.owner, name)
            image = await image_in(self.owner, made, filename=f"{name}.jpg")
            await workers.accept(image)
            job = (await self.owner.post("/api/classifications/run", json={"dataset_id": made})).json()["id"]
            await workers.plan(job, [image])
            await workers.judge(job, [image], at=now())
            await workers.complete(job, succeeded=1, failed=0)
            self.datasets.append(made)
            self.images.append(image)
            self.jobs.append(job)
            self.results.append(str(result_id(UUID(job), UUID(image))))
        body = {
            "name": "limited",
            "scopes": [scope for scope in Scope if scope is not Scope.METRICS_READ],
            "dataset_ids": self.datasets[:1],
        }
        if kind == "user":
            issued = await self.owner.post("/api/keys", json=body)
        else:
            service = await self.admin.post("/api/service-accounts", json={"name": "robot"})
            issued = await self.admin.post(f"/api/service-accounts/{service.json()['id']}/keys", json=body)
        assert issued.status_code == 201, issued.text
        self.key = issued.json()["key"]
        self.program = api.anonymous(Authorization=f"Bearer {self.key}")
        return self


LISTS = {
    "/api/datasets": lambda lab: lab.datasets,
    "/api/images": lambda lab: lab.images,
    "/api/images?q=second": lambda lab: [lab.images[1]],
    "/api/images?order_by=filename": lambda lab: lab.images,
    "/api/classifications": lambda lab: lab.jobs,
    "/api/classification-results": lambda lab: lab.results,
    "/api/classification-results?versions=all": lambda lab: lab.results,
}
ONE = {
    "/api/datasets/{}": lambda lab: lab.datasets,
    "/api/images/{}": lambda lab: lab.images,
    "/api/images/{}/download": lambda lab: lab.images,
    "/api/images/{}/preview": lambda lab: lab.images,
    "/api/images/{}/thumbnail": lambda lab: lab.images,
    "/api/classifications/{}": lambda lab: lab.jobs,
    "/api/classifications/{}/failures": lambda lab: lab.jobs,
    "/api/classification-results/{}": lambda lab: lab.results,
    "/api/classification-results/{}/policy": lambda lab: lab.results,
}


async def reaches_its_datasets_only(lab):
    for path, ids in LISTS.items():
        answer = await lab.program.get(path)
        assert answer.status_code == 200, (path, answer.text)
        expected = set() if "second" in path else {ids(lab)[0]}
        assert {one["id"] for one in answer.json()} == expected, path
    for path, ids in ONE.items():
        mine, foreign = [await lab.program.get(path.format(one)) for one in ids(lab)]
        absent = await lab.program.get(path.format(uuid4()))
        assert mine.status_code == 200 or (mine.status_code, "preview" in path or "thumbnail" in path) == (404, True), (path, mine.text)
        assert (foreign.status_code, absent.status_code) == (404, 404), path
        assert foreign.json()["detail"] == absent.json()["detail"], path
    second = lab.datasets[1]
    for path in (f"/api/images?dataset_id={second}", f"/api/classifications?dataset_id={second}"):
        assert (await lab.program.get(path)).json() == []
    for path in (
        f"/api/classification-results/classification/{lab.jobs[1]}",
        f"/api/classification-results/image/{lab.images[1]}",
        f"/api/classification-results?dataset_id={second}",
    ):
        assert (await lab.program.get(path)).json() == [], path


async def counts_and_exports_its_datasets_only(lab):
    assert (await lab.program.get("/api/classification-results/today/statistics")).json()["classified_last_24_hours"] == 1
    groups = (await lab.program.get("/api/statistics/results?group_by=dataset")).json()["groups"]
    assert [(group["dataset_id"], group["count"]) for group in groups] == [(lab.datasets[0], 1)]
    exported = (await lab.program.get("/api/classification-results/export?format=csv")).text
    assert lab.images[0] in exported
    assert lab.images[1] not in exported
    listed = await lab.program.get(f"/api/images?dataset_id={lab.datasets[0]}")
    assert listed.headers["X-Total-Count"] == "1"


async def writes_into_its_datasets_only(lab):
    first, second = lab.datasets
    assert (await upload(lab.program, first, filename="new.jpg")).status_code == 201
    assert (await upload(lab.program, second)).status_code == 404
    for body, status in (({"dataset_id": first}, 201), ({"dataset_id": second}, 404), ({"image_id": lab.images[1]}, 404)):
        assert (await lab.program.post("/api/classifications/run", json=body)).status_code == status, body
    assert (await lab.program.post(f"/api/classifications/{lab.jobs[1]}/cancel")).status_code == 404
    assert (await lab.program.post(f"/api/classifications/{lab.jobs[1]}/retry")).status_code == 404
    assert (await lab.program.patch(f"/api/images/{lab.images[1]}", json={"filename": "x.jpg"})).status_code == 404
    assert (await lab.program.delete(f"/api/images/{lab.images[0]}")).status_code == 403


async def reads_no_whole_log(lab):
    for path in ("/api/events", "/api/events/heads"):
        assert (await lab.program.get(path)).status_code == 403


@pytest.mark.parametrize("kind", ["user", "service"])
async def test_a_limited_key_reads_counts_exports_and_changes_its_datasets_only(api, kind):
    lab = await TwoDatasets().prepare(api, kind)
    await reaches_its_datasets_only(lab)
    await counts_and_exports_its_datasets_only(lab)
    await reads_no_whole_log(lab)
    await writes_into_its_datasets_only(lab)


async def test_a_limited_key_sees_nothing_more_once_its_owner_has_lost_the_grant(api):
    lab = await TwoDatasets().prepare(api, "user")
    friend = await api.client(Role.RESEARCHER)
    await share(lab.owner, lab.datasets[0], friend)
    issued = await friend.post("/api/keys", json={"name": "x", "scopes": ["images:read"], "dataset_ids": lab.datasets[:1]})
    program = api.anonymous(Authorization=f"Bearer {issued.json()['key']}")
    assert [one["id"] for one in (await program.get("/api/images")).json()] == [lab.images[0]]
    withdrawn = await lab.owner.delete(f"/api/datasets/{lab.datasets[0]}/shares/{await id_of(friend)}")
    assert withdrawn.status_code == 204
    assert (await program.get("/api/images")).json() == []
    assert (await program.get(f"/api/images/{lab.images[0]}")).status_code == 404


async def test_a_service_changes_only_what_it_uploaded(api):
    lab = await TwoDatasets().prepare(api, "service")
    mine = (await upload(lab.program, lab.datasets[0], filename="new.jpg")).json()["id"]
    assert (await lab.program.patch(f"/api/images/{mine}", json={"filename": "renamed.jpg"})).json()["filename"] == "renamed.jpg"
    refused = await lab.program.patch(f"/api/images/{lab.images[0]}", json={"filename": "x.jpg"})
    assert (refused.status_code, refused.json()["detail"]) == (403, "A service may only change the images that it uploaded")


# ---- the rest ----
@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize(("more", "grant"), [([], "viewer"), (["jobs:run"], "analyst"), (["images:write"], "editor")])
async def test_the_grant_of_a_service_follows_from_its_scopes(api, more, grant, limited):
    admin = await api.client(Role.ADMIN)
    made = await dataset(admin)
    service = await admin.post("/api/service-accounts", json={"name": "robot"})
    body = {"name": "key", "scopes": ["datasets:read", *more]} | ({"dataset_ids": [made]} if limited else {})
    issued = await admin.post(f"/api/service-accounts/{service.json()['id']}/keys", json=body)
    program = api.anonymous(Authorization=f"Bearer {issued.json()['key']}")
    assert [one["grant"] for one in (await program.get("/api/datasets")).json()] == [grant]
    assert (await program.get(f"/api/datasets/{made}")).json()["grant"] == grant


async def test_a_key_narrows_a_person_and_follows_the_role(api):
    admin, ada = await api.client(Role.ADMIN), await api.client(Role.RESEARCHER)
    issued = await ada.post("/api/keys", json={"name": "script", "scopes": ["images:read", "images:write", "datasets:read"]})
    script = api.anonymous(Authorization=f"Bearer {issued.json()['key']}")
    made = await dataset(ada)
    assert (await script.post("/api/datasets", json={"name": "x"})).status_code == 403
    assert (await script.get("/api/users/me")).status_code == 403
    assert (await upload(script, made)).status_code == 201
    me = await id_of(ada)
    assert (await admin.patch(f"/api/users/users/{me}", json={"role": "viewer"})).status_code == 200
    assert (await upload(script, made)).status_code == 403
    assert (await script.get("/api/images")).status_code == 200
    assert (await admin.patch(f"/api/users/users/{me}", json={"status": "suspended"})).status_code == 200
    assert (await script.get("/api/images")).status_code == 401


async def test_no_scope_lets_a_person_read_the_whole_log(api):
    ada = await api.client(Role.RESEARCHER)
    for scope in set(Scope) - {Scope.METRICS_READ}:
        issued = await ada.post("/api/keys", json={"name": "x", "scopes": [scope]})
        assert (await api.anonymous(Authorization=f"Bearer {issued.json()['key']}").get("/api/events")).status_code == 403


async def test_a_scope_of_a_person_shows_only_what_the_person_may_see(api):
    lab = await TwoDatasets().prepare(api, "user")
    stranger = await api.client(Role.RESEARCHER)
    scopes = [scope for scope in Scope if scope is not Scope.METRICS_READ]
    issued = await stranger.post("/api/keys", json={"name": "x", "scopes": scopes})
    program = api.anonymous(Authorization=f"Bearer {issued.json()['key']}")
    for path in LISTS:
        assert (await program.get(path)).json() == [], path
    for path, ids in ONE.items():
        assert (await program.get(path.format(ids(lab)[0]))).status_code == 404, path
    assert (await program.get("/api/classification-results/today/statistics")).json()["classified_last_24_hours"] == 0


async def test_the_same_request_issues_one_key_and_shows_it_once(api):
    ada = await api.client(Role.RESEARCHER)
    body = {"json": {"name": "x", "scopes": ["images:read"]}, "headers": {"Idempotency-Key": "one"}}
    first, again = [await ada.post("/api/keys", **body) for _ in range(2)]
    assert first.json()["key"].startswith("bsk_")
    assert again.json() == first.json() | {"key": None}
    assert len((await ada.get("/api/keys")).json()) == 1


async def test_a_rotated_key_shows_the_overlap_and_both_secrets_work(api):
    ada = await api.client(Role.RESEARCHER)
    issued = (await ada.post("/api/keys", json={"name": "x", "scopes": ["images:read"]})).json()
    rotated = (await ada.post(f"/api/keys/{issued['id']}/rotate", json={"overlap_hours": 1})).json()
    assert rotated["id"] == issued["id"]
    for key in (issued["key"], rotated["key"]):
        assert (await api.anonymous(Authorization=f"Bearer {key}").get("/api/images")).status_code == 200
    [shown] = (await ada.get("/api/keys")).json()
    assert shown["previous_until"] is not None
    again = (await ada.post(f"/api/keys/{issued['id']}/rotate", json={"overlap_hours": 0})).json()
    statuses = [
        (await api.anonymous(Authorization=f"Bearer {key}").get("/api/images")).status_code
        for key in (issued["key"], rotated["key"], again["key"])
    ]
    assert statuses == [401, 401, 200]


async def test_people_see_their_own_keys_and_administrators_all(api):
    admin, ada, eve = [await api.client(role) for role in (Role.ADMIN, Role.RESEARCHER, Role.VIEWER)]
    for http in (ada, eve):
        await http.post("/api/keys", json={"name": "x", "scopes": ["images:read"]})
    assert [one["owner_id"] for one in (await ada.get("/api/keys")).json()] == [await id_of(ada)]
    assert (await ada.get("/api/keys?everyone=true")).status_code == 403
    assert (await ada.get(f"/api/keys?owner_id={await id_of(eve)}")).status_code == 403
    assert len((await admin.get("/api/keys?everyone=true")).json()) == 2
    assert [one["owner_id"] for one in (await admin.get(f"/api/keys?owner_id={await id_of(eve)}")).json()] == [await id_of(eve)]
    page = await admin.get("/api/keys?everyone=true&page_size=1")
    assert len((await admin.get(page.headers["Link"].split(">")[0].removeprefix("<"))).json()) == 1


async def test_a_key_of_a_deleted_owner_is_shown_as_revoked_and_is_not_rotated(api):
    admin, ada = await api.client(Role.ADMIN), await api.client(Role.RESEARCHER)
    service = f"/api/service-accounts/{(await admin.post('/api/service-accounts', json={'name': 'robot'})).json()['id']}"
    body = {"name": "x", "scopes": ["images:read"]}
    key = (await admin.post(f"{service}/keys", json=body)).json()["id"]
    await ada.post("/api/keys", json=body)
    for owner in (service, f"/api/users/users/{await id_of(ada)}"):
        assert (await admin.delete(owner)).status_code == 204
    assert {one["status"] for one in (await admin.get("/api/keys?everyone=true")).json()} == {"revoked"}
    assert (await admin.post(f"/api/keys/{key}/rotate", json={})).status_code == 404
    assert (await admin.post(f"{service}/keys", json=body)).status_code == 404


async def test_metrics_are_read_with_a_key_from_elsewhere(api):
    admin = await api.client(Role.ADMIN)
    elsewhere = {"X-Forwarded-For": "192.0.2.1"}
    for scopes, status in ((["metrics:read"], 200), (["images:read"], 403)):
        issued = await admin.post("/api/keys", json={"name": "x", "scopes": scopes})
        program = api.anonymous(Authorization=f"Bearer {issued.json()['key']}")
        assert (await program.get("/metrics", headers=elsewhere)).status_code == status
    assert (await api.anonymous().get("/metrics", headers=elsewhere)).status_code == 404
    assert (await admin.get("/metrics", headers=elsewhere)).status_code == 404
    unknown = KeySecret().text(uuid4())
    assert (await api.anonymous(Authorization=f"Bearer {unknown}").get("/metrics", headers=elsewhere)).status_code == 401


async def test_a_signed_address_ends_with_its_key(api):
    lab = await TwoDatasets().prepare(api, "user")
    issued = await lab.owner.post("/api/keys", json={"name": "x", "scopes": ["images:read"]})
    program = api.anonymous(Authorization=f"Bearer {issued.json()['key']}")
    address = (await program.get(f"/api/images/{lab.images[0]}/download")).json()["url"]
    assert (await api.anonymous().get(address)).status_code == 200
    assert (await lab.owner.delete(f"/api/keys/{issued.json()['id']}")).status_code == 204
    assert (await api.anonymous().get(address)).status_code == 403


async def test_a_key_is_no_refresh_token_and_no_session(api):
    ada = await api.client(Role.RESEARCHER)
    key = (await ada.post("/api/keys", json={"name": "x", "scopes": ["images:read"]})).json()["key"]
    program = api.anonymous(Authorization=f"Bearer {key}")
    assert (await program.post("/api/auth/refresh")).status_code == 401
    await program.post("/api/auth/logout")
    assert (await program.get("/api/images")).status_code == 200
    assert (await api.anonymous().post("/api/auth/refresh", json={"refresh_token": key})).status_code == 401


async def test_a_forged_key_is_refused_and_not_repeated(api):
    ada = await api.client(Role.RESEARCHER)
    http, right = api.anonymous(), (await ada.post("/api/keys", json={"name": "x", "scopes": ["images:read"]})).json()["key"]
    assert (await http.get("/api/images", headers={"Authorization": f"Bearer {right}"})).status_code == 200
    for name, text in UNLIKE_KEYS.items():
        sent = "".join(sign if sign.isprintable() and sign.isascii() else "~" for sign in text.strip()[:10_000])
        answer = await http.get("/api/images", headers={"Authorization": f"Bearer {sent}"})
        if read_key(sent) is None:
            assert answer.status_code == 401, name
            assert len(sent) < 20 or sent[:20] not in answer.text
    for scheme in ("Basic", "Key", "Token", "bsk", ""):
        assert (await http.get("/api/images", headers={"Authorization": f"{scheme} {right}"})).status_code == 401
    for elsewhere in (f"?key={right}", f"?access_token={right}", f"?token={right}"):
        assert (await http.get(f"/api/images{elsewhere}")).status_code == 401
    assert (await http.get("/api/images", headers={"Cookie": f"refresh_token={right}"})).status_code == 401


async def test_no_secret_is_found_anywhere(api, app_url, capfd):
    """Neither in events and tables nor in logs and answers, and neither the text of a key nor a part of it."""
    ada = await api.client(Role.RESEARCHER)
    issued = (await ada.post("/api/keys", json={"name": "x", "scopes": ["images:read"]})).json()
    rotated = (await ada.post(f"/api/keys/{issued['id']}/rotate", json={})).json()
    answers = []
    for key in (issued["key"], rotated["key"]):
        program = api.anonymous(Authorization=f"Bearer {key}")
        answers += [await program.get(path) for path in ("/api/images", "/api/users/me", "/api/images/x", "/api/events")]
        answers += [await program.post("/api/images/upload", content=b"x"), await program.get(f"/api/images?q={'x' * 9000}")]
    answers += [await ada.get("/api/keys"), await ada.get(f"/api/audit/{issued['id']}/trail")]
    with psycopg.connect(app_url) as connection:
        tables = connection.execute(
            "select format('%I.%I', table_schema, table_name) from information_schema.tables where table_schema in ('es', 'ops', 'read')"
        ).fetchall()
        rows = []
        for (table,) in tables:
            try:
                with connection.transaction():
                    rows += [str(row) for row in connection.execute(f"select * from {table}").fetchall()]
            except psycopg.errors.InsufficientPrivilege:
                continue
    assert len(rows) > 10
    shown = "".join([*rows, *(answer.text + str(answer.headers) for answer in answers), *capfd.readouterr()])
    for key in (issued["key"], rotated["key"]):
        secret = base64.urlsafe_b64decode(key.removeprefix("bsk_") + "==")[16:48]
        for form in (key, key[30:60], secret.hex(), base64.b64encode(secret).decode()[:40], repr(secret)[2:30]):
            assert form not in shown
        assert read_key(key).secret_hash.hex() not in "".join(answer.text for answer in answers)
