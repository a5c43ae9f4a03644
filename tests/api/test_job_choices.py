"""What `bioscope classify --model` and `--plane` understand, and how they refuse the rest."""

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from api.classifications import RunClassification
from api.cli import main
from api.cli.client.job_choices import ModelChoice, model_choice, plane_choice, refusal_of

CELLS = {"name": "cells", "aliases": {"production": 1, "candidate": 2}, "versions": [{"number": 1}, {"number": 2}], "retired": False}
NEW = {"name": "new", "aliases": {"candidate": 1}, "versions": [{"number": 1}], "retired": False}
OLD = NEW | {"name": "old", "retired": True}


@pytest.mark.parametrize(
    ("text", "choice"),
    [("cells", ("cells", "")), ("cells@2", ("cells", "2")), ("cells@candidate", ("cells", "candidate")), ("a@b@c", ("a", "b@c"))],
)
def test_a_model_is_named_with_or_without_a_version(text, choice):
    assert model_choice(text) == ModelChoice(*choice)


@pytest.mark.parametrize("text", ["", "@", "@2", "cells@"])
def test_half_a_name_is_refused(text):
    with pytest.raises(ValueError, match="cells@candidate or cells@2"):
        model_choice(text)


@pytest.mark.parametrize("text", ["cells", "cells@production", "cells@candidate", "cells@1", "cells@2", "new@1", "new@candidate"])
def test_a_version_that_exists_can_be_run(text):
    assert refusal_of(model_choice(text), [CELLS, NEW]) == ""


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("blood", "there is no model 'blood'; choose one of: cells, new"),
        ("old@1", "the model old is retired; choose one of: cells, new"),
        (
            "cells@3",
            "the model cells has no version '3'; choose one of: cells@candidate, cells@production, cells@1, cells@2",
        ),
        ("new", "the model new has no version in production; choose one of: new@candidate, new@1"),
        ("new@production", "the model new has no version 'production'; choose one of: new@candidate, new@1"),
    ],
)
def test_a_version_that_does_not_exist_is_refused_with_those_that_do(text, refusal):
    assert refusal_of(model_choice(text), [CELLS, NEW, OLD]) == refusal
    assert refusal_of(model_choice(text), []) == f"there is no model {model_choice(text).name!r}; choose one of: none is registered"


@pytest.mark.parametrize(
    ("texts", "planes"),
    [
        ([], {}),
        (["z=max"], {"z": "max"}),
        (["z=mean", "c=0"], {"z": "mean", "c": [0]}),
        (["c=2,0,1", "t=3", "z=12"], {"c": [2, 0, 1], "t": 3, "z": 12}),
    ],
)
def test_planes_are_chosen_along_each_axis(texts, planes):
    assert plane_choice(texts) == planes


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["max"], "'max' names no planes: give for example z=max"),
        (["z="], "names no planes"),
        (["q=1"], "'q=1' names no planes"),
        (["Z=1"], "names no planes"),
        (["z=first"], "z=first is wrong: planes are numbers from 0, or max or mean"),
        (["z=-1"], "z=-1 is wrong"),
        (["z=1,2"], "only c may have several numbers"),
        (["z=max,1"], "z=max,1 is wrong"),
        (["t=max"], "t=max is wrong: planes are numbers from 0, such as"),
        (["t=1.5"], "t=1.5 is wrong"),
        (["c=red"], "c=red is wrong"),
        (["c=0,"], "c=0, is wrong"),
        (["c=0,0"], "at most 16 channels, each once"),
        ([f"c={','.join(map(str, range(17)))}"], "at most 16 channels"),
        (["c=\u0661"], "is wrong"),
        (["c=0", "c=1"], "c is given twice. Separate several channels by commas"),
    ],
)
def test_planes_that_cannot_be_meant_are_refused(texts, reason):
    with pytest.raises(ValueError, match=reason.replace("+", r"\+")):
        plane_choice(texts)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "z": st.integers(0, 10**6).map(str) | st.sampled_from(["max", "mean"]),
            "c": st.lists(st.integers(0, 10**6).map(str), min_size=1, max_size=16, unique=True).map(",".join),
            "t": st.integers(0, 10**6).map(str),
        },
    )
)
def test_the_server_takes_every_choice_of_the_client(chosen):
    planes = plane_choice([f"{axis}={value}" for axis, value in chosen.items()])
    sent = msgspec.json.decode(msgspec.json.encode({"model_name": "cells", "planes": planes}), type=RunClassification)
    assert msgspec.json.decode(msgspec.json.encode(sent.planes)) == planes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--plane", "z=first"], "z=first is wrong: planes are numbers from 0, or max or mean, such as z=max, z=4, c=0,2 or t=0"),
        (["--model", "cells@"], "'cells@' is not a model: give its name, or its name and version like cells@candidate or cells@2"),
    ],
)
def test_a_wrong_choice_ends_the_command_before_anything_is_sent(tmp_path, options, message):
    done = CliRunner().invoke(main, ["classify", str(tmp_path), *options])
    assert (done.exit_code, " ".join(done.output.split())) == (2, f"bioscope: {message}")
