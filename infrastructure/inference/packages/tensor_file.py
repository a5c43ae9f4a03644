"""Test tensors: `.npy` files of plain numbers, read without pickle and without evaluating the header as Python."""

import re
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from infrastructure.inference.models.refusals import PackageRefused, RefusalCode

MAGIC: Final = b"\x93NUMPY"
MAX_HEADER_BYTES: Final = 4096
HEADER: Final = re.compile(
    rb"\{'descr': '(?P<type>[<>|][a-zA-Z]\d{0,3})', 'fortran_order': (?P<fortran>True|False), "
    rb"'shape': \((?P<shape>(?:\d{1,19}(?:, ?\d{1,19}){0,7},?)?)\), ?\} *\n"
)
NUMBERS: Final = "biuf"


class TensorLayout(NamedTuple):
    """`data`: where the numbers begin."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    is_fortran: bool
    data: int


def read_layout(file: bytes, *, name: str) -> TensorLayout:
    """What an .npy file holds. Raises PackageRefused; `name` names the file there."""
    if not file.startswith(MAGIC):
        raise _refused(name, "is not an .npy file: save the tensor with numpy.save")
    width = {1: 2, 2: 4, 3: 4}.get(file[6] if len(file) > 6 else 0, 0)
    length = int.from_bytes(file[8 : 8 + width], "little")
    header = file[8 + width : 8 + width + length]
    if not width or length > MAX_HEADER_BYTES or len(header) < length:
        raise _refused(name, "has a header that is damaged or too long")
    parsed = HEADER.fullmatch(header)
    if parsed is None:
        raise _refused(name, "has a header that describes no plain array of numbers")
    kind = parsed["type"].decode()
    try:
        dtype = np.dtype(kind)
    except TypeError:
        raise _refused(name, f"has elements of the unknown type {kind}") from None
    if dtype.kind not in NUMBERS:
        raise _refused(name, f"holds elements of the type {kind}; a tensor holds numbers, and no objects or texts")
    shape = tuple(int(size) for size in re.findall(rb"\d+", parsed["shape"]))
    layout = TensorLayout(dtype, shape, parsed["fortran"] == b"True", 8 + width + length)
    if prod(shape) * dtype.itemsize != len(file) - layout.data:
        raise _refused(
            name, f"declares {prod(shape):,} numbers of {dtype.itemsize} bytes and has {len(file) - layout.data:,} bytes of them"
        )
    return layout


def read_tensor(file: bytes, *, name: str) -> NDArray[Any]:
    """The numbers, all of them finite. Raises PackageRefused."""
    layout = read_layout(file, name=name)
    flat = np.frombuffer(file, layout.dtype, offset=layout.data)
    if not np.isfinite(flat).all():
        raise _refused(name, "holds NaN or infinity: a network that gives them cannot be used")
    return flat.reshape(layout.shape, order="F" if layout.is_fortran else "C")


def _refused(name: str, detail: str) -> PackageRefused:
    return PackageRefused(RefusalCode.TENSOR_FILE, detail, file=name)
