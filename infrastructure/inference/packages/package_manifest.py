"""What is known of a model version: bioimage.io rdf.yaml, format 0.5, as far as it decides what a classifier sees and answers.

`infrastructure.inference.packages.manifest_reader` makes it. docs/models/format.md specifies each field of `config.bioscope`.
"""

from hashlib import sha256
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from domain.model import OutputKind
from infrastructure.inference.models.manifest import OutOfDomainGates
from infrastructure.inference.packages.operators import DataType, Finite, Operator
from infrastructure.inference.preprocessing import CODE_VERSION, Preprocessing, digest

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Size = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Positive = Annotated[float, Meta(gt=0, le=1e12)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]


class PackageFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that the manifest names, by its path in the package. `sha256` is None where the manifest does not state it."""

    source: Annotated[str, Meta(min_length=1, max_length=1024)]
    sha256: Sha256 | None = None


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """An ONNX file of the package, which itself states its operator set too; `opset_version` is for readers of the manifest."""

    source: Annotated[str, Meta(min_length=1, max_length=1024)]
    sha256: Sha256 | None = None
    opset_version: Annotated[int, Meta(ge=7)] | None = None


class QuantisedWeights(msgspec.Struct, frozen=True, kw_only=True):
    """The same network in eight bits. It is not run, and need not be in the package."""

    file: Name
    sha256: Sha256
    size_bytes: int


class SizeReference(msgspec.Struct, frozen=True, kw_only=True):
    """The size follows another axis: size there * scale there / own scale + `offset`, rounded down."""

    axis_id: str
    offset: int


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """`minimum` + n * `step` are the sizes that it may have; a `step` of 0 fixes the size. With `reference` the size follows from it.

    `batch` has the size 1 here: images are run one by one.
    """

    id: str
    type: Literal["batch", "channel", "space", "time", "index"]
    minimum: int = 1
    step: int = 0
    reference: SizeReference | None = None
    channel_names: tuple[str, ...] = ()
    unit: str | None = None
    scale: float = 1.0

    @property
    def is_fixed(self) -> bool:
        return self.step == 0 and self.reference is None

    def permits(self, size: int) -> bool:
        """Of an axis without reference."""
        return size == self.minimum if self.step == 0 else size >= self.minimum and (size - self.minimum) % self.step == 0

    def following(self, target: "Axis", size: int) -> int:
        """Of an axis with reference: its size where the axis it refers to has `size`."""
        assert self.reference is not None
        return int(size * target.scale / self.scale + self.reference.offset)

    def largest_below(self, size: int) -> int | None:
        """The largest permitted size up to `size`."""
        if size < self.minimum:
            return None
        return self.minimum if self.step == 0 else size - (size - self.minimum) % self.step


class InputRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`config.bioscope.input`: how an image becomes the input tensor, before the preprocessing of the manifest.

    `crop`: the part of width and height that is kept, from the centre. `resize`: how the rest gets a size that the axes permit.
    `size`: (height, width) where the axes leave it open. `values`: what becomes of stored numbers. `pixel_size_um` is what images
    should have, within the relative `pixel_size_tolerance`. `flatten`: the network takes one row of numbers.
    """

    crop: Annotated[float, Meta(gt=0, le=1)] = 1.0
    resize: Literal["none", "stretch", "cover", "contain"] = "none"
    size: tuple[Size, Size] | None = None
    filter: Literal["box", "bilinear"] = "box"
    values: Literal["stored", "unit", "full_range"] = "stored"
    bit_depths: Annotated[tuple[Annotated[int, Meta(ge=1, le=64)], ...], Meta(max_length=16)] = ()
    repeat_grey: bool = False
    colour_profile: Literal["srgb", "ignore"] = "ignore"
    projection: Literal["first", "max", "mean"] = "first"
    pixel_size_um: Positive | None = None
    pixel_size_tolerance: Annotated[float, Meta(ge=0, le=10)] = 0.2
    flatten: bool = False


class OutputRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`config.bioscope.output`: what the numbers of a network mean. docs/models/format.md has the table of kinds.

    `tensor`: id of the output with the scores; the first one by default. `distance`: id of an output that measures how foreign an image
    is. `threshold`: score from which a label of `multi_label` applies. `range`, `unit`: of the number of `regression`.
    """

    kind: OutputKind | None = None
    tensor: str | None = None
    distance: str | None = None
    threshold: Probability = 0.5
    range: tuple[Finite, Finite] | None = None
    unit: Annotated[str, Meta(max_length=40)] | None = None

    def __post_init__(self) -> None:
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError("needs a range from a lower to a higher number")


class InputTensor(msgspec.Struct, frozen=True, kw_only=True):
    """`preprocessing` is complete: it begins and ends with the casts of the specification."""

    id: str
    axes: tuple[Axis, ...]
    dtype: DataType
    range: tuple[float | None, float | None]
    preprocessing: tuple[Operator, ...]
    test_tensor: PackageFile | None
    rules: InputRules

    @property
    def axis_ids(self) -> tuple[str, ...]:
        return tuple(axis.id for axis in self.axes)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names; empty where there is no channel axis."""
        return next((axis.channel_names for axis in self.axes if axis.type == "channel"), ())


class OutputTensor(msgspec.Struct, frozen=True, kw_only=True):
    """`postprocessing` is complete: it ends with the cast of the specification."""

    id: str
    axes: tuple[Axis, ...]
    dtype: DataType
    range: tuple[float | None, float | None]
    postprocessing: tuple[Operator, ...]
    test_tensor: PackageFile | None


class Tolerance(msgspec.Struct, frozen=True, kw_only=True):
    """A number is reproduced when it differs by at most `absolute` + `relative` * its size; so many in a million may not be."""

    absolute: float
    relative: float
    mismatches_per_million: int


class PackageManifest(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model, as its package describes it.

    `model`: the name of the model, of which this is a version. `labels` follow the numbers of the scored output; `label_texts` says them
    in words. `legacy_preprocessing` replaces `input.rules` and `input.preprocessing` in packages that have `config.bioscope.preprocessing`.
    `review_below_for` replaces `review_below` for some labels. `weights` is None for an external classifier only.
    """

    format_version: str
    model: str
    title: str
    version: str
    description: str
    licence: str
    cite: tuple[str, ...]
    training_data: str
    input: InputTensor | None
    outputs: tuple[OutputTensor, ...]
    weights: Weights | None
    int8: QuantisedWeights | None
    kind: OutputKind
    scored_output: str
    distance_output: str | None
    labels: tuple[str, ...]
    label_texts: dict[str, str]
    threshold: float
    range: tuple[float, float] | None
    unit: str | None
    temperature: float
    review_below: float
    review_below_for: dict[str, float]
    review_outside: tuple[float, float] | None
    gates: OutOfDomainGates
    other_label: str | None
    legacy_preprocessing: Preprocessing | None
    tolerances: dict[str, Tolerance]

    @property
    def preprocessing_digest(self) -> str:
        """SHA-256 in hexadecimal of what makes the input of an image. Equal digests mean equal inputs."""
        if self.legacy_preprocessing is not None:
            return digest(self.legacy_preprocessing)
        return sha256(msgspec.json.encode({"code": CODE_VERSION, "input": self.input}, order="sorted")).hexdigest()

    @property
    def result_outputs(self) -> tuple[str, ...]:
        """The ids of the outputs that results are read from."""
        return (self.scored_output, *(() if self.distance_output is None else (self.distance_output,)))

    def output(self, tensor_id: str) -> OutputTensor:
        return next(output for output in self.outputs if output.id == tensor_id)

    @property
    def files(self) -> tuple[tuple[str, PackageFile], ...]:
        """All files that decide a result or prove one, each with the path of its field."""
        tensors = [("inputs[0].test_tensor", self.input and self.input.test_tensor)]
        tensors += [(f"outputs[{index}].test_tensor", output.test_tensor) for index, output in enumerate(self.outputs)]
        if self.weights:
            tensors.append(("weights.onnx", PackageFile(source=self.weights.source, sha256=self.weights.sha256)))
        return tuple((field, file) for field, file in tensors if file)
