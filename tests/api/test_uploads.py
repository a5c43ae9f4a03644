"""Uploads: a refused one leaves nothing behind."""

import asyncio
import csv
import json
import threading
import tracemalloc
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest

from api.options import BodyTimeouts, UploadLimits
from tests.api.http_calls import PICTURE, assert_refused, dataset, events_of, share, stored, upload
from tests.rigs.hostile_images import bare_jpeg, frame, hostile_files, jpeg, page, png, scan, tiff
from tests.rigs.waiting import wait_until_async

pytestmark = pytest.mark.anyio

FORMATS = Path(__file__).parents[1] / "data" / "formats"
CASES_FOLDER = Path(__file__).parents[1] / "data" / "cases"
UPLOAD = "/api/images/upload"
BOUNDARY = "a-boundary"
MOST = 3_000_000  # bytes that an upload may have in these tests
ERRORS = {"unsupported_image": 415, "damaged_image": 422, "image_too_large": 413}


@pytest.fixture
def lab_settings(lab_settings):
    return msgspec.structs.replace(lab_settings, upload_max_bytes=MOST)


@pytest.fixture
async def desk(api, lab_settings):
    """Somebody with a dataset, and a check that nothing was taken."""
    http = await api.client()
    cells = await dataset(http)

    def nothing_was_stored():
        return not stored(lab_settings) and not events_of(api, "ImageUploaded")

    return http, cells, nothing_was_stored


def part(name, value, filename=None):
    named = f'; filename="{filename}"' if filename is not None else ""
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + value + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def form(*parts):
    return b"".join(parts) + END


async def send(http, body, **headers):
    return await http.post(UPLOAD, content=body, headers={"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", **headers})


class Spoken:
    """An upload as a server hands it over, message by message. None is a client that went away."""

    def __init__(self, api, http, chunks, **headers):
        given = {"host": "localhost", "content-type": f"multipart/form-data; boundary={BOUNDARY}"}
        given |= {"authorization": http.headers["authorization"], **headers}
        self._app, self._chunks = api.app, iter(chunks)
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": UPLOAD,
            "raw_path": UPLOAD.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        }
        self.read, self.status, self.body = 0, None, b""

    async def _receive(self):
        chunk = next(self._chunks, b"")
        if chunk is None:
            return {"type": "http.disconnect"}
        self.read += len(chunk)
        return {"type": "http.request", "body": chunk, "more_body": bool(chunk)}

    async def _send(self, message):
        if message["type"] == "http.response.start":
            self.status = message["status"]
        self.body += message.get("body", b"")

    async def answer(self):
        await self._app(self.scope, self._receive, self._send)
        return self.status, json.loads(self.body)


# ---- files that are no images ------------------------------------------------------------------------------------------------------
def listed(expect):
    with (FORMATS / "manifest.csv").open(newline="") as file:
        return [row[0] for row in csv.reader(file) if row[1] == expect]


async def test_bad_files_are_refused_with_a_reason_and_leave_nothing(desk):
    http, cells, nothing_was_stored = desk
    for name in listed("error"):
        answer = await upload(http, cells, (FORMATS / name).read_bytes(), Path(name).name)
        assert_refused(answer, ERRORS[answer.json()["code"]]), name
        assert answer.json()["reason"], name
        assert nothing_was_stored(), name


async def test_good_files_of_each_format_are_taken(desk):
    http, cells, _ = desk
    for name in listed("ok"):
        answer = await upload(http, cells, (FORMATS / name).read_bytes(), Path(name).name)
        assert answer.status_code == 201, (name, answer.text)


async def test_hostile_files_are_refused_as_what_they_are(desk):
    http, cells, nothing_was_stored = desk
    sent = [file for file in hostile_files() if not file.late and len(file.data) < MOST]
    for file in sent:
        answer = await upload(http, cells, file.data, "cell.jpg")
        assert_refused(answer, ERRORS[file.error.code], file.error.code), file.name
        assert answer.json()["reason"], file.name
    assert len(sent) > 100
    assert nothing_was_stored()


# ---- forms that are none -----------------------------------------------------------------------------------------------------------
NOBODY = str(uuid4()).encode()
FILE = part("file", PICTURE, "cell.jpg")
CELLS = b"the dataset's id"


