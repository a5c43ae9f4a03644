"""The fields of an rdf.yaml that are read, with their types. Fields that decide nothing are not listed, and may hold anything."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from infrastructure.inference.models.manifest import OutOfDomainGates
from infrastructure.inference.models.refusals import PackageRefused, RefusalCode, shown
from infrastructure.inference.packages.operators import DataType, Finite, Operator, ScaleMeanVariance
from infrastructure.inference.packages.operators import Preprocessing as PreprocessingOperator
from infrastructure.inference.packages.package_manifest import (
    InputRules,
    Name,
    OutputRules,
    OutputTensor,
    PackageFile,
    Positive,
    Probability,
    QuantisedWeights,
    Size,
    Weights,
)
from infrastructure.inference.preprocessing import Preprocessing

VERSION: Final = re.compile(r"0\.5\.\d{1,4}")
MAX_LABELS: Final = 10_000
CODE_OPERATORS: Final = {"custom", "stardist_postprocessing", "cellpose_flow_dynamics"}
PLACE: Final = " - at `"
MISSING: Final = re.compile(r"Object missing required field `(\w+)`")

Fields = TypeVar("Fields", bound=msgspec.Struct)
Text = Annotated[str, Meta(max_length=20_000)]
Label = Annotated[str, Meta(min_length=1, max_length=100)]


class SizeFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    min: Size | None = None
    step: Size | None = None
    max: Size | None = None
    tensor_id: str | None = None
    axis_id: str | None = None
    offset: int = 0


class AxisFields(msgspec.Struct, frozen=True, kw_only=True):
    type: Literal["batch", "channel", "space", "time", "index"]
    id: Name | None = None
    size: Size | SizeFields | None = None
    channel_names: Annotated[tuple[Label, ...], Meta(min_length=1, max_length=MAX_LABELS)] | None = None
    unit: str | None = None
    scale: Positive = 1.0


class DataFields(msgspec.Struct, frozen=True, kw_only=True):
    type: DataType | None = None
    range: tuple[Any, Any] = (None, None)
    values: tuple[Any, ...] | None = None

    @property
    def dtype(self) -> DataType:
        return self.type or ("float32" if self.values is None else "uint8")


class TensorFields(msgspec.Struct, frozen=True, kw_only=True):
    axes: Annotated[tuple[AxisFields, ...], Meta(min_length=1, max_length=8)]
    id: Name | None = None
    data: DataFields | Annotated[tuple[DataFields, ...], Meta(min_length=1, max_length=MAX_LABELS)] = DataFields()
    test_tensor: PackageFile | None = None
    optional: bool = False


class InputFields(TensorFields, frozen=True, kw_only=True):
    preprocessing: Annotated[tuple[PreprocessingOperator, ...], Meta(max_length=50)] = ()


class OutputFields(TensorFields, frozen=True, kw_only=True):
    postprocessing: Annotated[tuple[Operator, ...], Meta(max_length=50)] = ()


class OnnxFields(Weights, frozen=True, kw_only=True):
    external_data: Any = None


class WeightsFields(msgspec.Struct, frozen=True, kw_only=True):
    onnx: OnnxFields | None = None


class CitationFields(msgspec.Struct, frozen=True, kw_only=True):
    text: Text
    doi: str | None = None


class ToleranceFields(msgspec.Struct, frozen=True, kw_only=True):
    relative_tolerance: Annotated[float, Meta(ge=0, le=0.01)] = 1e-3
    absolute_tolerance: Annotated[float, Meta(ge=0, le=1e12)] = 1e-3
    mismatched_elements_per_million: Annotated[int, Meta(ge=0, le=30_000)] = 100
    output_ids: str | tuple[str, ...] = ()
    weights_formats: tuple[str, ...] = ()

    def applies_to(self, output: OutputTensor) -> bool:
        if self.weights_formats and "onnx" not in self.weights_formats:
            return False
        is_continuous = output.dtype.startswith("float")
        groups = {"any_continuous_output": is_continuous, "any_discrete_output": not is_continuous}
        return groups.get(self.output_ids, False) if isinstance(self.output_ids, str) else output.id in (self.output_ids or (output.id,))


class BioimageioFields(msgspec.Struct, frozen=True, kw_only=True):
    reproducibility_tolerance: tuple[ToleranceFields, ...] = ()


class BioscopeFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: str | None = None
    size_bytes: int | None = None
    training_data: Text = ""
    input: InputRules | None = None
    output: OutputRules = OutputRules()
    preprocessing: Preprocessing | None = None
    labels: dict[str, Annotated[str, Meta(min_length=1, max_length=200)]] = {}
    temperature: Positive = 1.0
    review_below: Probability = 0.0
    review_below_for: dict[str, Probability] = {}
    review_outside: tuple[Finite, Finite] | None = None
    gates: OutOfDomainGates = OutOfDomainGates()
    other_label: str | None = None
    tolerance: Annotated[float, Meta(ge=0, le=1)] | None = None
    int8: QuantisedWeights | None = None

    def __post_init__(self) -> None:
        if self.review_outside is not None and self.review_outside[0] >= self.review_outside[1]:
            raise ValueError("`review_outside` needs two numbers, the lower one first")


class ConfigFields(msgspec.Struct, frozen=True, kw_only=True):
    bioscope: BioscopeFields = BioscopeFields()
    bioimageio: BioimageioFields = BioimageioFields()


class RdfFields(msgspec.Struct, frozen=True, kw_only=True):
    format_version: str
    name: Name
    outputs: Annotated[tuple[OutputFields, ...], Meta(min_length=1, max_length=32)]
    inputs: tuple[InputFields, ...] = ()
    weights: WeightsFields = WeightsFields()
    version: str | int | float | None = None
    description: Text | None = None
    license: str | None = None
    cite: tuple[CitationFields, ...] | None = None
    config: ConfigFields = ConfigFields()


msgspec.json.Decoder(RdfFields)  # builds the tables of the type, which is not safe in two threads at once


def read_fields(document: Any, file: str) -> RdfFields:
    """The fields of a parsed rdf.yaml. Raises PackageRefused."""
    _check_head(document, file)
    _check_operators(document, file)
    return convert_fields(document, RdfFields, file)


def convert_fields(document: Any, into: type[Fields], file: str) -> Fields:
    """Raises PackageRefused with the path of the field that is wrong."""
    try:
        return msgspec.convert(document, into)
    except msgspec.ValidationError as error:
        raise _from_validation(error, file) from None


def _check_head(document: Any, file: str) -> None:
    """What decides whether this is a manifest at all, before its fields are read."""
    if not isinstance(document, dict):
        raise PackageRefused(RefusalCode.MANIFEST_FIELD, "must be a mapping of fields", file=file)
    if document.get("type", "model") != "model":
        raise PackageRefused(
            RefusalCode.MANIFEST_TYPE, f"is {shown(repr(document['type']))}; a package must be a `model`", file=file, field="type"
        )
    version = document.get("format_version")
    if not isinstance(version, str) or not VERSION.fullmatch(version):
        found = "is missing" if version is None else f"is {shown(repr(version))}"
        raise PackageRefused(
            RefusalCode.MANIFEST_VERSION,
            f"{found}; format 0.5 is read: convert the package with bioimageio.spec",
            file=file,
            field="format_version",
        )
    inputs = document.get("inputs")
    if isinstance(inputs, list) and len(inputs) != 1:
        raise PackageRefused(
            RefusalCode.INPUTS_UNSUPPORTED,
            f"has {len(inputs)} tensors; a classifier here sees one image, so exactly one is read",
            file=file,
            field="inputs",
        )


def _check_operators(document: Mapping[str, Any], file: str) -> None:
    """Names the operators that run code, and those that are unknown, better than a type error can."""
    for side, steps in (("inputs", "preprocessing"), ("outputs", "postprocessing")):
        for place, step in _steps(document, side, steps):
            name = step.get("id") if isinstance(step, dict) else None
            if not isinstance(name, str):
                continue
            if name in CODE_OPERATORS:
                detail = f"`{name}` runs code of its own; use the operators that docs/models/format.md lists"
            elif name not in OPERATOR_NAMES[steps]:
                detail = f"`{shown(name)}` is unknown here; known are {', '.join(sorted(OPERATOR_NAMES[steps]))}"
            else:
                continue
            raise PackageRefused(RefusalCode.OPERATOR_UNSUPPORTED, detail, file=file, field=place)


def _steps(document: Mapping[str, Any], side: str, steps: str) -> list[tuple[str, Any]]:
    tensors = document.get(side)
    return [
        (f"{side}[{number}].{steps}[{index}].id", step)
        for number, tensor in enumerate(tensors if isinstance(tensors, list) else [])
        if isinstance(tensor, dict) and isinstance(tensor.get(steps), list)
        for index, step in enumerate(tensor[steps])
    ]


PREPROCESSING_NAMES: Final = {operator.__struct_config__.tag for operator in PreprocessingOperator.__args__}
OPERATOR_NAMES: Final[dict[str, set[Any]]] = {
    "preprocessing": PREPROCESSING_NAMES,
    "postprocessing": PREPROCESSING_NAMES | {ScaleMeanVariance.__struct_config__.tag},
}


def _from_validation(error: msgspec.ValidationError, file: str) -> PackageRefused:
    """The message and the path of msgspec: `Expected `int`, got `str` - at `$.inputs[0].axes[2].size``."""
    text = str(error)
    detail, _, path = text.rpartition(PLACE) if PLACE in text else (text, "", "")
    field = path.rstrip("`").removeprefix("$").removeprefix(".")
    missing = MISSING.fullmatch(detail)
    if missing:
        field = f"{field}.{missing[1]}" if field else missing[1]
        detail = "is missing"
    if "64}" in detail:
        detail = "must be 64 hexadecimal digits in lower case, in quotes"
    return PackageRefused(RefusalCode.MANIFEST_FIELD, shown(detail), file=file, field=field)
