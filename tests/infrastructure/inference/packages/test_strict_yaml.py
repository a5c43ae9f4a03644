import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from infrastructure.inference.models.refusals import PackageRefused
from infrastructure.inference.packages.strict_yaml import YamlLimits, load_yaml

LIMITS = YamlLimits()
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXT, children, max_size=4),
    max_leaves=20,
)


def load(text, limits=LIMITS):
    return load_yaml(text.encode(), file="rdf.yaml", limits=limits)


class Writer(yaml.SafeDumper):
    """Writes shared values out, and texts always in quotes, so that both versions of YAML read the same."""

    def ignore_aliases(self, data):
        return True


Writer.add_representer(str, lambda writer, text: writer.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


@given(VALUES)
def test_what_is_written_is_read_again(value):
    assert load(yaml.dump(value, Dumper=Writer)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("0x1F", 31),
        ("0o17", 15),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("|\n  1", "1"),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("1" * 64, "1" * 64),
        ("\ufeffa", "a"),
    ],
)
def test_scalars_follow_version_1_2(text, value):
    assert load(text) == value


def refusal_of(data):
    """Empty where the data can be read."""
    try:
        load_yaml(data, file="rdf.yaml", limits=LIMITS)
    except PackageRefused as refused:
        return str(refused)
    return ""


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_in_plain_words(data):
    assert refusal_of(data).isprintable()


def test_a_refusal_names_the_line():
    with pytest.raises(PackageRefused, match="line 3 has the key `a` a second time"):
        load("a: 1\nb: 2\na: 3")


@pytest.mark.parametrize(
    ("limits", "code"),
    [(YamlLimits(file_bytes=5), "yaml_too_large"), (YamlLimits(nodes=3), "yaml_too_large"), (YamlLimits(depth=1), "yaml_too_deep")],
)
def test_each_limit_is_one(limits, code):
    with pytest.raises(PackageRefused) as refused:
        load("a: [1, 2]", limits)
    assert refused.value.code == code
