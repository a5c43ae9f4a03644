"""The check of model packages: packages of every kind in a sandboxed child, good ones, wrong ones and hostile ones."""

from contextlib import asynccontextmanager
from hashlib import sha256

import msgspec
import numpy as np
import pytest
import yaml

from infrastructure.inference.children.child_process import ChildFailed, ChildHung
from infrastructure.inference.models.bundled import models
from infrastructure.inference.package_answers import CheckedPackage, RefusedPackage, check_answer, version_of
from infrastructure.inference.packages.manifest_reader import parse_manifest
from infrastructure.inference.packages.notes import NOT_SCALED, notes_on
from infrastructure.inference.packages.package import open_package
from tests.adversaries.hostile_packages import RUN, STATIC
from tests.adversaries.onnx_files import FLOAT, field, graph, model, node
from tests.adversaries.pools import a_pool, child_of, still_works
from tests.infrastructure.inference.packages.making import changed, files, manifest, network, npy, test_input, value, zipped

pytestmark = pytest.mark.anyio

CHILD_FUNCTIONS = "infrastructure.inference.children.child_functions"
CONFIG = ("config", "bioscope")


@asynccontextmanager
async def checker(*, hang_seconds=20.0):
    """Checks archives in a real child, as a worker does."""
    async with a_pool(CHILD_FUNCTIONS, hang_seconds=hang_seconds, memory_bytes=1024**3) as pool:

        async def check(archive, *, lent=None):
            async def lend():
                return archive if lent is None else lent

            key = sha256(archive).hexdigest()
            return await pool.run(
                f"{CHILD_FUNCTIONS}:check_model",
                key,
                into=CheckedPackage | RefusedPackage,
                check=check_answer,
                lend={key: lend},
            )

        yield pool, check


async def checked(archive):
    async with checker() as (_, check):
        return await check(archive)


def without_tests(document):
    return changed(changed(document, "inputs", 0, "test_tensor", to=None), "outputs", 0, "test_tensor", to=None)


def of_kind(kind, *, postprocessing=(), labels=("alpha", "beta", "gamma"), **fields):
    """A manifest whose outputs are of that kind, without test tensors."""
    document = without_tests(manifest())
    document["outputs"][0]["postprocessing"] = list(postprocessing)
    document["outputs"][0]["axes"][1]["channel_names"] = list(labels)
    return document | {"config": {"bioscope": {"output": {"kind": kind, **fields.pop("output", {})}, **fields}}}


SIGMOID = {"id": "sigmoid", "kwargs": {}}
PLAIN_FORM = {
    "bioscope.yaml": yaml.safe_dump(
        {"model": "letters", "input_tensor": {"axes": "bcyx", "channels": ["r", "g", "b"], "size": 4}, "output": {"kind": "logits"}}
    ).encode(),
    "labels.txt": b"alpha\tthe first\nbeta\ngamma\n",
}


# ---- good ones ---------------------------------------------------------------------------------------------------------------------
async def test_a_package_passes_that_gives_its_test_output():
    archive = zipped(files())
    answer = await checked(archive)
    assert isinstance(answer, CheckedPackage)
    assert answer.largest_difference <= answer.tolerance
    assert (answer.model, answer.release, answer.kind, answer.labels) == ("three-letters", "1.0.0", "softmax", ("alpha", "beta", "gamma"))
    assert answer.sha256 == sha256(files()["model.onnx"]).hexdigest()
    assert (answer.size, answer.files, answer.package_size) == (len(files()["model.onnx"]), 4, len(archive))
    assert (answer.nodes, answer.opset, answer.provider) == (2, 17, "CPUExecutionProvider")
    assert answer.runtime.startswith("onnxruntime 1.")
    assert 0 < answer.load_seconds < 10
    assert 0 < answer.run_seconds < 10
    assert answer.memory_bytes > 0


async def test_the_record_is_the_manifest():
    answer = await checked(zipped(files()))
    assert parse_manifest(msgspec.json.decode(answer.record)) == parse_manifest(manifest())
    assert version_of(answer, package="ab" * 32).record == answer.record


@pytest.mark.parametrize("name", ["pbc8", "bccd3"])
async def test_the_shipped_models_pass(name):
    folder = models() / name
    answer = await checked(zipped({path.name: path.read_bytes() for path in folder.iterdir()}))
    assert isinstance(answer, CheckedPackage)
    assert answer.kind == "logits"
    assert answer.largest_difference <= answer.tolerance == 1e-4


