"""Conversion of a TIFF page's tags to its layout.

Anything that a layout cannot describe is refused at upload, with a message that says how to save the image instead. Missing tags get
libtiff's defaults, which the layout marks.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from domain.errors import UnsupportedImage
from infrastructure.images.validation.layout import Blocks, Compression, ExtraSample, PageLayout, Photometric, Predictor
from infrastructure.images.validation.limits import ImageLimits, check_size
from infrastructure.images.validation.tiff import Directory, damaged
from infrastructure.images.validation.ycbcr import YcbcrConversion, read_conversion

SUBFILE_TYPE, OLD_SUBFILE_TYPE = 254, 255
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_SIZES, PLANAR = 273, 274, 277, 278, 279, 284
PREDICTOR, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_SIZES = 317, 322, 323, 324, 325
INK_SET, EXTRA_SAMPLES, SAMPLE_FORMAT, SUBSAMPLING = 332, 338, 339, 530
IMAGE_DEPTH, TILE_DEPTH = 32997, 32998

OTHER_COMPRESSIONS: Final = {
    2: "CCITT fax",
    3: "CCITT fax",
    4: "CCITT fax",
    6: "old-style JPEG",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "lossy DNG",
    34925: "LZMA",
    34933: "PNG",
    34934: "JPEG XR",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
OTHER_PHOTOMETRICS: Final = {
    4: "a transparency mask",
    8: "CIE L*a*b* colours",
    9: "ICC L*a*b* colours",
    10: "ITU L*a*b* colours",
    32803: "the raw values of a colour filter array",
    32844: "logarithmic values",
    32845: "logarithmic values",
    34892: "linear raw values",
}
COLOUR_CHANNELS: Final = {Photometric.RGB: 3, Photometric.PALETTE: 1, Photometric.CMYK: 4, Photometric.YCBCR: 3}
PREDICTABLE: Final = frozenset({Compression.LZW, Compression.DEFLATE, Compression.OLD_DEFLATE, Compression.ZSTANDARD})
UNSIGNED, SIGNED, FLOAT, UNDEFINED = 1, 2, 3, 4
FORMAT_NAMES: Final = {UNSIGNED: "uint", SIGNED: "int", FLOAT: "float"}
NUMBER_NAMES: Final = {"uint": "unsigned integers", "int": "signed integers", "float": "floating-point numbers"}
COLOUR_NAMES: Final = {Photometric.RGB: "RGB", Photometric.PALETTE: "palette", Photometric.CMYK: "CMYK", Photometric.YCBCR: "YCbCr"}
GREY_DTYPES: Final = frozenset({"uint1", "uint2", "uint4", "uint8", "int8", "uint16", "int16", "float16", "float32"})
COLOUR_DTYPES: Final = {
    Photometric.RGB: frozenset({"uint8", "int8", "uint16", "int16", "float16", "float32"}),
    Photometric.PALETTE: frozenset({"uint1", "uint2", "uint4", "uint8"}),
    Photometric.CMYK: frozenset({"uint8", "uint16"}),
    Photometric.YCBCR: frozenset({"uint8"}),
}
PREDICTOR_BITS: Final = {Predictor.HORIZONTAL: {8, 16, 32}, Predictor.FLOATING_POINT: {16, 32}}
REDUCED, MASK = 1, 4
OLD_REDUCED: Final = 2
SEPARATE: Final = 2
REVERSED_BITS: Final = 2
CMYK_INKS: Final = 1
SUBSAMPLINGS: Final = frozenset({(1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (4, 4), (1, 2)})


def is_reduced_or_mask(directory: Directory) -> bool:
    """Whether a page is a thumbnail or a transparency mask of another page."""
    return bool(directory.number(SUBFILE_TYPE) & (REDUCED | MASK)) or directory.number(OLD_SUBFILE_TYPE) == OLD_REDUCED


def describe_page(directory: Directory, limits: ImageLimits) -> PageLayout:
    """The layout of a page. Raises UnsupportedImage for a page that the reader cannot decode, DamagedImage, ImageTooLarge."""
    samples = directory.number(SAMPLES, 1)
    width, height = directory.number(WIDTH), directory.number(HEIGHT)
    check_size(width, height, samples, limits)
    compression = _compression(directory)
    photometric, assumed = _photometric(directory, samples)
    extra = _extra_samples(directory, photometric, samples)
    number, bits = _numbers(directory, photometric, limits)
    separate = directory.number(PLANAR, 1) == SEPARATE and samples > 1
    page = PageLayout(
        directory=directory,
        width=width,
        height=height,
        samples=samples,
        bits=bits,
        number=number,
        compression=compression,
        predictor=_predictor(directory, compression, number, bits),
        photometric=photometric,
        separate=separate,
        extra=extra,
        orientation=_orientation(directory),
        reversed_bits=directory.number(FILL_ORDER, 1) == REVERSED_BITS and compression is not Compression.JPEG,
        subsampling=_subsampling(directory) if photometric is Photometric.YCBCR else (1, 1),
        ycbcr=_ycbcr(directory) if photometric is Photometric.YCBCR else YcbcrConversion(),
        blocks=Blocks((), (), width, height, tiled=False),
        photometric_assumed=assumed,
        byte_counts_assumed=False,
    )
    _check_combination(page)
    return _with_blocks(page, limits)


def _compression(directory: Directory) -> Compression:
    found = directory.number(COMPRESSION, Compression.NONE)
    if found in set(Compression):
        return Compression(found)
    raise UnsupportedImage(
        f"Page {directory.page} of the TIFF file is compressed with {OTHER_COMPRESSIONS.get(found, 'an unknown method')}."
        " Save it uncompressed, or with LZW, Deflate, JPEG, PackBits or Zstandard",
        reason="unsupported_compression",
    )


def _photometric(directory: Directory, samples: int) -> tuple[Photometric, bool]:
    """The meaning of the samples, and whether it was assumed. Without the tag it is grey for one sample, RGB for three, as in libtiff."""
    if PHOTOMETRIC not in directory.entries:
        colours = samples - len(_listed(directory, EXTRA_SAMPLES))
        if colours in {1, 3}:
            return (Photometric.BLACK_IS_ZERO if colours == 1 else Photometric.RGB), True
        raise unsupported_layout(directory, "does not say what its samples mean. Save it as grey or RGB")
    found = directory.number(PHOTOMETRIC)
    if found in set(Photometric):
        return Photometric(found), False
    meaning = OTHER_PHOTOMETRICS.get(found, "values of an unknown kind")
    raise unsupported_layout(directory, f"contains {meaning}. Save it as grey or RGB")


def _extra_samples(directory: Directory, photometric: Photometric, samples: int) -> tuple[ExtraSample, ...]:
    """The kinds of the samples after the colours; unspecified if the file does not describe them."""
    named = [ExtraSample(kind) if kind in set(ExtraSample) else ExtraSample.UNSPECIFIED for kind in _listed(directory, EXTRA_SAMPLES)]
    colours = COLOUR_CHANNELS.get(photometric, max(1, samples - len(named)))
    if samples < colours:
        raise unsupported_layout(directory, f"has {samples} samples per pixel where its colours need {colours}. Export it again")
    return tuple((named + [ExtraSample.UNSPECIFIED] * samples)[: samples - colours])


def _numbers(directory: Directory, photometric: Photometric, limits: ImageLimits) -> tuple[str, int]:
    bits = set(directory.numbers(BITS, 1, maximum=limits.bands))
    formats = {UNSIGNED if it == UNDEFINED else it for it in directory.numbers(SAMPLE_FORMAT, UNSIGNED, maximum=limits.bands)}
    number = FORMAT_NAMES.get(min(formats), "")
    supported = COLOUR_DTYPES.get(photometric, GREY_DTYPES)
    if len(bits) == len(formats) == 1 and f"{number}{min(bits)}" in supported:
        return number, min(bits)
    colours, numbers = COLOUR_NAMES.get(photometric, "grey"), NUMBER_NAMES.get(number, "other numbers")
    listed = ", ".join(map(str, sorted(bits)[:8]))
    raise UnsupportedImage(
        f"Page {directory.page} of the TIFF file stores its {colours} pixels as {numbers} of {listed} bits, which is not supported."
        f" Save it as unsigned integers of 8 or 16 bits{', or as floating-point numbers of 32 bits' if 'float32' in supported else ''}",
        reason="unsupported_bit_depth",
    )


def _predictor(directory: Directory, compression: Compression, number: str, bits: int) -> Predictor:
    """The predictor. As in libtiff, it is ignored for compressions without predictors."""
    found = directory.number(PREDICTOR, Predictor.NONE) if compression in PREDICTABLE else Predictor.NONE
    if found not in set(Predictor):
        raise unsupported_layout(directory, "uses an unknown predictor. Save it without one")
    fits = bits in PREDICTOR_BITS.get(Predictor(found), {bits}) and (found != Predictor.FLOATING_POINT or number == "float")
    if not fits:
        raise unsupported_layout(directory, "uses a predictor that does not match its data type. Save it without one")
    return Predictor(found)


def _orientation(directory: Directory) -> int:
    found = directory.number(ORIENTATION, 1)
    return found if 1 <= found <= 8 else 1


def _subsampling(directory: Directory) -> tuple[int, int]:
    across, down = (*directory.numbers(SUBSAMPLING, 2, 2, maximum=16), 2)[:2]
    if (across, down) not in SUBSAMPLINGS:
        raise unsupported_layout(directory, "has unusual chroma subsampling. Save it as RGB")
    return across, down


def _ycbcr(directory: Directory) -> YcbcrConversion:
    found = read_conversion(directory)
    if found is None:
        raise unsupported_layout(directory, "has invalid YCbCr coefficients. Save it as RGB")
    return found


def _check_combination(page: PageLayout) -> None:
    directory = page.directory
    if page.compression is Compression.JPEG and page.dtype != "uint8":
        raise unsupported_layout(directory, f"stores {page.dtype} numbers as JPEG. Save it uncompressed or with Deflate")
    if page.compression is Compression.JPEG and (page.photometric is Photometric.PALETTE or page.bits < 8):
        raise unsupported_layout(directory, "stores a palette as JPEG. Save it uncompressed or with Deflate")
    if directory.number(IMAGE_DEPTH, 1) > 1 or directory.number(TILE_DEPTH, 1) > 1:
        raise unsupported_layout(directory, "is a volume in one piece. Save each of its planes as a page")
    if page.bits < 8 and page.samples > 1:
        raise unsupported_layout(directory, f"has {page.samples} samples of {page.bits} bits. Save it with 8 bits")
    if page.reversed_bits and page.bits > 8:
        raise unsupported_layout(directory, "stores its bits in reverse order. Save it with FillOrder 1")
    if page.photometric is Photometric.CMYK and directory.number(INK_SET, CMYK_INKS) != CMYK_INKS:
        raise unsupported_layout(directory, "has inks other than CMYK. Save it as RGB")
    if page.photometric is Photometric.YCBCR:
        _check_ycbcr(page)
    if page.photometric is Photometric.PALETTE and len(page.colour_map) != 3 << page.bits:
        raise damaged("its palette is missing or broken")


def _check_ycbcr(page: PageLayout) -> None:
    if page.extra or (page.separate and page.subsampling != (1, 1)):
        raise unsupported_layout(page.directory, "stores YCbCr colours in an unusual way. Save it as RGB")
    if page.subsampled and page.predictor is not Predictor.NONE:
        raise unsupported_layout(page.directory, "stores differences of subsampled YCbCr colours. Save it without a predictor, or as RGB")


def _with_blocks(page: PageLayout, limits: ImageLimits) -> PageLayout:
    directory = page.directory
    tiled = TILE_OFFSETS in directory.entries or TILE_WIDTH in directory.entries
    if tiled:
        width, height = directory.number(TILE_WIDTH), directory.number(TILE_HEIGHT)
    else:
        width, height = page.width, min(directory.number(ROWS_PER_STRIP, page.height), page.height)
    if width < 1 or height < 1:
        raise damaged("its strips or tiles have no size")
    planes = page.samples if page.separate else 1
    needed = planes * -(-page.width // width) * -(-page.height // height)
    offsets, sizes = block_offsets(directory, limits)[:needed], block_sizes(directory, limits)[:needed]
    if len(offsets) < needed or 0 < len(sizes) < needed:
        raise damaged("it has fewer strips or tiles than its size requires")
    if 0 in offsets:
        raise unsupported_layout(directory, "omits empty parts of its picture. Save it with all pixels")
    if page.compression is not Compression.NONE and 0 in sizes:
        raise damaged("a part of its picture is empty")
    placed = msgspec.structs.replace(page, blocks=Blocks(offsets, sizes, width, height, tiled))
    if page.compression is not Compression.NONE or (sizes and all(sizes)):
        return placed
    assumed = [placed.stored_bytes(*placed.block_size(index)) for index in range(len(offsets))]
    return msgspec.structs.replace(placed, blocks=Blocks(offsets, assumed, width, height, tiled), byte_counts_assumed=True)


def block_offsets(directory: Directory, limits: ImageLimits) -> Sequence[int]:
    return directory.numbers(TILE_OFFSETS if TILE_OFFSETS in directory.entries else STRIP_OFFSETS, maximum=limits.blocks)


def block_sizes(directory: Directory, limits: ImageLimits) -> Sequence[int]:
    return directory.numbers(TILE_SIZES if TILE_SIZES in directory.entries else STRIP_SIZES, maximum=limits.blocks)


def _listed(directory: Directory, tag: int) -> Sequence[int]:
    return directory.numbers(tag, maximum=64) if tag in directory.entries else ()


def unsupported_layout(directory: Directory, what: str) -> UnsupportedImage:
    return UnsupportedImage(f"Page {directory.page} of the TIFF file {what}", reason="unsupported_layout")
