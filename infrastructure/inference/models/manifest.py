"""Model manifests: the parts of a bioimage.io rdf.yaml (format 0.5) that inference uses, validated."""

from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from domain.errors import Invalid
from infrastructure.inference.preprocessing import Preprocessing

FILE: Final = "rdf.yaml"

Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """An ONNX file in the folder of the manifest."""

    file: str
    sha256: Sha256
    size_bytes: int


class TestTensor(msgspec.Struct, frozen=True, kw_only=True):
    """A .npy file in the folder of the manifest."""

    __test__ = False

    file: str
    sha256: Sha256


class OutOfDomainGates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of the measures (`infrastructure.inference.scoring`) outside which an image is out of domain; None is no bound."""

    contrast_above: float | None = None
    contrast_below: float | None = None
    saturation_above: float | None = None
    saturation_below: float | None = None
    focus_above: float | None = None
    focus_below: float | None = None
    brightness_above: float | None = None
    brightness_below: float | None = None
    distance_below: float | None = None
    energy_above: float | None = None


class ModelManifest(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model. `input_shape` is (channels, height, width), without the batch; logits are divided by `temperature`.

    A top probability below `review_below` needs review by a person. `output_names` are the outputs to compute, logits first. The network
    maps `test_input` to `test_output` (logits) within `tolerance`.
    """

    name: str
    title: str
    version: str
    description: str
    labels: tuple[str, ...]
    weights: Weights
    int8: Weights | None
    input_name: str
    input_shape: tuple[int, int, int]
    output_names: tuple[str, ...]
    preprocessing: Preprocessing
    temperature: float
    review_below: float
    gates: OutOfDomainGates
    other_label: str | None
    test_input: TestTensor
    test_output: TestTensor
    tolerance: float
    licence: str
    cite: tuple[str, ...]
    training_data: str

    @property
    def sha256(self) -> str:
        return self.weights.sha256

    @property
    def size_bytes(self) -> int:
        return self.weights.size_bytes


def load_manifest(folder: Path) -> ModelManifest:
    """The manifest of a model folder. Raises Invalid with the file and field if rdf.yaml is missing or not supported."""
    path = folder / FILE
    try:
        return _manifest(msgspec.yaml.decode(path.read_bytes(), type=_Rdf))
    except OSError as error:
        raise Invalid(f"{path} cannot be read: a model folder needs this manifest") from error
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise Invalid(f"{path}: {error}") from error


def manifest_as_json(folder: Path) -> str:
    """The whole rdf.yaml as JSON text, the form in the log. Raises Invalid."""
    load_manifest(folder)
    return msgspec.json.encode(msgspec.yaml.decode((folder / FILE).read_bytes()), order="deterministic").decode()


def scores(logits: NDArray[np.floating[Any]], temperature: float) -> NDArray[np.float64]:
    """Probabilities along the last axis: softmax(logits / temperature) in double precision."""
    scaled = np.asarray(logits, np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


class _Axis(msgspec.Struct, frozen=True):
    type: str
    size: int | None = None
    channel_names: tuple[str, ...] = ()


class _TestTensor(msgspec.Struct, frozen=True):
    source: str
    sha256: Sha256


class _Tensor(msgspec.Struct, frozen=True):
    id: str
    axes: tuple[_Axis, ...]
    test_tensor: _TestTensor


class _Onnx(msgspec.Struct, frozen=True):
    source: str
    sha256: Sha256
    opset_version: int


class _AllWeights(msgspec.Struct, frozen=True):
    onnx: _Onnx


class _Citation(msgspec.Struct, frozen=True):
    text: str
    doi: str | None = None


class _Bioscope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: str
    size_bytes: int
    preprocessing: Preprocessing
    temperature: float
    review_below: float
    training_data: str
    tolerance: float = 1e-4
    int8: Weights | None = None
    gates: OutOfDomainGates = OutOfDomainGates()
    other_label: str | None = None


class _Config(msgspec.Struct, frozen=True):
    bioscope: _Bioscope


class _Rdf(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: str
    description: str
    license: str
    cite: tuple[_Citation, ...]
    inputs: tuple[_Tensor]
    outputs: tuple[_Tensor, ...]
    weights: _AllWeights
    config: _Config


def _manifest(rdf: _Rdf) -> ModelManifest:
    config, model_input, model_output = rdf.config.bioscope, rdf.inputs[0], rdf.outputs[0]
    return ModelManifest(
        name=config.model,
        title=rdf.name,
        version=rdf.version,
        description=rdf.description,
        labels=_channels(model_output),
        weights=Weights(file=rdf.weights.onnx.source, sha256=rdf.weights.onnx.sha256, size_bytes=config.size_bytes),
        int8=config.int8,
        input_name=model_input.id,
        input_shape=(len(_channels(model_input)), config.preprocessing.size, config.preprocessing.size),
        output_names=tuple(output.id for output in rdf.outputs),
        preprocessing=config.preprocessing,
        temperature=config.temperature,
        review_below=config.review_below,
        gates=config.gates,
        other_label=config.other_label,
        test_input=TestTensor(file=model_input.test_tensor.source, sha256=model_input.test_tensor.sha256),
        test_output=TestTensor(file=model_output.test_tensor.source, sha256=model_output.test_tensor.sha256),
        tolerance=config.tolerance,
        licence=rdf.license,
        cite=tuple(f"{citation.text} doi:{citation.doi}" if citation.doi else citation.text for citation in rdf.cite),
        training_data=config.training_data,
    )


def _channels(tensor: _Tensor) -> tuple[str, ...]:
    for axis in tensor.axes:
        if axis.type == "channel":
            return axis.channel_names
    raise msgspec.ValidationError(f"tensor `{tensor.id}` needs an axis of type channel")
