"""Pre- and postprocessing operators of bioimage.io 0.5 on arrays with named axes.

Each formula is that of the specification. Numbers are computed in float64; only `ensure_dtype` and `binarize` set another type.
Statistics are of the tensor as it reaches the operator, and of this image alone, also when `axes` names `batch`: the result of an image
does not depend on other images.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

Finite = Annotated[float, Meta(ge=-1.7e308, le=1.7e308)]
Deviation = Annotated[float, Meta(ge=1e-6, le=1.7e308)]
Epsilon = Annotated[float, Meta(gt=0, le=0.1)]
LowerPercentile = Annotated[float, Meta(ge=0, lt=100)]
UpperPercentile = Annotated[float, Meta(gt=1, le=100)]
DataType = Literal["float32", "float64", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "bool"]
Array: TypeAlias = NDArray[Any]

FIXED_EPSILON: Final = 1e-6
"""Added to the standard deviation of `fixed_zero_mean_unit_variance` by the reference implementation; the specification is silent."""
AXIS_NAMES: Final = {"b": "batch", "c": "channel", "s": "channel", "t": "time", "i": "index"}


class NamedArray(NamedTuple):
    """An array whose dimension n is the axis `axes[n]`."""

    values: Array
    axes: tuple[str, ...]


References: TypeAlias = Mapping[str, NamedArray]
"""Input tensors before any preprocessing, by tensor id."""


class OperatorFailed(ValueError):
    """A tensor lacks an axis that an operator names, or has another size along it."""


def axis_name(axis: str) -> str:
    """The id of an axis, of which the specification also takes the letter of its type."""
    return AXIS_NAMES.get(axis.lower(), axis.lower())


def _require_order(lower: float | None, upper: float | None) -> None:
    if lower is not None and upper is not None and lower >= upper:
        raise ValueError("needs a lower bound below the upper one")


def _require_equal_lengths(lists: list[tuple[float, ...]]) -> None:
    if len({len(one) for one in lists}) > 1:
        raise ValueError("has lists of different lengths")


class _Kwargs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments of an operator. All decide the result, so an unknown one is refused."""


class BinarizeKwargs(_Kwargs, frozen=True, kw_only=True):
    threshold: Finite | Annotated[tuple[Finite, ...], Meta(min_length=1)]
    axis: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.threshold, tuple) != (self.axis is not None):
            raise ValueError("needs a list of thresholds with `axis`, and one threshold without it")


class ClipKwargs(_Kwargs, frozen=True, kw_only=True):
    min: Finite | None = None
    max: Finite | None = None
    min_percentile: LowerPercentile | None = None
    max_percentile: UpperPercentile | None = None
    axes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if (self.min is not None and self.min_percentile is not None) or (self.max is not None and self.max_percentile is not None):
            raise ValueError("takes a value or a percentile for each bound, not both")
        if self.min is self.max is self.min_percentile is self.max_percentile is None:
            raise ValueError("needs at least one bound")
        _require_order(self.min, self.max)
        _require_order(self.min_percentile, self.max_percentile)


class EnsureDtypeKwargs(_Kwargs, frozen=True, kw_only=True):
    dtype: DataType


class ScaleLinearKwargs(_Kwargs, frozen=True, kw_only=True):
    gain: Finite | Annotated[tuple[Finite, ...], Meta(min_length=1)] = 1.0
    offset: Finite | Annotated[tuple[Finite, ...], Meta(min_length=1)] = 0.0
    axis: str | None = None

    def __post_init__(self) -> None:
        lists = [value for value in (self.gain, self.offset) if isinstance(value, tuple)]
        if bool(lists) != (self.axis is not None):
            raise ValueError("needs a list of gains or offsets with `axis`, and numbers without it")
        _require_equal_lengths(lists)


class FixedKwargs(_Kwargs, frozen=True, kw_only=True):
    mean: Finite | Annotated[tuple[Finite, ...], Meta(min_length=1)]
    std: Deviation | Annotated[tuple[Deviation, ...], Meta(min_length=1)]
    axis: str | None = None

    def __post_init__(self) -> None:
        lists = [value for value in (self.mean, self.std) if isinstance(value, tuple)]
        if len(lists) != (0 if self.axis is None else 2):
            raise ValueError("needs lists of means and deviations with `axis`, and numbers without it")
        _require_equal_lengths(lists)