LACKING = {
    "no file": ([part("dataset_id", CELLS)], 422),
    "no dataset": ([FILE], 422),
    "nothing": ([], 422),
    "an empty dataset": ([part("dataset_id", b""), FILE], 422),
    "a dataset that is no id": ([part("dataset_id", b"cells"), FILE], 422),
    "a dataset that is no id, late": ([FILE, part("dataset_id", b"cells")], 422),
    "a dataset that is no text": ([part("dataset_id", b"\xff\xfe"), FILE], 422),
    "a dataset that is not there": ([part("dataset_id", NOBODY), FILE], 404),
    "a dataset that is not there, late": ([FILE, part("dataset_id", NOBODY)], 404),
    "two datasets": ([part("dataset_id", CELLS), part("dataset_id", CELLS), FILE], 422),
    "two files": ([part("dataset_id", CELLS), FILE, FILE], 422),
    "a file without a name": ([part("dataset_id", CELLS), part("file", PICTURE)], 422),
    "an empty name": ([part("dataset_id", CELLS), part("file", PICTURE, "")], 422),
    "an empty file": ([part("dataset_id", CELLS), part("file", b"", "cell.jpg")], 422),
    "a name too long for a header": ([part("dataset_id", CELLS), part("file", PICTURE, "x" * 5000)], 413),
    "a device that is no id": ([part("dataset_id", CELLS), part("device_id", b"x"), FILE], 422),
    "a device that is not there": ([part("dataset_id", CELLS), part("device_id", NOBODY), FILE], 404),
    "a device that is not there, late": ([part("dataset_id", CELLS), FILE, part("device_id", NOBODY)], 404),
    "a field that is not known": ([part("dataset_id", CELLS), part("uploaded_by_id", NOBODY), FILE], 422),
    "a name of which nothing remains": ([part("dataset_id", CELLS), part("file", PICTURE, "...")], 422),
    "a path out of the folder": ([part("dataset_id", CELLS), part("path", b"../A1/cell.jpg"), FILE], 422),
    "a path that is no text": ([part("dataset_id", CELLS), FILE, part("path", b"\xff\xfe")], 422),
    "two paths": ([part("dataset_id", CELLS), part("path", b"A1/cell.jpg"), part("path", b"A1/cell.jpg"), FILE], 422),
    "a path but no name": ([part("dataset_id", CELLS), part("path", b"A1/cell.jpg"), part("file", PICTURE)], 422),
    "a huge field": ([part("dataset_id", b"x" * 5000), FILE], 413),
    "a hundred fields": ([part("dataset_id", CELLS), *[part("device_id", b"")] * 100, FILE], 422),
}


async def test_forms_that_lack_something_are_refused_and_leave_nothing(desk):
    http, cells, nothing_was_stored = desk
    for name, (parts, status) in LACKING.items():
        answer = await send(http, form(*[one.replace(CELLS, cells.encode()) for one in parts]))
        assert_refused(answer, status), name
        assert nothing_was_stored(), name


DAMAGED = {
    "empty": (b"", 400),
    "no form": (b"just some words", 400),
    "only the end": (END, 422),
    "no end": (FILE, 400),
    "cut off inside the file": (FILE[:-200], 400),
    "cut off inside a header": (FILE[:40], 400),
    "no header": (f"--{BOUNDARY}\r\nno header at all\r\n\r\nx\r\n".encode() + END, 400),
    "no disposition": (f"--{BOUNDARY}\r\n\r\nx\r\n".encode() + END, 400),
    "another disposition": (f"--{BOUNDARY}\r\nContent-Disposition: attachment\r\n\r\nx\r\n".encode() + END, 400),
    "a huge header": (b"--" + BOUNDARY.encode() + b"\r\nA: " + b"x" * 9000 + b"\r\n\r\nx\r\n" + END, 413),
    "fifty headers": (f"--{BOUNDARY}\r\n".encode() + b"A: b\r\n" * 50 + b"\r\nx\r\n" + END, 413),
    "a part name that is not UTF-8": (
        f"--{BOUNDARY}\r\n".encode() + b'Content-Disposition: form-data; name="\xff"\r\n\r\nx\r\n' + END,
        422,
    ),
    "another boundary": (FILE.replace(BOUNDARY.encode(), b"another"), 400),
}


async def test_damaged_forms_are_refused_and_leave_nothing(desk):
    http, _, nothing_was_stored = desk
    for name, (body, status) in DAMAGED.items():
        assert_refused(await send(http, body), status), name
        assert nothing_was_stored(), name


NO_FORMS = ("application/json", "image/jpeg", "multipart/form-data", "multipart/mixed; boundary=a", "", "multipart/form-data; boundary=")


async def test_a_body_that_is_no_form_is_refused(desk):
    http, _, nothing_was_stored = desk
    for kind in NO_FORMS:
        assert_refused(await http.post(UPLOAD, content=PICTURE, headers={"Content-Type": kind}), 415), kind
    assert nothing_was_stored()


