"""Packages of model versions are downloaded as they were uploaded; versions of earlier releases are packed."""

import io
import json
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

import pytest

from application import model_packages, models
from application.model_packages import PIECE_BYTES
from domain.access import Role
from domain.errors import Conflict, CorruptBlob, Forbidden, NotFound
from domain.model import Version
from infrastructure.inference.models.manifest import manifest_as_json
from infrastructure.inference.packages.export import export_package
from infrastructure.inference.packages.manifest_reader import parse_manifest
from infrastructure.inference.packages.package_files import FileLimits, open_files
from infrastructure.inference.packages.strict_yaml import YamlLimits, load_yaml
from tests.given import actor, command
from tests.twins.blobs import MemoryBlobs

BCCD3 = Path(__file__).parents[2] / "models" / "bccd3"
ADMIN, ANALYST = actor(Role.ADMIN), actor(Role.ANALYST)


@pytest.fixture
def blobs():
    return MemoryBlobs()


@pytest.fixture
def add(log, blobs):
    def add(data, *, record="{}", package=False):
        digest = blobs.keep(data)
        of = {"sha256": sha256(b"weights").hexdigest(), "package": digest} if package else {"sha256": digest}
        version = Version(number=1, size=1, labels=("a", "b"), review_below=0.5, record=record, **of)
        models.add_version(name="shapes", description="", version=version, command=command(ADMIN), log=log)

    return add


@pytest.fixture
def download(log, blobs):
    def download(number=1, *, by=ANALYST):
        return model_packages.download("shapes", number, actor=by, log=log, blobs=blobs, export=export_package)

    return download


def without_test_tensors(manifest):
    for tensor in (*manifest["inputs"], *manifest["outputs"]):
        del tensor["test_tensor"]
    return manifest


def test_a_package_is_downloaded_byte_by_byte_as_it_was_uploaded(add, download):
    package = b"PK" * PIECE_BYTES
    add(package, package=True)
    found = download()
    pieces = list(found.pieces)
    assert (b"".join(pieces), found.size, found.filename) == (package, len(package), "shapes-1.zip")
    assert found.sha256 == sha256(package).hexdigest()
    assert max(map(len, pieces)) <= PIECE_BYTES


def test_an_external_classifier_has_nothing_to_download(log, download):
    about = {"name": "shapes", "description": "", "labels": ("a", "b"), "label_texts": {}, "review_below": 0.5}
    models.add_external(**about, command=command(ADMIN), log=log)
    with pytest.raises(Conflict, match="Version 1 is an external classifier: it has no file"):
        download()


def test_a_version_without_a_package_is_packed_with_its_manifest(add, download, tmp_path):
    weights, record = (BCCD3 / "model.onnx").read_bytes(), manifest_as_json(BCCD3)
    add(weights, record=record)
    packed = b"".join(download().pieces)
    with ZipFile(io.BytesIO(packed)) as archive:
        assert archive.namelist() == ["rdf.yaml", "model.onnx"]
        assert archive.read("model.onnx") == weights
        assert load_yaml(archive.read("rdf.yaml"), file="rdf.yaml", limits=YamlLimits()) == without_test_tensors(json.loads(record))
    assert b"".join(download().pieces) == packed
    (tmp_path / "shapes.zip").write_bytes(packed)
    files = open_files(tmp_path / "shapes.zip", FileLimits())
    assert set(files.sizes) == {"rdf.yaml", "model.onnx"}
    assert parse_manifest(load_yaml(b"".join(files.stream("rdf.yaml")), file="rdf.yaml", limits=YamlLimits())).model == "bccd3"


def test_what_is_not_there_or_damaged_is_refused_before_the_first_byte(add, download, blobs):
    with pytest.raises(NotFound, match="Model shapes not found"):
        download()
    add(b"package", package=True)
    with pytest.raises(NotFound, match="Model shapes has no version 2"):
        download(2)
    with pytest.raises(Forbidden, match="analyst"):
        download(by=actor(Role.VIEWER))
    blobs.kept[sha256(b"package").hexdigest()] = b"another"
    with pytest.raises(CorruptBlob):
        download()
    blobs.delete(sha256(b"package").hexdigest())
    with pytest.raises(NotFound):
        download()


def test_a_package_of_a_retired_model_is_downloaded(add, download, log):
    add(b"package", package=True)
    models.retire(name="shapes", reason="Old", command=command(ADMIN), log=log)
    assert b"".join(download().pieces) == b"package"
