"""The folder and S3 beyond the common contract: durability, signed addresses, and failures."""

import base64
import errno
import hashlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.signed_downloads import Holder, LocalAddress, SignedBlob, content_disposition
from domain.errors import Forbidden, Unavailable
from infrastructure.blobs.filesystem import MAX_URL_SECONDS
from infrastructure.blobs.s3 import DEFAULT_LIMITS, S3Limits
from infrastructure.blobs.store import open_blobs
from infrastructure.configuration.settings import Settings
from infrastructure.security.keys import RootKey
from infrastructure.security.signed_urls import TOKEN_LENGTH, seal, unseal
from tests.contracts.s3 import BUCKET, KEY, SECRET, s3_server
from tests.rigs.waiting import wait_until

ROOT = RootKey(bytes(32))
SPOOL = Path(tempfile.gettempdir(), f"bioscope-test-spool-{os.geteuid()}")
DATA = b"\xff\xd8 not really a picture" * 100
IMAGE, SESSION = UUID("0c8a52b4-8a6e-4d5a-9f0e-2f6a1f5f7c11"), Holder(UUID("5b1d8f60-7a55-4c6f-8f5b-9d3b8f4f2d22"))
PICTURE = {"image_id": IMAGE, "holder": SESSION, "filename": "cell.jpg", "media_type": "image/jpeg", "inline": True, "seconds": 60}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("s3") / "objects") as url:
        yield url


def on_s3(endpoint, *, clock=time.time, limits=DEFAULT_LIMITS, **more):
    given = {"blobs_url": f"s3://{BUCKET}", "blobs_endpoint": endpoint, "blobs_key": KEY, "blobs_secret": SECRET, "spool": SPOOL}
    return open_blobs(Settings(**given | more), ROOT, clock=clock, s3_limits=limits)


def in_folder(folder, *, clock=time.time, **more):
    return open_blobs(Settings(data=folder, **more), ROOT, clock=clock)


def put(blobs, data=DATA):
    writer = blobs.begin()
    writer.write(data)
    return writer.commit()[0]


# ---- the folder --------------------------------------------------------------------------------------------------------------------
def test_a_blob_lies_in_a_folder_of_its_digest_readable_by_us_alone(tmp_path):
    sha256 = put(in_folder(tmp_path))
    path = tmp_path / "blobs" / "sha256" / sha256[:2] / sha256[2:4] / sha256
    assert path.read_bytes() == DATA
    assert path.stat().st_mode & 0o077 == 0
    assert (tmp_path / "blobs").stat().st_mode & 0o077 == 0
    assert list((tmp_path / "blobs" / "uploads").iterdir()) == []


def test_putting_the_same_bytes_again_heals_a_damaged_blob(tmp_path):
    blobs = in_folder(tmp_path)
    sha256 = put(blobs)
    (tmp_path / "blobs" / "sha256" / sha256[:2] / sha256[2:4] / sha256).write_bytes(b"rot")
    put(blobs)
    assert blobs.read(sha256) == DATA


def test_putting_the_same_bytes_again_makes_them_young(tmp_path):
    blobs = in_folder(tmp_path)
    sha256 = put(blobs)
    path = tmp_path / "blobs" / "sha256" / sha256[:2] / sha256[2:4] / sha256
    os.utime(path, (0, 0))
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    assert list(blobs.orphans(lambda _: set(), older_than=hour_ago)) == [sha256]
    put(blobs)
    assert list(blobs.orphans(lambda _: set(), older_than=hour_ago)) == []


UPLOADING = """
import sys
from pathlib import Path
from infrastructure.security.keys import RootKey
from infrastructure.blobs.store import open_blobs
from infrastructure.configuration.settings import Settings
writer = open_blobs(Settings(data=Path(sys.argv[1])), RootKey(bytes(32))).begin()
writer.write(b"x" * 100_000)
writer.file.flush()
print("half way", flush=True)
sys.stdin.read()
"""


