"""docs/models/format.md names all that a package may hold, and every code of a refusal."""

import re
from pathlib import Path

import pytest

from application import models
from infrastructure.inference.models.manifest import OutOfDomainGates
from infrastructure.inference.models.onnx_validation import ML_OPERATORS, ModelLimits
from infrastructure.inference.models.refusals import RefusalCode
from infrastructure.inference.packages.manifest_fields import MAX_LABELS, BioscopeFields
from infrastructure.inference.packages.manifest_reader import MAX_INPUT_ELEMENTS
from infrastructure.inference.packages.operators import Operator
from infrastructure.inference.packages.package import PackageLimits
from infrastructure.inference.packages.package_manifest import InputRules, OutputRules
from infrastructure.inference.packages.plain_model import PlainInput

PAGE = (Path(__file__).parents[4] / "docs" / "models" / "format.md").read_text(encoding="utf-8")


def section(title):
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return found[1]


def rows(title):
    """The names in the first column of the table of a section."""
    return {name for line in section(title).splitlines() if line.startswith("| `") for name in re.findall(r"`([^`]+)`", line.split("|")[1])}


@pytest.mark.parametrize(
    ("title", "names"),
    [
        ("`config.bioscope`", BioscopeFields.__struct_fields__),
        ("`output`", OutputRules.__struct_fields__),
        ("`input`", InputRules.__struct_fields__),
        ("Operators", [variant.__struct_config__.tag for variant in Operator.__args__]),
        ("Codes", RefusalCode),
        ("Kinds of output", ["softmax", "logits", "multi_label", "regression", "external"]),
    ],
)
def test_a_table_lists_exactly_what_is_read(title, names):
    assert rows(title) == {str(name) for name in names}


def test_the_simple_form_is_listed():
    assert {f"input_tensor.{name}" for name in PlainInput.__struct_fields__} <= rows("The simple form")


def test_operators_of_ai_onnx_ml_and_gates_are_named():
    assert set(re.findall(r"`([A-Z]\w+)`", section("ONNX operators"))) == ML_OPERATORS | {"CastMap", "DictVectorizer"}
    measures = {name.rpartition("_")[0] for name in OutOfDomainGates.__struct_fields__}
    assert all(f"`{name}`" in section("`gates`") or f"`{name}_" in section("`gates`") for name in measures)


def test_the_limits_are_those_of_the_code():
    files, yaml, network = PackageLimits().files, PackageLimits().yaml, ModelLimits()
    text = section("Files")
    for number in (files.entries, yaml.nodes, network.nodes, network.fields, MAX_INPUT_ELEMENTS, MAX_LABELS):
        assert f"{number:,}" in text
    for size in (files.total_bytes, yaml.file_bytes, network.file_bytes, network.initializer_bytes):
        assert f"{size // 2**20} MiB" in text
    assert f"| labels of a model | {models.MAX_LABELS}, and {models.MAX_LABELS - 1} for `multi_label`" in text
    for words in (f"{files.name_characters} characters, {files.path_parts} parts", f"{yaml.depth} deep", f"{network.graph_depth} deep"):
        assert words in text
