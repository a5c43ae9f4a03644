"""The credentials of each process in the object store suffice for its work and allow nothing else (deploy/blob-policies)."""

import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import botocore.exceptions
import botocore.session
import httpx
import msgspec
import pytest

from api.cli.client.api_client import Client
from api.cli.stack import prepare
from application.blob_gc import MIN_AGE, BlobReferences, sweep_orphans
from application.derivatives import KINDS, preview_of, thumbnail_of
from domain.errors import NotFound, Unavailable
from infrastructure.audit.signed_heads import HeadArchive
from infrastructure.blobs.store import open_blobs
from infrastructure.embedded.supervisor import PROCESSES, SupervisedStack
from infrastructure.operations.doctor import _blobs
from infrastructure.security.key_ring import NO_KEYS
from tests.chaos.workload import PICTURES
from tests.contracts.s3 import BUCKET
from tests.release.object_store import object_store
from tests.system.conftest import PASSWORD, email, made_account, stack_settings

HEAD = "heads/2030-01-01"
JPEG = "image/jpeg"
JPEG_BEGINS = b"\xff\xd8"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with object_store(tmp_path_factory.mktemp("store")) as started:
        yield started


@pytest.fixture
def blobs_of(store, tmp_path):
    """The store as a process sees it."""
    return lambda process: open_blobs(store.settings(process, data=tmp_path / process), NO_KEYS)


@pytest.fixture
def original(blobs_of):
    """The digest of a file that the API has stored, with a picture of it and a signed head beside it."""
    sha256 = put(blobs_of("api"))
    blobs_of("inference").put_derived(thumbnail_of(sha256, 2), b"picture", JPEG)
    blobs_of("relay").put_derived(HEAD, b"signed", "text/plain")
    return sha256


def put(blobs, data=None):
    writer = blobs.begin()
    writer.write(data or os.urandom(1000))
    return writer.commit()[0]


def keys_of(sha256):
    """Those of the file, of its picture and of the head."""
    return {
        "original": f"sha256/{sha256[:2]}/{sha256[2:4]}/{sha256}",
        "picture": f"derived/{thumbnail_of(sha256, 2)}",
        "head": f"derived/{HEAD}",
    }


# ---- enough ----------------------------------------------------------------------------------------------------------------------------
def test_inference_reads_originals_and_stores_pictures(blobs_of, original):
    inference = blobs_of("inference")
    assert len(inference.read(original)) == 1000
    assert len(inference.read_all([original])) == 1
    assert not inference.exists("0" * 64)
    with pytest.raises(NotFound):
        inference.read("0" * 64)
    for name in (thumbnail_of(original, 2), preview_of(original, 2)):
        inference.put_derived(name, b"newer", JPEG)
        assert blobs_of("api").get_derived(name) == b"newer"


def test_a_file_that_is_sent_in_parts_is_stored(blobs_of):
    """Above 100 MB s3fs sends parts; here it is made to."""
    api = blobs_of("api")
    put_file = api._backend.files._put_file

    async def in_parts(*arguments, **more):
        await put_file(*arguments, chunksize=5 * 1024**2, **more)

    api._backend.files._put_file = in_parts
    data = os.urandom(11 * 1024**2)
    assert api.read(put(api, data)) == data


def test_the_relay_keeps_heads(blobs_of):
    relay = blobs_of("relay")
    assert relay.get_derived("heads/1999-01-01") is None
    relay.put_derived("heads/1999-01-02", b"signed", "text/plain")
    assert relay.get_derived("heads/1999-01-02") == b"signed"
    assert blobs_of("api").get_derived("heads/1999-01-02") == b"signed"


def test_the_projector_sweeps_what_nobody_refers_to_with_its_pictures(blobs_of, original):
    kept = put(blobs_of("api"))
    later = datetime.now(UTC) + MIN_AGE + timedelta(minutes=1)
    assert sweep_orphans(blobs_of("projector"), lambda names: BlobReferences({kept}.intersection(names), set()), now=later).freed >= 1
    api = blobs_of("api")
    assert (api.exists(original), api.exists(kept)) == (False, True)
    assert api.get_derived(thumbnail_of(original, 2)) is None


# ---- no more ---------------------------------------------------------------------------------------------------------------------------
MAY_READ = {
    "api": {"original", "picture", "head"},
    "relay": {"head"},
    "projector": {"original"},  # asking how old a file is needs the right to read it
    "inference": {"original"},
}
MAY_WRITE = {"api": {"original"}, "relay": {"head"}, "projector": set(), "inference": {"picture"}}
MAY_DELETE = {"api": set(), "relay": set(), "projector": {"original", "picture"}, "inference": set()}