def test_an_upload_whose_process_was_killed_is_never_seen_and_swept_away_after_some_days(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", UPLOADING, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"half way\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()
    (left,) = (tmp_path / "blobs" / "uploads").iterdir()
    in_folder(tmp_path)
    assert left.exists()
    os.utime(left, (time.time() - 4 * 86_400,) * 2)
    in_folder(tmp_path)
    assert not left.exists()
    assert not (tmp_path / "blobs" / "sha256").exists()


def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path):
    blobs = in_folder(tmp_path)
    for folder in ("uploads", "pictures"):
        (tmp_path / "blobs" / folder).rmdir()
    with pytest.raises(Unavailable):
        put(blobs)
    with pytest.raises(Unavailable):
        blobs.put_derived("thumbnail/abc", b"", "image/jpeg")


def test_a_folder_that_is_not_mounted_is_away_and_lacks_no_single_file(tmp_path):
    blobs = in_folder(tmp_path)
    sha256 = put(blobs)
    (tmp_path / "blobs").rename(tmp_path / "elsewhere")
    for look in (blobs.read, blobs.open, blobs.exists, blobs.delete, lambda name: blobs.read_all([name])):
        with pytest.raises(Unavailable):
            look(sha256)
    (tmp_path / "elsewhere").rename(tmp_path / "blobs")
    assert blobs.read(sha256) == DATA
    assert not blobs.exists("0" * 64)


class Full:
    """A file on a disk that had room for all but what is buffered."""

    def __init__(self, file):
        self.name, self._file = file.name, file

    def flush(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self):
        self._file.close()
        self.flush()


def test_a_write_under_way_does_not_make_a_folder_again_that_has_gone(tmp_path):
    blobs = in_folder(tmp_path)
    writer = blobs.begin()
    writer.write(DATA)
    (tmp_path / "blobs").rename(tmp_path / "unmounted")
    with pytest.raises(Unavailable):
        writer.commit()
    with pytest.raises(Unavailable):
        blobs.put_derived("thumbnail/" + "0" * 64, DATA, "image/jpeg")
    assert not (tmp_path / "blobs").exists()


def test_a_disk_that_is_full_at_the_last_byte_makes_it_unavailable_and_keeps_nothing(tmp_path):
    blobs = in_folder(tmp_path)
    writer = blobs.begin()
    writer.write(DATA)
    writer.file = Full(writer.file)
    with pytest.raises(Unavailable):
        writer.commit()
    writer.abort()
    assert list((tmp_path / "blobs" / "uploads").iterdir()) == []


# ---- signed addresses of the folder ------------------------------------------------------------------------------------------------
ADDRESS = LocalAddress(
    image_id=IMAGE, holder_id=SESSION.id, is_service=False, folder="preview/2", inline=True, ends=2**40, label=b"nine byte"
)


def token_of(address):
    return urlsplit(address).path.removeprefix("/api/blobs/")


def test_an_address_stands_for_a_file_of_an_image_and_for_its_holder(tmp_path):
    blobs = in_folder(tmp_path, public_url="https://lab.example.org/")
    name = put(blobs)
    for stored, folder in ((name, ""), (f"thumbnail/{name}", "thumbnail"), (f"preview/16/{name}", "preview/16")):
        address = blobs.signed_url(stored, **PICTURE)
        assert address.startswith("https://lab.example.org/api/blobs/")
        found = unseal(ROOT, token_of(address))
        assert (found.image_id, found.holder_id, found.is_service, found.folder) == (IMAGE, SESSION.id, False, folder)
        assert 59 <= found.ends - time.time() <= 75
        assert found.blob(sha256=name, filename="cell.png", media_type="image/png").name == stored


def test_a_picture_is_served_as_what_it_is_and_a_file_as_what_was_uploaded():
    about = {"image_id": IMAGE, "holder_id": SESSION.id, "is_service": False, "inline": True, "ends": 9, "label": bytes(9)}
    file = {"sha256": "a" * 64, "filename": "stack.ome.tif", "media_type": "image/tiff"}
    served = [LocalAddress(folder=folder, **about).blob(**file) for folder in ("", "thumbnail/2")]
    assert [(one.name, one.filename, one.media_type, one.ends) for one in served] == [
        ("a" * 64, "stack.ome.tif", "image/tiff", 9),
        ("thumbnail/2/" + "a" * 64, "stack.ome.jpg", "image/jpeg", 9),
    ]


