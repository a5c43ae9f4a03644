import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from bioimageio.spec.model.v0_5 import PostprocessingDescr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydantic import TypeAdapter, ValidationError

from infrastructure.inference.packages.operators import NamedArray, Operator, OperatorFailed, apply, cast

GOLDEN = np.load(Path(__file__).parents[3] / "data" / "operators" / "golden.npz")
CASES = json.loads(GOLDEN["about"].tobytes())["cases"]
AXES = ("batch", "channel", "y", "x")
SPECIFIED = TypeAdapter(PostprocessingDescr)
STRICTER_HERE = [("clip", {"min": 2.0, "max": 1.0})]
"""Refused here, and taken by the validator of the specification."""
FLOATS = arrays.arrays(np.float64, (1, 3, 4, 5), elements=st.floats(-1e6, 1e6))


def operator(name, **kwargs):
    return msgspec.convert({"id": name} | ({"kwargs": kwargs} if kwargs else {}), Operator)


def result(values, name, *, of=AXES, references=None, **kwargs):
    return apply([operator(name, **kwargs)], NamedArray(np.asarray(values), of), references).values


# ---- the reference implementation ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda index: f"{index}-{CASES[index]['id']}")
def test_an_operator_gives_what_the_reference_implementation_gives(index):
    case = CASES[index]
    axes = tuple(case["axes"])
    references = {"other": NamedArray(GOLDEN[f"other{index}"], axes)} if f"other{index}" in GOLDEN else None
    expected = GOLDEN[f"out{index}"]
    found = result(GOLDEN[f"in{index}"], case["id"], of=axes, references=references, **case["kwargs"])
    assert found.shape == expected.shape
    if expected.dtype.kind in "biu":
        assert np.array_equal(found.astype(expected.dtype), expected)
    else:
        scale = max(1.0, float(np.abs(expected).max()))
        assert float(np.abs(found - expected).max()) <= 1e-6 * scale


def test_the_golden_values_cover_all_operators_types_and_orders():
    assert {case["id"] for case in CASES} == {variant.__struct_config__.tag for variant in Operator.__args__}
    assert {GOLDEN[f"in{index}"].dtype.name for index in range(len(CASES))} == {"float32", "float64", "uint8", "uint16", "int16"}
    assert len({tuple(case["axes"]) for case in CASES}) == 5
    assert len(CASES) > 100