class ZeroMeanKwargs(_Kwargs, frozen=True, kw_only=True):
    axes: tuple[str, ...] | None = None
    eps: Epsilon = 1e-6


class ScaleRangeKwargs(_Kwargs, frozen=True, kw_only=True):
    axes: tuple[str, ...] | None = None
    min_percentile: LowerPercentile = 0.0
    max_percentile: UpperPercentile = 100.0
    eps: Epsilon = 1e-6
    reference_tensor: str | None = None

    def __post_init__(self) -> None:
        _require_order(self.min_percentile, self.max_percentile)


class ScaleMeanVarianceKwargs(_Kwargs, frozen=True, kw_only=True):
    reference_tensor: str
    axes: tuple[str, ...] | None = None
    eps: Epsilon = 1e-6


class SigmoidKwargs(_Kwargs, frozen=True, kw_only=True):
    """None."""


class SoftmaxKwargs(_Kwargs, frozen=True, kw_only=True):
    axis: str = "channel"


class Binarize(msgspec.Struct, frozen=True, tag_field="id", tag="binarize"):
    """Whether a value is above the threshold."""

    kwargs: BinarizeKwargs

    def apply(self, tensor: NamedArray, _: References) -> Array:
        return np.asarray(tensor.values > _along(self.kwargs.threshold, self.kwargs.axis, tensor))


class Clip(msgspec.Struct, frozen=True, tag_field="id", tag="clip"):
    """Values below a bound are set to it, and those above. As in the reference implementation, a percentile is a value of the tensor,
    except over all axes or over `batch`, where it is interpolated."""

    kwargs: ClipKwargs

    def apply(self, tensor: NamedArray, _: References) -> Array:
        method = "linear" if self.kwargs.axes is None or "batch" in map(axis_name, self.kwargs.axes) else "inverted_cdf"
        values, clipped = _double(tensor), _double(tensor)
        for bound, percentile, limit in (
            (self.kwargs.min, self.kwargs.min_percentile, np.maximum),
            (self.kwargs.max, self.kwargs.max_percentile, np.minimum),
        ):
            if bound is not None:
                clipped = limit(clipped, bound)
            elif percentile is not None:
                clipped = limit(clipped, _percentile(values, percentile, _dimensions(tensor, self.kwargs.axes), method))
        return clipped


class EnsureDtype(msgspec.Struct, frozen=True, tag_field="id", tag="ensure_dtype"):
    """Cast. Fractions are cut off. A number outside the range of an integer type becomes the nearest in it, and NaN becomes 0, where the
    reference implementation leaves it to the processor."""

    kwargs: EnsureDtypeKwargs

    def apply(self, tensor: NamedArray, _: References) -> Array:
        return cast(tensor.values, self.kwargs.dtype)


class ScaleLinear(msgspec.Struct, frozen=True, tag_field="id", tag="scale_linear"):
    """tensor * gain + offset"""

    kwargs: ScaleLinearKwargs

    def apply(self, tensor: NamedArray, _: References) -> Array:
        gain, offset = (_along(value, self.kwargs.axis, tensor) for value in (self.kwargs.gain, self.kwargs.offset))
        return np.asarray(_double(tensor) * gain + offset)


class FixedZeroMeanUnitVariance(msgspec.Struct, frozen=True, tag_field="id", tag="fixed_zero_mean_unit_variance"):
    """(tensor - mean) / (std + 1e-6)"""

    kwargs: FixedKwargs

    def apply(self, tensor: NamedArray, _: References) -> Array:
        mean, std = (_along(value, self.kwargs.axis, tensor) for value in (self.kwargs.mean, self.kwargs.std))
        return np.asarray((_double(tensor) - mean) / (std + FIXED_EPSILON))


class ZeroMeanUnitVariance(msgspec.Struct, frozen=True, tag_field="id", tag="zero_mean_unit_variance"):
    """(tensor - mean) / (std + eps)"""

    kwargs: ZeroMeanKwargs = ZeroMeanKwargs()

    def apply(self, tensor: NamedArray, _: References) -> Array:
        mean, std = _mean_and_std(_double(tensor), _dimensions(tensor, self.kwargs.axes))
        return (_double(tensor) - mean) / (std + self.kwargs.eps)


