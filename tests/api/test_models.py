"""Models over HTTP."""

import io
from hashlib import sha256
from uuid import UUID, uuid4
from zipfile import ZipFile

import msgspec
import pytest

from application.ports import Command
from domain import model
from domain.access import Role
from domain.events import SEALED_PREFIX
from domain.values import model_id
from tests.api.http_calls import assert_refused, id_of
from tests.api.test_events import followed, service
from tests.api.worker_events import LABELS, REPORT, SHA256, SYSTEM, WorkerEvents, now

pytestmark = pytest.mark.anyio

OTHER_SHA256 = "cd" * 32
WHY = "Validated on the slides of March"


def production(http, number=2, *, reason=WHY, **headers):
    return http.put("/api/models/shapes/aliases/production", json={"version": number, "reason": reason}, headers=headers)


@pytest.fixture
async def shapes(api):
    """A model with a version in production and a candidate."""
    workers = WorkerEvents(api)
    for digest in (SHA256, OTHER_SHA256):
        await workers.model("shapes", sha256=digest)
    return workers


@pytest.fixture
async def promoter(api, shapes):
    """A viewer who may promote versions of the model."""
    http, admin = await api.client("viewer"), await api.client("admin")
    answer = await admin.put(f"/api/models/shapes/promoters/{await id_of(http)}")
    assert answer.status_code == 204, answer.text
    return http


# ---- reading -----------------------------------------------------------------------------------------------------------------------
async def test_models_are_listed_by_name_with_what_is_in_production(api):
    workers = WorkerEvents(api)
    for name in ("shapes", "cells", "shapes"):
        await workers.model(name)
    http = await api.client("viewer")
    listed = (await http.get("/api/models/")).json()
    assert [model["name"] for model in listed] == ["cells", "shapes"]
    shapes = listed[1]
    assert (shapes["labels"], shapes["review_below"], shapes["sha256"]) == (list(LABELS), 0.6, SHA256)
    assert shapes["aliases"] == {"production": shapes["production"]} == {"production": 1}
    assert [version["number"] for version in shapes["versions"]] == [1]
    by_name, by_id = await http.get("/api/models/shapes"), await http.get(f"/api/models/{shapes['id']}")
    assert by_name.json() == by_id.json() == shapes
    assert by_name.headers["etag"] == by_id.headers["etag"]


async def test_a_candidate_is_shown_beside_the_version_in_production(api, shapes):
    http = await api.client("viewer")
    found = (await http.get("/api/models/shapes")).json()
    assert [version["sha256"] for version in found["versions"]] == [SHA256, OTHER_SHA256]
    assert found["aliases"] == {"production": 1, "candidate": 2}
    assert (found["production"], found["sha256"]) == (1, SHA256)


async def test_a_model_is_found_by_its_id_before_another_one_with_that_name(api, shapes):
    """The name of an earlier release may be the id of another model."""
    http = await api.client("viewer")
    shapes_id = (await http.get("/api/models/shapes")).json()["id"]
    version = model.Version(number=1, sha256=SHA256, size=10, labels=LABELS, review_below=0.6, record="{}")
    about = {"name": shapes_id, "description": "", "version": version, "check_id": None}
    added = model.ModelVersionAdded(originator_id=model_id(shapes_id), originator_version=1, at=now(), by=SYSTEM.id, **about)
    position = api.services.log.append(Command(id=uuid4(), actor=SYSTEM, at=now()), added).position
    assert await api.services.read_position.wait(position, 5)
    for query in ("", f"?as_of={position}"):
        assert (await http.get(f"/api/models/{shapes_id}{query}")).json()["name"] == "shapes"


