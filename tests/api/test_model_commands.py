"""`bioscope migrate` registers the models of a release, from a new installation to an upgrade."""

import json
import shutil

import pytest
import yaml
from click.testing import CliRunner

from api.cli import main
from domain import model
from domain.values import model_id
from infrastructure.embedded.installation import environment
from infrastructure.eventstore.event_store import open_event_store
from infrastructure.inference.models import bundled


@pytest.fixture
def bioscope(settings, monkeypatch):
    """Run a command in this process; it has to end with `code`."""
    variables = environment(settings, {}) | {"BIOSCOPE_POSTGRES_OWNER_URL": settings.postgres_owner_url}

    def run(*arguments, code=0):
        done = CliRunner().invoke(main, arguments, env=variables)
        assert done.exit_code == code, done.output
        return done.output

    return run


@pytest.fixture
def release(tmp_path, monkeypatch):
    """The folder of a release that comes with one model."""
    folder = tmp_path / "release"
    shutil.copytree(bundled.models() / "pbc8", folder / "models" / "pbc8")
    monkeypatch.setattr(bundled, "INSTALLED", folder)
    return folder


def new_release(folder):
    path = folder / "models" / "pbc8" / "rdf.yaml"
    rdf = yaml.safe_load(path.read_text())
    rdf["version"] = "9.9.9"
    path.write_text(yaml.safe_dump(rdf))


def aliases(settings):
    with open_event_store(settings) as log:
        return log.load(model_id("pbc8"), model.evolve).aliases


def test_an_upgrade_says_how_its_candidate_is_promoted(bioscope, release, settings):
    assert "registered: model pbc8 version 1 " in bioscope("migrate")
    new_release(release)
    output = bioscope("migrate")
    assert "registered: model pbc8 version 2 (release 9.9.9, sha256 " in output
    assert "candidate; use it with `bioscope models promote pbc8 2 --reason TEXT`" in output
    assert aliases(settings) == {"production": 1, "candidate": 2}
    assert "known: model pbc8 version 2 " in bioscope("migrate")


def test_stdout_is_json_alone_while_models_are_registered(settings, release):
    variables = environment(settings, {}) | {"BIOSCOPE_POSTGRES_OWNER_URL": settings.postgres_owner_url}
    done = CliRunner().invoke(main, ["migrate", "--json"], env=variables)
    (registered,) = json.loads(done.stdout)["models"]
    assert (registered["name"], registered["version"], registered["is_new"]) == ("pbc8", 1, True)
    assert done.stderr == ""


def test_models_are_described_in_whole_lines_of_80_columns(bioscope, release, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    bioscope("migrate")
    new_release(release)
    output = bioscope("migrate")
    assert "candidate; use it with `bioscope models promote pbc8 2 --reason TEXT`" in " ".join(output.split())
    assert max(map(len, output.splitlines())) <= 80


def test_migrating_fails_without_a_model(bioscope, release):
    shutil.rmtree(release / "models")
    assert "contains no model" in bioscope("migrate", code=1)
