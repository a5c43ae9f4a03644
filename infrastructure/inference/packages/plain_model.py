"""The simple form of a package: an ONNX file, `labels.txt` and a short `bioscope.yaml`, rewritten as the fields of an rdf.yaml."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from infrastructure.inference.models.onnx_validation import ModelSummary, ValueSignature
from infrastructure.inference.models.refusals import PackageRefused, RefusalCode, shown
from infrastructure.inference.packages.consistency import EXPORT_HINT
from infrastructure.inference.packages.manifest_place import PLAIN_MANIFEST_FILE
from infrastructure.inference.packages.operators import DataType
from infrastructure.inference.packages.package_manifest import Name, Size
from infrastructure.inference.packages.zoo_manifest import LOWEST_OPSET

LABELS_FILE: Final = "labels.txt"
FORMAT_VERSION: Final = "0.5.14"
AXIS_TYPES: Final = {"b": "batch", "c": "channel", "y": "space", "x": "space", "z": "space"}
MAX_LABELS: Final = 10_000
OWN_FIELDS: Final = ("title", "description", "version", "license", "weights", "input_tensor")


class FlexibleSize(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`min` + n * `step`, for height and width each."""

    min: Size
    step: Size


class PlainInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`axes`: a letter for each dimension, of b, c, z, y, x. `size`: of height and width, or both in that order.

    A pair of a fixed length in the union of `size` would make msgspec 0.22 break its process.
    """

    axes: Annotated[str, Meta(pattern=r"^[bczyx]{2,5}\Z")]
    size: Size | Annotated[tuple[Size, ...], Meta(min_length=2, max_length=2)] | FlexibleSize
    channels: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=100)] = ()
    depth: Size = 1
    type: DataType = "float32"
    preprocessing: tuple[Any, ...] = ()


class PlainManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Fields beside those of `config.bioscope`, which stand at the same level."""

    model: Name
    input_tensor: PlainInput | None = None
    title: Name | None = None
    description: str = ""
    version: str = ""
    license: str = ""
    weights: Name | None = None


msgspec.json.Decoder(PlainManifest)  # as in manifest_fields


def read_labels(data: bytes) -> tuple[list[str], dict[str, str]]:
    """One label a line, and its words after a tab, where there are any. Raises PackageRefused."""
    try:
        lines = [line.rstrip() for line in data.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise _refused_labels("is not UTF-8") from None
    pairs = [line.partition("\t") for line in lines if line]
    _refuse_doubles([line.partition("\t")[0] for line in lines])
    if not 1 <= len(pairs) <= MAX_LABELS:
        raise _refused_labels(f"has {len(pairs):,} labels; it needs one a line, and at most {MAX_LABELS:,}")
    return [label for label, _, _ in pairs], {label: words.strip() for label, _, words in pairs if words.strip()}


def _refuse_doubles(labels: Sequence[str]) -> None:
    """Of a label for each line, which is empty for an empty line."""
    first_lines: dict[str, int] = {}
    for number, label in enumerate(labels, 1):
        if label and label in first_lines:
            raise _refused_labels(f"has the label `{shown(label)}` twice: in the lines {first_lines[label]} and {number}")
        first_lines[label] = number


def as_rdf(
    document: dict[str, Any],
    plain: PlainManifest,
    labels: tuple[list[str], dict[str, str]],
    weights: str,
    summary: ModelSummary | None,
) -> dict[str, Any]:
    """`document` is the whole of bioscope.yaml, and `summary` of its network; None for an external classifier."""
    config = {name: value for name, value in document.items() if name not in OWN_FIELDS}
    names, texts = labels
    fields: dict[str, Any] = {
        "type": "model",
        "format_version": FORMAT_VERSION,
        "name": plain.title or plain.model,
        "description": plain.description,
        "version": plain.version,
        "license": plain.license,
        "outputs": _outputs(config.get("output"), names, summary),
        "config": {"bioscope": {"labels": texts, **config}},
    }
    if plain.input_tensor is not None:
        fields["inputs"] = [_input(plain.input_tensor, summary)]
    if summary is not None:
        fields["weights"] = {"onnx": {"source": weights, **_opset(summary)}}
    return fields


def _opset(summary: ModelSummary) -> dict[str, int]:
    """Empty where the network states none, or one that the specification does not have."""
    return {"opset_version": summary.opset} if summary.opset >= LOWEST_OPSET else {}


def _input(tensor: PlainInput, summary: ModelSummary | None) -> dict[str, Any]:
    sizes: list[Any] = list(tensor.size) if isinstance(tensor.size, tuple) else [_size(tensor.size)] * 2
    by_letter = {"z": tensor.depth, "y": sizes[0], "x": sizes[1]}
    axes: list[dict[str, Any]] = []
    for letter in tensor.axes:
        axis: dict[str, Any] = {"type": AXIS_TYPES[letter]}
        if letter == "c":
            axis["channel_names"] = list(tensor.channels)
        elif letter != "b":
            axis |= {"id": letter, "size": by_letter[letter]}
        axes.append(axis)
    name = summary.inputs[0].name if summary and summary.inputs else "input"
    return {"id": name or "input", "axes": axes, "data": {"type": tensor.type}, "preprocessing": list(tensor.preprocessing)}


def _size(size: int | FlexibleSize) -> int | dict[str, int]:
    return size if isinstance(size, int) else {"min": size.min, "step": size.step}


def _outputs(rules: Any, labels: list[str], summary: ModelSummary | None) -> list[dict[str, Any]]:
    """The outputs that are read. One that holds scores must be named where the network has several."""
    named = rules if isinstance(rules, dict) else {}
    scored, distance = named.get("tensor"), named.get("distance")
    if scored is None and summary is not None and len(summary.outputs) > 1:
        names = ", ".join(output.name for output in summary.outputs)
        raise PackageRefused(
            RefusalCode.OUTPUT_KIND, f"is missing: the network has the outputs {names}", file=PLAIN_MANIFEST_FILE, field="output.tensor"
        )
    if summary is not None:
        for field, name in (("output.tensor", scored), ("output.distance", distance)):
            if isinstance(name, str):
                _require_output(name, summary.outputs, field)
    only = summary.outputs[0].name if summary and summary.outputs else "scores"
    outputs = [_output(scored or only or "scores", labels)]
    return outputs if distance is None else [*outputs, _output(distance, ["distance"])]


def _require_output(name: str, outputs: Sequence[ValueSignature], field: str) -> None:
    if all(output.name != name for output in outputs):
        names = ", ".join(f"`{shown(output.name)}`" for output in outputs)
        hint = EXPORT_HINT if any(output.kind in {"sequence", "map"} for output in outputs) else ""
        detail = f"the network has no output `{shown(name)}`; it has {names or 'none'}{hint}"
        raise PackageRefused(RefusalCode.ONNX_SIGNATURE, detail, file=PLAIN_MANIFEST_FILE, field=field)


def _output(tensor_id: Any, channels: list[str]) -> dict[str, Any]:
    return {"id": tensor_id, "axes": [{"type": "batch"}, {"type": "channel", "channel_names": channels}]}


def _refused_labels(detail: str) -> PackageRefused:
    return PackageRefused(RefusalCode.LABELS, detail, file=LABELS_FILE)
