"""The contract of blob stores: a local folder, S3, and the in-memory twin."""

import hashlib
from datetime import UTC, datetime, timedelta
from threading import Thread
from uuid import UUID

import pytest

from application import derivatives
from application.derivatives import preview_of, thumbnail_of
from application.signed_downloads import Holder
from domain.errors import CorruptBlob, ImageTooLarge, NotFound
from infrastructure.blobs.store import open_blobs
from infrastructure.configuration.settings import Settings
from infrastructure.security.keys import RootKey
from tests.contracts.s3 import BUCKET, KEY, SECRET, s3_server
from tests.twins.blobs import MemoryBlobs

ROOT = RootKey(bytes(32))
MOST = 1_000_000
NOBODY = "0" * 64
ASKED = {"image_id": UUID(int=1), "holder": Holder(UUID(int=2)), "filename": "cell.jpg", "media_type": "image/jpeg", "inline": True}


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("s3") / "objects") as endpoint:
        yield endpoint


def clock():
    """Stands still, so that no window ends within a test."""
    return 1_800_000_000.0


@pytest.fixture(params=["folder", "memory", "s3"])
def blobs(request, tmp_path):
    match request.param:
        case "folder":
            return open_blobs(Settings(data=tmp_path, upload_max_bytes=MOST), ROOT, clock=clock)
        case "memory":
            return MemoryBlobs(maximum=MOST)
        case "s3":
            endpoint = request.getfixturevalue("s3_endpoint")
            given = {"blobs_url": f"s3://{BUCKET}", "blobs_endpoint": endpoint, "blobs_key": KEY, "blobs_secret": SECRET}
            return open_blobs(Settings(data=tmp_path, upload_max_bytes=MOST, **given), ROOT, clock=clock)


def put(blobs, data, *, by=7000):
    writer = blobs.begin()
    for start in range(0, len(data), by):
        writer.write(data[start : start + by])
    return writer.commit()


