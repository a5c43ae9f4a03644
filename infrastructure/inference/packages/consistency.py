"""Whether the manifest, the network and the test tensors of a package describe the same tensors."""

from collections.abc import Iterable
from math import prod
from typing import Final, NamedTuple

import numpy as np

from infrastructure.inference.models.onnx_validation import ModelSummary, ValueSignature
from infrastructure.inference.models.refusals import PackageRefused, RefusalCode, shown
from infrastructure.inference.packages.operators import Binarize, EnsureDtype
from infrastructure.inference.packages.package_manifest import Axis, InputTensor, OutputTensor, PackageManifest
from infrastructure.inference.packages.tensor_file import TensorLayout

ELEMENT_NAMES: Final = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
}  # fmt: skip
"""Of TensorProto.DataType."""
EXPORT_HINT: Final = ": export it with the option zipmap=False"
NUMBERS: Final = frozenset(ELEMENT_NAMES.values()) - {"string", "complex64", "complex128", "bfloat16"}


class NetworkNames(NamedTuple):
    """The network's names for the tensors of the manifest. `outputs` has the ids of the manifest as keys."""

    input: str
    outputs: dict[str, str]


def match_network(manifest: PackageManifest, summary: ModelSummary, *, file: str) -> NetworkNames:
    """Tensors are matched by name if the network has all of these names, otherwise by order, as in the specification.

    `file` is the ONNX file. Raises PackageRefused.
    """
    assert manifest.input is not None
    if len(summary.inputs) != 1:
        raise _refused(file, "inputs", f"the network has {len(summary.inputs)} inputs without a default; exactly one is fed")
    network_input = summary.inputs[0]
    _check_input(manifest.input, network_input, file)
    by_name = {output.name: output for output in summary.outputs}
    if all(output.id in by_name for output in manifest.outputs):
        pairs = [(output, by_name[output.id]) for output in manifest.outputs]
    elif len(manifest.outputs) <= len(summary.outputs):
        pairs = list(zip(manifest.outputs, summary.outputs, strict=False))
    else:
        raise _refused(file, "outputs", f"the network has {len(summary.outputs)} outputs; the manifest describes {len(manifest.outputs)}")
    read = {manifest.scored_output, manifest.distance_output}
    for output, signature in pairs:
        if output.id in read:
            _check_output(output, signature, file)
    return NetworkNames(network_input.name, {output.id: signature.name for output, signature in pairs})


def check_test_input(tensor: InputTensor, layout: TensorLayout, *, file: str) -> None:
    """Raises PackageRefused."""
    _check_layout(tensor.id, tensor.axes, tensor.dtype, layout, file)
    sizes = dict(zip(tensor.axis_ids, layout.shape, strict=True))
    for axis in tensor.axes:
        expected = _referred_size(axis, tensor.axes, sizes)
        if expected is not None and sizes[axis.id] != expected:
            raise _mismatch(file, f"has the size {sizes[axis.id]} along {axis.id}; by the manifest it follows as {expected}")


def check_test_output(tensor: OutputTensor, layout: TensorLayout, *, file: str) -> None:
    """Raises PackageRefused."""
    _check_layout(tensor.id, tensor.axes, tensor.dtype, layout, file)


def _check_input(tensor: InputTensor, signature: ValueSignature, file: str) -> None:
    place = f"input `{shown(signature.name)}`"
    if signature.kind != "tensor":
        raise _refused(file, place, f"is a {signature.kind or 'value without a type'}; an image is a tensor")
    last = tensor.preprocessing[-1]
    expected = last.kwargs.dtype if isinstance(last, EnsureDtype) else "bool" if isinstance(last, Binarize) else tensor.dtype
    found = _element_name(signature)
    if found != expected:
        raise _refused(file, place, f"takes {found}; the manifest gives {expected}: end its preprocessing with ensure_dtype {found}")
    if signature.shape is None:
        return
    if tensor.rules.flatten:
        _check_row(tensor, signature.shape, file, place)
        return
    if len(signature.shape) != len(tensor.axes):
        hint = ": set `flatten: true` if it takes one row of numbers" if len(signature.shape) == 2 else ""
        axes = ", ".join(tensor.axis_ids)
        raise _refused(file, place, f"has {len(signature.shape)} dimensions; the manifest has the axes {axes}{hint}")
    for axis, size in zip(tensor.axes, signature.shape, strict=True):
        if size is not None and not (axis.is_fixed and axis.minimum == size):
            raise _refused(file, place, f"has the fixed size {size} along {axis.id}; the manifest says {_described(axis)}")