async def test_the_fields_may_come_before_or_after_the_file_in_any_pieces(api, desk):
    http, cells, _ = desk
    dataset_part = part("dataset_id", cells.encode())
    for parts in ([dataset_part, FILE], [FILE, dataset_part], [dataset_part, part("device_id", b""), FILE]):
        for size in (1, 7, 1000, 10**6):
            body = form(*parts)
            status, message = await Spoken(api, http, [body[at : at + size] for at in range(0, len(body), size)]).answer()
            assert status == 201, message


LABELS = {
    "../../etc/passwd.jpg": "passwd.jpg",
    "C:\\\\pictures\\\\cell.jpg": "cell.jpg",
    ".hidden.jpg": "hidden.jpg",
    "e\u0301.jpg": "\u00e9.jpg",
    "cell.php": "cell.php",
}


CASES = {"form_filename_star_only.bin": "Zelle äμ.jpg", "form_latin1_name.bin": "Lösung_µ.jpg"}


@pytest.mark.parametrize(("case", "name"), CASES.items(), ids=CASES)
async def test_a_form_of_an_old_client_is_taken_with_its_file_name(desk, case, name):
    http, cells, _ = desk
    body = (CASES_FOLDER / case).read_bytes().replace(str(UUID(int=0)).encode(), cells.encode())
    answer = await http.post(UPLOAD, content=body, headers={"Content-Type": "multipart/form-data; boundary=XbX"})
    assert (answer.status_code, answer.json().get("filename")) == (201, name)


async def test_a_long_file_name_keeps_its_extension(desk):
    http, cells, _ = desk
    answer = await upload(http, cells, filename="b" * 296 + ".jpg")
    assert answer.json()["filename"] == "b" * 251 + ".jpg"


async def test_a_name_that_cannot_be_stored_is_refused_because_of_the_name(desk):
    http, cells, nothing_was_stored = desk
    answer = await upload(http, cells, filename="...")
    assert_refused(answer, 422, "invalid")
    assert answer.json()["errors"] == [{"loc": ["body", "filename"], "msg": "has no character that can be stored: rename the file"}]
    assert nothing_was_stored()


# ---- paths -------------------------------------------------------------------------------------------------------------------------
PATHS = {
    "A1/img.tif": ("A1/img.tif", "img.tif"),
    "A1\\B\\img.tif": ("A1/B/img.tif", "img.tif"),
    "./A1/img.tif": ("A1/img.tif", "img.tif"),
    "Gro\u0308\u00dfe/e\u0301.tif": ("Größe/é.tif", "é.tif"),
    "img.tif": ("img.tif", "img.tif"),
    "": (None, "cell.jpg"),
    "  ": (None, "cell.jpg"),
}


async def test_a_path_is_stored_and_its_last_part_is_the_file_name(desk):
    http, cells, _ = desk
    for sent, (path, filename) in PATHS.items():
        answer = await upload(http, cells, path=sent)
        assert answer.status_code == 201, answer.text
        image = (await http.get(f"/api/images/{answer.json()['id']}")).json()
        assert (image["path"], image["filename"], answer.json()["filename"]) == (path, filename, filename)


async def test_a_path_counts_wherever_it_stands_in_the_form(api, desk):
    http, cells, _ = desk
    fields = [part("dataset_id", cells.encode()), part("path", b"A1/img.jpg")]
    for parts in ([*fields, FILE], [FILE, *fields]):
        status, body = await Spoken(api, http, [form(*parts)]).answer()
        assert (status, body["filename"]) == (201, "img.jpg")


async def test_a_wrong_path_is_refused_before_the_file_is_read_with_what_to_do(api, desk):
    http, cells, nothing_was_stored = desk
    begun = part("dataset_id", cells.encode()) + part("path", b"/home/ada/A1/img.tif") + FILE[:100]
    spoken = Spoken(api, http, [begun, *[b"x" * 1000] * 100])
    status, body = await spoken.answer()
    assert (status, body["errors"][0]["loc"]) == (422, ["body", "path"])
    assert "relative to the uploaded folder, like A1/img.tif" in body["detail"]
    assert spoken.read <= len(begun)
    assert nothing_was_stored()


async def test_a_path_is_nowhere_in_the_log_in_clear(api, desk, owner_url):
    http, cells, _ = desk
    assert (await upload(http, cells, path="patient-Grey-4711/img.tif")).status_code == 201
    with psycopg.connect(owner_url) as connection, connection.cursor().copy("copy (select * from es.events) to stdout") as copied:
        log = b"".join(bytes(piece) for piece in copied)
    assert b"ImageUploaded" in log
    assert b"Grey-4711" not in log


