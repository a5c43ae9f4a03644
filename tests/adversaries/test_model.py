"""A model that tries to read files or to break the worker: refused before the runtime loads it, and harmless where it runs."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infrastructure.inference.children.child_process import ChildFailed, ChildHung, ChildLost
from infrastructure.inference.models.bundled import models
from infrastructure.inference.models.onnx_validation import ModelLimits, summarize_model, validate_model
from infrastructure.inference.models.refusals import ModelRefused
from tests.adversaries import onnx_files as onnx
from tests.adversaries.hostile_packages import growing
from tests.adversaries.onnx_files import attribute, external, field, graph, identity, model, nested, node, tensor
from tests.adversaries.pools import a_pool, child_of, still_works
from tests.infrastructure.inference.packages import making

pytestmark = pytest.mark.anyio

HOSTILE = "tests.adversaries.hostile_model"
SECRET = b"the content of a key file"
SHIPPED = [path.read_bytes() for path in sorted(models().glob("*/*.onnx"))]
PLAIN = identity(tensor("w", dims=[3], kind=onnx.INT8, raw=b"abc"), size=3)
READS_A_KEY = identity(external("w", location="keys/root.key", size=len(SECRET)), size=len(SECRET))
KEY = external("w", location="keys/root.key", size=32)
WIDE = tensor("w", dims=[2**30, 2**30], raw=bytes(4))

REFUSED = {
    "external data of an initializer": (READS_A_KEY, "external data"),
    "external data of a constant": (
        model(graph([node("Constant", [], ["y"], attributes=[attribute("value", tensors=[KEY])])])),
        "external",
    ),
    "external data in a list": (model(graph([node("X", attributes=[attribute("a", tensors=[KEY, KEY])])])), "external"),
    "external data in a subgraph": (model(nested(graph(initializers=[KEY]), 3)), "external"),
    "external data by its place alone": (identity(tensor("w", dims=[1], more=field(14, 1))), "external"),
    "external data by a number that is cut": (identity(tensor("w", dims=[1], more=field(14, 2**32 + 1))), "external"),
    "external data by its entries alone": (identity(tensor("w", dims=[1], more=field(13, b""))), "external"),
    "a domain of a node": (model(graph([node("Evil", domain="com.example")])), "com.example"),
    "a domain of the runtime's own": (model(graph([node("Attention", domain="com.microsoft")])), "com.microsoft"),
    "a domain of a node in a subgraph": (model(nested(graph([node("Evil", domain="com.example")]), 4)), "com.example"),
    "a domain of the whole": (model(graph(), domains=["", "com.example"]), "com.example"),
    "a domain that is no text": (model(graph([node("Evil", domain=b"\xff\x1b[31m")])), "needs operators"),
    "a function": (model(graph([node("F")]), more=field(25, field(1, "F"))), "functions"),
    "an overload": (model(graph([node("F", more=field(8, "other"))])), "functions"),
    "steps of a training": (model(graph(), more=field(20, b"")), "training"),
    "a sparse initializer": (model(graph(more=field(15, b""))), "sparse"),
    "a sparse attribute": (model(graph([node("X", attributes=[field(1, "a") + field(22, b"")])])), "sparse"),
    "an initializer larger than its data": (identity(WIDE), "another size"),
    "an initializer without its data": (identity(tensor("w", dims=[2**40])), "another size"),
    "an initializer of a negative size": (identity(tensor("w", dims=[-1])), "negative"),
    "an initializer of many dimensions": (identity(tensor("w", dims=[1] * 17, raw=bytes(4))), "dimensions"),
    "an initializer of packed dimensions": (identity(field(1, onnx.varint(2**50)) + field(2, 1) + field(8, "w")), "another size"),
    "an initializer of an unknown type": (identity(tensor("w", kind=99)), "unknown type"),
    "graphs deep in each other": (model(nested(graph(), 9)), "deep"),
    "graphs very deep in each other": (model(nested(graph(), 2000)), "deep"),
    "a graph twice": (model(graph(), more=field(7, graph())), "twice"),
    "a tensor in an attribute twice": (
        model(graph([node("X", attributes=[field(1, "a") + field(5, [tensor("a"), tensor("b")])])])),
        "twice",
    ),
    "an unknown field": (model(graph(), more=field(99, b"")), "does not know"),
    "a known field, written in another way": (model(graph(), more=field(3, 1)), "does not know"),
    "the runtime's own format": (field(6, "ORTM" * 20)[:2] + b"\0\0ORTM" + PLAIN, "format"),
    "nothing": (b"", "not an ONNX file"),
    "text": (b"import os; os.system('true')", "not an ONNX file"),
    "no graph": (field(1, 8) + field(8, field(2, 17)), "not an ONNX file"),
    "a field longer than the file": (PLAIN + field(14, b"x" * 100)[:-1], "not an ONNX file"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_by_its_bytes(what):
    data, sentence = REFUSED[what]
    with pytest.raises(ModelRefused, match=sentence) as refused:
        validate_model(data)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("data", [PLAIN, *SHIPPED])
def test_a_plain_model_is_not_refused(data):
    assert validate_model(data) is None


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        (ModelLimits(file_bytes=len(PLAIN) - 1), "bytes"),
        (ModelLimits(nodes=0), "nodes"),
        (ModelLimits(fields=3), "fields"),
        (ModelLimits(initializer_bytes=2), "bytes"),
    ],
)
def test_each_limit_is_one(limits, sentence):
    with pytest.raises(ModelRefused, match=sentence):
        validate_model(PLAIN, limits)


def test_only_packages_may_use_operators_for_machine_learning():
    data = model(graph([node("Scaler", domain="ai.onnx.ml")]))
    with pytest.raises(ModelRefused, match=r"ai\.onnx\.ml"):
        validate_model(data)
    assert summarize_model(data).operators == {"ai.onnx.ml:Scaler"}


def test_only_packages_need_weights_that_are_numbers():
    """A model that an earlier release registered runs as before."""
    data = identity(tensor("w", dims=[1], kind=onnx.FLOAT, raw=b"\x00\x00\xc0\x7f"), size=1)
    assert validate_model(data) is None
    with pytest.raises(ModelRefused, match=r"NaN|number"):
        summarize_model(data)


def test_a_domain_can_be_allowed():
    data = model(graph([node("NhwcConv", domain="com.microsoft")]))
    with pytest.raises(ModelRefused):
        validate_model(data)
    assert validate_model(data, ModelLimits(domains=frozenset({"", "com.microsoft"}))) is None


@given(st.integers(1, 8), st.sampled_from([KEY, WIDE]))
def test_no_depth_hides_a_tensor(depth, bad):
    with pytest.raises(ModelRefused):
        validate_model(model(nested(graph(initializers=[bad]), depth)))


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_answered_with_a_sentence(data):
    with pytest.raises(ModelRefused):
        validate_model(data)


@settings(max_examples=300)
@given(st.sampled_from([PLAIN, READS_A_KEY, onnx.endless()]), st.data())
def test_a_damaged_model_is_refused_or_reads_no_file(data, draw):
    """The description of a file may end up within a text of the model, where it is harmless."""
    at = draw.draw(st.integers(0, len(data) - 1))
    damaged = data[:at] + draw.draw(st.binary(max_size=3)) + data[at + draw.draw(st.integers(0, 3)) :]
    try:
        validate_model(damaged)
    except ModelRefused:
        return
    if external("w", location="keys/root.key", size=len(SECRET)) in damaged:
        with tempfile.TemporaryDirectory() as folder:
            assert str(float(SECRET[0])).encode() not in ran_unchecked(damaged, folder_with_a_key(Path(folder)), check=False)


def ran_unchecked(model, folder, *, check=True):
    """What a model answers that runs in `folder` without gate and sandbox."""
    code = "import sys; from tests.adversaries.hostile_model import run_unchecked as run; print(run(sys.stdin.buffer.read()))"
    root = str(Path(__file__).parents[2])
    environment = {"PYTHONPATH": root, "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run([sys.executable, "-c", code], input=model, cwd=folder, env=environment, capture_output=True, check=check)
    return done.stdout.strip()


# ---- in the child ------------------------------------------------------------------------------------------------------------------
def folder_with_a_key(tmp_path):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "root.key").write_bytes(SECRET)
    return tmp_path


def test_the_runtime_itself_reads_files_for_a_model(tmp_path):
    """So that the tests below can fail: without gate and sandbox, the content of the key is the model's output."""
    assert ran_unchecked(READS_A_KEY, folder_with_a_key(tmp_path)) == str([[float(byte) for byte in SECRET]]).encode()