async def test_a_network_without_test_tensors_passes_without_a_difference():
    answer = await checked(zipped({"model.onnx": files()["model.onnx"], **PLAIN_FORM}))
    assert isinstance(answer, CheckedPackage)
    assert answer.largest_difference is answer.tolerance is None
    assert answer.label_texts == {"alpha": "the first"}


async def test_a_network_of_fractions_that_gets_stored_numbers_is_noted():
    answer = await checked(zipped({"model.onnx": files()["model.onnx"], **PLAIN_FORM}))
    assert answer.notes == (NOT_SCALED,)


def unscaled(**config):
    return without_tests(manifest(config={"bioscope": config}))


@pytest.mark.parametrize(
    ("document", "is_noted"),
    [
        (unscaled(), True),
        (unscaled(input={"values": "unit"}), False),
        (changed(unscaled(), "inputs", 0, "preprocessing", to=[{"id": "scale_range", "kwargs": {}}]), False),
        (changed(unscaled(), "inputs", 0, "preprocessing", to=[{"id": "clip", "kwargs": {"min": 0}}]), True),
        (changed(unscaled(), "inputs", 0, "data", to={"type": "uint8"}), False),
    ],
)
def test_only_numbers_that_nothing_scales_are_noted(document, is_noted):
    assert notes_on(parse_manifest(document)) == ((NOT_SCALED,) if is_noted else ())


@pytest.mark.parametrize("name", ["pbc8", "bccd3"])
def test_nothing_is_noted_of_the_shipped_models(name):
    assert notes_on(open_package(models() / name).manifest) == ()


async def test_a_version_of_many_labels_has_another_one_for_none_of_them():
    answer = await checked(zipped(files(of_kind("multi_label", postprocessing=[SIGMOID]))))
    assert answer.labels == ("alpha", "beta", "gamma", "none")


async def test_the_digest_follows_weights_and_manifest_and_not_the_rest_of_the_archive():
    async with checker() as (_, check):
        plain, again, other = (
            await check(zipped(files())),
            await check(zipped(files(README__md=b"About letters"))),
            await check(zipped(files(manifest(description="Other words")))),
        )
    assert plain.digest == again.digest != other.digest


async def test_a_batch_of_test_images_is_run_image_by_image():
    """The preprocessing takes its statistics of each of them alone."""
    images = np.concatenate([test_input(), 10 * test_input()])
    document = without_tests(manifest())
    document["inputs"][0]["preprocessing"] = [{"id": "scale_range", "kwargs": {}}]
    document["inputs"][0]["test_tensor"] = {"source": "test_input.npy"}
    document["outputs"][0]["test_tensor"] = {"source": "test_output.npy"}
    scaled = [(image - image.min()) / (np.ptp(image) + 1e-6) for image in images]
    means = np.array([image.mean(axis=(1, 2)) for image in scaled])
    expected = np.exp(means) / np.exp(means).sum(axis=1, keepdims=True)
    answer = await checked(zipped(files(document, test_input__npy=npy(images), test_output__npy=npy(expected.astype(np.float32)))))
    assert isinstance(answer, CheckedPackage)


