"""PNG files from a cell and a `PngEncoding`."""

import struct
import zlib
from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from tests.images.colours import luma, quantised
from tests.images.encodings import PngEncoding
from tests.images.exif import exif
from tests.images.expected import Alpha, Picture
from tests.images.png_writer import chunk, png_bytes
from tests.images.profiles import icc
from tests.images.samples import opacity

COLOUR_TYPES = {("grey", False): 0, ("rgb", False): 2, ("palette", False): 3, ("grey", True): 4, ("rgb", True): 6}
PIXELS_PER_METRE = 3_076_923  # 0.325 um each
PIECE = 1000  # bytes of an IDAT chunk, if there are many


def png_file(held: NDArray[np.uint8], encoding: PngEncoding) -> tuple[bytes, Picture]:
    """The file, and what it states. `held` (height, width, 3): the cell as the file holds it, turned."""
    picture = _picture(held, encoding)
    alpha = [] if picture.alpha is None or not encoding.alpha else [picture.alpha.values[..., np.newaxis]]
    data = png_bytes(
        np.concatenate((picture.samples, *alpha), axis=2),
        bits=encoding.bits,
        colour_type=COLOUR_TYPES[encoding.colour, encoding.alpha],
        interlaced=encoding.interlaced,
        filters=encoding.filters,
        chunks=[*_chunks(picture, encoding)],
        piece=PIECE if encoding.many_chunks else 1 << 20,
    )
    return data, picture


def _picture(held: NDArray[np.uint8], encoding: PngEncoding) -> Picture:
    samples, palette = _samples(held, encoding)
    picture = Picture(colour=encoding.colour, samples=samples, bits=encoding.bits, palette=palette, profile=encoding.profile)
    if encoding.alpha:
        full = 2**encoding.bits - 1
        values = np.rint(opacity(*held.shape[:2])[..., 0] * full).astype(samples.dtype)
        return msgspec.structs.replace(picture, alpha=Alpha(values, full))
    return msgspec.structs.replace(picture, alpha=_stated_transparency(picture)) if encoding.transparent else picture


def _samples(held: NDArray[np.uint8], encoding: PngEncoding) -> tuple[NDArray, NDArray[np.uint8] | None]:
    if encoding.colour == "palette":
        return quantised(held, encoding.bits)
    unit = luma(held) if encoding.colour == "grey" else held / 255
    return np.rint(unit * encoding.full).astype(np.uint16 if encoding.bits == 16 else np.uint8), None


def _stated_transparency(picture: Picture) -> Alpha:
    """What the tRNS chunk means for each pixel."""
    if picture.palette is not None:
        return Alpha(_palette_opacity(len(picture.palette))[picture.samples[..., 0]], 255)
    return Alpha((picture.samples != _commonest(picture)).any(axis=2).astype(np.uint8), 1)


def _palette_opacity(entries: int) -> NDArray[np.uint8]:
    """From half transparent to opaque."""
    return np.linspace(127, 255, entries).astype(np.uint8)


def _commonest(picture: Picture) -> NDArray:
    """The colour of the most pixels."""
    pixels = picture.samples.reshape(-1, picture.samples.shape[2])
    numbered = pixels.astype(np.uint64) @ (np.uint64(1) << np.arange(0, 16 * pixels.shape[1], 16, dtype=np.uint64))
    _, firsts, counts = np.unique(numbered, return_index=True, return_counts=True)
    return pixels[firsts[counts.argmax()]]


def _chunks(picture: Picture, encoding: PngEncoding) -> Iterator[bytes]:
    if encoding.profile != "none":
        yield chunk(b"iCCP", b"profile\0\0" + zlib.compress(icc(encoding.profile)))
    if encoding.significant_bits:
        yield chunk(b"sBIT", _significant_bits(picture, encoding))
    if picture.palette is not None:
        yield chunk(b"PLTE", picture.palette.tobytes())
    if encoding.transparent:
        yield chunk(b"tRNS", _transparent(picture))
    if encoding.resolution:
        yield chunk(b"pHYs", struct.pack(">IIB", PIXELS_PER_METRE, PIXELS_PER_METRE, 1))
    if encoding.orientation != 1:
        yield chunk(b"eXIf", exif(encoding.orientation, "big"))


def _significant_bits(picture: Picture, encoding: PngEncoding) -> bytes:
    """Those that the colours use; all bits of alpha."""
    return bytes([encoding.full.bit_length()] * picture.samples.shape[2] + [encoding.bits] * encoding.alpha)


def _transparent(picture: Picture) -> bytes:
    if picture.palette is not None:
        return _palette_opacity(len(picture.palette)).tobytes()
    return _commonest(picture).astype(">u2").tobytes()