def allowed(original, attempt):
    """On which of the three the attempt succeeds."""
    found = set()
    for what, key in keys_of(original).items():
        try:
            attempt(f"{BUCKET}/{key}")
        except PermissionError:
            continue
        found.add(what)
    return found


@pytest.mark.parametrize("process", MAY_READ)
def test_a_process_reads_and_writes_and_deletes_what_its_work_needs_and_nothing_else(store, original, process):
    files = store.files(process)
    assert allowed(original, files.cat_file) == MAY_READ[process]
    assert allowed(original, lambda path: files.pipe_file(path, b"other")) == MAY_WRITE[process]
    assert allowed(original, files.rm_file) == MAY_DELETE[process]


def test_inference_can_neither_replace_nor_delete_an_original_nor_write_a_signed_head(store, blobs_of, original):
    inference, key = blobs_of("inference"), keys_of(original)["original"]
    with pytest.raises(Unavailable):
        put(inference)
    with pytest.raises(Unavailable):
        inference.delete(original)
    with pytest.raises(Unavailable):
        inference.put_derived(HEAD, b"forged", "text/plain")
    assert hashlib.sha256((store.folder / key).read_bytes()).hexdigest() == original
    assert blobs_of("relay").get_derived(HEAD) == b"signed"


@pytest.mark.parametrize("process", MAY_READ)
@pytest.mark.parametrize("call", ["put_bucket_policy", "delete_bucket_policy", "delete_bucket", "put_bucket_acl"])
def test_no_process_changes_who_may_do_what(store, process, call):
    given = store.settings(process)
    client = botocore.session.get_session().create_client(
        "s3",
        endpoint_url=store.endpoint,
        aws_access_key_id=given.blobs_key,
        aws_secret_access_key=given.blobs_secret,
        region_name="us-east-1",
    )
    more = {"put_bucket_policy": {"Policy": "{}"}, "put_bucket_acl": {"ACL": "public-read"}}.get(call, {})
    with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
        getattr(client, call)(Bucket=BUCKET, **more)


@pytest.mark.parametrize(("process", "said"), [("app", BUCKET), ("api", "may not delete"), ("inference", "may not delete")])
def test_a_look_at_the_store_leaves_nothing_behind_whatever_its_credentials_may(store, process, said):
    before = stored(store, "sha256")
    (finding,) = _blobs(store.settings(process))
    assert (finding.level, said in finding.message) == ("good", True)
    assert stored(store, "sha256") == before


# ---- the whole system, each process with its own ---------------------------------------------------------------------------------------
def with_credentials(process, given):
    """The same process, which is given its own credentials."""
    variables = (f"BIOSCOPE_BLOBS_KEY={given.blobs_key}", f"BIOSCOPE_BLOBS_SECRET={given.blobs_secret}")
    return msgspec.structs.replace(process, argv=("/usr/bin/env", *variables, *process.argv))


def stored(store, prefix):
    return [path for path in (store.folder / prefix).rglob("*") if path.is_file()]


@pytest.mark.long
def test_the_system_works_with_a_user_for_each_process(store, tmp_path):
    operator = store.settings("app")
    names = ("blobs_url", "blobs_endpoint", "blobs_key", "blobs_secret")
    settings = msgspec.structs.replace(stack_settings(tmp_path / "data"), **{name: getattr(operator, name) for name in names})
    with_store = [process for process in PROCESSES if process.name != "inference-bridge"]
    others = [process for process in PROCESSES if process not in with_store]
    processes = [*(with_credentials(process, store.settings(process.name)) for process in with_store), *others]
    with SupervisedStack(settings, processes=processes, prepare=prepare) as running:
        address = made_account(running, "researcher", email("scoped"))
        with Client.sign_in(running.base_url, address, PASSWORD) as client:
            uploaded = client.upload(client.create_dataset("scoped"), PICTURES[0])
            job = client.post("/api/classifications/run", {"image_id": uploaded.id})["id"]
            list(client.watch(job))
            assert len(client.results(job)) == 1
            address = client.get(f"/api/images/{uploaded.id}/thumbnail")["url"]
            assert httpx.get(address).content.startswith(JPEG_BEGINS)
    heads = HeadArchive(open_blobs(store.settings("api", data=tmp_path), NO_KEYS))
    today = datetime.now(UTC).date()
    assert [head.key_id for head in heads.everything(since=today, until=today)], "the relay signs once more when it ends"
    assert {path.relative_to(store.folder / "derived").parts[0] for path in stored(store, "derived")} <= {*KINDS, "heads"}
    assert stored(store, "derived/heads/access"), "the relay signs the trail of access, too"
    assert Path(settings.data).exists()
