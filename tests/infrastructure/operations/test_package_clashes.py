"""Packages of other distributions with the names of ours are reported."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from infrastructure.operations.package_clashes import PACKAGES, package_clashes

ROOT = Path(__file__).parents[3]


@pytest.fixture
def site(tmp_path):
    """A folder in which modules are searched."""
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


def install(site, name, *files, metadata=True):
    """A distribution as an installer leaves it."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    if metadata:
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    for file in files:
        write(site / file)


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")


def clashes(*, before=(), behind=()):
    """The findings where modules are searched in these folders too, before ours or behind it."""
    return package_clashes([*map(str, before), *sys.path, *map(str, behind)])


def levels(**folders):
    return {finding.subject: finding.level for finding in clashes(**folders)}


def test_every_package_of_the_wheel_is_examined():
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(PACKAGES) == set(wheel["only-include"]) - {"models", "examples/micrographs"}


def test_an_installation_of_its_own_has_no_clash():
    assert levels() == {"packages": "good"}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_distribution_that_installs_a_package_of_that_name_is_named(site, package):
    install(site, "acme-tools", f"{package}/__init__.py", f"{package}/views.py")
    (finding,) = clashes(behind=[site])
    assert (finding.level, finding.subject) == ("wrong", f"package {package}")
    assert finding.message.startswith("acme-tools installs a package of that name too")
    assert "pipx install bioscope" in finding.message


def test_a_distribution_with_other_packages_is_no_clash(site):
    install(site, "acme-tools", "acme/api/__init__.py", "acme/domain.py")
    assert levels(behind=[site]) == {"packages": "good"}


def test_a_distribution_without_metadata_breaks_nothing(site):
    install(site, "half-removed", "api/__init__.py", metadata=False)
    (finding,) = clashes(behind=[site])
    assert finding.message.startswith("a distribution without a name installs a package of that name too")


def test_a_single_module_and_an_old_list_of_packages_count_too(site):
    install(site, "acme-tools", "api.py")
    old = site / "acme_old-1.0.egg-info"
    old.mkdir()
    (old / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: acme-old\nVersion: 1.0\n")
    (old / "top_level.txt").write_text("acme\ndomain\n")
    assert levels(behind=[site]) == {"package api": "wrong", "package domain": "wrong"}


@pytest.mark.parametrize("file", ["api/__init__.py", "api.py"])
def test_a_module_behind_ours_is_a_weakness(site, file):
    write(site / file)
    (finding,) = clashes(behind=[site])
    assert (finding.level, finding.subject) == ("weak", "package api")
    assert str(site / file) in finding.message


def test_a_module_before_ours_is_wrong(site):
    write(site / "projections" / "__init__.py")
    assert levels(before=[site]) == {"package projections": "wrong"}


def test_a_folder_that_is_no_package_is_no_clash(site):
    write(site / "api" / "README.md")
    assert levels(before=[site]) == {"packages": "good"}


def test_the_doctor_fails_with_the_name_of_the_other_distribution(site, tmp_path):
    install(site, "acme-tools", "domain/__init__.py")
    doctor = subprocess.run(
        [sys.executable, "-m", "api.cli", "doctor"],
        env={"PATH": os.defpath, "PYTHONPATH": str(site), "BIOSCOPE_DATA": str(tmp_path / "data"), "COLUMNS": "200"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert doctor.returncode == 1
    assert "acme-tools" in doctor.stdout