def test_the_address_of_a_service_ends_with_its_token(tmp_path):
    blobs, until = in_folder(tmp_path), int(time.time()) + 7
    address = blobs.signed_url(put(blobs), **PICTURE | {"holder": Holder(SESSION.id, until=until)})
    assert unseal(ROOT, token_of(address)).ends == until
    assert unseal(ROOT, token_of(address)).is_service


def test_our_own_services_get_an_address_inside(tmp_path):
    blobs = in_folder(tmp_path, public_url="https://lab.example.org", port=8123)
    assert blobs.signed_url(put(blobs), **PICTURE, internal=True).startswith("http://127.0.0.1:8123/api/blobs/")


def test_a_signed_address_ends(tmp_path):
    blobs = in_folder(tmp_path)
    token = token_of(blobs.signed_url(put(blobs), **PICTURE))
    ends = unseal(ROOT, token).ends
    assert unseal(ROOT, token, now=lambda: ends - 0.001)
    with pytest.raises(Forbidden, match="has expired"):
        unseal(ROOT, token, now=lambda: ends)


ids = st.builds(lambda number: UUID(int=number), st.integers(0, 2**128 - 1))
addresses = st.builds(
    LocalAddress,
    image_id=ids,
    holder_id=ids,
    is_service=st.booleans(),
    folder=st.sampled_from(["", "thumbnail", "thumbnail/2", "preview/16"]),
    inline=st.booleans(),
    ends=st.integers(2**33, 2**40),
    label=st.binary(min_size=9, max_size=9),
)


@given(addresses, addresses)
def test_a_token_stands_for_one_address_and_has_the_same_length_and_form_for_all(address, other):
    token = seal(ROOT, address)
    assert unseal(ROOT, token) == address
    assert (seal(ROOT, other) == token) == (other == address)
    assert len(token) == TOKEN_LENGTH
    assert re.fullmatch(r"3\.[A-Za-z0-9_-]+", token)


@given(addresses)
def test_a_token_reveals_no_id_and_no_end(address):
    token = seal(ROOT, address)
    hidden = base64.urlsafe_b64decode(token.removeprefix("3."))
    for one in (address.image_id, address.holder_id):
        for length in (4, 8, 16):
            assert one.bytes[:length] not in hidden or not any(one.bytes[:length])
        assert str(one) not in token
    assert address.ends.to_bytes(8, "big")[2:] not in hidden
    assert address.label not in hidden


def test_a_signed_address_cannot_be_changed_in_any_place():
    token = seal(ROOT, ADDRESS)
    assert unseal(ROOT, token) == ADDRESS
    for place in range(len(token)):
        other = "A" if token[place] != "A" else "B"
        with pytest.raises(Forbidden, match="is not valid"):
            unseal(ROOT, token[:place] + other + token[place + 1 :])


@pytest.mark.parametrize("token", ["", "x", "ä", "====", "A" * 43, "A" * 118, "3." + "A" * 116, "A" * 10_000, "../../etc/passwd", "%41"])
def test_what_nobody_signed_is_refused(token):
    with pytest.raises(Forbidden):
        unseal(ROOT, token)


def test_another_installation_signs_otherwise():
    with pytest.raises(Forbidden):
        unseal(RootKey(bytes(31) + b"\1"), seal(ROOT, ADDRESS))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("cell.jpg", "attachment; filename=\"cell.jpg\"; filename*=UTF-8''cell.jpg"),
        ("Zellen à 10°.tif", "attachment; filename=\"Zellen _ 10_.tif\"; filename*=UTF-8''Zellen%20%C3%A0%2010%C2%B0.tif"),
        (
            'a"; x="\r\nSet-Cookie: a=b',
            "attachment; filename=\"a_; x=_Set-Cookie: a=b\"; filename*=UTF-8''a%22%3B%20x%3D%22Set-Cookie%3A%20a%3Db",
        ),
        ("../../etc/passwd", "attachment; filename=\"passwd\"; filename*=UTF-8''passwd"),
        ("C:\\x\\.hidden", "attachment; filename=\"hidden\"; filename*=UTF-8''hidden"),
        ("\u202e\x00", "attachment; filename=\"image\"; filename*=UTF-8''image"),
    ],
)
def test_a_file_name_is_safe_in_a_header(given, wanted):
    assert content_disposition(given, inline=False) == wanted
    assert wanted.isascii()


