"""The networks that a child keeps: those that were used last, as far as memory permits, and only from the files that versions name."""

from hashlib import sha256

import msgspec
import numpy as np
import pytest

from infrastructure.inference.children.loaded_models import LoadedModels
from infrastructure.inference.children.networks import ProviderMissing
from infrastructure.inference.model_reference import ModelReference
from infrastructure.inference.models.refusals import ModelRefused
from tests.adversaries.onnx_files import FLOAT, external, graph, model, node, tensor
from tests.infrastructure.inference.packages.making import files, manifest, network, value, with_network, zipped


class Files:
    """Bytes by sha256, and which of them were borrowed."""

    def __init__(self):
        self.kept, self.borrowed = {}, []

    def keep(self, data, *, name=None):
        name = name or sha256(data).hexdigest()
        self.kept[name] = data
        return name

    def borrow(self, name):
        self.borrowed.append(name)
        return memoryview(self.kept[name])

    def packaged(self, contents):
        document = msgspec.yaml.decode(contents["rdf.yaml"])
        weights = sha256(contents["model.onnx"]).hexdigest()
        return ModelReference(file=self.keep(zipped(contents)), weights=weights, record=msgspec.json.encode(document).decode())

    def bare(self, weights):
        name = self.keep(weights)
        return ModelReference(file=name, weights=name, record=msgspec.json.encode(manifest()).decode())


def heavy(number, megabytes=4):
    """A network with that many megabytes of weights, which it adds up."""
    weights = tensor("w", dims=[megabytes * 2**18], raw=np.full(megabytes * 2**18, number, np.float32).tobytes())
    nodes = [
        node("GlobalAveragePool", ["image"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("ReduceMax", ["w"], ["largest"]),
        node("Add", ["flat", "largest"], ["scores"]),
    ]
    image, scores = value("image", dims=("N", 3, 4, 4)), value("scores", FLOAT, ("N", 3))
    return model(graph(nodes, initializers=[weights], inputs=[image], outputs=[scores]))


def used(loaded, reference):
    with loaded.network(reference) as found:
        return found.run(np.ones((1, 3, 4, 4), np.float32), ["scores"])["scores"]


def test_a_package_is_read_once():
    kept = Files()
    loaded, reference = LoadedModels(kept.borrow), kept.packaged(files())
    first, again = used(loaded, reference), used(loaded, reference)
    assert np.array_equal(first, again)
    assert kept.borrowed == [reference.file]


def test_four_models_stay_loaded_and_the_one_that_was_not_used_for_longest_goes_first():
    kept = Files()
    loaded = LoadedModels(kept.borrow, limit=200 * 2**20)
    references = [kept.packaged(with_network(heavy(number))) for number in range(4)]
    for reference in [*references, references[0]]:
        used(loaded, reference)
    assert loaded.references == [*references[1:], references[0]]
    assert len(kept.borrowed) == 4


def test_no_more_models_are_kept_than_memory_permits():
    kept = Files()
    loaded = LoadedModels(kept.borrow, limit=10 * 2**20)
    references = [kept.packaged(with_network(heavy(number))) for number in range(6)]
    for reference in references:
        used(loaded, reference)
    assert loaded.references == references[-len(loaded.references) :]
    assert 1 <= len(loaded.references) < 4
    used(loaded, references[0])
    assert kept.borrowed.count(references[0].file) == 2


def test_the_model_in_use_stays_whatever_it_takes():
    kept = Files()
    loaded, reference = LoadedModels(kept.borrow, limit=1), kept.packaged(files())
    used(loaded, reference)
    assert loaded.references == [reference]


def test_all_models_can_be_dropped():
    kept = Files()
    loaded, reference = LoadedModels(kept.borrow), kept.packaged(files())
    used(loaded, reference)
    assert not loaded.drop_others(reference)
    loaded.clear()
    assert loaded.references == []


def test_other_bytes_than_the_version_names_are_not_opened():
    kept = Files()
    reference = kept.packaged(files())
    kept.keep(zipped(files(README__md=b"other")), name=reference.file)
    with pytest.raises(ModelRefused, match="its file does not match the sha256 of the version"):
        used(LoadedModels(kept.borrow), reference)


def test_other_weights_than_the_version_names_are_not_run():
    kept = Files()
    reference = msgspec.structs.replace(kept.packaged(files()), weights="ab" * 32)
    with pytest.raises(ModelRefused, match="weights in its package do not match"):
        used(LoadedModels(kept.borrow), reference)


def test_a_package_without_the_weights_that_the_record_names_is_refused():
    kept = Files()
    contents = files()
    reference = kept.packaged(contents)
    del contents["model.onnx"]
    with pytest.raises(ModelRefused, match="is not in the package"):
        used(LoadedModels(kept.borrow), msgspec.structs.replace(reference, file=kept.keep(zipped(contents))))


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (network(initializers=[external("w", location="keys/root.key", size=32)]), "external data"),
        (network(labels=4), "gives 4 numbers; the manifest has 3 labels"),
        (b"no network", "not an ONNX file"),
        (network(nodes=[node("Nothing", ["image"], ["x"])]), "cannot be loaded"),
    ],
)
def test_a_network_is_validated_before_the_runtime_reads_it(weights, said):
    kept = Files()
    with pytest.raises(ModelRefused, match=said):
        used(LoadedModels(kept.borrow), kept.bare(weights))


def test_a_record_that_is_no_manifest_is_refused():
    kept = Files()
    for record in ("{}", "no JSON", "[]"):
        with pytest.raises(ModelRefused):
            used(LoadedModels(kept.borrow), msgspec.structs.replace(kept.packaged(files()), record=record))


def test_a_provider_that_does_not_exist_is_named():
    kept = Files()
    with pytest.raises(ProviderMissing, match="has no MoonExecutionProvider; it has"):
        used(LoadedModels(kept.borrow), msgspec.structs.replace(kept.packaged(files()), provider="MoonExecutionProvider"))
