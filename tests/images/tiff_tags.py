"""The tags that an encoding's pages carry (TIFF 6.0; numbers as there, and in the supplements for ICC profiles and JPEG)."""

from collections.abc import Sequence

import msgspec

from tests.images.encodings import ImageJ, Strips, TiffEncoding, Tiles
from tests.images.expected import Picture
from tests.images.profiles import icc
from tests.images.tiff_writer import ASCII, LONG, RATIONAL, SHORT, UNDEFINED, Directory, Tag

NEW_SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, DESCRIPTION = 254, 256, 257, 258, 259, 262, 266, 270
STRIP_OFFSETS, ORIENTATION, BANDS, ROWS_PER_STRIP, STRIP_SIZES, X_RESOLUTION, Y_RESOLUTION = 273, 274, 277, 278, 279, 282, 283
PLANAR, RESOLUTION_UNIT, PREDICTOR, COLOUR_MAP, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_SIZES = 284, 296, 317, 320, 322, 323, 324, 325
EXTRA_SAMPLES, SAMPLE_FORMAT, JPEG_TABLES, SUBSAMPLING, REFERENCE_BLACK_WHITE, ICC_PROFILE = 338, 339, 347, 530, 532, 34675

COMPRESSIONS = {"none": 1, "lzw": 5, "jpeg": 7, "deflate": 8, "old deflate": 32946, "packbits": 32773, "zstd": 50000}
PHOTOMETRICS = {"white": 0, "black": 1, "rgb": 2, "palette": 3, "cmyk": 5, "ycbcr": 6}
EXTRAS = {"unspecified": 0, "associated alpha": 1, "alpha": 2}
FORMATS = {"u": 1, "i": 2, "f": 3}
RESOLUTIONS = {"cm": (3, 400_000, 13), "inch": (2, 1_016_000, 13)}
"""Unit, and pixels per unit as a fraction, for 0.325 um."""
PER_MICRON = (1, 40, 13)
"""As ImageJ notes it: the description names the unit."""
DEFAULT_REFERENCE = (0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1)

Tags = dict[int, Tag]


def of_picture(height: int, width: int, picture: Picture, encoding: TiffEncoding) -> Tags:
    """What the numbers mean."""
    return {
        **_size(height, width),
        **_numbers(encoding),
        **_colours(picture, encoding),
        **_resolution(encoding),
        **_shorts(ORIENTATION, *[encoding.orientation] * (encoding.orientation != 1)),
    }


def of_data(lengths: Sequence[int], tables: bytes, encoding: TiffEncoding) -> Tags:
    """How the strips or tiles are stored. `lengths` in bytes."""
    tags = {
        **_shorts(COMPRESSION, COMPRESSIONS[encoding.compression]),
        **_shorts(PREDICTOR, *[encoding.predictor] * (encoding.predictor != 1)),
        **_shorts(FILL_ORDER, *[encoding.fill_order] * (encoding.fill_order != 1)),
        **_shorts(PLANAR, *[2 if encoding.separate else 1] * (encoding.bands > 1)),
    }
    if tables:
        tags[JPEG_TABLES] = Tag(UNDEFINED, tables)
    match encoding.segments:
        case Tiles(width, height):
            return tags | _shorts(TILE_WIDTH, width) | _shorts(TILE_HEIGHT, height) | {TILE_SIZES: _counts(lengths)}
        case Strips(rows):
            return tags | _rows_per_strip(rows) | _strip_sizes(lengths, encoding)


def describing(text: str) -> Tags:
    return {DESCRIPTION: Tag(ASCII, text.encode() + b"\0")}


def with_tags(directory: Directory, tags: Tags) -> Directory:
    return msgspec.structs.replace(directory, tags=directory.tags | tags)


def _shorts(number: int, *values: int) -> Tags:
    """No tag without values."""
    return {number: Tag(SHORT, values)} if values else {}


def _size(height: int, width: int) -> Tags:
    return _shorts(WIDTH, width) | _shorts(HEIGHT, height)


def _numbers(encoding: TiffEncoding) -> Tags:
    bands = encoding.bands
    kind = FORMATS[encoding.dtype[0]]
    return {
        **_shorts(BITS, *[encoding.bits] * bands),
        **_shorts(BANDS, bands),
        **_shorts(SAMPLE_FORMAT, *[kind] * (bands if kind != 1 else 0)),
    }


def _colours(picture: Picture, encoding: TiffEncoding) -> Tags:
    tags: Tags = {}
    if not encoding.photometric.endswith("unstated"):
        tags |= _shorts(PHOTOMETRIC, PHOTOMETRICS[encoding.photometric])
    if encoding.extra != "none":
        tags |= _shorts(EXTRA_SAMPLES, EXTRAS[encoding.extra])
    if picture.palette is not None:
        tags |= _shorts(COLOUR_MAP, *picture.palette.T.ravel().tolist())
    if encoding.colour == "ycbcr":
        tags |= _shorts(SUBSAMPLING, *encoding.subsampling)
    if encoding.reference:
        tags[REFERENCE_BLACK_WHITE] = Tag(RATIONAL, DEFAULT_REFERENCE)
    if encoding.profile != "none":
        tags[ICC_PROFILE] = Tag(UNDEFINED, icc(encoding.profile))
    return tags


def _resolution(encoding: TiffEncoding) -> Tags:
    if isinstance(encoding.metadata, ImageJ):
        unit, *ratio = PER_MICRON
    elif encoding.resolution != "none":
        unit, *ratio = RESOLUTIONS[encoding.resolution]
    else:
        return {}
    return {X_RESOLUTION: Tag(RATIONAL, ratio), Y_RESOLUTION: Tag(RATIONAL, ratio), **_shorts(RESOLUTION_UNIT, unit)}


def _rows_per_strip(rows: int | None) -> Tags:
    """All rows: the default of the standard, 2**32 - 1."""
    return {} if rows is None else {ROWS_PER_STRIP: Tag(LONG, [rows or 2**32 - 1])}


def _strip_sizes(lengths: Sequence[int], encoding: TiffEncoding) -> Tags:
    match encoding.byte_counts:
        case "missing":
            return {}
        case "zero":
            return {STRIP_SIZES: _counts([0] * len(lengths))}
        case _:
            return {STRIP_SIZES: _counts(lengths)}


def _counts(lengths: Sequence[int]) -> Tag:
    return Tag(LONG if max(lengths) > 0xFFFF else SHORT, lengths)


FULL_SIZE: Tags = {NEW_SUBFILE_TYPE: Tag(LONG, [0])}
REDUCED_SIZE: Tags = {NEW_SUBFILE_TYPE: Tag(LONG, [1])}
TRANSPARENCY_MASK: Tags = {NEW_SUBFILE_TYPE: Tag(LONG, [4]), **_shorts(PHOTOMETRIC, 4)}