async def test_a_candidate_does_not_change_the_description_of_what_is_in_production(api):
    workers, http = WorkerEvents(api), await api.client("admin")
    await workers.model("shapes", description="Of release 0.2.0")
    await workers.uploaded_model("shapes", UUID(await id_of(http)), description="For sheep alone")
    before = (await http.get("/api/models/shapes")).json()
    assert [before["description"], *(one["description"] for one in before["versions"])] == [
        "Of release 0.2.0",
        "Of release 0.2.0",
        "For sheep alone",
    ]
    past = (await http.get(f"/api/models/shapes?as_of={api.services.log.head()}")).json()
    assert (past["description"], [one["description"] for one in past["versions"]]) == (
        "Of release 0.2.0",
        ["Of release 0.2.0", "For sheep alone"],
    )
    assert (await production(http)).json()["description"] == "For sheep alone"
    assert (await production(http, 1)).json()["description"] == "Of release 0.2.0"


async def test_a_model_without_a_version_in_production_has_the_description_of_the_newest_one(api):
    workers, http = WorkerEvents(api), await api.client("researcher")
    for package, description in ((SHA256, "First"), (OTHER_SHA256, "Second")):
        await workers.uploaded_model("cells", UUID(await id_of(http)), description=description, package=package, weights=package)
    assert [one["description"] for one in (await http.get("/api/models")).json()] == ["Second"]


async def test_a_model_that_is_not_there_is_not_found(api):
    http = await api.client("viewer")
    assert (await http.get("/api/models")).json() == []
    for name in ("nothing", "7a6f3a8b-7231-4b93-a450-5cccfcaa22f1", "x" * 300, "' or 1=1 --"):
        assert_refused(await http.get(f"/api/models/{name}"), 404, "not_found")
        assert_refused(await http.get(f"/api/models/{name}/history"), 404, "not_found")
        assert_refused(await http.get(f"/api/models/{name}?as_of=2026-01-01T00:00:00Z"), 404, "not_found")
    assert_refused(await api.anonymous().get("/api/models"), 401)


async def test_an_uploaded_version_is_shown_with_its_labels_in_words_its_checks_and_who_added_it(api):
    ada = await api.client("researcher")
    ada_id, username = (await ada.get("/api/users/me")).json()["id"], (await ada.get("/api/users/me")).json()["username"]
    await WorkerEvents(api).uploaded_model("cells", UUID(ada_id))
    (found,) = (await (await api.client("viewer")).get("/api/models")).json()
    assert (found["production"], found["labels"], found["sha256"], found["aliases"]) == (None, [], None, {"candidate": 1})
    (version,) = found["versions"]
    assert (version["added_by"], version["added_by_username"]) == (ada_id, username)
    assert (version["label_texts"], version["release"], version["kind"]) == ({"round": "without edges"}, "2.0.0", "softmax")
    assert (version["package"], version["digest"]) == (SHA256, OTHER_SHA256)
    (check,) = version["checks"]
    assert check["environment"] == msgspec.to_builtins(REPORT.environment)
    assert (check["report"], check["code"]) == (msgspec.json.decode(msgspec.json.encode(REPORT)), None)


async def test_a_version_of_an_earlier_release_has_neither_package_nor_author(api, shapes):
    (version, _) = (await (await api.client("viewer")).get("/api/models/shapes")).json()["versions"]
    names = ("release", "digest", "package", "added_by", "added_by_username")
    assert {version[name] for name in names} == {None}
    assert (version["kind"], version["label_texts"], version["checks"]) == ("logits", {}, [])


# ---- aliases -----------------------------------------------------------------------------------------------------------------------
async def test_a_promoter_who_is_no_administrator_puts_a_version_into_production(api, promoter):
    answer = await production(promoter)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["production"], answer.json()["aliases"]) == (2, {"production": 2})
    assert answer.headers["etag"] == (await promoter.get("/api/models/shapes")).headers["etag"]
    again = await production(promoter)
    assert (again.status_code, "x-event-position" in again.headers) == (200, False)
    back = await production(promoter, 1, reason="Too many false alarms")
    assert (back.json()["production"], back.json()["sha256"]) == (1, SHA256)


