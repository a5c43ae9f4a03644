"""What is said of the shipped models is said of the files beside it, and reaches the standard."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infrastructure.inference.models.bundled import models
from infrastructure.inference.models.manifest import load_manifest
from infrastructure.inference.preprocessing import digest
from training.card import refreshed
from training.evaluate import stored
from training.goals import LEAST_BALANCED, goals
from training.pictures import PINNED, data_digest

ROOT = Path(__file__).parents[2]
NAMES = sorted(LEAST_BALANCED)

each = pytest.mark.parametrize("name", NAMES)


def metrics_of(name):
    return stored(models() / name)


def test_every_shipped_model_has_a_standard():
    assert sorted(path.parent.name for path in models().glob("*/rdf.yaml")) == NAMES


@each
def test_the_metrics_speak_of_the_record_that_serves(name):
    record, metrics = load_manifest(models() / name), metrics_of(name)
    assert metrics["preprocessing"] == digest(record.preprocessing)
    assert (metrics["labels"], metrics["other_label"]) == (list(record.labels), record.other_label)
    assert (metrics["temperature"], metrics["review_below"]) == (record.temperature, record.review_below)
    assert metrics["bytes"] == sum((models() / name / file).stat().st_size for file in ("model.onnx", "model-int8.onnx"))


@each
def test_the_metrics_were_counted_on_the_data_that_is_pinned(name):
    metrics = metrics_of(name)
    assert metrics["data"] == metrics["training"]["data"] == data_digest()
    assert len(PINNED.read_text().splitlines()) > 300


@each
def test_every_goal_is_reached(name):
    assert [goal.what for goal in goals(metrics_of(name)) if not goal.reached] == []


@each
def test_no_source_of_foreign_pictures_serves_both_tuning_and_test(name):
    metrics = metrics_of(name)
    assert not set(metrics["foreign"]["by_source"]) & set(metrics["training"]["tuning_foreign"]["by_source"])


@each
def test_the_tables_of_the_card_are_those_of_the_metrics(name):
    card = (ROOT / "docs" / "models" / f"{name}.md").read_text()
    assert refreshed(card, metrics_of(name)) == card


@each
def test_the_figures_of_the_card_are_there(name):
    card = (ROOT / "docs" / "models" / f"{name}.md").read_text()
    for kind in ("confusion", "reliability", "domain", "errors", "missed"):
        path = ROOT / "docs" / "models" / "figures" / f"{name}-{kind}.png"
        assert f"figures/{path.name}" in card
        assert 1_000 < path.stat().st_size < 200_000


@pytest.mark.parametrize("file", ["model.onnx", "model-int8.onnx"])
def test_metrics_of_other_weights_are_refused(tmp_path, file):
    folder = shutil.copytree(models() / "pbc8", tmp_path / "pbc8")
    with (folder / file).open("ab") as weights:
        weights.write(b"x")
    with pytest.raises(SystemExit, match=f"does not belong to {file}"):
        stored(folder)


def evaluated(*folders):
    command = [sys.executable, "-m", "training.evaluate", *folders]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_evaluate_prints_the_goals_from_the_committed_files():
    done = evaluated(*(models() / name for name in NAMES))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("reached") == sum(len(goals(metrics_of(name))) for name in NAMES)


def test_a_missed_goal_ends_evaluate_with_a_fault(tmp_path):
    folder = shutil.copytree(models() / "pbc8", tmp_path / "pbc8")
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["sets"]["val"]["ece"] = 0.5
    (folder / "metrics.json").write_text(json.dumps(metrics))
    done = evaluated(folder)
    assert done.returncode == 1
    assert "missed" in done.stdout
