"""Uploads of model packages and their checks over HTTP: a refused upload leaves nothing behind, and a check is seen by its owner."""

import asyncio
import hashlib
import os
import tracemalloc
from uuid import UUID

import msgspec
import pytest

from api.options import BodyTimeouts, UploadLimits
from application.model_checks import MAX_PENDING
from domain.access import Role
from domain.model_check import Environment
from tests.api.http_calls import assert_refused, events_of, id_of, stored
from tests.api.test_uploads import HeldStore, Spoken
from tests.api.worker_events import WorkerEvents
from tests.rigs.scenario import REPORT
from tests.rigs.waiting import wait_until_async

pytestmark = pytest.mark.anyio

MODELS = "/api/models"
CHECKS = "/api/model-checks"
MOST = 3_000_000  # bytes that a package may have in these tests
PACKAGE = b"PK\x03\x04" + os.urandom(1000)


@pytest.fixture
def lab_settings(lab_settings):
    return msgspec.structs.replace(lab_settings, model_max_bytes=MOST, upload_max_bytes=1000)


@pytest.fixture
async def desk(api, lab_settings):
    """Somebody who adds models, and a check that nothing was taken."""
    http = await api.client()

    def nothing_was_stored():
        return not stored(lab_settings) and not events_of(api, "ModelPackageUploaded")

    return http, nothing_was_stored


async def add(http, data=PACKAGE, *, filename="cells.zip", media_type="application/zip", **headers):
    return await http.post(MODELS, params={"filename": filename}, content=data, headers={"Content-Type": media_type} | headers)


@pytest.fixture
def workers(api):
    return WorkerEvents(api)


# ---- uploads -----------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("media_type", ["application/zip", "application/octet-stream", "application/x-zip-compressed"])
async def test_a_package_is_stored_under_its_sha256_and_waits_for_its_check(api, desk, media_type):
    http, _ = desk
    answer = await add(http, media_type=media_type)
    assert answer.status_code == 202, answer.text
    check, sha256 = answer.json(), hashlib.sha256(PACKAGE).hexdigest()
    assert answer.headers["location"] == f"{CHECKS}/{check['id']}"
    assert (check["status"], check["sha256"], check["filename"], check["size"]) == ("pending", sha256, "cells.zip", len(PACKAGE))
    assert (check["requested_by_id"], check["model_name"], check["report"]) == (await id_of(http), None, None)
    assert api.services.blobs.read(sha256) == PACKAGE
    assert (await http.get(answer.headers["location"])).json() == check


async def test_a_package_may_be_larger_than_an_image(api, desk):
    http, _ = desk
    answer = await add(http, bytes(MOST))
    assert answer.status_code == 202
    assert api.services.blobs.read(answer.json()["sha256"]) == bytes(MOST)


@pytest.mark.parametrize(
    ("data", "headers", "status", "code"),
    [
        (bytes(MOST + 1), {}, 413, "body_too_large"),
        (b"", {}, 400, "malformed"),
        (PACKAGE, {"media_type": "application/json"}, 415, "unsupported_media_type"),
        (PACKAGE, {"media_type": "multipart/form-data; boundary=x"}, 415, "unsupported_media_type"),
        (PACKAGE, {"filename": "\u202e"}, 422, "invalid"),
        (PACKAGE, {"Idempotency-Key": "with space"}, 422, "invalid"),
    ],
)
async def test_what_is_no_package_is_refused_and_leaves_nothing(desk, data, headers, status, code):
    http, nothing_was_stored = desk
    answer = await add(http, data, **headers)
    assert_refused(answer, status, code)
    assert ("The file is empty" in answer.text) == (data == b"")
    assert nothing_was_stored()


async def test_somebody_with_many_unanswered_checks_waits_for_an_answer_and_others_do_not(api, desk, workers):
    http, _ = desk
    first, *_ = [(await add(http, PACKAGE + bytes([number]))).json()["id"] for number in range(MAX_PENDING)]
    spoken = package_of(api, http, [PACKAGE])
    status, problem = await spoken.answer()
    assert (status, problem["code"], spoken.read) == (429, "too_many", 0)
    assert (await add(await api.client())).status_code == 202
    await workers.refuse_check(first)
    assert (await add(http)).status_code == 202


async def test_a_repeat_gets_its_first_answer_whatever_the_limit(api, desk, workers):
    http, _ = desk
    await workers.uploaded_model("cells", UUID(await id_of(http)))
    tested = f"{MODELS}/cells/versions/1/checks"
    firsts = [await add(http, **{"Idempotency-Key": "once"}), await http.post(tested, headers={"Idempotency-Key": "once"})]
    for number in range(MAX_PENDING - len(firsts)):
        assert (await add(http, PACKAGE + bytes([number]))).status_code == 202
    for key in ("another", None):
        headers = {"Idempotency-Key": key} if key else {}
        assert_refused(await add(http, **headers), 429, "too_many")
        assert_refused(await http.post(tested, headers=headers), 429, "too_many")
    again = [await add(http, **{"Idempotency-Key": "once"}), await http.post(tested, headers={"Idempotency-Key": "once"})]
    assert [(one.status_code, one.json()) for one in again] == [(202, one.json()) for one in firsts]


