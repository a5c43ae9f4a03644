"""A blob store that returns other bytes under the right name: they are neither classified nor served."""

import hashlib
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import timedelta

import httpx
import pytest

from api.cli.client.api_client import Client
from application.derivatives import thumbnail_of
from domain.classification import ChunkJudged
from domain.image import ImageAccepted
from infrastructure.audit.signed_heads import FIRST_DAY_NAME, HeadSigner
from infrastructure.blobs.store import MAX_DERIVED_BYTES, open_blobs
from infrastructure.blobs.verified_files import SETTLED_SECONDS, VerifiedFiles
from infrastructure.eventstore.event_store import open_event_store
from infrastructure.images.reader_version import READER_VERSION
from infrastructure.inference.models.bundled import micrographs
from tests.adversaries.blob_stores import HUGE_BYTES, KINDS, Folder, noise, other_bytes, write
from tests.contracts.s3 import BUCKET, KEY, SECRET, s3_server
from tests.infrastructure.audit.test_signed_heads import TODAY, Archive
from tests.rigs.waiting import wait_until
from tests.system.conftest import PASSWORD, email, made_account

pytestmark = pytest.mark.long

PICTURES = sorted(micrographs().glob("*/*.jpg"))
PAGE = b"<script>alert(1)</script>"


class Images:
    """Those of one dataset of a running installation: id and right bytes of each."""

    def __init__(self, settings, client, files):
        self.settings, self.client = settings, client
        self.dataset = client.create_dataset("stored")
        self.right = {self._uploaded(f"{number}.img", data): data for number, data in enumerate(files)}
        self._wait_until_inspected()

    def _uploaded(self, name, data):
        return self.client.call("POST", "/api/images/upload", data={"dataset_id": self.dataset}, files={"file": (name, data)}).json()["id"]

    def _wait_until_inspected(self):
        def are_inspected():
            with open_event_store(self.settings) as log:
                seen = {str(one.stream) for one in log.read(0, 100_000) if one.type == ImageAccepted.__name__}
            return self.right.keys() <= seen

        wait_until(are_inspected, within=30)

    def digest(self, image):
        return hashlib.sha256(self.right[image]).hexdigest()

    def classified(self):
        """What a new run over all says of each image: a sha256, or the reason why there is no result."""
        *_, last = self.client.watch(job := self.client.run(self.dataset, "pbc8"))
        assert last["status"] == "completed", last
        with open_event_store(self.settings) as log:
            events = [log.decode(one) for one in log.read(0, 100_000) if one.type == ChunkJudged.__name__]
        said = [event for event in events if str(event.job_id) == job]
        return {str(one.image_id): one.sha256 for event in said for one in event.results} | {
            str(one.image_id): one.reason for event in said for one in event.failures
        }

    def address(self, image, kind="download"):
        return self.client.get(f"/api/images/{image}/{kind}")["url"]


@pytest.fixture(scope="module")
def pictures(stack, researcher):
    """As many as there are kinds of other bytes, and one more."""
    return Images(stack, researcher, [path.read_bytes() for path in PICTURES[: 1 + len(KINDS)]])


@pytest.fixture(scope="module")
def folder(stack):
    return Folder(stack.data / "blobs")


def nothing_is_seen_in_other_bytes(images, folder, kinds):
    """Each image but the first has other bytes, each of another kind; a run says so, and one after they were put back is right."""
    untouched, *spoiled = images.right
    with ExitStack() as replaced:
        for image, kind in zip(spoiled, kinds, strict=True):
            data = other_bytes(kind, images.right[image], images.right[untouched])
            replaced.enter_context(folder.replaced(folder.original(images.digest(image)), data))
        said = images.classified()
    assert said == {untouched: images.digest(untouched)} | dict.fromkeys(spoiled, "image_corrupted")
    assert images.classified() == {image: images.digest(image) for image in images.right}
    return True


# ---- work --------------------------------------------------------------------------------------------------------------------------
def test_no_image_is_classified_by_other_bytes_and_each_is_once_its_own_are_back(pictures, folder):
    assert nothing_is_seen_in_other_bytes(pictures, folder, KINDS)