async def test_the_same_key_with_another_path_is_refused(api, desk):
    http, cells, _ = desk
    key = {"Idempotency-Key": "once"}
    first = await upload(http, cells, headers=key, path="A1/img.jpg")
    assert (await upload(http, cells, headers=key, path="A1/img.jpg")).json() == first.json()
    assert_refused(await upload(http, cells, headers=key, path="A2/img.jpg"), 422, "idempotency_key_reused")
    assert events_of(api, "ImageUploaded") == 1


async def test_a_file_name_is_a_label_and_no_path(desk):
    http, cells, _ = desk
    for sent, kept in LABELS.items():
        answer = await upload(http, cells, filename=sent)
        assert (answer.status_code, answer.json().get("filename")) == (201, kept)


# ---- who may -----------------------------------------------------------------------------------------------------------------------
async def test_permission_is_asked_before_a_byte_of_the_file_is_read(api, desk):
    _, cells, nothing_was_stored = desk
    for role, status in (("viewer", 403), ("analyst", 404)):
        stranger = await api.client(role)
        begun = part("dataset_id", cells.encode()) + FILE[:100]
        spoken = Spoken(api, stranger, [begun, *[b"x" * 1000] * 100])
        assert (await spoken.answer())[0] == status
        assert spoken.read <= len(begun)
    assert nothing_was_stored()


async def test_a_viewer_of_a_dataset_puts_nothing_into_it_and_its_analyst_does(api, desk):
    owner, cells, nothing_was_stored = desk
    other = await api.client()
    await share(owner, cells, other)
    assert_refused(await upload(other, cells), 403)
    assert nothing_was_stored()
    await share(owner, cells, other, "analyst")
    assert (await upload(other, cells)).status_code == 201


async def test_nobody_uploads_without_signing_in(api, desk):
    _, cells, nothing_was_stored = desk
    assert_refused(await upload(api.anonymous(), cells), 401)
    assert nothing_was_stored()