async def test_packages_that_are_being_uploaded_count_as_unanswered(desk, workers):
    http, _ = desk
    begun, go_on = [], asyncio.Event()

    async def slowly():
        begun.append(PACKAGE)
        yield PACKAGE
        await go_on.wait()

    uploads = [asyncio.create_task(add(http, slowly())) for _ in range(MAX_PENDING)]
    await wait_until_async(lambda: len(begun) == MAX_PENDING)
    assert_refused(await add(http), 429, "too_many")
    go_on.set()
    first, *others = await asyncio.gather(*uploads)
    assert {answer.status_code for answer in (first, *others)} == {202}
    await workers.refuse_check(first.json()["id"])
    assert (await add(http)).status_code == 202, "no upload counts after its end"


@pytest.mark.parametrize("role", [Role.VIEWER, Role.ANALYST])
async def test_nothing_is_read_from_those_who_may_not_add_models(api, role):
    http = await api.client(role)
    spoken = package_of(api, http, [PACKAGE])
    status, problem = await spoken.answer()
    assert (status, problem["code"], spoken.read) == (403, "forbidden", 0)


def package_of(api, http, chunks, **headers):
    """An upload as a server hands it over, message by message."""
    spoken = Spoken(api, http, chunks, **{"content-type": "application/zip", **headers})
    spoken.scope |= {"path": MODELS, "raw_path": MODELS.encode()}
    return spoken


async def test_a_package_that_is_announced_too_large_is_refused_before_its_first_byte(api, desk):
    http, nothing_was_stored = desk
    spoken = package_of(api, http, [PACKAGE], **{"content-length": str(MOST + 1)})
    status, problem = await spoken.answer()
    assert (status, problem["code"], spoken.read) == (413, "body_too_large", 0)
    assert nothing_was_stored()


async def test_a_package_that_is_not_announced_is_refused_as_soon_as_it_is_too_large(api, desk):
    http, nothing_was_stored = desk
    spoken = package_of(api, http, (bytes(100_000) for _ in range(1000)))
    status, _ = await spoken.answer()
    assert status == 413
    assert spoken.read <= MOST + 100_000
    assert nothing_was_stored()


@pytest.mark.parametrize("before", [0, 1, 20])
async def test_a_client_that_goes_away_leaves_nothing(api, desk, before):
    http, nothing_was_stored = desk
    status, _ = await package_of(api, http, [*[bytes(100_000)] * before, None]).answer()
    assert status == 400
    assert nothing_was_stored()


async def test_a_cancelled_upload_leaves_nothing(api, desk):
    http, nothing_was_stored = desk
    going_on = asyncio.Event()
    spoken = package_of(api, http, [])

    async def receive():
        going_on.set()
        await asyncio.sleep(30)

    upload = asyncio.create_task(api.app(spoken.scope, receive, spoken._send))
    await asyncio.wait_for(going_on.wait(), 5)
    upload.cancel()
    await asyncio.wait([upload])
    assert nothing_was_stored()


async def test_a_package_that_stops_coming_is_given_up(api, desk):
    http, nothing_was_stored = desk
    impatient = api.with_options(body_timeouts=BodyTimeouts(idle_seconds=0.05)).anonymous(**http.headers)

    async def stops():
        yield PACKAGE[:100]
        await asyncio.sleep(60)

    assert_refused(await add(impatient, stops()), 408, "too_slow")
    assert nothing_was_stored()


async def test_a_store_that_is_away_is_reported_and_nothing_is_recorded(desk, lab_settings):
    http, nothing_was_stored = desk
    shelf = lab_settings.data / "blobs" / "sha256"
    shelf.write_text("a file where a folder should be")
    assert_refused(await add(http), 503, "unavailable")
    shelf.unlink()
    assert nothing_was_stored()
    assert (await add(http)).status_code == 202