class ScaleRange(msgspec.Struct, frozen=True, tag_field="id", tag="scale_range"):
    """(tensor - lower) / (upper - lower + eps), of the percentiles of the tensor, or of a reference tensor."""

    kwargs: ScaleRangeKwargs = ScaleRangeKwargs()

    def apply(self, tensor: NamedArray, references: References) -> Array:
        source = tensor if self.kwargs.reference_tensor is None else _reference(self.kwargs.reference_tensor, references)
        dimensions = _dimensions(source, self.kwargs.axes)
        lower, upper = (
            _aligned(_percentile(_double(source), percentile, dimensions, "linear"), source.axes, tensor)
            for percentile in (self.kwargs.min_percentile, self.kwargs.max_percentile)
        )
        return (_double(tensor) - lower) / (upper - lower + self.kwargs.eps)


class ScaleMeanVariance(msgspec.Struct, frozen=True, tag_field="id", tag="scale_mean_variance"):
    """(tensor - mean) / (std + eps) * (std of the reference + eps) + mean of the reference"""

    kwargs: ScaleMeanVarianceKwargs

    def apply(self, tensor: NamedArray, references: References) -> Array:
        source = _reference(self.kwargs.reference_tensor, references)
        mean, std = _mean_and_std(_double(tensor), _dimensions(tensor, self.kwargs.axes))
        reference_mean, reference_std = (
            _aligned(value, source.axes, tensor) for value in _mean_and_std(_double(source), _dimensions(source, self.kwargs.axes))
        )
        return (_double(tensor) - mean) / (std + self.kwargs.eps) * (reference_std + self.kwargs.eps) + reference_mean


class Sigmoid(msgspec.Struct, frozen=True, tag_field="id", tag="sigmoid"):
    """1 / (1 + exp(-tensor))"""

    kwargs: SigmoidKwargs = SigmoidKwargs()

    def apply(self, tensor: NamedArray, _: References) -> Array:
        values = _double(tensor)
        small = np.exp(-np.abs(values))
        return np.asarray(np.where(values >= 0, 1.0, small) / (1 + small))


class Softmax(msgspec.Struct, frozen=True, tag_field="id", tag="softmax"):
    """exp(tensor) / sum of exp(tensor) along an axis"""

    kwargs: SoftmaxKwargs = SoftmaxKwargs()

    def apply(self, tensor: NamedArray, _: References) -> Array:
        (dimension,) = _dimensions(tensor, (self.kwargs.axis,))
        values = _double(tensor)
        exponentials = np.exp(values - values.max(axis=dimension, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=dimension, keepdims=True))


Preprocessing: TypeAlias = (
    Binarize | Clip | EnsureDtype | FixedZeroMeanUnitVariance | ScaleLinear | ScaleRange | Sigmoid | Softmax | ZeroMeanUnitVariance
)
Operator: TypeAlias = Preprocessing | ScaleMeanVariance

ENDS_WITH_A_TYPE: Final = (EnsureDtype, Binarize)


def apply(operators: Iterable[Operator], tensor: NamedArray, references: References | None = None) -> NamedArray:
    """`tensor` after all operators, in order. Raises OperatorFailed."""
    for operator in operators:
        tensor = tensor._replace(values=operator.apply(tensor, references or {}))
    return tensor


def complete_preprocessing(operators: tuple[Operator, ...], dtype: DataType) -> tuple[Operator, ...]:
    """With the casts to the type of the tensor that the specification adds at both ends."""
    starts = operators[:1] and isinstance(operators[0], EnsureDtype)
    return complete_postprocessing(operators if starts else (EnsureDtype(EnsureDtypeKwargs(dtype=dtype)), *operators), dtype)


def complete_postprocessing(operators: tuple[Operator, ...], dtype: DataType) -> tuple[Operator, ...]:
    """With the cast to the type of the tensor that the specification adds at the end."""
    ends = operators and isinstance(operators[-1], ENDS_WITH_A_TYPE)
    return operators if ends else (*operators, EnsureDtype(EnsureDtypeKwargs(dtype=dtype)))


