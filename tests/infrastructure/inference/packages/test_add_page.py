"""docs/models/add.md: its manifests are those of the examples, its files exist, and its refusals are those of the code."""

import re
from pathlib import Path

import pytest
import yaml

from infrastructure.inference.models.refusals import RefusalCode
from infrastructure.inference.packages.package import open_package

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs" / "models" / "add.md").read_text(encoding="utf-8")
REFUSALS = re.findall(r"^\| `(\w+)`(?:: \"([^\"]+)\")? \|.*\|$", PAGE.partition("## Refusals")[2], re.MULTILINE)
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "infrastructure" / "inference").rglob("*.py"))


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def written(tmp_path):
    """The two text files as the page shows them, beside the network of the example."""
    (manifest,) = (block for block in blocks("yaml") if block.startswith("model:"))
    (labels,) = blocks("text")
    (tmp_path / "bioscope.yaml").write_text(manifest)
    (tmp_path / "labels.txt").write_text(labels)
    (tmp_path / "model.onnx").write_bytes((ROOT / "examples" / "models" / "granules" / "model.onnx").read_bytes())
    return open_package(tmp_path)


def test_the_two_text_files_describe_the_example(written):
    example = open_package(ROOT / "examples" / "models" / "granules").manifest
    assert (written.manifest.labels, written.manifest.label_texts) == (example.labels, example.label_texts)
    assert (written.manifest.input, written.manifest.kind) == (example.input, example.kind)
    assert (written.manifest.threshold, written.manifest.review_below) == (example.threshold, example.review_below)


def test_the_kind_is_declared_where_the_page_says():
    (declared,) = (yaml.safe_load(block) for block in blocks("yaml") if block.startswith("config:"))
    assert declared["config"]["bioscope"]["output"]["kind"] == "logits"


def test_every_file_of_the_examples_that_is_named_exists():
    named = set(re.findall(r"examples/models(?:/[\w.-]+)*", PAGE))
    assert len(named) > 8
    assert [path for path in named if not (ROOT / path.rstrip(".")).exists()] == []


def test_every_code_of_the_table_is_one():
    assert len(REFUSALS) > 8
    assert {code for code, _ in REFUSALS} <= set(RefusalCode)


@pytest.mark.parametrize("words", [words for _, words in REFUSALS if words])
def test_every_sentence_of_the_table_is_one_of_the_code(words):
    """Names and numbers of the example are left out."""
    assert re.sub(r" (?:float32|\d+ along \w+)$", "", words) in SOURCES
