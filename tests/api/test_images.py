"""Images over HTTP: listed, described, viewed and deleted."""

from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.api.http_calls import PICTURE, assert_refused, dataset, id_of, image_in, share, upload
from tests.api.worker_events import WorkerEvents

pytestmark = pytest.mark.anyio

CONTRACT = {"id", "filename", "analyzed", "dataset_id", "uploaded_by_id", "device_id", "filepath", "uploaded_at"}
OURS = {
    "status",
    "reason",
    "detail",
    "media_type",
    "size",
    "width",
    "height",
    "bands",
    "dtype",
    "pages",
    "axes",
    "pixel_size_um",
    "warnings",
}
IMAGES = "/api/images/"


async def names(http, **query):
    answer = await http.get(IMAGES, params=query)
    assert answer.status_code == 200, answer.text
    return [image["filename"] for image in answer.json()]


async def device(api):
    admin = await api.client("admin")
    answer = await admin.post("/api/devices/", json={"name": "Axio", "hostname": f"axio-{uuid4()}"})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


# ---- one image ---------------------------------------------------------------------------------------------------------------------
async def test_an_uploaded_image_is_shown_as_the_contract_says(api):
    http = await api.client()
    cells = await dataset(http)
    image = await image_in(http, cells)
    answer = await http.get(f"{IMAGES}{image}")
    body = answer.json()
    assert set(body) == CONTRACT | OURS | {"sha256", "thumbnail", "path"}
    assert (body["id"], body["filename"], body["analyzed"], body["device_id"]) == (image, "cell.jpg", False, None)
    assert (body["dataset_id"], body["uploaded_by_id"]) == (cells, await id_of(http))
    assert (body["media_type"], body["size"], body["width"], body["height"]) == ("image/jpeg", len(PICTURE), 64, 48)
    assert (body["status"], body["reason"], body["thumbnail"]) == ("pending", None, None)
    assert body["filepath"] == f"sha256/{body['sha256']}"
    assert body["uploaded_at"].endswith("Z")
    assert answer.headers["etag"] == '"1"'
    assert (await http.get(IMAGES, params={"dataset_id": cells})).json() == [body]


async def test_the_first_decode_makes_an_image_accepted_or_rejected_with_a_reason(api):
    http, workers = await api.client(), WorkerEvents(api)
    cells = await dataset(http)
    good, bad = await image_in(http, cells), await image_in(http, cells)
    await workers.accept(good)
    await workers.reject(bad)
    accepted, rejected = (await http.get(f"{IMAGES}{good}")).json(), (await http.get(f"{IMAGES}{bad}")).json()
    assert (accepted["status"], accepted["dtype"], accepted["bands"], accepted["pixel_size_um"]) == ("accepted", "uint8", 3, 0.25)
    assert accepted["thumbnail"] == f"{IMAGES}{good}/thumbnail"
    assert (rejected["status"], rejected["reason"], rejected["detail"]) == ("rejected", "decode_failed", "It is torn.")
    assert rejected["thumbnail"] is None


async def test_an_image_is_described_against_its_version(api):
    http, scope = await api.client(), await device(api)
    image = await image_in(http, await dataset(http))
    changed = await http.patch(f"{IMAGES}{image}", json={"filename": "new.jpg", "analyzed": True, "device_id": scope})
    body = changed.json()
    assert (body["filename"], body["analyzed"], body["device_id"], changed.headers["etag"]) == ("new.jpg", True, scope, '"2"')
    stale = await http.patch(f"{IMAGES}{image}", json={"device_id": None}, headers={"If-Match": '"1"'})
    assert_refused(stale, 412, "version_mismatch")
    fresh = await http.patch(f"{IMAGES}{image}", json={"device_id": None}, headers={"If-Match": '"2"'})
    assert (fresh.status_code, fresh.json()["device_id"], fresh.json()["filename"]) == (200, None, "new.jpg")


IMPOSSIBLE = [
    ({"filename": ""}, 422),
    ({"filename": None}, 422),
    ({"filename": "x" * 256}, 422),
    ({"analyzed": "yes"}, 422),
    ({"device_id": "no uuid"}, 422),
    ({"device_id": str(uuid4())}, 404),
    ({"sha256": "ab" * 32}, 422),
    ({"uploaded_by_id": str(uuid4())}, 422),
    ([], 422),
]


async def test_what_an_image_cannot_be_is_refused(api):
    http = await api.client()
    image = await image_in(http, await dataset(http))
    before = (await http.get(f"{IMAGES}{image}")).json()
    for body, status in IMPOSSIBLE:
        assert_refused(await http.patch(f"{IMAGES}{image}", json=body), status), body
    assert (await http.get(f"{IMAGES}{image}")).json() == before


