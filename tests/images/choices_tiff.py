"""The space of all accepted TIFF encodings: each field is chosen from what the fields before it allow."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.images.encodings import ImageJ, Ome, Sizes, Strips, TiffEncoding, Tiles

Choose = Callable[[str, Sequence[Any]], Any]
"""Takes the name of a field and its options, the plainest first, and returns one of these."""

ORIENTATIONS = (1, 6, 2, 3, 4, 5, 7, 8)
PROFILES = ("none", "wide", "sRGB")
ORDERS = ("XYZCT", "XYCZT", "XYTCZ", "XYZTC", "XYCTZ", "XYTZC")

GREY_TYPES = ("uint8", "uint16", "float32", "int16", "int8", "float16", "uint1", "uint2", "uint4")
RGB_TYPES = ("uint8", "uint16", "float32", "float16")
WITH_EXTRA = ("uint8", "uint16")
KINDS: dict[tuple[str, str], Sequence[str]] = {
    ("rgb", "none"): RGB_TYPES,
    ("black", "none"): GREY_TYPES,
    ("white", "none"): GREY_TYPES,
    ("palette", "none"): ("uint8", "uint1", "uint2", "uint4"),
    ("cmyk", "none"): ("uint8", "uint16"),
    ("ycbcr", "none"): ("uint8",),
    ("grey unstated", "none"): GREY_TYPES,
    ("rgb unstated", "none"): RGB_TYPES,
    **{("rgb", extra): WITH_EXTRA for extra in ("alpha", "associated alpha", "unspecified")},
    **{("black", extra): WITH_EXTRA for extra in ("alpha", "associated alpha", "unspecified")},
    ("white", "unspecified"): WITH_EXTRA,
}
"""The number types of each photometric interpretation, and of the extra sample beside it."""
JPEG_KINDS = {(photometric, "none"): ("uint8",) for photometric in ("rgb", "ycbcr", "black", "grey unstated")}
IMAGEJ_TYPES = {"rgb": ("uint8",), "palette": ("uint8",), **dict.fromkeys(("black", "white"), ("uint8", "uint16", "float32"))}
IMAGEJ_KINDS = {(photometric, "none"): types for photometric, types in IMAGEJ_TYPES.items()}
OME_TYPES = frozenset({"uint8", "uint16", "int8", "int16", "float32"})

FULL = {"uint1": (1,), "uint2": (3,), "uint4": (15,), "uint8": (255,), "int8": (255,), "int16": (65535, 4095)}
GREY_FULL = {"uint16": (65535, 4095, 255), "float16": (1, 255, 1023), "float32": (1, 255, 65535)}
RGB_FULL = {
    "uint16": (65535, 4095, 255, 1023, 16383),
    "float16": (1, 255, 1023),
    "float32": (1, 255, 4095, 65535, 1023, 16383),
}
"""A float16 holds whole numbers up to 2,048: 4095 would become 4096, which is more than that scale."""

PAGES = ("single", "thumbnail first", "thumbnail last", "mask last", "half-size level", "two alike")
STACKS = (Sizes(depths=2), Sizes(times=3), Sizes(times=2, depths=2))
CHANNEL_STACKS = (Sizes(channels=2), Sizes(depths=2, channels=2), Sizes(times=2, depths=2, channels=2), Sizes(depths=3, channels=2))

STRIPS = (Strips(0), Strips(None), Strips(7), Strips(1), Strips(32))
TILES = (Tiles(32, 32), Tiles(16, 16), Tiles(64, 16), Tiles(16, 48), Tiles(128, 128), Tiles(256, 256))
STRIPS_OF_BLOCKS = (Strips(0), Strips(None), Strips(16), Strips(48))
"""Of JPEG blocks and of YCbCr data units: multiples of their heights."""
LOSSLESS = ("none", "lzw", "deflate", "zstd", "packbits", "old deflate")
PREDICTED = frozenset({"lzw", "deflate", "zstd", "old deflate"})

Fields = dict[str, Any]


def choose_tiff(choose: Choose) -> TiffEncoding:
    """Neither JPEG nor ImageJ."""
    fields = _meaning(choose, KINDS)
    fields |= _pages(choose, fields) | _storing(choose, fields, LOSSLESS)
    return _finished(choose, fields)


def choose_tiff_in_jpeg(choose: Choose) -> TiffEncoding:
    """Strips and tiles are JPEG streams."""
    fields = _meaning(choose, JPEG_KINDS)
    fields |= _pages(choose, fields) | _storing(choose, fields, ("jpeg",))
    fields["tables"] = choose("tables", (False, True))
    return _finished(choose, fields)


def choose_tiff_of_imagej(choose: Choose) -> TiffEncoding:
    """A description by ImageJ, which keeps the bands of a pixel together. In one directory, planes are stored as ImageJ does: uncompressed
    and big-endian, in a classic TIFF."""
    fields = _meaning(choose, IMAGEJ_KINDS)
    kind = choose("stack", ("single", "pages", "one directory"))
    fields["metadata"] = ImageJ(one_directory=kind == "one directory")
    if kind != "single":
        fields |= {"pages": "stack", "sizes": choose("sizes", _sizes(fields))}
    fields |= {"byte_order": "big"} if kind == "one directory" else _storing(choose, fields, LOSSLESS)
    return _finished(choose, fields)


def _meaning(choose: Choose, kinds: Mapping[tuple[str, str], Sequence[str]]) -> Fields:
    """What the numbers of a pixel mean."""
    photometric, extra = choose("kind", tuple(kinds))
    dtype = choose("dtype", kinds[photometric, extra])
    fields: Fields = {"photometric": photometric, "extra": extra, "dtype": dtype, "full": choose("full", _full(photometric, dtype))}
    if photometric == "palette":
        fields["map_scale"] = choose("map scale", (257, 1))
    if photometric == "ycbcr":
        fields["subsampling"] = choose("subsampling", ((1, 1), (2, 1), (2, 2)))
        fields["reference"] = choose("reference", (False, True))
    if dtype.startswith("float") and not photometric.startswith("rgb"):
        fields["gaps"] = choose("gaps", (False, True))
    return fields


def _full(photometric: str, dtype: str) -> tuple[int, ...]:
    if dtype in FULL:
        return FULL[dtype]
    if photometric == "cmyk":
        return (65535,)
    return (RGB_FULL if photometric.startswith("rgb") else GREY_FULL)[dtype]


def _pages(choose: Choose, fields: Fields) -> Fields:
    """Which other pages there are, and whether OME-XML describes them."""
    suits_ome = fields["dtype"] in OME_TYPES
    pages = choose("pages", (*PAGES, *["stack"] * suits_ome))
    chosen: Fields = {"pages": pages}
    if pages == "stack":
        chosen["sizes"] = choose("sizes", _sizes(fields))
    if pages == "stack" or (suits_ome and pages in {"single", "half-size level"} and choose("OME", (False, True))):
        chosen["metadata"] = _ome(choose, pages)
    return chosen


def _sizes(fields: Fields) -> tuple[Sizes, ...]:
    """Several channels only where each has one band."""
    return STACKS if _has_bands(fields) or fields["photometric"] in {"palette", "ycbcr"} else (*STACKS, *CHANNEL_STACKS)


def _ome(choose: Choose, pages: str) -> Ome:
    return Ome(
        unit=choose("OME unit", ("µm", "nm", "Å", "mm", "")),
        declared=choose("OME declaration", ("UTF-8", "UTF-16", "")),
        order=choose("OME order", ORDERS),
        planes=choose("OME planes", ("all", "each", "reversed") if pages == "stack" else ("all", "each")),
    )


def _storing(choose: Choose, fields: Fields, compressions: Sequence[str]) -> Fields:
    """How the numbers become bytes."""
    compression = choose("compression", compressions)
    in_blocks = compression == "jpeg" or fields["photometric"] == "ycbcr"
    chosen: Fields = {
        "byte_order": choose("byte order", ("little", "big")),
        "big": choose("BigTIFF", (False, True)),
        "compression": compression,
        "segments": choose("segments", (*(STRIPS_OF_BLOCKS if in_blocks else STRIPS), *TILES)),
    }
    if _has_bands(fields) and not isinstance(fields.get("metadata"), ImageJ):
        chosen["separate"] = choose("separate", (False, True))
    if compression in PREDICTED and (predictor := _predictor(fields)):
        chosen["predictor"] = choose("predictor", (1, predictor))
    if compression == "none" and isinstance(chosen["segments"], Strips):
        chosen["byte_counts"] = choose("byte counts", ("stated", "missing", "zero"))
    if compression == "none" and fields["dtype"] in {"uint1", "uint2", "uint4", "uint8"} and not in_blocks:
        chosen["fill_order"] = choose("fill order", (1, 2))
    return chosen


def _has_bands(fields: Fields) -> bool:
    """Which can be stored apart."""
    return fields["photometric"] in {"rgb", "rgb unstated", "cmyk"} or fields["extra"] != "none"


def _predictor(fields: Fields) -> int | None:
    """The one that fits the numbers, beside 1."""
    if fields["dtype"].startswith("float"):
        return 3
    return None if fields["dtype"] in {"uint1", "uint2", "uint4"} or fields["photometric"] == "ycbcr" else 2


def _finished(choose: Choose, fields: Fields) -> TiffEncoding:
    has_colours = fields["photometric"] in {"rgb", "palette"} and fields["dtype"].startswith("uint")
    profiles = PROFILES if has_colours and fields["extra"] != "associated alpha" else ("none",)
    return TiffEncoding(
        **fields,
        orientation=choose("orientation", ORIENTATIONS),
        profile=choose("profile", profiles),
        resolution="none" if isinstance(fields.get("metadata"), ImageJ) else choose("resolution", ("none", "cm", "inch")),
        layout=choose("layout", ("directories first", "directories last", "backwards")),
    )