async def test_a_promoter_is_named_and_can_be_removed(api, promoter):
    admin, user_id = await api.client("admin"), await id_of(promoter)
    username = (await promoter.get("/api/users/me")).json()["username"]
    assert (await admin.get("/api/models/shapes")).json()["promoters"] == [{"user_id": user_id, "username": username}]
    assert (await admin.put(f"/api/models/shapes/promoters/{user_id}")).status_code == 204, "a repeat changes nothing"
    for _ in range(2):
        assert (await admin.delete(f"/api/models/shapes/promoters/{user_id}")).status_code == 204
    assert (await admin.get("/api/models/shapes")).json()["promoters"] == []
    assert_refused(await production(promoter), 403, "forbidden")


async def test_a_promoter_may_not_choose_other_promoters_or_change_other_models(api, promoter, shapes):
    await shapes.model("cells")
    moved = {"version": 1, "reason": WHY}
    assert_refused(await promoter.put("/api/models/cells/aliases/stable", json=moved), 403, "forbidden")
    assert_refused(await promoter.post("/api/models/cells/retire", json={"reason": WHY}), 403, "forbidden")
    assert_refused(await promoter.put(f"/api/models/shapes/promoters/{uuid4()}"), 403, "forbidden")
    assert_refused(await promoter.delete(f"/api/models/shapes/promoters/{await id_of(promoter)}"), 403, "forbidden")


async def test_an_unknown_account_becomes_no_promoter(api, shapes):
    admin = await api.client("admin")
    assert_refused(await admin.put(f"/api/models/shapes/promoters/{uuid4()}"), 404, "not_found")


async def test_a_change_names_the_version_of_the_model_that_it_expects(api, shapes):
    admin = await api.client("admin")
    etag = (await admin.get("/api/models/shapes")).headers["etag"]
    assert (await production(admin, **{"If-Match": etag})).status_code == 200
    assert_refused(await production(admin, 1, **{"If-Match": etag}), 412, "version_mismatch")
    retired = await admin.post("/api/models/shapes/retire", json={"reason": WHY}, headers={"If-Match": etag})
    assert_refused(retired, 412, "version_mismatch")
    user_id = await id_of(await api.client("viewer"))
    for change in (admin.put, admin.delete):
        assert_refused(await change(f"/api/models/shapes/promoters/{user_id}", headers={"If-Match": etag}), 412, "version_mismatch")


WRONG = [
    ("production", {"version": 3, "reason": WHY}, 404),
    ("production", {"version": 0, "reason": WHY}, 422),
    ("production", {"version": 2**31, "reason": WHY}, 422),
    ("production", {"version": "two", "reason": WHY}, 422),
    ("production", {"version": 2}, 422),
    ("production", {"reason": WHY}, 422),
    ("production", {"version": 2, "reason": ""}, 422),
    ("production", {"version": 2, "reason": " \n"}, 422),
    ("production", {"version": 2, "reason": "x" * 1001}, 422),
    ("production", {"version": 2, "reason": None}, 422),
    ("production", {"version": 2, "reason": WHY, "force": True}, 422),
    ("Production", {"version": 2, "reason": WHY}, 422),
    ("-", {"version": 2, "reason": WHY}, 422),
    ("x" * 51, {"version": 2, "reason": WHY}, 422),
]


@pytest.mark.parametrize(("alias", "body", "status"), WRONG)
async def test_a_wrong_alias_version_or_reason_changes_nothing(api, shapes, alias, body, status):
    admin = await api.client("admin")
    head = api.services.log.head()
    assert_refused(await admin.put(f"/api/models/shapes/aliases/{alias}", json=body), status)
    assert api.services.log.head() == head