def _check_row(tensor: InputTensor, shape: tuple[int | None, ...], file: str, place: str) -> None:
    """One row of numbers for an image."""
    if len(shape) != 2:
        raise _refused(file, place, f"has {len(shape)} dimensions; with `flatten` it needs 2: batch and numbers")
    if all(axis.is_fixed for axis in tensor.axes) and shape[1] is not None:
        numbers = prod(axis.minimum for axis in tensor.axes)
        if numbers != shape[1]:
            raise _refused(file, place, f"takes {shape[1]} numbers; the axes of the manifest make {numbers}")


def _check_output(tensor: OutputTensor, signature: ValueSignature, file: str) -> None:
    by_order = "" if signature.name == tensor.id else f", which is `{shown(tensor.id)}` in the manifest by its order"
    place = f"output `{shown(signature.name)}`{by_order}"
    if signature.kind != "tensor":
        hint = EXPORT_HINT if signature.kind in {"sequence", "map"} else ""
        raise _refused(file, place, f"is a {signature.kind or 'value without a type'}; scores are read from a tensor{hint}")
    if _element_name(signature) not in NUMBERS:
        raise _refused(file, place, f"gives {_element_name(signature)}; scores are numbers")
    if signature.shape is None:
        return
    if len(signature.shape) != len(tensor.axes):
        axes = ", ".join(axis.id for axis in tensor.axes)
        raise _refused(file, place, f"has {len(signature.shape)} dimensions; the manifest has the axes {axes}")
    for axis, size in zip(tensor.axes, signature.shape, strict=True):
        if axis.type == "channel" and size not in {None, axis.minimum}:
            raise _refused(file, place, f"gives {size} numbers; the manifest has {_labels(axis)}")


def _labels(axis: Axis) -> str:
    """Such as `2 labels (round, flat)`."""
    return f"{axis.minimum} label{'' if axis.minimum == 1 else 's'} ({shown(', '.join(axis.channel_names))})"


def _check_layout(tensor_id: str, axes: tuple[Axis, ...], dtype: str, layout: TensorLayout, file: str) -> None:
    if layout.dtype.newbyteorder("=") != np.dtype(dtype):
        raise _mismatch(file, f"holds {layout.dtype.name}; `{shown(tensor_id)}` is {dtype}")
    if len(layout.shape) != len(axes):
        raise _mismatch(
            file, f"has {len(layout.shape)} dimensions; `{shown(tensor_id)}` has the axes {', '.join(axis.id for axis in axes)}"
        )
    if 0 in layout.shape:
        raise _mismatch(file, "is empty")
    for axis, size in zip(axes, layout.shape, strict=True):
        if axis.type != "batch" and axis.reference is None and not axis.permits(size):
            raise _mismatch(file, f"has the size {size} along {axis.id}; the manifest says {_described(axis)}")


def _referred_size(axis: Axis, axes: Iterable[Axis], sizes: dict[str, int]) -> int | None:
    if axis.reference is None:
        return None
    target = next(other for other in axes if other.id == axis.reference.axis_id)
    return axis.following(target, sizes[target.id])


def _described(axis: Axis) -> str:
    if axis.type == "batch":
        return "a batch, which must be open or 1"
    if axis.reference is not None:
        return f"that it follows {axis.reference.axis_id}"
    return str(axis.minimum) if axis.step == 0 else f"{axis.minimum} + n * {axis.step}"


def _element_name(signature: ValueSignature) -> str:
    return ELEMENT_NAMES.get(signature.element_type, "numbers of another kind")


def _refused(file: str, field: str, detail: str) -> PackageRefused:
    return PackageRefused(RefusalCode.ONNX_SIGNATURE, detail, file=file, field=field)


def _mismatch(file: str, detail: str) -> PackageRefused:
    return PackageRefused(RefusalCode.TENSOR_MISMATCH, detail, file=file)