def cast(values: Array, dtype: DataType) -> Array:
    """As `ensure_dtype`."""
    target = np.dtype(dtype)
    if values.dtype.kind == "f" and target.kind in "iu":
        return _saturated(values.astype(np.float64, copy=False), target)
    with np.errstate(over="ignore"):
        return values.astype(target, copy=False)


def axes_of(operator: Operator) -> tuple[str, ...]:
    """The axes that an operator names."""
    axes = getattr(operator.kwargs, "axes", None) or ()
    axis = getattr(operator.kwargs, "axis", None)
    return tuple(axis_name(name) for name in (*axes, *(() if axis is None else (axis,))))


def values_along_axis(operator: Operator) -> int | None:
    """How many values an operator has along its axis; None where it has one for all."""
    lists = [len(value) for value in msgspec.structs.astuple(operator.kwargs) if isinstance(value, tuple) and value]
    return lists[0] if getattr(operator.kwargs, "axis", None) is not None and lists else None


def _double(tensor: NamedArray) -> NDArray[np.float64]:
    return tensor.values.astype(np.float64, copy=False)


def _dimensions(tensor: NamedArray, axes: tuple[str, ...] | None) -> tuple[int, ...]:
    """The dimensions to which `axes` refer; all for None."""
    if axes is None:
        return tuple(range(tensor.values.ndim))
    try:
        return tuple(tensor.axes.index(axis_name(axis)) for axis in axes)
    except ValueError:
        raise OperatorFailed(f"an operator names the axes {', '.join(axes)}; the tensor has {', '.join(tensor.axes)}") from None


def _along(value: float | tuple[float, ...], axis: str | None, tensor: NamedArray) -> Any:
    """One number, or numbers that broadcast along `axis`."""
    if axis is None:
        return value
    (dimension,) = _dimensions(tensor, (axis,))
    numbers = np.atleast_1d(np.asarray(value, np.float64))
    if numbers.size not in {1, tensor.values.shape[dimension]}:
        raise OperatorFailed(f"an operator has {numbers.size} values along {axis}; the tensor has {tensor.values.shape[dimension]}")
    return numbers.reshape([-1 if other == dimension else 1 for other in range(tensor.values.ndim)])


def _percentile(values: NDArray[np.float64], percentile: float, dimensions: tuple[int, ...], method: str) -> Array:
    return np.asarray(np.quantile(values, percentile / 100, axis=dimensions, method=method, keepdims=True))  # type: ignore[call-overload]


def _mean_and_std(values: NDArray[np.float64], dimensions: tuple[int, ...]) -> tuple[Array, Array]:
    return np.asarray(values.mean(axis=dimensions, keepdims=True)), np.asarray(values.std(axis=dimensions, keepdims=True))


def _reference(tensor_id: str, references: References) -> NamedArray:
    try:
        return references[tensor_id]
    except KeyError:
        raise OperatorFailed(f"an operator needs the tensor {tensor_id}") from None


def _aligned(statistic: Array, axes: tuple[str, ...], tensor: NamedArray) -> Array:
    """A statistic of a tensor with `axes`, all of them kept, along those of `tensor`."""
    own = [axis for axis, size in zip(axes, statistic.shape, strict=True) if size > 1]
    if not set(own) <= set(tensor.axes):
        raise OperatorFailed(f"statistics of the reference tensor differ along {', '.join(own)}, which the tensor does not have")
    kept = [axis for axis in tensor.axes if axis in axes]
    others = [axis for axis in axes if axis not in kept]
    ordered = np.transpose(statistic, [axes.index(axis) for axis in (*kept, *others)])
    sizes = dict(zip(axes, statistic.shape, strict=True))
    return ordered.reshape([sizes.get(axis, 1) for axis in tensor.axes])


def _saturated(values: NDArray[np.float64], target: np.dtype[Any]) -> Array:
    """Whole numbers of the integer type `target`. The greatest of 64 bits is no float64, so it is set apart."""
    limits = np.iinfo(target)
    lowest, highest = float(limits.min), float(limits.max)
    representable = np.nextafter(highest, 0) if int(highest) > limits.max else highest
    inside = np.clip(np.nan_to_num(values, nan=0.0), lowest, representable).astype(target)
    return np.where(values >= highest, np.asarray(limits.max, target), inside)