# ---- retirement --------------------------------------------------------------------------------------------------------------------
async def test_a_retired_model_is_left_out_of_the_list_and_changes_no_more(api, promoter):
    answer = await promoter.post("/api/models/shapes/retire", json={"reason": "Replaced"}, headers={"Idempotency-Key": "once"})
    assert (answer.status_code, answer.json()["retired"]) == (200, True), answer.text
    again = await promoter.post("/api/models/shapes/retire", json={"reason": "Replaced"}, headers={"Idempotency-Key": "once"})
    assert (again.status_code, again.headers["x-event-position"]) == (200, answer.headers["x-event-position"])
    assert (await promoter.get("/api/models")).json() == (await promoter.get("/api/models?retired=false")).json() == []
    assert [one["name"] for one in (await promoter.get("/api/models?retired=true")).json()] == ["shapes"]
    assert (await promoter.get("/api/models/shapes")).json()["retired"]
    assert_refused(await promoter.post("/api/models/shapes/retire", json={"reason": "Replaced"}), 409, "conflict")
    assert_refused(await production(promoter), 409, "conflict")
    admin = await api.client("admin")
    for change in (admin.put, admin.delete):
        assert_refused(await change(f"/api/models/shapes/promoters/{await id_of(promoter)}"), 409, "conflict")
    assert_refused(await promoter.get("/api/models?retired=perhaps"), 422)


# ---- history and the past ----------------------------------------------------------------------------------------------------------
async def test_the_history_says_who_did_what_and_why(api, promoter):
    await production(promoter)
    username = (await promoter.get("/api/users/me")).json()["username"]
    history = (await (await api.client("viewer")).get("/api/models/shapes/history")).json()
    assert [(one["type"], one["number"], one["alias"]) for one in history] == [
        ("ModelVersionAdded", 1, None),
        ("ModelAliasMoved", 1, "production"),
        ("ModelVersionAdded", 2, None),
        ("ModelAliasMoved", 2, "candidate"),
        ("ModelPromoterAdded", None, None),
        ("ModelAliasMoved", 2, "production"),
    ]
    assert (history[-2]["user_id"], history[-2]["username"]) == (await id_of(promoter), username)
    assert (history[-1]["by_username"], history[-1]["reason"]) == (username, WHY)
    assert {one["by_username"] for one in history[:4]} == {None}, "the system"


async def test_a_history_comes_in_pages(api, shapes):
    http = await api.client("viewer")
    whole = await http.get("/api/models/shapes/history")
    assert "x-next-cursor" not in whole.headers
    first = await http.get("/api/models/shapes/history?limit=3")
    rest = await http.get("/api/models/shapes/history", params={"after": first.headers["x-next-cursor"]})
    assert (len(first.json()), first.json() + rest.json()) == (3, whole.json())
    for wrong in ("limit=0", "limit=201", "after=-1", "after=x"):
        assert_refused(await http.get(f"/api/models/shapes/history?{wrong}"), 422)


async def test_a_model_is_read_as_it_was_at_a_time_or_position(api, promoter):
    before = api.services.log.head()
    moment = now().isoformat()
    moved = await production(promoter)
    for as_of, expected, aliases in (
        (str(before), 1, {"production": 1, "candidate": 2}),
        (moment, 1, {"production": 1, "candidate": 2}),
        (moved.headers["x-event-position"], 2, {"production": 2}),
        (now().isoformat(), 2, {"production": 2}),
    ):
        for name in ("shapes", model_id("shapes")):
            found = (await promoter.get(f"/api/models/{name}", params={"as_of": as_of})).json()
            assert (found["production"], found["aliases"]) == (expected, aliases)
    present = await promoter.get("/api/models/shapes")
    past = await promoter.get("/api/models/shapes", params={"as_of": now().isoformat()})
    assert (past.json(), past.headers["etag"]) == (present.json(), present.headers["etag"])
    first = api.services.log.history(model_id("shapes"))[0].position
    assert [one["number"] for one in (await promoter.get(f"/api/models/shapes?as_of={first}")).json()["versions"]] == [1]
    assert_refused(await promoter.get("/api/models/cells", params={"as_of": moment}), 404, "not_found")