async def test_it_reads_no_file_even_when_the_gate_lets_it_through(tmp_path, monkeypatch):
    monkeypatch.chdir(folder_with_a_key(tmp_path))
    absolute = identity(external("w", location=str(tmp_path / "keys" / "root.key"), size=len(SECRET)), size=len(SECRET))
    async with a_pool("infrastructure.inference.children.child_functions", HOSTILE) as pool:
        assert await pool.run(f"{HOSTILE}:run_unchecked", PLAIN, into=list[list[float]]) == [[97.0, 98.0, 99.0]]
        for hostile in (READS_A_KEY, absolute):
            with pytest.raises(ChildFailed):
                await pool.run(f"{HOSTILE}:run_unchecked", hostile, into=list[list[float]])
        assert await still_works(pool)


async def test_a_child_refuses_it_before_the_runtime_sees_it():
    async with a_pool("infrastructure.inference.children.child_functions", HOSTILE) as pool:
        for data, sentence in REFUSED.values():
            with pytest.raises(ChildFailed, match=sentence) as failed:
                await pool.run(f"{HOSTILE}:run", data, into=list[list[float]])
            assert failed.value.kind == "ModelRefused"
        assert await still_works(pool)


async def test_it_ends_alone_when_it_never_ends():
    async with a_pool("infrastructure.inference.children.child_functions", HOSTILE, size=2, hang_seconds=2.0) as pool:
        child = await child_of(pool)
        with pytest.raises(ChildHung):
            await pool.run(f"{HOSTILE}:run", making.with_loop(), into=list[list[float]])
        assert await child_of(pool) != child


async def test_it_ends_alone_when_it_takes_all_memory():
    async with a_pool("infrastructure.inference.children.child_functions", HOSTILE) as pool:
        assert len(await pool.run(f"{HOSTILE}:run", growing(1024), into=list[list[float]])) == 1
        with pytest.raises((ChildFailed, ChildLost)):
            await pool.run(f"{HOSTILE}:run", growing(2**32), into=list[list[float]])
        assert await still_works(pool)