async def test_a_deleted_image_is_gone_for_everybody(api):
    http = await api.client()
    cells = await dataset(http)
    image = await image_in(http, cells)
    assert (await http.delete(f"{IMAGES}{image}")).status_code == 204
    for path in ("", "/preview", "/download", "/thumbnail"):
        assert_refused(await http.get(f"{IMAGES}{image}{path}"), 404, "not_found")
    assert_refused(await http.delete(f"{IMAGES}{image}"), 404)
    assert await names(http, dataset_id=cells) == []


# ---- whose it is -------------------------------------------------------------------------------------------------------------------
async def test_a_foreign_image_looks_like_one_that_is_not_there(api):
    owner, stranger = await api.client(), await api.client()
    image, nobody = await image_in(owner, await dataset(owner)), uuid4()
    for method, path in [("GET", ""), ("GET", "/preview"), ("GET", "/download"), ("GET", "/thumbnail"), ("DELETE", ""), ("PATCH", "")]:
        body = {"json": {"filename": "mine.jpg"}} if method == "PATCH" else {}
        foreign = await stranger.request(method, f"{IMAGES}{image}{path}", **body)
        absent = await stranger.request(method, f"{IMAGES}{nobody}{path}", **body)
        assert_refused(foreign, 404, "not_found")
        assert foreign.json() | {"instance": ""} == absent.json() | {"instance": ""}
    assert await names(stranger) == []


async def test_a_viewer_sees_what_is_shared_with_him_and_changes_nothing(api):
    owner, viewer = await api.client(), await api.client("viewer")
    cells = await dataset(owner)
    image = await image_in(owner, cells)
    await share(owner, cells, viewer)
    assert await names(viewer) == ["cell.jpg"]
    assert (await viewer.get(f"{IMAGES}{image}/preview")).status_code == 200
    assert_refused(await viewer.patch(f"{IMAGES}{image}", json={"filename": "mine.jpg"}), 403, "forbidden")
    assert_refused(await viewer.delete(f"{IMAGES}{image}"), 403, "forbidden")
    assert_refused(await upload(viewer, cells), 403, "forbidden")


async def test_an_administrator_sees_all_images(api):
    owner, admin = await api.client(), await api.client("admin")
    image = await image_in(owner, await dataset(owner))
    assert (await admin.get(f"{IMAGES}{image}")).status_code == 200
    assert await names(admin) == ["cell.jpg"]


# ---- lists -------------------------------------------------------------------------------------------------------------------------
@pytest.fixture
async def shelf(api):
    """Somebody with two datasets, and what is in them."""
    http, scope = await api.client(), await device(api)
    first, second = await dataset(http, "first"), await dataset(http, "second")
    await image_in(http, first, filename="a_1.jpg")
    await image_in(http, first, filename="B%2.jpg", device_id=scope)
    marked = await image_in(http, second, filename="c.jpg")
    await http.patch(f"{IMAGES}{marked}", json={"analyzed": True})
    return http, first, scope


async def test_a_list_is_narrowed_by_each_filter(shelf):
    http, first, scope = shelf
    me = await id_of(http)
    times = [datetime.fromisoformat(one["uploaded_at"]) for one in (await http.get(IMAGES)).json()]
    expected_value = [
        ({}, ["c.jpg", "B%2.jpg", "a_1.jpg"]),
        ({"dataset_id": first}, ["B%2.jpg", "a_1.jpg"]),
        ({"dataset_id": str(uuid4())}, []),
        ({"device_id": scope}, ["B%2.jpg"]),
        ({"uploaded_by": me}, ["c.jpg", "B%2.jpg", "a_1.jpg"]),
        ({"uploaded_by": str(uuid4())}, []),
        ({"analyzed": "true"}, ["c.jpg"]),
        ({"analyzed": "false"}, ["B%2.jpg", "a_1.jpg"]),
        ({"created_from": times[1].isoformat()}, ["c.jpg", "B%2.jpg"]),
        ({"created_to": times[1].isoformat()}, ["B%2.jpg", "a_1.jpg"]),
        ({"created_from": (times[0] + timedelta(microseconds=1)).isoformat()}, []),
        ({"q": "b%"}, ["B%2.jpg"]),
        ({"q": "_"}, ["a_1.jpg"]),
        ({"q": "JPG"}, ["c.jpg", "B%2.jpg", "a_1.jpg"]),
        ({"q": "\\"}, []),
        ({"dataset_id": first, "q": "a", "analyzed": "false"}, ["a_1.jpg"]),
        ({"order_by": "filename"}, ["B%2.jpg", "a_1.jpg", "c.jpg"]),
        ({"order_by": "-filename"}, ["c.jpg", "a_1.jpg", "B%2.jpg"]),
        ({"order_by": "uploaded_at"}, ["a_1.jpg", "B%2.jpg", "c.jpg"]),
        ({"order_by": "created_at"}, ["a_1.jpg", "B%2.jpg", "c.jpg"]),
        ({"page": 2, "page_size": 2}, ["a_1.jpg"]),
        ({"page": 3, "page_size": 2}, []),
        ({"page": 10**30}, []),
    ]
    for query, expected in expected_value:
        assert await names(http, **query) == expected, query


