"""Bundled models: registered once, after their self-test."""

import hashlib
import io
import os
import shutil
import zipfile
from uuid import uuid4

import msgspec
import numpy as np
import pytest
import yaml

from application.models import MAX_LABELS, move_alias
from domain import model
from domain.access import Role
from domain.errors import Forbidden, Invalid, NotFound
from domain.values import model_id
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.inference.models.bundled import micrographs, models, package_archive, register_bundled
from infrastructure.inference.models.manifest import load_manifest, manifest_as_json
from infrastructure.inference.packages.manifest_reader import parse_record
from infrastructure.inference.packages.package import FileFacts, open_package
from infrastructure.security.keys import RootKey
from tests.adversaries.onnx_files import external, graph, identity, node
from tests.adversaries.onnx_files import model as model_file
from tests.given import actor, add_model, command
from tests.twins.blobs import MemoryBlobs
from tests.twins.event_store import MemoryRecorder

ROOT = RootKey(bytes(32))
ADMIN = actor(Role.ADMIN)


@pytest.fixture
def log():
    return RecorderEventStore(MemoryRecorder(ROOT), ROOT)


@pytest.fixture
def blobs():
    return MemoryBlobs()


@pytest.fixture
def folder(tmp_path):
    """A copy of the shipped models that a test may spoil."""
    shutil.copytree(models() / "pbc8", tmp_path / "models" / "pbc8")
    return tmp_path / "models"


def respelled(folder, change):
    path = folder / "pbc8" / "rdf.yaml"
    rdf = yaml.safe_load(path.read_text())
    change(rdf)
    path.write_text(yaml.safe_dump(rdf))


def test_shipped_models_are_registered_once(log, blobs):
    names = {load_manifest(path.parent).name for path in models().glob("*/rdf.yaml")}
    first = register_bundled(blobs, log)
    assert {one.name for one in first} == names
    assert all((one.number, one.aliases, one.is_new) == (1, ("production",), True) for one in first)
    head = log.head()
    assert register_bundled(blobs, log) == [msgspec.structs.replace(one, is_new=False) for one in first]
    assert log.head() == head
    for name in names:
        version = log.load(model_id(name), model.evolve).production
        record = parse_record(version.record)
        assert (record.model, record.labels, record.weights.sha256) == (name, version.labels, version.sha256)
        package = open_package_of(blobs, version)
        assert package.files["model.onnx"] == FileFacts(version.size, version.sha256)
        assert (version.kind, version.release, len(version.digest)) == ("logits", package.manifest.version, 64)


def open_package_of(blobs, version):
    return open_package(blobs.read(version.package))


def test_the_package_of_a_release_is_the_same_on_every_machine(folder, tmp_path):
    """Whatever else lies in the folder, as in a checkout, and whatever the files' times and modes are."""
    first = package_archive(models() / "pbc8")
    (folder / "pbc8" / "metrics.json").unlink()
    (folder / "pbc8" / ".DS_Store").write_bytes(b"x")
    for file in (folder / "pbc8").iterdir():
        os.utime(file, (0, 0))
        file.chmod(0o600)
    assert package_archive(folder / "pbc8") == first
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(archive.namelist())
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


def registered_by_an_earlier_release(log, blobs):
    """As release 0.2.0 did: the weights are a blob, and the version has neither a package nor a digest."""
    sha256 = blobs.keep((models() / "pbc8" / "model.onnx").read_bytes())
    record = load_manifest(models() / "pbc8")
    about = {"sha256": sha256, "size": 1, "labels": record.labels, "review_below": record.review_below}
    add_model(name="pbc8", **about, record=manifest_as_json(models() / "pbc8"), command=command(ADMIN), log=log)


def test_a_model_that_an_earlier_release_registered_is_the_same(log, blobs, folder):
    registered_by_an_earlier_release(log, blobs)
    head, kept = log.head(), set(blobs.kept)
    (found,) = register_bundled(blobs, log, folder=folder)
    assert (found.number, found.aliases, found.is_new) == (1, ("production",), False)
    assert (log.head(), set(blobs.kept)) == (head, kept)


def test_a_store_that_lost_the_weights_of_an_earlier_release_gets_them_again(log, blobs, folder):
    registered_by_an_earlier_release(log, blobs)
    kept = dict(blobs.kept)
    blobs.kept.clear()
    register_bundled(blobs, log, folder=folder)
    assert blobs.kept == kept


def test_a_store_that_lost_a_package_gets_it_again(log, blobs):
    register_bundled(blobs, log)
    blobs.kept.clear()
    register_bundled(blobs, log)
    assert blobs.exists(log.load(model_id("pbc8"), model.evolve).production.package)


def test_an_upgrade_registers_a_candidate_and_leaves_production_alone(log, blobs, folder):
    (old,) = register_bundled(blobs, log, folder=folder)
    respelled(folder, lambda rdf: rdf["config"]["bioscope"].update(review_below=0.9))
    (new,) = register_bundled(blobs, log, folder=folder)
    assert (new.number, new.aliases, new.is_new) == (2, ("candidate",), True)
    state = log.load(model_id("pbc8"), model.evolve)
    assert state.aliases == {"production": old.number, "candidate": new.number}
    assert register_bundled(blobs, log, folder=folder) == [msgspec.structs.replace(new, is_new=False)]