def test_only_what_a_browser_draws_is_shown_and_nothing_runs():
    def blob(media_type):
        return SignedBlob(name="a" * 64, filename="x", media_type=media_type, inline=True, ends=0)

    assert blob("image/png").disposition.startswith("inline")
    assert blob("image/tiff").disposition.startswith("attachment")
    assert blob("text/html").disposition.startswith("attachment")
    assert blob("text/html").served_type == blob("image/svg+xml").served_type == "application/octet-stream"


# ---- stable addresses --------------------------------------------------------------------------------------------------------------
WINDOW_START = 1_800_000_000.0  # of lifetimes of 60 s, whose windows last 15 s


class Clock:
    def __init__(self, now=WINDOW_START):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    """A store with a clock of its own."""
    clock = Clock()
    blobs = in_folder(tmp_path, clock=clock) if request.param == "folder" else on_s3(request.getfixturevalue("endpoint"), clock=clock)
    return blobs, clock


def test_an_address_is_the_same_within_its_window_and_another_in_the_next(store):
    blobs, clock = store
    addresses = []
    for second in (1, 14.9, 15, 15.1, 29):
        clock.now = WINDOW_START + second
        addresses.append(blobs.signed_url("a" * 64, **PICTURE))
    first, same, last, following, following_too = addresses
    assert first == same == last
    assert following == following_too
    assert following != first


def test_addresses_of_different_things_differ(store):
    blobs, _ = store
    others = [{"filename": "b.jpg"}, {"media_type": "image/png"}, {"inline": False}, {"seconds": 90}]
    others += [{"image_id": UUID(int=1)}, {"holder": Holder(UUID(int=1))}] if blobs.max_url_seconds == MAX_URL_SECONDS else []
    addresses = {blobs.signed_url("a" * 64, **PICTURE | other) for other in [{}, *others]}
    assert len(addresses | {blobs.signed_url(f"thumbnail/{'a' * 64}", **PICTURE)}) == len(others) + 2