def unlike(request, size=20_000):
    """Bytes that no other test puts into a shared store."""
    seed = hashlib.sha256(request.node.name.encode()).digest()
    return (seed * (size // 32 + 1))[:size]


def test_what_was_committed_is_read_under_its_sha256(blobs, request):
    data = unlike(request)
    sha256, size = put(blobs, data)
    assert (sha256, size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert blobs.read(sha256) == data
    assert blobs.exists(sha256)


def test_an_empty_blob_is_a_blob(blobs):
    sha256, size = put(blobs, b"")
    assert size == 0
    assert blobs.read(sha256) == b""


def test_what_was_written_can_be_read_back_before_it_is_committed(blobs, request):
    data = unlike(request)
    writer = blobs.begin()
    writer.write(data[:9000])
    writer.file.seek(100)
    assert writer.file.read(50) == data[100:150]
    writer.write(data[9000:])
    sha256, _ = writer.commit()
    assert blobs.read(sha256) == data


def test_nothing_is_there_before_commit_nor_after_abort(blobs, request):
    data = unlike(request)
    sha256 = hashlib.sha256(data).hexdigest()
    writer = blobs.begin()
    writer.write(data)
    assert not blobs.exists(sha256)
    writer.abort()
    assert not blobs.exists(sha256)


def test_the_same_bytes_may_be_put_again_and_by_many_at_once(blobs, request):
    data = unlike(request)
    found = []
    threads = [Thread(target=lambda: found.append(put(blobs, data))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 8
    assert blobs.read(found[0][0]) == data


def test_more_bytes_than_an_upload_may_have_are_refused_and_leave_nothing(blobs):
    writer = blobs.begin()
    writer.write(bytes(MOST))
    with pytest.raises(ImageTooLarge, match="1,000,000"):
        writer.write(b"x")
    with pytest.raises(ValueError, match="closed"):
        writer.commit()
    assert not blobs.exists(hashlib.sha256(bytes(MOST) + b"x").hexdigest())


def test_an_upload_can_have_a_limit_of_its_own(blobs):
    writer = blobs.begin(max_bytes=MOST + 1)
    writer.write(bytes(MOST + 1))
    with pytest.raises(ImageTooLarge, match="1,000,001"):
        writer.write(b"x")
    writer = blobs.begin(max_bytes=10)
    with pytest.raises(ImageTooLarge, match="10 bytes"):
        writer.write(bytes(11))


@pytest.mark.parametrize("opening", ["open", "open_locally"])
def test_a_blob_can_be_read_from_anywhere(blobs, request, opening):
    data = unlike(request)
    sha256, _ = put(blobs, data)
    with getattr(blobs, opening)(sha256) as file:
        file.seek(15_000)
        assert file.read(200) == data[15_000:15_200]


def test_the_first_bytes_can_be_looked_at(blobs, request):
    data = unlike(request)
    sha256, _ = put(blobs, data)
    assert blobs.peek(sha256, 25) == data[:25]
    assert blobs.peek(sha256, 10**6) == data


@pytest.mark.parametrize("name", [NOBODY, "", "../../etc/passwd", "ab", NOBODY.upper().replace("0", "A")])
def test_what_is_not_there_is_not_found(blobs, name):
    for ask in (blobs.read, blobs.open, blobs.open_locally):
        with pytest.raises(NotFound):
            ask(name)


def test_derived_things_are_overwritten_and_go_with_what_they_derive_from(blobs, request):
    sha256, _ = put(blobs, unlike(request))
    blobs.put_derived(thumbnail_of(sha256, 2), b"old", "image/jpeg")
    blobs.put_derived(thumbnail_of(sha256, 2), b"new", "image/jpeg")
    blobs.put_derived(thumbnail_of(NOBODY, 2), b"other", "image/jpeg")
    assert blobs.get_derived(thumbnail_of(sha256, 2)) == b"new"
    assert blobs.get_derived(preview_of(sha256, 2)) is None
    blobs.delete(sha256)
    assert not blobs.exists(sha256)
    assert blobs.get_derived(thumbnail_of(sha256, 2)) is None
    assert blobs.get_derived(thumbnail_of(NOBODY, 2)) == b"other"


def test_derivatives_of_every_reader_version_are_deleted_with_their_file(blobs, request):
    sha256, _ = put(blobs, unlike(request))
    names = derivatives.of_all_readers(sha256)
    foreign = f"thumbnail/2/{hashlib.sha256(unlike(request) + b'another').hexdigest()}"
    for name in (*names, foreign):
        blobs.put_derived(name, b"picture", "image/jpeg")
    assert {f"thumbnail/{sha256}", f"thumbnail/2/{sha256}", f"preview/{sha256}", f"preview/2/{sha256}"} <= set(names)
    blobs.delete(sha256)
    assert [name for name in names if blobs.get_derived(name) is not None] == []
    assert blobs.get_derived(foreign) == b"picture"


def test_deleting_twice_is_harmless(blobs, request):
    sha256, _ = put(blobs, unlike(request))
    assert blobs.delete(sha256)
    assert not blobs.delete(sha256)
    assert not blobs.exists(sha256)


def test_what_was_put_again_since_is_not_deleted(blobs, request):
    sha256, _ = put(blobs, unlike(request))
    now = datetime.now(UTC)
    assert not blobs.delete(sha256, put_before=now - timedelta(hours=1))
    assert blobs.exists(sha256)
    assert blobs.delete(sha256, put_before=now + timedelta(hours=1))
    assert not blobs.exists(sha256)
    assert not blobs.delete(sha256, put_before=now + timedelta(hours=1))


def test_orphans_are_old_and_known_to_nobody(blobs, request):
    data = unlike(request)
    kept, forgotten = put(blobs, data + b"kept")[0], put(blobs, data + b"forgotten")[0]
    blobs.put_derived(thumbnail_of(kept, 2), b"small", "image/jpeg")
    soon, before = datetime.now(UTC) + timedelta(minutes=1), datetime.now(UTC) - timedelta(hours=1)
    found = set(blobs.orphans(lambda names: {name for name in names if name == kept}, older_than=soon))
    assert forgotten in found
    assert kept not in found
    assert list(blobs.orphans(lambda _: set(), older_than=before)) == []


def test_an_address_is_made_for_blobs_and_for_what_is_derived(blobs, request):
    sha256, _ = put(blobs, unlike(request))
    how = ASKED | {"seconds": 60}
    addresses = {blobs.signed_url(name, **how, internal=inside) for name in (sha256, thumbnail_of(sha256, 2)) for inside in (True, False)}
    assert len(addresses) >= 2


def test_two_calls_in_one_window_give_one_address(blobs, request):
    sha256, _ = put(blobs, unlike(request))
    how = ASKED | {"seconds": blobs.max_url_seconds}
    assert blobs.signed_url(sha256, **how) == blobs.signed_url(sha256, **how)


def test_bytes_that_do_not_match_their_name_are_never_used(blobs, request, tmp_path, tmp_path_factory):
    sha256, _ = put(blobs, unlike(request))
    if isinstance(blobs, MemoryBlobs):
        blobs.kept[sha256] = b"something else"
    else:
        places = [tmp_path, tmp_path_factory.getbasetemp()]
        next(file for place in places for file in place.rglob(sha256) if file.is_file()).write_bytes(b"something else")
    for use in (blobs.read, blobs.open, blobs.open_locally):
        with pytest.raises(CorruptBlob) as raised:
            use(sha256)
        assert raised.value.sha256 == sha256
