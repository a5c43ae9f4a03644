"""TIFF files from a cell and a `TiffEncoding`: which pages there are, and the order in which they stand."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from tests.images import tiff_jpeg, tiff_ycbcr
from tests.images.encodings import ImageJ, TiffEncoding, Tiles
from tests.images.expected import Picture
from tests.images.samples import stored_samples
from tests.images.tiff_data import coded
from tests.images.tiff_descriptions import description, planes
from tests.images.tiff_tags import (
    FULL_SIZE,
    REDUCED_SIZE,
    STRIP_OFFSETS,
    TILE_OFFSETS,
    TRANSPARENCY_MASK,
    describing,
    of_data,
    of_picture,
    with_tags,
)
from tests.images.tiff_writer import Directory, Form, tiff_bytes


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """One picture in strips or tiles. `tables`: of JPEG."""

    data: tuple[bytes, ...]
    picture: Picture
    tables: bytes = b""


def tiff_file(held: NDArray[np.uint8], encoding: TiffEncoding) -> tuple[bytes, Picture]:
    """The file, and what its first plane states. `held` (height, width, 3): the cell as the file holds it, turned."""
    first = content(held, encoding)
    form = Form(little=encoding.byte_order == "little", big=encoding.big, layout=encoding.layout)
    return tiff_bytes(_described(_pages(held, first, encoding), encoding, *held.shape[:2]), form), first.picture


def content(held: NDArray[np.uint8], encoding: TiffEncoding) -> Content:
    stored = stored_samples(held, encoding)
    picture = stored.picture
    if encoding.compression == "jpeg":
        pixels = held if encoding.colour == "ycbcr" else stored.samples
        streams, tables = tiff_jpeg.coded(pixels, encoding)
        shown = msgspec.structs.replace(picture, colour="rgb", samples=held) if encoding.colour == "ycbcr" else picture
        return Content(data=tuple(streams), picture=shown, tables=tables)
    if encoding.colour == "ycbcr":
        samples = tiff_ycbcr.subsampled(stored.samples, *encoding.subsampling)
        return Content(data=tuple(tiff_ycbcr.coded(samples, encoding)), picture=msgspec.structs.replace(picture, samples=samples))
    return Content(data=tuple(coded(stored.samples, encoding)), picture=picture)


def _described(pages: list[Directory], encoding: TiffEncoding, height: int, width: int) -> list[Directory]:
    text = description(encoding, width, height)
    return pages if text is None else [with_tags(pages[0], describing(text)), *pages[1:]]


def _pages(held: NDArray[np.uint8], first: Content, encoding: TiffEncoding) -> list[Directory]:
    """All pages but the first plane show another picture, so that a reader which takes the wrong one is noticed."""
    main = _directory(held, first, encoding)
    match encoding.pages:
        case "thumbnail first":
            return [_thumbnail(held), with_tags(main, FULL_SIZE)]
        case "thumbnail last":
            return [with_tags(main, FULL_SIZE), _thumbnail(held)]
        case "mask last":
            return [with_tags(main, FULL_SIZE), _mask(held)]
        case "half-size level":
            return [msgspec.structs.replace(main, levels=(_level(held, encoding),))]
        case "two alike":
            return [main, _other(held, encoding)]
        case "stack":
            return _stack(held, first, encoding)
        case _:
            return [main]


def _directory(held: NDArray[np.uint8], stored: Content, encoding: TiffEncoding) -> Directory:
    tags = of_picture(held.shape[0], held.shape[1], stored.picture, encoding)
    tags |= of_data([*map(len, stored.data)], stored.tables, encoding)
    return Directory(tags=tags, offsets_tag=TILE_OFFSETS if isinstance(encoding.segments, Tiles) else STRIP_OFFSETS, data=stored.data)


def _other(held: NDArray[np.uint8], encoding: TiffEncoding) -> Directory:
    """A further plane: the negative."""
    return _directory(held, content(255 - held, encoding), encoding)


def _stack(held: NDArray[np.uint8], first: Content, encoding: TiffEncoding) -> list[Directory]:
    main, other = _directory(held, first, encoding), _other(held, encoding)
    if encoding.metadata == ImageJ(one_directory=True):
        behind_each_other = b"".join(main.data + other.data * (encoding.sizes.planes - 1))
        return [msgspec.structs.replace(main, data=(behind_each_other,))]
    return [main if plane.is_first else other for plane in planes(encoding)]


def _level(held: NDArray[np.uint8], encoding: TiffEncoding) -> Directory:
    """The picture at half its size."""
    half = np.ascontiguousarray(held[::2, ::2])
    return with_tags(_directory(half, content(half, encoding), encoding), REDUCED_SIZE)


def _thumbnail(held: NDArray[np.uint8]) -> Directory:
    """The negative at a quarter of the size, plain RGB."""
    plain = TiffEncoding(photometric="rgb", dtype="uint8", full=255)
    small = np.ascontiguousarray(255 - held[::4, ::4])
    return with_tags(_directory(small, content(small, plain), plain), REDUCED_SIZE)


def _mask(held: NDArray[np.uint8]) -> Directory:
    """Transparency of 1 bit: the left half."""
    plain = TiffEncoding(photometric="black", dtype="uint1", full=1)
    half = np.zeros_like(held)
    half[:, : held.shape[1] // 2] = 255
    return with_tags(_directory(half, content(half, plain), plain), TRANSPARENCY_MASK)