async def test_a_package_is_not_held_in_memory(api, desk):
    http, _ = desk
    large = api.with_options(model_max_bytes=10**9, uploads=UploadLimits(piece_bytes=100_000))
    size = 60_000_000
    spoken = package_of(large, http, (bytes(100_000) for _ in range(size // 100_000)))
    tracemalloc.start()
    try:
        status, check = await spoken.answer()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (status, check["size"]) == (202, size)
    assert peak < size / 6


async def test_a_slow_store_takes_few_uploads_at_once(api, desk, lab_settings):
    http, _ = desk
    held = HeldStore(api.services.blobs)
    slow = api.with_services(blobs=held).with_options(uploads=UploadLimits(concurrent_stores=1, store_timeout_seconds=0.2))
    first = asyncio.create_task(package_of(slow, http, [PACKAGE]).answer())
    await wait_until_async(lambda: held.waiting)
    status, problem = await package_of(slow, http, [PACKAGE + b"x"]).answer()
    assert (status, problem["code"]) == (503, "unavailable")
    held.released.set()
    assert (await first)[0] == 202
    assert len(stored(lab_settings)) == 1


async def test_a_repeated_upload_is_one_check(api, desk):
    http, _ = desk
    first, again = [await add(http, **{"Idempotency-Key": "once"}) for _ in range(2)]
    other = await add(http, PACKAGE + b"other", **{"Idempotency-Key": "once"})
    assert first.json() == again.json()
    assert_refused(other, 422, "idempotency_key_reused")
    assert events_of(api, "ModelPackageUploaded") == 1


async def test_the_same_package_may_be_checked_again(api, desk):
    http, _ = desk
    first, second = (await add(http)).json(), (await add(http)).json()
    assert first["id"] != second["id"]
    assert first["sha256"] == second["sha256"]


async def test_a_check_is_known_also_before_queries_show_it(desk):
    http, _ = desk
    answer = await add(http, Prefer="respond-async")
    check = answer.json()
    assert (answer.status_code, check["status"], check["sha256"]) == (202, "pending", hashlib.sha256(PACKAGE).hexdigest())
    shown = await http.get(f"{CHECKS}/{check['id']}", params={"min_position": answer.headers["x-event-position"]})
    of_the_row = {"filename": None, "size": None}
    assert shown.json() | of_the_row == check | of_the_row


# ---- answers -----------------------------------------------------------------------------------------------------------------------
async def test_a_package_that_passed_names_its_version_which_is_the_candidate(desk, workers):
    http, _ = desk
    check = (await add(http)).json()
    await workers.pass_check(check["id"], "cells")
    answered = (await http.get(f"{CHECKS}/{check['id']}")).json()
    assert (answered["status"], answered["model_name"], answered["number"]) == ("passed", "cells", 1)
    assert answered["report"]["environment"] == msgspec.to_builtins(REPORT.environment)
    model = (await http.get(f"{MODELS}/cells")).json()
    assert (model["aliases"], model["production"]) == ({"candidate": 1}, None)
    assert (model["versions"][0]["package"], model["versions"][0]["added_by"]) == (check["sha256"], await id_of(http))


async def test_a_refused_package_says_what_is_wrong_and_where(desk, workers):
    http, _ = desk
    check = (await add(http)).json()
    await workers.refuse_check(check["id"])
    answered = (await http.get(f"{CHECKS}/{check['id']}")).json()
    assert (answered["status"], answered["code"], answered["detail"]) == ("failed", "manifest_field", "must be a number")
    assert (answered["file"], answered["field"]) == ("rdf.yaml", "inputs[0].axes[2].size")
    assert answered["answered_at"]


async def test_a_version_is_tested_again_and_a_failure_is_shown_with_it(desk, workers):
    http, _ = desk
    await workers.pass_check((await add(http)).json()["id"], "cells")
    answer = await http.post(f"{MODELS}/cells/versions/1/checks")
    check = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"{CHECKS}/{check['id']}")
    assert (check["status"], check["model_name"], check["number"], check["filename"]) == ("pending", "cells", 1, None)
    elsewhere = Environment(cpu="aarch64", runtime="onnxruntime 1.30", provider="CPUExecutionProvider")
    await workers.refuse_check(check["id"], elsewhere)
    (version,) = (await http.get(f"{MODELS}/cells")).json()["versions"]
    assert [(one["environment"]["cpu"], one.get("code")) for one in version["checks"]] == [("x86_64", None), ("aarch64", "manifest_field")]


async def test_only_versions_with_a_package_can_be_tested_again(api, desk, workers):
    http, _ = desk
    await workers.model("old")
    assert_refused(await http.post(f"{MODELS}/old/versions/1/checks"), 409, "conflict")
    assert_refused(await http.post(f"{MODELS}/old/versions/2/checks"), 404, "not_found")
    assert_refused(await http.post(f"{MODELS}/none/versions/1/checks"), 404, "not_found")
    assert_refused(await (await api.client(Role.ANALYST)).post(f"{MODELS}/old/versions/1/checks"), 403, "forbidden")


async def test_a_check_is_seen_by_its_owner_and_by_administrators_only(api, desk, workers):
    http, _ = desk
    first, second = [(await add(http, PACKAGE + bytes([number]))).json()["id"] for number in range(2)]
    other, admin = await api.client(), await api.client(Role.ADMIN)
    own = (await add(other)).json()["id"]
    assert [one["id"] for one in (await http.get(CHECKS)).json()] == [second, first]
    assert [one["id"] for one in (await other.get(CHECKS)).json()] == [own]
    assert {one["id"] for one in (await admin.get(CHECKS)).json()} == {first, second, own}
    assert_refused(await other.get(f"{CHECKS}/{first}"), 404, "not_found")
    assert (await admin.get(f"{CHECKS}/{first}")).status_code == 200
    await workers.pass_check(first, "cells")
    changed = await http.get(f"{CHECKS}/{first}")
    assert changed.headers["etag"] == '"2"'