@pytest.mark.long
def test_the_same_holds_on_s3(own_stack, tmp_path):
    with s3_server(tmp_path / "objects") as endpoint:
        on_s3 = {"blobs_url": f"s3://{BUCKET}", "blobs_endpoint": endpoint, "blobs_key": KEY, "blobs_secret": SECRET}
        with own_stack(**on_s3, inference_processes=1) as settings:
            address = made_account(settings, "researcher", email("researcher"))
            with Client.sign_in(settings.base_url, address, PASSWORD) as client:
                images = Images(settings, client, [path.read_bytes() for path in PICTURES[:4]])
                bucket = Folder(tmp_path / "objects" / BUCKET)
                assert nothing_is_seen_in_other_bytes(images, bucket, ("another image", "truncated", "empty"))


# ---- downloads ---------------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def large(stack, researcher):
    """One image of more bytes than are sent at once, and its address."""
    images = Images(stack, researcher, [noise(1)])
    (image,) = images.right
    return images, image, images.address(image)


@pytest.mark.parametrize(("kind", "part"), [*((kind, None) for kind in KINDS), ("another image", "bytes=0-9"), ("one bit", "bytes=-9")])
def test_a_download_gives_no_byte_of_another_file(large, folder, kind, part):
    images, image, url = large
    right, asked = images.right[image], {"Range": part} if part else {}
    with folder.replaced(folder.original(images.digest(image)), other_bytes(kind, right, noise(2))):
        answer = httpx.get(url, headers=asked, timeout=60)  # all bytes are compared first
        assert (answer.status_code, answer.json()["code"]) == (500, "corrupted")
        assert "not the one that was uploaded" in answer.json()["detail"]
    again = httpx.get(url, headers=asked)
    assert again.status_code == (206 if part else 200)
    assert again.content in {right, right[:10], right[-9:]}