@pytest.mark.parametrize(
    ("as_of", "status"),
    [("2001-01-01T00:00:00Z", 404), ("2999-01-01T00:00:00Z", 422), ("yesterday", 422), ("2026-03-01T12:00:00", 422), ("0", 422)],
)
async def test_a_moment_that_means_nothing_is_refused(api, shapes, as_of, status):
    assert_refused(await (await api.client("viewer")).get("/api/models/shapes", params={"as_of": as_of}), status)


async def test_the_production_of_any_time_is_found_in_a_long_history(api, shapes):
    """tests/application/test_past_models.py bounds the number of events that are read for it."""
    moves = with_moves(api.services.log, 1000)
    http = await api.client("viewer")
    for index in range(0, len(moves), 61):
        answer = await http.get("/api/models/shapes", params={"as_of": str(moves[index])})
        assert answer.json()["production"] == 2 - index % 2


def with_moves(log, count):
    """The positions of moves that put version 2 and version 1 into production by turns."""
    state, events = log.load(model_id("shapes"), model.evolve), []
    for index in range(count):
        events += model.move_alias(state, alias="production", number=2 - index % 2, reason=WHY, by=SYSTEM.id, at=now())
        state = model.evolve(state, events[-1])
    for some in (events[:1], *batched(events[1:], 500)):
        log.append(Command(id=uuid4(), actor=SYSTEM, at=now()), *some)
    return [one.position for one in log.history(model_id("shapes"))[-count:]]


def batched(items, size):
    return (items[start : start + size] for start in range(0, len(items), size))


# ---- packages ----------------------------------------------------------------------------------------------------------------------
def stored(api, data):
    writer = api.services.blobs.begin()
    writer.write(data)
    return writer.commit()[0]


async def test_a_package_is_downloaded_as_it_was_uploaded(api):
    ada, package = await api.client("researcher"), b"PK" * 300_000
    await WorkerEvents(api).uploaded_model("cells", UUID(await id_of(ada)), package=stored(api, package))
    answer = await (await api.client("analyst")).get("/api/models/cells/versions/1/package")
    assert (answer.status_code, sha256(answer.content).hexdigest()) == (200, sha256(package).hexdigest())
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-length"] == str(len(package))
    assert answer.headers["content-disposition"].startswith('attachment; filename="cells-1.zip"')


