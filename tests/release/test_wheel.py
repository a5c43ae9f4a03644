"""The contents of the wheel."""

import re
import zipfile
from pathlib import Path

import pytest

from tests.release.installing import ROOT

SHIPPED = "infrastructure/shipped_files"
MODEL_FILES = {"rdf.yaml", "model.onnx", "labels.txt", "test_input.npy", "test_output.npy", "test_distance.npy"}
PACKAGES = ("domain", "application", "infrastructure", "projections", "api")


@pytest.fixture(scope="module")
def held(wheel):
    """Each file of the wheel, by its path."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_every_model_is_shipped_as_it_is_served(held):
    folders = [path.parent for path in (ROOT / "models").glob("*/rdf.yaml")]
    assert folders
    for folder in folders:
        shipped = f"{SHIPPED}/models/{folder.name}/"
        assert {name.removeprefix(shipped) for name in held if name.startswith(shipped)} == MODEL_FILES
        assert all(held[shipped + name] == (folder / name).read_bytes() for name in MODEL_FILES)


def test_every_micrograph_is_shipped_with_its_licence(held):
    folder = ROOT / "examples" / "micrographs"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert held[f"{SHIPPED}/micrographs/{path.relative_to(folder)}"] == path.read_bytes()


def test_every_file_of_the_packages_is_shipped(held):
    """Modules, migrations, markers of types, and whatever is added to a package."""
    for package in PACKAGES:
        paths = [path for path in (ROOT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert any(path.name == "py.typed" for path in paths), package
        for path in paths:
            assert held[str(path.relative_to(ROOT))] == path.read_bytes()
    assert any(re.fullmatch(r"infrastructure/postgres/migrations/\d{4}_\w+\.sql", name) for name in held)


def test_nothing_else_is_shipped(held):
    tops = {Path(name).parts[0] for name in held}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