def test_a_file_that_was_served_before_is_compared_again_once_it_was_touched(large, folder):
    images, image, url = large
    path = folder.original(images.digest(image))
    time.sleep(max(0.0, path.stat().st_ctime + SETTLED_SECONDS + 0.1 - time.time()))
    assert [httpx.get(url).status_code for _ in range(2)] == [200, 200]
    with folder.replaced(path, noise(2)[: len(images.right[image])]):
        assert httpx.get(url).status_code == 500
    swapped = path.with_name("other")
    swapped.write_bytes(images.right[image][::-1])
    os.utime(swapped, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    swapped.replace(path)
    assert httpx.get(url).status_code == 500
    write(path, images.right[image])
    assert httpx.get(url).content == images.right[image]


def test_a_file_that_was_compared_and_not_touched_since_is_not_read_again(tmp_path):
    path, data = tmp_path / "file", noise(3)
    path.write_bytes(data)
    compared, sha256 = VerifiedFiles(settled_seconds=-1.0), hashlib.sha256(data).hexdigest()
    with path.open("rb") as file:
        assert compared.has_digest(file, sha256)
    with path.open("rb", buffering=0) as file:
        assert compared.has_digest(file, sha256)
        assert file.tell() == 0
        assert not compared.has_digest(file, "0" * 64)
        file.seek(9)
        assert compared.has_digest(file, sha256)
        assert file.tell() == 9, "known, hence not looked at"


def test_a_huge_file_under_the_name_of_a_picture_does_not_fill_the_memory(stack, pictures, folder):
    """The process that reads it has room for half of it."""
    image = next(iter(pictures.right))
    reading = (
        "import resource, sys; from pathlib import Path; from domain.errors import CorruptBlob;"
        " from infrastructure.blobs.store import open_blobs; from infrastructure.security.key_ring import NO_KEYS;"
        " from infrastructure.configuration.settings import Settings; blobs = open_blobs(Settings(data=Path(sys.argv[1])), NO_KEYS);"
        f" resource.setrlimit(resource.RLIMIT_DATA, ({HUGE_BYTES // 2},) * 2);"
        " found = blobs.read_all([sys.argv[2]]); assert isinstance(found[0], CorruptBlob), found"
    )
    with folder.replaced(folder.original(pictures.digest(image)), None):
        done = subprocess.run([sys.executable, "-c", reading, stack.data, pictures.digest(image)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


# ---- pictures ----------------------------------------------------------------------------------------------------------------------
def bioscope(settings, *arguments):
    variables = {name: value for name, value in os.environ.items() if not name.startswith("BIOSCOPE_")}
    command = [sys.executable, "-m", "api.cli", *arguments, "--data", str(settings.data)]
    return subprocess.run(command, capture_output=True, text=True, env=variables, check=False)


def test_a_thumbnail_with_other_bytes_runs_nothing_and_a_recheck_makes_it_again(stack, pictures, folder):
    """Nothing says which bytes a thumbnail had: it is shown as a picture, whatever it is, and believed by nobody."""
    image, damaged, *_ = pictures.right
    path, url = folder.derived(thumbnail_of(pictures.digest(image), READER_VERSION)), pictures.address(image, "thumbnail")
    right = path.read_bytes()
    path.write_bytes(PAGE)
    told = httpx.get(url).headers
    assert (told["content-type"], told["x-content-type-options"]) == ("image/jpeg", "nosniff")
    assert "default-src 'none'" in told["content-security-policy"]
    with folder.replaced(folder.original(pictures.digest(damaged)), PAGE):
        done = bioscope(stack, "images", "recheck", "--dataset", pictures.dataset)
    assert done.returncode == 1, "one image could not be checked"
    assert "damaged" in " ".join(done.stdout.split())
    assert path.read_bytes() == right
    assert httpx.get(url).content == right


def test_a_thumbnail_that_is_larger_than_any_is_refused(pictures, folder):
    image = next(iter(pictures.right))
    path = folder.derived(thumbnail_of(pictures.digest(image), READER_VERSION))
    with folder.replaced(path, None):
        answer = httpx.get(pictures.address(image, "thumbnail"))
        assert (answer.status_code, answer.json()["code"]) == (500, "corrupted")


# ---- signed heads ------------------------------------------------------------------------------------------------------------------
class StoredArchive(Archive):
    """Its heads lie in a folder, as those of an installation do."""

    def __init__(self, settings):
        super().__init__(settings)
        self.blobs = open_blobs(settings, self.root)
        self.folder = Folder(settings.data / "blobs")
        self.heads = HeadSigner(self.root, self.blobs, self.app)

    def day(self, number=0):
        return self.folder.derived(f"heads/{(TODAY - timedelta(days=number)).date().isoformat()}")


@pytest.fixture
def archive(settings):
    """Three heads, of yesterday, and twice of today."""
    archive = StoredArchive(settings)
    for day in (1, 0, 0):
        archive.happen(2)
        archive.sign(TODAY - timedelta(days=day))
    yield archive
    archive.close()


GARBAGE = (b"garbage", b"\xff" * 1000, b"{}", b'{"position":1,"hash":"","signed_at":"2026-11-01T00:00:00Z"}', None)


def test_garbage_in_the_place_of_signed_heads_is_a_finding(archive):
    for path in (archive.day(), archive.folder.derived(FIRST_DAY_NAME)):
        right = path.read_bytes()
        for garbage in GARBAGE:
            write(path, garbage)
            assert "not signed by this installation" in archive.verify().finding.what
        write(path, right)
        assert archive.verify().finding is None


def test_a_beginning_long_ago_is_a_finding_and_no_years_of_looking(archive):
    write(archive.folder.derived(FIRST_DAY_NAME), b"0001-01-01")
    reads, read = [], archive.blobs.get_derived
    archive.blobs.get_derived = lambda name: (reads.append(name), read(name))[1]
    assert "not signed by this installation" in archive.verify().finding.what
    assert 0 < len(reads) < 50


def test_earlier_heads_in_the_place_of_the_newest_hide_nothing_that_the_database_still_says(archive):
    newest = archive.day().read_bytes()
    write(archive.day(), archive.day(1).read_bytes())
    assert (archive.verify().finding, archive.verify().heads) == (None, 3)
    archive.write_anew(lambda event: event if event.position < 6 else None)
    assert archive.verify().finding.position == 6
    write(archive.day(), newest)
    archive.forget_heads()
    assert archive.verify().finding.position == 6


def test_the_relay_goes_on_signing_over_what_it_cannot_read(archive):
    """What was there stays a finding."""
    write(archive.folder.derived(FIRST_DAY_NAME), None)
    write(archive.day(), b"x" * 100)
    archive.heads = HeadSigner(archive.root, archive.blobs, archive.app)
    archive.happen()
    archive.sign()
    assert archive.kept() == [2, 4, 6, 7]
    assert b'"position":7' in archive.day().read_bytes()
    assert "not signed by this installation" in archive.verify().finding.what
    assert archive.folder.derived(FIRST_DAY_NAME).stat().st_size > MAX_DERIVED_BYTES