# ---- refused ones ------------------------------------------------------------------------------------------------------------------
REFUSED = {
    "another test output": ("model_refused", lambda: files(test_output__npy=npy(np.full((1, 3), 1 / 3, np.float32)))),
    "two test images and one output": ("tensor_mismatch", lambda: files(test_input__npy=npy(np.concatenate([test_input()] * 2)))),
    "probabilities that do not add up": ("model_refused", lambda: files(of_kind("softmax"))),
    "scores above 1": (
        "model_refused",
        lambda: files(of_kind("multi_label", postprocessing=[{"id": "scale_linear", "kwargs": {"gain": 9.0}}])),
    ),
    "a label that results need": ("labels", lambda: files(of_kind("multi_label", postprocessing=[SIGMOID], labels=("a", "b", "none")))),
    "an external classifier": (
        "output_kind",
        lambda: {"bioscope.yaml": b"model: letters\noutput: {kind: external}\n", "labels.txt": b"alpha\nbeta\n"},
    ),
    "a version of many words": ("manifest_field", lambda: files(manifest(version="x" * 101))),
    "a version with a line feed": ("manifest_field", lambda: files(manifest(version="1\n2"))),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_a_package_is_refused_with_a_reason(what):
    code, make = REFUSED[what]
    answer = await checked(zipped(make()))
    assert isinstance(answer, RefusedPackage), answer
    assert answer.code == code
    assert len(answer.detail) > 15


async def test_a_network_of_more_labels_than_a_result_can_hold_is_refused():
    labels = [f"l{number}" for number in range(301)]
    document = without_tests(manifest())
    document["outputs"][0]["axes"][1]["channel_names"] = labels.copy()
    weights = network(dims=("N", 301, 4, 4), labels=301)
    document["inputs"][0]["axes"][1]["channel_names"] = labels.copy()
    document["weights"]["onnx"]["sha256"] = sha256(weights).hexdigest()
    answer = await checked(zipped(files(document, model__onnx=weights)))
    assert (answer.code, answer.detail) == ("labels", "labels must be 1 to 300 different names")


async def test_other_bytes_than_those_that_were_asked_for_are_not_opened():
    async with checker() as (_, check):
        with pytest.raises(ChildFailed, match="does not match its sha256"):
            await check(zipped(files()), lent=zipped(files(README__md=b"")))


async def test_an_unknown_provider_is_refused_with_those_that_exist():
    archive = zipped(files())
    async with a_pool(CHILD_FUNCTIONS) as pool:

        async def lend():
            return archive

        key = sha256(archive).hexdigest()
        with pytest.raises(ChildFailed, match=r"has no MoonExecutionProvider; it has .*CPUExecutionProvider") as failed:
            await pool.run(f"{CHILD_FUNCTIONS}:check_model", key, "MoonExecutionProvider", into=RefusedPackage, lend={key: lend})
    assert failed.value.kind == "ProviderMissing"


# ---- hostile ones ------------------------------------------------------------------------------------------------------------------
PASSES = "a bomb in an archive in it"
NEVER_ENDS = "a loop of 2^62 rounds"


@pytest.mark.parametrize("name", [name for name in RUN if name not in {PASSES, NEVER_ENDS}])
async def test_a_hostile_network_is_refused_and_its_child_lives_on(name):
    async with checker() as (pool, check):
        child = await child_of(pool)
        answer = await check(zipped(files()))
        assert isinstance(answer, CheckedPackage)
        answer = await check(RUN[name].make())
        assert isinstance(answer, RefusedPackage)
        code = "too_much_memory" if RUN[name].happens == "takes all memory" else "model_refused"
        assert (answer.code, answer.file, answer.provider) == (code, "model.onnx", "CPUExecutionProvider")
        assert await child_of(pool) == child
        assert isinstance(await check(zipped(files())), CheckedPackage)


async def test_what_is_refused_without_running_is_refused_in_the_sandbox_with_the_same_code():
    """Where no module can be loaded any more that a reader needs only for a wrong file."""
    async with checker() as (pool, check):
        child = await child_of(pool)
        for hostile in STATIC.values():
            answer = await check(hostile.make())
            assert isinstance(answer, RefusedPackage)
            assert answer.code == hostile.code
        assert await child_of(pool) == child


async def test_a_network_that_never_ends_is_killed():
    async with checker(hang_seconds=3.0) as (pool, check):
        with pytest.raises(ChildHung):
            await check(RUN[NEVER_ENDS].make())
        assert await still_works(pool)


async def test_an_archive_in_a_package_stays_closed():
    assert isinstance(await checked(RUN[PASSES].make()), CheckedPackage)


async def test_a_network_that_gives_another_shape_is_refused():
    weights = model(
        graph(
            [node("GlobalAveragePool", ["image"], ["pooled"])],
            inputs=[value("image", dims=("N", 3, 4, 4))],
            outputs=[field_without_shape("pooled")],
        )
    )
    document = changed(of_kind("logits"), "weights", "onnx", "sha256", to=sha256(weights).hexdigest())
    answer = await checked(zipped(files(document, model__onnx=weights)))
    assert (answer.code, answer.detail) == ("model_refused", "its output `scores` has 4 dimensions; the manifest has 2 axes")


def field_without_shape(name):
    return field(1, name) + field(2, field(1, field(1, FLOAT)))


def test_every_hostile_package_of_the_sandbox_is_tested():
    assert {PASSES, NEVER_ENDS} < set(RUN)
    assert len(RUN) == 9