async def test_a_version_without_a_package_is_packed(api):
    await WorkerEvents(api).model("shapes", sha256=stored(api, b"weights"))
    answer = await (await api.client("analyst")).get("/api/models/shapes/versions/1/package")
    with ZipFile(io.BytesIO(answer.content)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {"rdf.yaml": b"{}", "model.onnx": b"weights"}


async def test_a_package_that_is_not_there_or_damaged_is_refused(api, lab_settings):
    digest = stored(api, b"weights")
    await WorkerEvents(api).model("shapes", sha256=digest)
    http = await api.client("analyst")
    for path in ("shapes/versions/2", "cells/versions/1", "shapes/versions/0", "shapes/versions/-1", f"shapes/versions/{10**30}"):
        assert_refused(await http.get(f"/api/models/{path}/package"), 404, "not_found")
    assert (await http.get("/api/models/shapes/versions/x/package")).status_code == 404
    assert_refused(await (await api.client("viewer")).get("/api/models/shapes/versions/1/package"), 403, "forbidden")
    (file,) = (lab_settings.data / "blobs").rglob(digest)
    file.chmod(0o600)
    file.write_bytes(b"others!")
    assert_refused(await http.get("/api/models/shapes/versions/1/package"), 500, "corrupted")
    file.unlink()
    assert_refused(await http.get("/api/models/shapes/versions/1/package"), 404, "not_found")


# ---- events ------------------------------------------------------------------------------------------------------------------------
async def test_reasons_are_in_clear_only_for_administrators_in_the_feed_and_the_trail(api, promoter):
    position = int((await production(promoter)).headers["x-event-position"])
    admin = await api.client("admin")
    (clear,) = (await followed(admin, after=position - 1, limit=1))["events"]
    assert (clear["type"], clear["data"]["reason"]) == ("ModelAliasMoved", WHY)
    for reader, query in ((service(api, "events:read"), {}), (admin, {"sealed": True})):
        (sealed,) = (await followed(reader, after=position - 1, limit=1, **query))["events"]
        assert sealed["data"]["reason"].startswith(SEALED_PREFIX)
    trail = (await admin.get(f"/api/audit/{model_id('shapes')}/trail")).json()
    assert trail[-1]["sentence"] == f"Ada Byron put version 2 of shapes into production: {WHY}"
    for path in ("/api/events", f"/api/audit/{model_id('shapes')}/trail"):
        assert_refused(await promoter.get(path), 403, "forbidden")


async def test_the_trail_of_a_model_has_its_checks_and_that_of_an_account_what_it_may_promote(api, promoter, shapes):
    ada = await api.client("researcher")
    check = await shapes.uploaded_model("cells", UUID(await id_of(ada)))
    refused = await shapes.uploaded_model("cells", UUID(await id_of(ada)), passes=False)
    admin = await api.client(Role.ADMIN)

    async def types(about):
        return [entry["type"] for entry in (await admin.get(f"/api/audit/{about}/trail")).json()]

    assert await types(model_id("cells")) == ["ModelVersionAdded", "ModelAliasMoved", "ModelCheckPassed"]
    assert await types(check) == ["ModelPackageUploaded", "ModelVersionAdded", "ModelCheckPassed"]
    assert await types(refused) == ["ModelPackageUploaded", "ModelCheckFailed"]
    assert "ModelPromoterAdded" in await types(await id_of(promoter))


# ---- external classifiers --------------------------------------------------------------------------------------------------------------
VESICLES = {"name": "vesicles", "labels": ["round", "flat"], "review_below": 0.7}


async def test_a_declared_classifier_is_a_version_without_a_package(api):
    ada = await api.client("researcher")
    answer = await ada.post("/api/models/external", json=VESICLES)
    assert answer.status_code == 201, answer.text
    version = answer.json()
    assert (version["number"], version["kind"], version["package"], version["size"]) == (1, "external", None, 0)
    assert version["sha256"] == version["digest"]
    assert version["added_by_username"] == (await ada.get("/api/users/me")).json()["username"]
    model = (await ada.get("/api/models/vesicles")).json()
    assert (model["aliases"], model["production"], model["versions"][0]["sha256"]) == ({"candidate": 1}, None, version["sha256"])


async def test_an_equal_declaration_is_the_same_version_and_another_one_the_next(api):
    ada = await api.client("researcher")
    first, again, other = [
        await ada.post("/api/models/external", json=body) for body in (VESICLES, VESICLES, VESICLES | {"labels": ["flat", "round"]})
    ]
    assert [one.json()["number"] for one in (first, again, other)] == [1, 1, 2]
    assert ["x-event-position" in one.headers for one in (first, again, other)] == [True, False, True]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [({"labels": []}, "labels"), ({"labels": ["a", "a"]}, "labels"), ({"name": "external"}, "name"), ({"review_below": 2}, "review_below")],
)
async def test_a_declaration_that_breaks_a_rule_is_refused(api, wrong, field):
    answer = await (await api.client("researcher")).post("/api/models/external", json=VESICLES | wrong)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"] == ["body", field]


async def test_an_external_classifier_has_nothing_to_download_and_nothing_to_test(api):
    ada = await api.client("researcher")
    await ada.post("/api/models/external", json=VESICLES)
    download = await ada.get("/api/models/vesicles/versions/1/package")
    test = await ada.post("/api/models/vesicles/versions/1/checks")
    assert (download.status_code, test.status_code) == (409, 409)
    assert "it has no file, since another program computes its results" in download.json()["detail"]
    assert "it has no package that could be tested" in test.json()["detail"]