def test_a_folder_without_a_model_is_refused(log, blobs, tmp_path):
    with pytest.raises(Invalid, match="contains no model"):
        register_bundled(blobs, log, folder=tmp_path)


def test_weights_that_differ_from_their_record_are_refused(log, blobs, folder):
    with (folder / "pbc8" / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(Invalid, match="does not match the sha256"):
        register_bundled(blobs, log, folder=folder)
    assert (log.head(), blobs.kept) == (0, {})


def test_a_model_that_breaks_its_promise_is_refused(log, blobs, folder):
    output = folder / "pbc8" / "test_output.npy"
    np.save(output, np.load(output) + 0.01)
    digest = hashlib.sha256(output.read_bytes()).hexdigest()
    respelled(folder, lambda rdf: rdf["outputs"][0]["test_tensor"].update(sha256=digest))
    with pytest.raises(Invalid, match=r"differs by 0\.01 from the expected one"):
        register_bundled(blobs, log, folder=folder)
    assert (log.head(), blobs.kept) == (0, {})


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (b"no model at all", "not an ONNX file"),
        (identity(external("w", location="root.key", size=32), size=32), "external data"),
        (model_file(graph([node("Evil", domain="com.example")])), "operators of 'com.example'"),
    ],
)
def test_weights_that_are_not_safe_to_run_are_refused(log, blobs, folder, weights, reason):
    (folder / "pbc8" / "model.onnx").write_bytes(weights)
    respelled(folder, lambda rdf: rdf["weights"]["onnx"].update(sha256=hashlib.sha256(weights).hexdigest()))
    with pytest.raises(Invalid, match=rf"model\.onnx is refused: .*{reason}"):
        register_bundled(blobs, log, folder=folder)
    assert (log.head(), blobs.kept) == (0, {})


def test_the_demonstration_has_its_pictures():
    assert (micrographs() / "manifest.csv").is_file()
    assert len(list(micrographs().rglob("*.jpg"))) >= 40


# ---- adding a version --------------------------------------------------------------------------------------------------------------
GOOD = {
    "name": "shapes",
    "description": "",
    "sha256": "ab" * 32,
    "size": 10,
    "labels": ("round", "flat"),
    "review_below": 0.5,
    "record": "{}",
}


def test_the_same_version_twice_is_one(log):
    first = add_model(**GOOD, command=command(ADMIN), log=log)
    again = add_model(**GOOD, command=command(ADMIN), log=log)
    assert (first.id, first.version, again.position) == (model_id("shapes"), 2, 0)
    assert len(log.history(first.id)) == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sha256", "AB" * 32),
        ("labels", ()),
        ("labels", ("round", "round")),
        ("labels", (" round",)),
        ("labels", ("x" * 101,)),
        ("labels", tuple(map(str, range(MAX_LABELS + 1)))),
        ("review_below", 1.1),
        ("name", ""),
    ],
)
def test_a_version_that_breaks_a_rule_is_refused(log, field, value):
    with pytest.raises(Invalid):
        add_model(**GOOD | {field: value}, command=command(ADMIN), log=log)
    assert log.head() == 0


@pytest.mark.parametrize("role", [Role.VIEWER, Role.ANALYST, Role.RESEARCHER])
def test_only_administrators_add_versions(log, role):
    with pytest.raises(Forbidden):
        add_model(**GOOD, command=command(actor(role, id=uuid4())), log=log)


# ---- promoting a version -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def two_versions(log):
    for sha256 in ("ab" * 32, "cd" * 32):
        add_model(**GOOD | {"sha256": sha256}, command=command(ADMIN), log=log)
    return log


def aliases(log):
    return log.load(model_id("shapes"), model.evolve).aliases


def test_a_promoted_candidate_is_in_production_and_no_candidate_any_more(two_versions):
    assert aliases(two_versions) == {"production": 1, "candidate": 2}
    move_alias(alias="production", name="shapes", number=2, command=command(ADMIN), log=two_versions)
    assert aliases(two_versions) == {"production": 2}
    assert move_alias(alias="production", name="shapes", number=2, command=command(ADMIN), log=two_versions).position == 0


def test_an_older_version_can_be_taken_back(two_versions):
    move_alias(alias="production", name="shapes", number=2, command=command(ADMIN), log=two_versions)
    move_alias(alias="production", name="shapes", number=1, command=command(ADMIN), log=two_versions)
    assert aliases(two_versions) == {"production": 1}


@pytest.mark.parametrize(("name", "number"), [("shapes", 3), ("shapes", 0), ("cells", 1)])
def test_only_what_was_registered_is_promoted(two_versions, name, number):
    with pytest.raises(NotFound):
        move_alias(alias="production", name=name, number=number, command=command(ADMIN), log=two_versions)
    assert aliases(two_versions) == {"production": 1, "candidate": 2}


@pytest.mark.parametrize("role", [Role.VIEWER, Role.ANALYST, Role.RESEARCHER])
def test_only_administrators_promote(two_versions, role):
    with pytest.raises(Forbidden):
        move_alias(alias="production", name="shapes", number=2, command=command(actor(role, id=uuid4())), log=two_versions)