# ---- where the specification says more ----------------------------------------------------------------------------------------------
@given(FLOATS, st.floats(1e-9, 0.1))
def test_eps_is_that_of_the_manifest(values, eps):
    found = result(values, "zero_mean_unit_variance", eps=eps)
    assert np.allclose(found * (values.std() + eps) + values.mean(), values, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("axis", ["channel", "y", "x"])
def test_thresholds_lie_along_their_axis(axis):
    values = np.arange(1.0, 1 + 3 * 3 * 3).reshape(1, 3, 3, 3)
    thresholds = np.array([2.0, 14.0, 26.0])
    shape = [3 if other == axis else 1 for other in AXES]
    assert np.array_equal(result(values, "binarize", threshold=thresholds.tolist(), axis=axis), values > thresholds.reshape(shape))


def test_statistics_are_of_the_tensor_that_reaches_the_operator():
    values = np.random.default_rng(3).normal(5, 3, (1, 2, 8, 8))
    steps = [operator("clip", min=4.0, max=6.0), operator("zero_mean_unit_variance")]
    found = apply(steps, NamedArray(values, AXES)).values
    assert abs(found.mean()) < 1e-9
    assert abs(found.std() - 1) < 1e-5


@given(FLOATS, st.permutations(range(4)))
def test_the_order_of_axes_changes_nothing(values, order):
    steps = [operator("scale_range", axes=["y", "x"], max_percentile=99.0), operator("softmax")]
    straight = apply(steps, NamedArray(values, AXES)).values
    turned = apply(steps, NamedArray(values.transpose(order), tuple(AXES[index] for index in order))).values
    assert np.allclose(turned, straight.transpose(order), rtol=1e-12, atol=1e-12)


@given(arrays.arrays(np.float32, (2, 5), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_softmax_and_sigmoid_are_finite_for_every_number(values):
    scores = result(values, "softmax", of=("batch", "channel"))
    assert np.allclose(scores.sum(axis=1), 1)
    chances = result(values, "sigmoid", of=("batch", "channel"))
    assert ((chances >= 0) & (chances <= 1)).all()


@given(
    arrays.arrays(np.float64, 8, elements=st.floats(allow_nan=True, allow_infinity=True)),
    st.sampled_from(["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]),
)
def test_casts_stay_in_range_and_cut_fractions_off(values, dtype):
    limits = np.iinfo(dtype)
    expected = [0 if np.isnan(one) else int(min(max(one, -1e300), 1e300)) for one in values.tolist()]
    assert cast(values, dtype).tolist() == [min(max(one, limits.min), limits.max) for one in expected]


def test_short_names_of_axes_are_understood():
    values = np.arange(24.0).reshape(1, 2, 3, 4)
    assert np.array_equal(result(values, "softmax", axis="c"), result(values, "softmax", axis="channel"))


def test_reference_statistics_are_aligned_by_name():
    tensor, other = np.ones((1, 3)), np.random.default_rng(2).normal(2, 1, (1, 4, 5, 3))
    step = operator("scale_range", reference_tensor="image", axes=["y", "x"], max_percentile=100)
    found = step.apply(NamedArray(tensor, ("batch", "channel")), {"image": NamedArray(other, ("batch", "y", "x", "channel"))})
    low, high = other.min(axis=(1, 2)), other.max(axis=(1, 2))
    assert np.allclose(found, (1 - low) / (high - low + 1e-6))


def test_what_cannot_be_computed_says_why():
    scores = NamedArray(np.ones((1, 3)), ("batch", "channel"))
    image = NamedArray(np.ones((1, 4, 2)), ("batch", "y", "channel"))
    for name, kwargs, says in (
        ("softmax", {"axis": "x"}, "batch, channel"),
        ("scale_linear", {"gain": [1.0, 2.0], "axis": "channel"}, "2 values"),
        ("scale_range", {"reference_tensor": "nothing"}, "nothing"),
    ):
        with pytest.raises(OperatorFailed, match=says):
            apply([operator(name, **kwargs)], scores)
    with pytest.raises(OperatorFailed, match="differ along y"):
        apply([operator("scale_range", reference_tensor="image", axes=["channel"])], scores, {"image": image})


def is_valid_by_the_specification(name, kwargs):
    try:
        SPECIFIED.validate_python({"id": name} | ({"kwargs": kwargs} if kwargs else {}))
    except ValidationError:
        return False
    return True


def test_the_golden_cases_are_valid_by_the_specification():
    assert all(is_valid_by_the_specification(case["id"], case["kwargs"]) for case in CASES)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("clip", {}),
        ("clip", {"min": 2.0, "max": 1.0}),
        ("clip", {"min": 2.0, "min_percentile": 1.0}),
        ("binarize", {"threshold": 1.0, "axis": "channel"}),
        ("scale_linear", {"gain": [1.0], "offset": [1.0, 2.0], "axis": "channel"}),
        ("fixed_zero_mean_unit_variance", {"mean": 1.0, "std": 0.0}),
        ("fixed_zero_mean_unit_variance", {"mean": [1.0], "std": 1.0, "axis": "channel"}),
        ("scale_range", {"max_percentile": 1.0}),
        ("scale_range", {"eps": 0.0}),
        ("ensure_dtype", {"dtype": "float16"}),
        ("sigmoid", {"axis": "channel"}),
    ],
)
def test_arguments_that_the_specification_forbids_are_refused(name, kwargs):
    assert not is_valid_by_the_specification(name, kwargs) or (name, kwargs) in STRICTER_HERE
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"id": name, "kwargs": kwargs}, Operator)
