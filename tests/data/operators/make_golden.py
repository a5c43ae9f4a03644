"""Write golden.npz: what bioimageio.core, the reference implementation, makes of tensors that a seed decides.

Run once, in an environment of its own; the product and its tests do not need the library:

    python -m venv /tmp/reference && /tmp/reference/bin/pip install bioimageio.core==0.9.6
    /tmp/reference/bin/python tests/data/operators/make_golden.py

Only cases in which the library follows the specification are written. It ignores `eps` of scale_range and zero_mean_unit_variance, and
`axis` of binarize. It takes statistics before all preprocessing, where the specification means the tensor that reaches the operator. So
each case is a single operator with the default `eps`, and binarize has its thresholds along the last axis.
"""

import json
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
from bioimageio.core import Sample, Tensor
from bioimageio.core.common import MemberId
from bioimageio.core.proc_ops import get_proc
from bioimageio.core.stat_calculators import compute_measures
from bioimageio.spec.model import v0_5
from pydantic import TypeAdapter

SEED = 20261129
AXES = {
    "bcyx": ("batch", "channel", "y", "x"),
    "byxc": ("batch", "y", "x", "channel"),
    "cxyb": ("channel", "x", "y", "batch"),
    "bczyx": ("batch", "channel", "z", "y", "x"),
    "bc": ("batch", "channel"),
}
SIZES = {"batch": 1, "channel": 3, "z": 2, "y": 4, "x": 5}
STEPS = [
    ("binarize", {"threshold": 0.3}),
    ("binarize", {"threshold": [-0.5, 0.0, 0.5], "axis": "channel"}),
    ("clip", {"min": -0.4, "max": 0.9}),
    ("clip", {"min": 0.1}),
    ("clip", {"min_percentile": 5, "max_percentile": 95}),
    ("clip", {"min_percentile": 10, "max_percentile": 99.8, "axes": ["y", "x"]}),
    ("clip", {"max_percentile": 60, "axes": ["channel"]}),
    ("ensure_dtype", {"dtype": "uint8"}),
    ("ensure_dtype", {"dtype": "float64"}),
    ("ensure_dtype", {"dtype": "bool"}),
    ("fixed_zero_mean_unit_variance", {"mean": 12.5, "std": 3.25}),
    ("fixed_zero_mean_unit_variance", {"mean": [1.0, -2.0, 0.5], "std": [0.5, 2.0, 1e-3], "axis": "channel"}),
    ("scale_linear", {"gain": 2.5, "offset": -1.0}),
    ("scale_linear", {"gain": [1.0, 2.0, -3.0], "offset": 0.25, "axis": "channel"}),
    ("scale_linear", {"gain": 0.5, "offset": [1.0, 2.0, 3.0], "axis": "channel"}),
    ("scale_mean_variance", {"reference_tensor": "other"}),
    ("scale_mean_variance", {"reference_tensor": "other", "axes": ["y", "x"]}),
    ("scale_range", {}),
    ("scale_range", {"min_percentile": 5.0, "max_percentile": 99.8}),
    ("scale_range", {"min_percentile": 1, "max_percentile": 90, "axes": ["y", "x"]}),
    ("scale_range", {"min_percentile": 2, "max_percentile": 98, "axes": ["batch", "y", "x"]}),
    ("scale_range", {"max_percentile": 99, "axes": ["y", "x"], "reference_tensor": "other"}),
    ("sigmoid", {}),
    ("softmax", {"axis": "channel"}),
    ("zero_mean_unit_variance", {}),
    ("zero_mean_unit_variance", {"axes": ["y", "x"]}),
    ("zero_mean_unit_variance", {"axes": ["channel", "y", "x"]}),
    ("zero_mean_unit_variance", {"axes": ["batch", "y"]}),
]
DTYPES = ("float32", "float64", "uint8", "uint16", "int16")
DESCRIPTION = TypeAdapter(v0_5.PostprocessingDescr)


def tensor_of(rng, axes, dtype):
    shape = [SIZES[axis] for axis in AXES[axes]]
    if dtype.startswith("float"):
        return rng.normal(0.2, 1.5, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(max(limits.min, -2000), min(limits.max, 4000), shape, dtype=dtype, endpoint=True)


def is_faithful(name, kwargs, axes, dtype):
    """Whether the library does what the specification says, and the axes exist."""
    named = [*kwargs.get("axes", []), *([kwargs["axis"]] if "axis" in kwargs else [])]
    if not set(named) <= set(AXES[axes]):
        return False
    if name == "binarize" and "axis" in kwargs:
        return AXES[axes][-1] == kwargs["axis"]
    if name == "ensure_dtype" and kwargs["dtype"] == "uint8":
        return dtype == "uint8"  # out of range the result depends on the processor
    return name not in {"sigmoid", "softmax"} or dtype.startswith("float")  # it computes these two in the integer type


def result_of(step, tensor, other, axes):
    name, kwargs = step
    description = DESCRIPTION.validate_python({"id": name} | ({"kwargs": kwargs} if kwargs else {}))
    output = v0_5.OutputTensorDescr.model_construct(id=v0_5.TensorId("scores"))
    operator = get_proc(description, output)
    members = {MemberId("scores"): Tensor(tensor, AXES[axes]), MemberId("other"): Tensor(other, AXES[axes])}
    sample = Sample(members=members, stat={}, id=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sample.stat.update(compute_measures(set(operator.required_measures), [sample]))
        operator(sample)
    return sample.members[MemberId("scores")].data.transpose(*AXES[axes]).data


def main():
    rng = np.random.default_rng(SEED)
    cases, arrays = [], {}
    orders = list(AXES)
    for number, step in enumerate(STEPS):
        for axes, chosen in (("bcyx", "float32"), *((axes, DTYPES[(number + turn) % len(DTYPES)]) for turn, axes in enumerate(orders))):
            if not is_faithful(*step, axes, chosen):
                continue
            tensor, other = tensor_of(rng, axes, chosen), tensor_of(rng, axes, "float32")
            index = len(cases)
            cases.append({"id": step[0], "kwargs": step[1], "axes": AXES[axes]})
            arrays |= {f"in{index}": tensor, f"out{index}": result_of(step, tensor, other, axes)}
            if "reference_tensor" in step[1]:
                arrays[f"other{index}"] = other
    about = {"seed": SEED, "versions": {name: version(name) for name in ("bioimageio.core", "bioimageio.spec", "numpy")}, "cases": cases}
    np.savez_compressed(Path(__file__).with_name("golden.npz"), about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)


if __name__ == "__main__":
    main()