# ---- too much, too slow, broken off ------------------------------------------------------------------------------------------------
def endless(cells, size):
    """A JPEG whose picture data goes on and on."""
    start = bare_jpeg(*[frame(8000, 8000), scan(1)], end=b"")
    yield part("dataset_id", cells.encode()) + part("file", start, "cell.jpg")[:-2]
    block = b"\x11" * 100_000
    for _ in range(size // len(block)):
        yield block


async def test_an_upload_that_is_too_long_ends_as_soon_as_that_is_known(api, desk):
    http, cells, nothing_was_stored = desk
    spoken = Spoken(api, http, endless(cells, 20 * MOST))
    status, body = await spoken.answer()
    assert (status, body["code"], body["reason"]) == (413, "image_too_large", "too_many_bytes")
    assert spoken.read < MOST + 1_000_000
    announced = Spoken(api, http, endless(cells, 20 * MOST), **{"content-length": str(20 * MOST)})
    assert (await announced.answer())[0] == 413
    assert announced.read == 0
    assert nothing_was_stored()


async def test_an_upload_takes_no_memory_of_its_size(api, desk):
    http, cells, _ = desk
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        await Spoken(api, http, endless(cells, MOST - 200_000)).answer()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 2_500_000


async def test_a_length_that_lies_is_no_way_in(api, desk):
    http, cells, _ = desk
    body = form(part("dataset_id", cells.encode()), FILE)
    for length, expected in {"1": 400, "100": 400, "5": 400, "99999": 201, "-1": 201, "many": 201, "1e3": 201, "9" * 30: 201}.items():
        status, message = await Spoken(api, http, [body], **{"content-length": length}).answer()
        assert status == expected, message


@pytest.mark.parametrize("data", [PICTURE, tiff(page()), png()], ids=["jpeg", "tiff", "png"])
async def test_a_client_that_goes_away_leaves_nothing(api, desk, data):
    http, cells, nothing_was_stored = desk
    body = form(part("dataset_id", cells.encode()), part("file", data, "cell.jpg"))
    for share_sent in (0.0, 0.1, 0.5, 0.99):
        cut = int(len(body) * share_sent)
        status, _ = await Spoken(api, http, [body[:cut], None] if cut else [None]).answer()
        assert status == 400
        assert nothing_was_stored()


async def test_a_request_that_is_cancelled_leaves_nothing(api, desk):
    http, cells, nothing_was_stored = desk
    for wait in (0.0, 0.001, 0.003, 0.01):
        held = asyncio.Event()

        async def pieces(held=held):
            for piece in endless(cells, MOST - 500_000):
                yield piece
            held.set()
            await asyncio.sleep(60)

        sending = asyncio.create_task(send(http, pieces()))
        await held.wait()
        await asyncio.sleep(wait)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        assert nothing_was_stored()


async def test_a_body_that_stops_coming_is_given_up(api, desk):
    http, cells, nothing_was_stored = desk
    impatient = api.with_options(body_timeouts=BodyTimeouts(idle_seconds=0.05)).anonymous(**http.headers)

    async def stops():
        yield part("dataset_id", cells.encode()) + FILE[:1000]
        await asyncio.sleep(60)

    assert_refused(await send(impatient, stops()), 408, "too_slow")
    assert nothing_was_stored()


async def test_a_store_that_is_away_is_reported_and_nothing_is_recorded(api, desk, lab_settings):
    http, cells, nothing_was_stored = desk
    blobs = lab_settings.data / "blobs"
    shelf = blobs / "sha256"
    shelf.write_text("a file where a folder should be")
    answer = await upload(http, cells)
    assert_refused(answer, 503, "unavailable")
    assert "retry-after" in answer.headers
    shelf.unlink()
    assert nothing_was_stored()
    assert (await upload(http, cells)).status_code == 201


# ---- once and again ----------------------------------------------------------------------------------------------------------------
async def test_the_same_key_in_parallel_makes_one_image(api, desk, lab_settings):
    http, cells, _ = desk
    answers = await asyncio.gather(*(upload(http, cells, headers={"Idempotency-Key": "once"}) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert events_of(api, "ImageUploaded") == 1
    assert len(stored(lab_settings)) == 1


async def test_the_same_key_with_another_file_name_or_dataset_is_refused(api, desk):
    http, cells, _ = desk
    key = {"Idempotency-Key": "once"}
    assert (await upload(http, cells, headers=key)).status_code == 201
    other = await dataset(http, "other")
    for changed in (
        upload(http, cells, jpeg(32, 32), headers=key),
        upload(http, cells, filename="b.jpg", headers=key),
        upload(http, other, headers=key),
    ):
        assert_refused(await changed, 422, "idempotency_key_reused")
    assert events_of(api, "ImageUploaded") == 1


async def test_the_same_bytes_twice_are_two_images_and_one_blob(api, desk, lab_settings):
    http, cells, _ = desk
    first, second = await upload(http, cells), await upload(http, cells)
    assert first.json()["id"] != second.json()["id"]
    assert events_of(api, "ImageUploaded") == 2
    assert len(stored(lab_settings)) == 1


async def test_an_upload_that_is_refused_in_the_end_is_only_an_orphan(api, desk, lab_settings):
    http, cells, _ = desk
    assert (await upload(http, cells, headers={"Idempotency-Key": "once"})).status_code == 201
    assert_refused(await upload(http, cells, png(), headers={"Idempotency-Key": "once"}), 422)
    assert len(stored(lab_settings)) == 2
    assert events_of(api, "ImageUploaded") == 1


class HeldStore:
    """The blob store, in which no upload is completed before `released` is set; `waiting` are those that are held."""

    def __init__(self, blobs):
        self._blobs, self.released, self.waiting = blobs, threading.Event(), []

    def __getattr__(self, name):
        return getattr(self._blobs, name)

    def begin(self, **limits):
        return HeldWriter(self, self._blobs.begin(**limits))


class HeldWriter:
    def __init__(self, store, writer):
        self._store, self._writer = store, writer

    def __getattr__(self, name):
        return getattr(self._writer, name)

    def commit(self):
        self._store.waiting.append(self)
        assert self._store.released.wait(30)
        return self._writer.commit()


async def test_a_store_that_keeps_uploads_waiting_holds_nobody_else_up(api, desk):
    http, cells, _ = desk
    store = HeldStore(api.services.blobs)
    slow = api.with_services(blobs=store).with_options(uploads=UploadLimits(concurrent_stores=4, store_timeout_seconds=0.2))
    http = slow.anonymous(Authorization=http.headers["Authorization"])
    waiting = [asyncio.create_task(upload(http, cells)) for _ in range(4)]
    await wait_until_async(lambda: len(store.waiting) == 4)
    answer = await upload(http, cells)
    assert_refused(answer, 503)
    assert answer.headers["retry-after"] == "5"
    assert (await http.post("/api/datasets", json={"name": "others"})).status_code == 201
    store.released.set()
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {201}
    assert (await upload(http, cells)).status_code == 201
