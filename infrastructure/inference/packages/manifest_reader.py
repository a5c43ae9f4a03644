"""From the fields of an rdf.yaml to a manifest: what contradicts itself, or cannot be run here, is refused with its place."""

import re
from collections import Counter
from typing import Any, Final

import msgspec

from domain.model import OutputKind
from domain.values import is_id
from infrastructure.inference.models.manifest import OutOfDomainGates
from infrastructure.inference.models.refusals import PackageRefused, RefusalCode, shown
from infrastructure.inference.packages.manifest_fields import AxisFields, RdfFields, SizeFields, TensorFields, read_fields
from infrastructure.inference.packages.manifest_place import MANIFEST_FILE
from infrastructure.inference.packages.operators import (
    DataType,
    Operator,
    Sigmoid,
    Softmax,
    axes_of,
    axis_name,
    complete_postprocessing,
    complete_preprocessing,
    values_along_axis,
)
from infrastructure.inference.packages.package_manifest import (
    Axis,
    InputRules,
    InputTensor,
    OutputTensor,
    PackageFile,
    PackageManifest,
    SizeReference,
    Tolerance,
    Weights,
)

IDENTIFIER: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
MAX_INPUT_ELEMENTS: Final = 64 * 1024**2
SPACE: Final = ("x", "y", "z")
DEFAULT_IDS: Final = {"batch": "batch", "channel": "channel", "space": "x", "time": "time", "index": "index"}
EXACT: Final = Tolerance(absolute=0.0, relative=0.0, mismatches_per_million=1000)
CONTRADICTED_KINDS: Final = {
    OutputKind.SOFTMAX: {OutputKind.LOGITS, OutputKind.MULTI_LABEL, OutputKind.REGRESSION},
    OutputKind.MULTI_LABEL: {OutputKind.SOFTMAX, OutputKind.LOGITS},
}
"""Kinds that an output is not, by what its postprocessing makes it."""


def parse_manifest(document: Any, *, file: str = MANIFEST_FILE) -> PackageManifest:
    """The manifest in a parsed rdf.yaml. `file` names it in refusals. Raises PackageRefused."""
    return _Reader(read_fields(document, file), file).manifest()


def parse_record(text: str) -> PackageManifest:
    """The manifest in the record of a version, which is JSON text. Raises PackageRefused."""
    try:
        return parse_manifest(msgspec.json.decode(text))
    except (msgspec.DecodeError, RecursionError):
        raise PackageRefused(RefusalCode.MANIFEST_FIELD, "is no JSON, or is nested too deeply", file="record") from None