# ---- S3 ----------------------------------------------------------------------------------------------------------------------------
def test_an_s3_address_needs_no_header_and_carries_name_and_type(endpoint):
    blobs = on_s3(endpoint)
    name = put(blobs)
    for address in (blobs.signed_url(name, **PICTURE | {"filename": "Zelle ä.jpg"}), blobs.signed_url(name, **PICTURE, internal=True)):
        answer = httpx.get(address)
        assert answer.status_code == 200
        assert answer.content == DATA
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["content-disposition"].startswith("inline; filename=")
        part = httpx.get(address, headers={"Range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, DATA[5:10])


def test_an_s3_address_is_signed_for_the_public_host_by_version_4(endpoint):
    public = on_s3(endpoint, blobs_public_endpoint="https://objects.example.org").signed_url("a" * 64, **PICTURE)
    inside = on_s3(endpoint, blobs_public_endpoint="https://objects.example.org").signed_url("a" * 64, **PICTURE, internal=True)
    assert public.startswith(f"https://objects.example.org/{BUCKET}/sha256/aa/aa/")
    assert inside.startswith(endpoint)
    asked = parse_qs(urlsplit(public).query)
    assert asked["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert 60 <= int(asked["X-Amz-Expires"][0]) <= 75


@pytest.mark.parametrize("second", [0, 0.1, 30, 59.9])
def test_an_s3_address_never_works_for_longer_than_five_minutes(endpoint, second):
    blobs = on_s3(endpoint, clock=Clock(WINDOW_START + second))
    address = blobs.signed_url("a" * 64, **PICTURE | {"seconds": blobs.max_url_seconds})
    assert blobs.max_url_seconds <= int(parse_qs(urlsplit(address).query)["X-Amz-Expires"][0]) <= 300


def test_what_an_s3_address_leads_to_may_be_cached_and_is_not_sent_again(endpoint):
    blobs = on_s3(endpoint)
    address = blobs.signed_url(put(blobs), **PICTURE)
    whole, part = httpx.get(address), httpx.get(address, headers={"Range": "bytes=5-9"})
    for answer in (whole, part):
        visibility, age, stability = answer.headers["cache-control"].split(", ")
        assert (visibility, stability) == ("private", "immutable")
        assert 60 <= int(age.removeprefix("max-age=")) <= 75
    again = httpx.get(address, headers={"If-None-Match": whole.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_changed_or_ended_s3_address_is_refused(endpoint):
    blobs = on_s3(endpoint)
    name = put(blobs)
    address = blobs.signed_url(name, **PICTURE)
    assert httpx.get(address).status_code == 200
    assert httpx.get(address.replace("cell.jpg", "cell.exe")).status_code == 403
    short = blobs.signed_url(name, **PICTURE | {"seconds": 1})
    wait_until(lambda: httpx.get(short).status_code == 403)


def test_derived_things_keep_their_type_on_s3(endpoint):
    blobs = on_s3(endpoint)
    blobs.put_derived("thumbnail/abc", b"small", "image/webp")
    address = blobs.signed_url("thumbnail/abc", **PICTURE | {"media_type": "image/webp"})
    assert httpx.get(address).headers["content-type"] == "image/webp"


def test_a_large_blob_comes_back_whole(endpoint):
    data = hashlib.sha256(b"large").digest() * 600_000
    blobs = on_s3(endpoint)
    assert blobs.read(put(blobs, data)) == data


def test_s3_away_is_unavailable():
    blobs = on_s3("http://127.0.0.1:9")
    for ask in (lambda: put(blobs), lambda: blobs.read("a" * 64), lambda: blobs.exists("a" * 64), lambda: blobs.delete("a" * 64)):
        with pytest.raises(Unavailable):
            ask()


def test_an_s3_that_takes_no_more_of_a_body_is_unavailable_in_time():
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        blobs = on_s3(f"http://127.0.0.1:{deaf.getsockname()[1]}", limits=S3Limits(put_seconds=1.0, min_bytes_per_second=2**40))
        upload = blobs.begin()
        upload.write(bytes(16 * 1024**2))
        began = time.monotonic()
        with pytest.raises(Unavailable):
            upload.commit()
        assert time.monotonic() - began < DEFAULT_LIMITS.put_seconds, "its own limit ended it"


def test_a_wrong_secret_or_bucket_is_unavailable_not_absent(endpoint):
    for wrong in ({"blobs_secret": "another"}, {"blobs_url": "s3://no-such-bucket"}):
        with pytest.raises(Unavailable):
            put(on_s3(endpoint, **wrong))


# ---- the spool of uploads to S3 ------------------------------------------------------------------------------------------------------
@pytest.fixture
def unanswered(tmp_path):
    """Settings of a bucket on a server that does not answer."""
    return Settings(data=tmp_path / "data", blobs_url="s3://bucket", blobs_endpoint="http://127.0.0.1:1", blobs_key="k", blobs_secret="s")


def test_uploads_to_s3_are_collected_in_the_spool(unanswered, tmp_path):
    upload = open_blobs(msgspec.structs.replace(unanswered, spool=tmp_path / "spool"), ROOT).begin()
    upload.write(b"abc")
    (collected,) = (tmp_path / "spool").iterdir()
    assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700
    assert stat.S_IMODE(collected.stat().st_mode) == 0o600
    upload.abort()
    assert list((tmp_path / "spool").iterdir()) == []


def test_the_spool_lies_in_the_data_folder_and_is_made_again_when_removed(unanswered):
    store = open_blobs(unanswered, ROOT)
    for _ in range(2):
        upload, spool = store.begin(), unanswered.data / "spool"
        assert len(list(spool.iterdir())) == 1
        upload.abort()
        shutil.rmtree(spool)


def test_a_spool_that_cannot_be_written_is_an_unavailable_store(unanswered):
    store = open_blobs(msgspec.structs.replace(unanswered, spool=Path("/proc/spool")), ROOT)
    with pytest.raises(Unavailable):
        store.begin()


def test_old_uploads_are_swept_out_of_a_spool_that_holds_other_things_too(unanswered):
    spool = unanswered.data / "spool"
    spool.mkdir(parents=True)
    for name in ("upload-old", "upload-new", "thesis.txt"):
        (spool / name).write_text("")
    for name in ("upload-old", "thesis.txt"):
        os.utime(spool / name, (0, 0))
    open_blobs(unanswered, ROOT)
    assert {path.name for path in spool.iterdir()} == {"upload-new", "thesis.txt"}
