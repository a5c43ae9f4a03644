"""The expected pixels, checked against the cell and against numbers worked out by hand."""

import ast
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.images import Encoding, cell, encodings, written
from tests.images.encodings import JpegEncoding, PngEncoding, TiffEncoding
from tests.images.expected import Alpha, Picture, rendered
from tests.images.profiles import to_srgb

PLAIN: dict[type[Encoding], dict[str, object]] = {
    TiffEncoding: {"extra": "none", "gaps": False, "subsampling": (1, 1), "profile": "none"},
    PngEncoding: {"alpha": False, "transparent": False, "profile": "none"},
    JpegEncoding: {"profile": "none"},
}
"""Without anything that changes the colours of the cell."""
ENCODINGS = [msgspec.structs.replace(it, **PLAIN[type(it)]) for it in encodings(seed=2, count=200)]
GREY = [it for it in ENCODINGS if it.colour == "grey"]
STRETCHED = [it for it in GREY if "values_scaled" in written(cell(), it).warnings]
LUMA = np.repeat((cell() @ [0.299, 0.587, 0.114])[..., np.newaxis], 3, axis=2)


def difference(one: NDArray, other: NDArray) -> float:
    return float(np.abs(one.astype(np.float64) - other).mean())


def levels(picture: Picture) -> list[int]:
    """The first band of the first row."""
    return rendered(picture).pixels[0, :, 0].tolist()


def row(*samples: float, dtype: str = "uint16", bands: int = 1) -> NDArray:
    """Pixels that all have equal bands."""
    return np.repeat(np.array(samples, dtype).reshape(1, -1, 1), bands, axis=2)


# ---- against the cell


@pytest.mark.parametrize("encoding", [it for it in ENCODINGS if it.colour not in {"grey", "palette"}], ids=str)
def test_colours_are_those_of_the_cell(encoding):
    assert difference(written(cell(), encoding).expected, cell()) < 0.6


@pytest.mark.parametrize("encoding", [it for it in ENCODINGS if it.colour == "palette" and it.bits == 8], ids=str)
def test_a_palette_of_256_colours_is_near_the_cell(encoding):
    assert difference(written(cell(), encoding).expected, cell()) < 8


@pytest.mark.parametrize("encoding", [it for it in GREY if it not in STRETCHED], ids=str)
def test_grey_with_few_bits_is_the_luma_in_steps(encoding):
    step = 255 / (1 if isinstance(encoding, JpegEncoding) else 2**encoding.bits - 1)
    assert np.abs(written(cell(), encoding).expected - LUMA).max() <= step / 2 + 0.5


@pytest.mark.parametrize("encoding", STRETCHED, ids=str)
def test_grey_with_many_bits_is_the_luma_stretched(encoding):
    low, high = np.percentile(LUMA, (1, 99.8))
    assert difference(written(cell(), encoding).expected, np.clip((LUMA - low) * 255 / (high - low), 0, 255)) < 1


def test_a_wide_profile_changes_colours_and_srgb_does_not():
    assert difference(to_srgb(cell(), "wide"), cell()) > 3
    assert difference(to_srgb(cell(), "sRGB"), cell()) < 0.6


# ---- by hand


def test_grey_of_two_bits_has_four_levels():
    assert levels(Picture(colour="grey", samples=row(0, 1, 2, 3, dtype="uint8"), bits=2)) == [0, 85, 170, 255]


def test_what_is_not_finite_becomes_black_or_white():
    samples = row(*[0.0] * 50, *[1.0] * 50, np.nan, -np.inf, np.inf, dtype="float32")
    assert levels(Picture(colour="grey", samples=samples, bits=32))[-3:] == [0, 0, 255]


@pytest.mark.parametrize(("dtype", "bits"), [("uint8", 4), ("uint16", 16), ("int16", 16), ("float32", 32)])
def test_white_is_zero_turns_the_numbers_round(dtype, bits):
    samples = row(*[0] * 50, *[15] * 50, dtype=dtype)
    assert levels(Picture(colour="grey", samples=samples, bits=bits, white_is_zero=True)) == [255] * 50 + [0] * 50


def test_twelve_bits_in_sixteen_are_found_by_their_brightest_values():
    samples = row(*[4095] * 999, 65535, bands=3)
    found = rendered(Picture(colour="rgb", samples=samples, bits=16))
    assert found.pixels.min() == 255
    assert found.warnings == {"values_scaled"}


def test_sixteen_bits_are_no_change_of_values():
    samples = row(*[0] * 50, *[65535] * 50, bands=3)
    assert rendered(Picture(colour="rgb", samples=samples, bits=16)).warnings == set()


def test_negative_floats_in_colours_are_stretched():
    samples = row(*[-1.0] * 50, *[0.0] * 50, *[1.0] * 50, dtype="float32", bands=3)
    assert levels(Picture(colour="rgb", samples=samples, bits=32)) == [0] * 50 + [128] * 50 + [255] * 50


def test_signed_colours_are_stretched():
    samples = row(*[-100] * 50, *[100] * 50, dtype="int16", bands=3)
    assert levels(Picture(colour="rgb", samples=samples, bits=16)) == [0] * 50 + [255] * 50


def test_half_transparent_black_is_grey_and_associated_alpha_is_not_multiplied_again():
    alpha = Alpha(np.array([[51]], np.uint8), 255)
    assert levels(Picture(colour="grey", samples=row(100, dtype="uint8"), bits=8, alpha=alpha)) == [224]
    associated = msgspec.structs.replace(alpha, associated=True)
    assert levels(Picture(colour="grey", samples=row(20, dtype="uint8"), bits=8, alpha=associated)) == [224]


def test_ink_darkens():
    samples = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255], [51, 0, 0, 51]]], np.uint8)
    assert levels(Picture(colour="cmyk", samples=samples, bits=8)) == [255, 0, 0, 163]


# ---- apart from the product


def test_neither_the_product_nor_a_tiff_library_is_used():
    modules = [path for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("test_")]
    assert len(modules) > 10
    for path in modules:
        imported = {name for node in ast.walk(ast.parse(path.read_text())) for name in names(node)}
        assert not imported & {"infrastructure", "tifffile", "domain", "application", "api", "projections"}, path


def names(node: ast.AST) -> list[str]:
    """Of packages that a statement imports."""
    match node:
        case ast.Import(names=found):
            return [it.name.split(".")[0] for it in found]
        case ast.ImportFrom(module=str(module)):
            return [module.split(".")[0]]
        case _:
            return []