def model_name(text: str) -> str:
    """A name for the registry, made of a title: lower case, digits, `-` and `_`."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:64].strip("-")


class _Reader:
    """Turns the fields of the file into a manifest, and refuses what contradicts itself or cannot be run."""

    def __init__(self, rdf: RdfFields, file: str) -> None:
        self._rdf, self._file = rdf, file
        self._bioscope = rdf.config.bioscope

    def manifest(self) -> PackageManifest:
        bioscope, outputs = self._bioscope, tuple(self._output(index) for index in range(len(self._rdf.outputs)))
        self._check_ids(outputs)
        input_tensor = self._input() if self._rdf.inputs else None
        scored = self._scored(outputs)
        kind = self._kind(outputs[scored])
        self._check_kind(kind, input_tensor)
        labels = self._labels(outputs[scored], scored, kind)
        self._check_references(outputs, input_tensor)
        self._check_gates(kind, outputs)
        return PackageManifest(
            format_version=self._rdf.format_version,
            model=self._model(),
            title=self._rdf.name,
            version=str(self._rdf.version or ""),
            description=self._rdf.description or "",
            licence=self._rdf.license or "",
            cite=tuple(f"{one.text} doi:{one.doi}" if one.doi else one.text for one in self._rdf.cite or ()),
            training_data=bioscope.training_data,
            input=input_tensor,
            outputs=outputs,
            weights=self._weights(kind),
            int8=bioscope.int8,
            kind=kind,
            scored_output=outputs[scored].id,
            distance_output=self._distance(outputs),
            labels=labels,
            label_texts=self._only_labels(bioscope.labels, labels, "labels"),
            threshold=bioscope.output.threshold,
            range=bioscope.output.range,
            unit=bioscope.output.unit,
            temperature=bioscope.temperature,
            review_below=bioscope.review_below,
            review_below_for=self._only_labels(bioscope.review_below_for, labels, "review_below_for"),
            review_outside=bioscope.review_outside,
            gates=bioscope.gates,
            other_label=self._other_label(labels),
            legacy_preprocessing=bioscope.preprocessing,
            tolerances={output.id: self._tolerance(output) for output in outputs},
        )

    def _refused(self, code: RefusalCode, field: str, detail: str) -> PackageRefused:
        return PackageRefused(code, detail, file=self._file, field=field)

    def _model(self) -> str:
        name = self._bioscope.model
        if name is not None and not IDENTIFIER.fullmatch(name):
            raise self._refused(
                RefusalCode.MANIFEST_FIELD, "config.bioscope.model", "must have 1 to 64 characters of a-z, 0-9, - and _, such as `pbc8`"
            )
        found = name or model_name(self._rdf.name)
        if is_id(found):
            raise self._refused(RefusalCode.MANIFEST_FIELD, "config.bioscope.model", "must not look like an id: choose another name")
        if not found:
            raise self._refused(RefusalCode.MANIFEST_FIELD, "config.bioscope.model", "is missing, and `name` has no Latin letter or digit")
        return found

    def _weights(self, kind: OutputKind) -> Weights | None:
        onnx = self._rdf.weights.onnx
        if onnx is None:
            if kind is OutputKind.EXTERNAL:
                return None
            raise self._refused(RefusalCode.WEIGHTS_UNSUPPORTED, "weights.onnx", "is missing; only ONNX weights are run: export them")
        if onnx.external_data is not None:
            raise self._refused(
                RefusalCode.WEIGHTS_UNSUPPORTED, "weights.onnx.external_data", "is not read: save the weights in the ONNX file itself"
            )
        source = self._local_file(onnx.source, "weights.onnx.source")
        return Weights(source=source, sha256=onnx.sha256, opset_version=onnx.opset_version)

    def _local_file(self, source: str, field: str) -> str:
        if "://" in source:
            raise self._refused(RefusalCode.SOURCE_UNSUPPORTED, field, "is an address; the file must be in the package itself")
        return source.removeprefix("./")

    # ---- tensors
    def _input(self) -> InputTensor:
        wire, place = self._rdf.inputs[0], "inputs[0]"
        if self._bioscope.preprocessing is not None and self._bioscope.input is not None:
            raise self._refused(
                RefusalCode.MANIFEST_FIELD, "config.bioscope", "has both `input` and `preprocessing`; `input` is the newer one"
            )
        axes = tuple(self._axis(axis, f"{place}.axes[{index}]", is_input=True) for index, axis in enumerate(wire.axes))
        self._check_axes(axes, place)
        self._check_image_axes(axes, f"{place}.axes")
        self._check_operators(wire.preprocessing, axes, f"{place}.preprocessing")
        dtype = self._dtype(wire, place)
        rules = self._bioscope.input or InputRules()
        self._check_rules(rules, axes, dtype)
        return InputTensor(
            id=wire.id or "input",
            axes=axes,
            dtype=dtype,
            range=self._range(wire, place),
            preprocessing=complete_preprocessing(wire.preprocessing, dtype),
            test_tensor=self._test_tensor(wire, place),
            rules=rules,
        )

    def _output(self, index: int) -> OutputTensor:
        wire, place = self._rdf.outputs[index], f"outputs[{index}]"
        axes = tuple(self._axis(axis, f"{place}.axes[{number}]", is_input=False) for number, axis in enumerate(wire.axes))
        self._check_axes(axes, place)
        self._check_operators(wire.postprocessing, axes, f"{place}.postprocessing")
        dtype = self._dtype(wire, place)
        return OutputTensor(
            id=wire.id or "output",
            axes=axes,
            dtype=dtype,
            range=self._range(wire, place),
            postprocessing=complete_postprocessing(wire.postprocessing, dtype),
            test_tensor=self._test_tensor(wire, place),
        )

    def _check_ids(self, outputs: tuple[OutputTensor, ...]) -> None:
        ids = [one.id or "input" for one in self._rdf.inputs] + [output.id for output in outputs]
        for tensor_id in ids:
            if ids.count(tensor_id) > 1:
                raise self._refused(
                    RefusalCode.MANIFEST_FIELD, "outputs", f"and `inputs` have two tensors with the id `{shown(tensor_id)}`"
                )

    def _test_tensor(self, wire: TensorFields, place: str) -> PackageFile | None:
        tensor = wire.test_tensor
        if tensor is None:
            return None
        return msgspec.structs.replace(tensor, source=self._local_file(tensor.source, f"{place}.test_tensor.source"))

    def _dtype(self, wire: TensorFields, place: str) -> DataType:
        described = wire.data if isinstance(wire.data, tuple) else (wire.data,)
        types = {data.dtype for data in described}
        if len(types) > 1:
            raise self._refused(RefusalCode.MANIFEST_FIELD, f"{place}.data", "has channels of different types; a tensor has one type")
        return types.pop()

    def _range(self, wire: TensorFields, place: str) -> tuple[float | None, float | None]:
        """Of all channels; None is an open end."""
        ranges = [data.range for data in (wire.data if isinstance(wire.data, tuple) else (wire.data,))]
        low, high = [self._bound(low, place) for low, _ in ranges], [self._bound(high, place) for _, high in ranges]
        return (
            None if None in low else min(number for number in low if number is not None),
            None if None in high else max(number for number in high if number is not None),
        )

    def _bound(self, value: Any, place: str) -> float | None:
        if value is None or (isinstance(value, str) and value.lstrip("+-.") == "inf"):
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124 - NaN alone differs from itself
            raise self._refused(RefusalCode.MANIFEST_FIELD, f"{place}.data.range", "must hold two numbers, or null for an open end")
        return None if abs(value) == float("inf") else float(value)

    # ---- axes
    def _axis(self, wire: AxisFields, place: str, *, is_input: bool) -> Axis:
        axis_id = axis_name(wire.id or DEFAULT_IDS[wire.type])
        plain = Axis(id=axis_id, type=wire.type, unit=wire.unit, scale=wire.scale)
        match wire.type:
            case "batch":
                if wire.size not in {None, 1}:
                    raise self._refused(RefusalCode.AXES_UNSUPPORTED, f"{place}.size", "must be 1 or absent: images are run one by one")
                return plain
            case "channel":
                if wire.channel_names is None:
                    raise self._refused(RefusalCode.MANIFEST_FIELD, f"{place}.channel_names", "is missing")
                return msgspec.structs.replace(plain, minimum=len(wire.channel_names), channel_names=wire.channel_names)
        return self._sized(plain, wire.size, f"{place}.size", is_input=is_input)

    def _sized(self, axis: Axis, size: int | SizeFields | None, place: str, *, is_input: bool) -> Axis:
        if size is None:
            raise self._refused(RefusalCode.MANIFEST_FIELD, place, "is missing: a number, `min` and `step`, or `tensor_id` and `axis_id`")
        if isinstance(size, int):
            return msgspec.structs.replace(axis, minimum=size)
        if size.tensor_id is not None and size.axis_id is not None and size.min is size.step is size.max is None:
            return msgspec.structs.replace(axis, reference=SizeReference(axis_id=axis_name(size.axis_id), offset=size.offset))
        if size.tensor_id is size.axis_id is None and size.offset == 0 and size.min is not None and size.step is not None and not size.max:
            return msgspec.structs.replace(axis, minimum=size.min, step=size.step)
        if not is_input and {size.tensor_id, size.axis_id, size.step} == {None} and size.offset == 0:
            return msgspec.structs.replace(axis, minimum=size.min or 1, step=1)
        raise self._refused(RefusalCode.MANIFEST_FIELD, place, "must be a number, or `min` and `step`, or `tensor_id` and `axis_id`")

    def _check_axes(self, axes: tuple[Axis, ...], place: str) -> None:
        ids = [axis.id for axis in axes]
        if len(set(ids)) != len(ids):
            raise self._refused(RefusalCode.AXES_UNSUPPORTED, f"{place}.axes", f"has two axes with one id: {shown(', '.join(ids))}")
        if sum(axis.type == "channel" for axis in axes) > 1 or sum(axis.type == "batch" for axis in axes) > 1:
            raise self._refused(RefusalCode.AXES_UNSUPPORTED, f"{place}.axes", "has more than one axis of type batch or channel")

    def _check_image_axes(self, axes: tuple[Axis, ...], place: str) -> None:
        by_id = {axis.id: axis for axis in axes}
        for index, axis in enumerate(axes):
            if axis.type == "space" and axis.id not in SPACE:
                raise self._refused(RefusalCode.AXES_UNSUPPORTED, f"{place}[{index}].id", "must be x, y or z for an axis of type space")
            if axis.reference is not None:
                target = by_id.get(axis.reference.axis_id)
                if target is None or target is axis or target.reference is not None or target.type == "batch":
                    raise self._refused(
                        RefusalCode.AXES_UNSUPPORTED, f"{place}[{index}].size", "must refer to another axis of this tensor that has a size"
                    )
        if not {"x", "y"} <= by_id.keys():
            detail = "needs the axes y and x of type space; `config.bioscope.input.flatten` gives the network one row of numbers"
            raise self._refused(RefusalCode.AXES_UNSUPPORTED, place, detail)
        elements = 1
        for axis in axes:
            elements *= axis.minimum
        if elements > MAX_INPUT_ELEMENTS:
            raise self._refused(RefusalCode.AXES_UNSUPPORTED, place, f"makes an input of more than {MAX_INPUT_ELEMENTS:,} numbers")

    def _check_rules(self, rules: InputRules, axes: tuple[Axis, ...], dtype: DataType) -> None:
        place = "config.bioscope.input"
        if rules.values == "unit" and not dtype.startswith("float"):
            raise self._refused(
                RefusalCode.MANIFEST_FIELD, f"{place}.values", f"`unit` needs an input of type float32 or float64, not {dtype}"
            )
        if rules.size is not None:
            for axis_id, size in zip(("y", "x"), rules.size, strict=True):
                axis = next(axis for axis in axes if axis.id == axis_id)
                if axis.reference is None and not axis.permits(size):
                    raise self._refused(RefusalCode.MANIFEST_FIELD, f"{place}.size", f"{size} is no size that the axis {axis_id} permits")
        if rules.repeat_grey and not any(axis.type == "channel" and axis.minimum == 3 for axis in axes):
            raise self._refused(RefusalCode.MANIFEST_FIELD, f"{place}.repeat_grey", "needs an input of three channels")

    # ---- operators
    def _check_operators(self, operators: tuple[Operator, ...], axes: tuple[Axis, ...], place: str) -> None:
        by_id = {axis.id: axis for axis in axes}
        for index, operator in enumerate(operators):
            unknown = [name for name in axes_of(operator) if name not in by_id]
            if unknown:
                raise self._refused(
                    RefusalCode.MANIFEST_FIELD,
                    f"{place}[{index}].kwargs",
                    f"names the axis `{shown(unknown[0])}`; this tensor has {shown(', '.join(by_id))}",
                )
            count = values_along_axis(operator)
            axis = by_id[axes_of(operator)[-1]] if count is not None else None
            if axis is not None and axis.is_fixed and count not in {1, axis.minimum}:
                raise self._refused(
                    RefusalCode.MANIFEST_FIELD,
                    f"{place}[{index}].kwargs",
                    f"has {count} values along `{axis.id}`, which has the size {axis.minimum}",
                )

    def _check_references(self, outputs: tuple[OutputTensor, ...], input_tensor: InputTensor | None) -> None:
        """Tensors that operators refer to: the input alone."""
        known = {input_tensor.id} if input_tensor else set()
        sides = [("inputs", 0, "preprocessing", input_tensor.preprocessing)] if input_tensor else []
        sides += [("outputs", index, "postprocessing", output.postprocessing) for index, output in enumerate(outputs)]
        for side, number, steps, operators in sides:
            for operator in operators:
                reference = getattr(operator.kwargs, "reference_tensor", None)
                if reference is not None and reference not in known:
                    raise self._refused(
                        RefusalCode.MANIFEST_FIELD, f"{side}[{number}].{steps}", f"refers to `{shown(reference)}`, which is not the input"
                    )

    # ---- results
    def _scored(self, outputs: tuple[OutputTensor, ...]) -> int:
        wanted = self._bioscope.output.tensor
        return 0 if wanted is None else self._index_of(wanted, outputs, "config.bioscope.output.tensor")

    def _distance(self, outputs: tuple[OutputTensor, ...]) -> str | None:
        """In the older form the second output is the distance."""
        wanted = self._bioscope.output.distance
        if wanted is not None:
            return outputs[self._index_of(wanted, outputs, "config.bioscope.output.distance")].id
        return outputs[1].id if self._bioscope.preprocessing is not None and len(outputs) > 1 else None

    def _index_of(self, tensor_id: str, outputs: tuple[OutputTensor, ...], field: str) -> int:
        ids = [output.id for output in outputs]
        if tensor_id not in ids:
            raise self._refused(RefusalCode.MANIFEST_FIELD, field, f"names no output; there are {shown(', '.join(ids))}")
        return ids.index(tensor_id)

    def _kind(self, output: OutputTensor) -> OutputKind:
        """As declared, or as the last operator of the output says."""
        declared, implied = self._bioscope.output.kind, _implied_kind(output)
        if self._bioscope.preprocessing is not None and declared is None:
            return OutputKind.LOGITS
        if declared is None and implied is None:
            raise self._refused(
                RefusalCode.OUTPUT_KIND, "config.bioscope.output.kind", "is missing: softmax, logits, multi_label or regression"
            )
        if declared and implied and declared in CONTRADICTED_KINDS[implied]:
            raise self._refused(
                RefusalCode.OUTPUT_KIND, "config.bioscope.output.kind", f"is {declared}, but the postprocessing makes it {implied}"
            )
        return declared or implied or OutputKind.SOFTMAX

    def _check_kind(self, kind: OutputKind, input_tensor: InputTensor | None) -> None:
        bioscope = self._bioscope
        place = "config.bioscope"
        if input_tensor is None and kind is not OutputKind.EXTERNAL:
            raise self._refused(RefusalCode.MANIFEST_FIELD, "inputs", "is missing")
        if (kind is OutputKind.REGRESSION) != (bioscope.output.range is not None):
            detail = (
                "is missing: the numbers that a result may be" if kind is OutputKind.REGRESSION else f"is for regression, not for {kind}"
            )
            raise self._refused(RefusalCode.OUTPUT_KIND, f"{place}.output.range", detail)
        if bioscope.review_outside is not None and kind is not OutputKind.REGRESSION:
            raise self._refused(RefusalCode.OUTPUT_KIND, f"{place}.review_outside", f"is for regression, not for {kind}")
        if bioscope.temperature != 1.0 and kind is not OutputKind.LOGITS:
            raise self._refused(RefusalCode.OUTPUT_KIND, f"{place}.temperature", f"is for logits, not for {kind}")
        if kind is OutputKind.EXTERNAL and (bioscope.gates != OutOfDomainGates() or self._rdf.weights.onnx is not None):
            raise self._refused(
                RefusalCode.OUTPUT_KIND, f"{place}.output.kind", "is external: another program answers, without weights and gates"
            )

    def _check_gates(self, kind: OutputKind, outputs: tuple[OutputTensor, ...]) -> None:
        """A gate whose measure does not exist would let every image through."""
        gates = self._bioscope.gates
        if gates.distance_below is not None and self._distance(outputs) is None:
            raise self._refused(RefusalCode.MANIFEST_FIELD, "config.bioscope.gates.distance_below", "needs `output.distance`")
        if gates.energy_above is not None and kind is not OutputKind.LOGITS:
            raise self._refused(RefusalCode.OUTPUT_KIND, "config.bioscope.gates.energy_above", f"is for logits, not for {kind}")

    def _labels(self, output: OutputTensor, index: int, kind: OutputKind) -> tuple[str, ...]:
        place = f"outputs[{index}].axes"
        channels = [axis for axis in output.axes if axis.type == "channel"]
        for number, axis in enumerate(output.axes):
            if axis.type not in {"batch", "channel"} and (axis.minimum, axis.step, axis.reference) != (1, 0, None):
                raise self._refused(
                    RefusalCode.AXES_UNSUPPORTED,
                    f"{place}[{number}]",
                    "is larger than 1; the scores of a classifier have the axes batch and channel, and no picture",
                )
        if not channels:
            raise self._refused(RefusalCode.LABELS, place, "needs an axis of type channel, whose `channel_names` are the labels")
        labels = channels[0].channel_names
        self._check_labels(labels, f"{place}[{output.axes.index(channels[0])}].channel_names", kind)
        return labels

    def _check_labels(self, labels: tuple[str, ...], place: str, kind: OutputKind) -> None:
        if len(set(labels)) != len(labels):
            double = next(label for label, count in Counter(labels).items() if count > 1)
            raise self._refused(RefusalCode.LABELS, place, f"has the label `{shown(double)}` twice")
        if any(not label.isprintable() or label != label.strip() for label in labels):
            raise self._refused(RefusalCode.LABELS, place, "has a label that cannot be shown, or that begins or ends with a blank")
        if kind is OutputKind.REGRESSION and len(labels) != 1:
            raise self._refused(RefusalCode.LABELS, place, f"has {len(labels)} names; a regression gives one number")
        if kind in {OutputKind.SOFTMAX, OutputKind.LOGITS} and len(labels) < 2:
            raise self._refused(RefusalCode.LABELS, place, f"has one label; {kind} needs two or more, multi_label one or more")

    def _only_labels(self, values: dict[str, Any], labels: tuple[str, ...], field: str) -> dict[str, Any]:
        for label in values:
            if label not in labels:
                raise self._refused(RefusalCode.LABELS, f"config.bioscope.{field}", f"names `{shown(label)}`, which is no label")
        return values

    def _other_label(self, labels: tuple[str, ...]) -> str | None:
        other = self._bioscope.other_label
        if other is not None and other not in labels:
            raise self._refused(RefusalCode.LABELS, "config.bioscope.other_label", f"is `{shown(other)}`, which is no label")
        return other

    def _tolerance(self, output: OutputTensor) -> Tolerance:
        if self._bioscope.tolerance is not None:
            return Tolerance(absolute=self._bioscope.tolerance, relative=0.0, mismatches_per_million=0)
        for entry in self._rdf.config.bioimageio.reproducibility_tolerance:
            if entry.applies_to(output):
                return Tolerance(
                    absolute=entry.absolute_tolerance,
                    relative=entry.relative_tolerance,
                    mismatches_per_million=entry.mismatched_elements_per_million,
                )
        is_continuous = output.dtype.startswith("float")
        return Tolerance(absolute=1e-3, relative=1e-3, mismatches_per_million=100) if is_continuous else EXACT


def _implied_kind(output: OutputTensor) -> OutputKind | None:
    """By the last operator before the casts at the end."""
    computing = [operator for operator in output.postprocessing if isinstance(operator, Softmax | Sigmoid)]
    last = computing[-1] if computing else None
    if isinstance(last, Softmax):
        return OutputKind.SOFTMAX
    return OutputKind.MULTI_LABEL if isinstance(last, Sigmoid) else None