SEARCHES = {
    "Gro\u0308\u00dfe": ["Größe.jpg"],
    "GR\u00d6\u00dfE": ["Größe.jpg"],
    "gr\u00f6\u00dfe": ["Größe.jpg"],
    "plate 7": ["Größe.jpg", "img.jpg"],
    "plate 7/a1": ["img.jpg"],
    "U\u0308bersicht": ["img.jpg"],
    "plate 8": [],
}


async def test_a_search_finds_names_and_paths_in_any_case_and_unicode_form(api):
    http = await api.client()
    cells = await dataset(http)
    await image_in(http, cells, filename="plain.jpg")
    await image_in(http, cells, filename="img.jpg", path="Plate 7/A1/übersicht/img.jpg")
    await image_in(http, cells, path="Plate 7/Gro\u0308\u00dfe.jpg")
    for query, found in SEARCHES.items():
        assert await names(http, q=query) == found, query


async def test_a_path_stays_when_the_file_name_is_changed(api):
    http = await api.client()
    image = await image_in(http, await dataset(http), path="A1/img.jpg")
    await http.patch(f"{IMAGES}{image}", json={"filename": "new.jpg"})
    body = (await http.get(f"{IMAGES}{image}")).json()
    assert (body["filename"], body["path"]) == ("new.jpg", "A1/img.jpg")
    assert await names(http, q="A1/img") == ["new.jpg"]


async def test_following_the_links_leads_through_the_whole_list_once(api):
    http = await api.client()
    cells = await dataset(http)
    for number in range(7):
        await image_in(http, cells, filename=f"{number % 3}.jpg")
    for order in ("uploaded_at", "-uploaded_at", "filename", "-filename"):
        observed, path = [], f"{IMAGES}?dataset_id={cells}&page_size=2&order_by={order}"
        while path:
            answer = await http.get(path)
            observed += [image["id"] for image in answer.json()]
            path = answer.links.get("next", {}).get("url")
            assert bool(path) is ("x-next-cursor" in answer.headers)
        assert len(observed) == len(set(observed)) == 7
        whole = (await http.get(IMAGES, params={"dataset_id": cells, "order_by": order})).json()
        assert observed == [image["id"] for image in whole]


NO_FILTERS = [
    {"dataset_id": "1"},
    {"device_id": "x"},
    {"uploaded_by": ""},
    {"analyzed": "perhaps"},
    {"created_from": "yesterday"},
    {"created_to": "2026-13-01T00:00:00Z"},
    {"page": 0},
    {"page": -1},
    {"page": "one"},
    {"page_size": 0},
    {"page_size": 201},
    {"order_by": "sha256"},
    {"order_by": "uploaded_at; drop table images"},
    {"cursor": "no cursor"},
    {"cursor": "WyIyMDIwLVcwMS0xIiwgbnVsbF0"},
    {"cursor": "WyJuZXZlciIsICI3YTZmM2E4Yi03MjMxLTRiOTMtYTQ1MC01Y2NjZmNhYTIyZjEiXQ"},
    {"cursor": "é"},
    {"q": "\0"},
]


async def test_a_filter_that_cannot_be_is_refused_with_a_sentence(api):
    http = await api.client()
    for query in NO_FILTERS:
        assert_refused(await http.get(IMAGES, params=query), 422), query


ANYTHING = st.text(max_size=40) | st.integers().map(str) | st.datetimes().map(str) | st.sampled_from(["", "null", "%", "\ud800", "\x00"])


@given(query=st.dictionaries(st.sampled_from(["dataset_id", "analyzed", "created_from", "q", "page", "order_by", "cursor"]), ANYTHING))
@hypothesis_settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_is_asked_no_list_breaks(api, query):
    http = getattr(api, "reader", None)
    if http is None:
        http = api.reader = await api.client()
        await image_in(http, await dataset(http))
    sent = {name: value.encode("utf-8", "surrogatepass") for name, value in query.items()}
    answer = await http.get(IMAGES, params=sent)
    assert answer.status_code in {200, 400, 422}, (query, answer.text)
