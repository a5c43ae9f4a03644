"""The space of all accepted TIFF encodings."""

from collections.abc import Callable, Sequence
from typing import Any

from tests.images.encodings import ImageJ, Ome, Sizes, Strips, TiffEncoding, Tiles

Choose = Callable[[str, Sequence[Any]], Any]
"""Takes the name of a field and its options, the plainest first, and returns one of these."""

ORIENTATIONS = (1, 6, 2, 3, 4, 5, 7, 8)
PROFILES = ("none", "wide", "sRGB")
ORDERS = ("XYZCT", "XYCZT", "XYTCZ", "XYZTC", "XYCTZ", "XYTZC")

PHOTOMETRICS = ("rgb", "black", "white", "palette", "cmyk", "ycbcr", "grey unstated", "rgb unstated")
GREY_TYPES = ("uint8", "uint16", "float32", "int16", "int8", "float16", "uint1", "uint2", "uint4")
RGB_TYPES = ("uint8", "uint16", "float32", "float16")
TYPES = {
    "black": GREY_TYPES,
    "white": GREY_TYPES,
    "grey unstated": GREY_TYPES,
    "rgb": RGB_TYPES,
    "rgb unstated": RGB_TYPES,
    "palette": ("uint8", "uint1", "uint2", "uint4"),
    "cmyk": ("uint8", "uint16"),
    "ycbcr": ("uint8",),
}
OME_TYPES = frozenset({"uint8", "uint16", "int8", "int16", "float32"})
IMAGEJ_KINDS = frozenset(
    {*((grey, dtype) for grey in ("black", "white") for dtype in ("uint8", "uint16", "float32")), ("rgb", "uint8"), ("palette", "uint8")}
)

FULL = {"uint1": (1,), "uint2": (3,), "uint4": (15,), "uint8": (255,), "int8": (255,), "int16": (65535, 4095)}
GREY_FULL = {"uint16": (65535, 4095, 255), "float16": (1, 255, 4095), "float32": (1, 255, 65535)}
RGB_FULL = {
    "uint16": (65535, 4095, 255, 1023, 16383),
    "float16": (1, 255, 4095, 1023, 16383),
    "float32": (1, 255, 4095, 65535, 1023, 16383),
}
"""65,535 is more than a float16 can hold."""

PAGES = ("single", "thumbnail first", "thumbnail last", "mask last", "half-size level", "two alike")
STACKS = (Sizes(depths=2), Sizes(times=3), Sizes(times=2, depths=2))
CHANNEL_STACKS = (Sizes(channels=2), Sizes(depths=2, channels=2), Sizes(times=2, depths=2, channels=2), Sizes(depths=3, channels=2))

STRIPS = (Strips(0), Strips(None), Strips(7), Strips(1), Strips(32))
TILES = (Tiles(32, 32), Tiles(16, 16), Tiles(64, 16), Tiles(16, 48), Tiles(128, 128), Tiles(256, 256))
STRIPS_OF_BLOCKS = (Strips(0), Strips(None), Strips(16), Strips(48))
"""Of JPEG blocks and of YCbCr data units: multiples of their heights."""
LOSSLESS = ("none", "lzw", "deflate", "zstd", "packbits", "old deflate")
PREDICTED = frozenset({"lzw", "deflate", "zstd", "old deflate"})
JPEG_PHOTOMETRICS = frozenset({"black", "grey unstated", "rgb", "ycbcr"})

Fields = dict[str, Any]


def choose_tiff(choose: Choose) -> TiffEncoding:
    fields = _meaning(choose)
    fields |= _stacking(choose, fields)
    one_directory = fields["metadata"] == ImageJ(one_directory=True)
    fields |= ONE_DIRECTORY if one_directory else _storing(choose, fields)
    if not isinstance(fields["metadata"], ImageJ):
        fields["resolution"] = choose("resolution", ("none", "cm", "inch"))
    return TiffEncoding(
        **fields,
        orientation=choose("orientation", ORIENTATIONS),
        layout=choose("layout", ("directories first", "directories last", "backwards")),
        sorted_tags=choose("sorted tags", (True, False)),
    )


ONE_DIRECTORY: Fields = {"byte_order": "big"}
"""As ImageJ stores it: one uncompressed strip, classic TIFF."""


def _meaning(choose: Choose) -> Fields:
    """What the numbers of a pixel mean."""
    photometric = choose("photometric", PHOTOMETRICS)
    dtype = choose("dtype", TYPES[photometric])
    fields: Fields = {"photometric": photometric, "dtype": dtype, "full": choose("full", _full(photometric, dtype))}
    if dtype in {"uint8", "uint16"} and photometric in {"black", "rgb", "white"}:
        fields["extra"] = choose("extra", ("none", "unspecified", *("alpha", "associated alpha") * (photometric != "white")))
    if dtype in {"uint1", "uint2", "uint4", "uint8", "uint16"} and photometric in {"rgb", "palette"}:
        fields["profile"] = choose("profile", PROFILES if fields.get("extra") != "associated alpha" else ("none",))
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


def _stacking(choose: Choose, fields: Fields) -> Fields:
    """Which other pages there are, and what describes them."""
    plain = fields.get("extra", "none") == "none"
    ome = fields["dtype"] in OME_TYPES
    imagej = plain and (fields["photometric"], fields["dtype"]) in IMAGEJ_KINDS
    pages = choose("pages", (*PAGES, *["stack"] * (ome or imagej)))
    options = {"single": ("none", *["OME"] * ome, *["ImageJ"] * imagej), "half-size level": ("none", *["OME"] * ome)}
    options["stack"] = (*["OME"] * ome, *("ImageJ", "one directory") * imagej)
    sizes = _sizes(choose, fields) if pages == "stack" else Sizes()
    return {"pages": pages, "sizes": sizes, "metadata": _described(choose, options.get(pages, ("none",)), pages)}


def _sizes(choose: Choose, fields: Fields) -> Sizes:
    single_band = fields["photometric"] in {"black", "white"} and fields.get("extra", "none") == "none"
    return choose("sizes", (*STACKS, *CHANNEL_STACKS * single_band))


def _described(choose: Choose, options: Sequence[str], pages: str) -> Ome | ImageJ | None:
    match choose("metadata", options):
        case "OME":
            return Ome(
                unit=choose("OME unit", ("µm", "nm", "Å", "mm", "")),
                declared=choose("OME declaration", ("UTF-8", "UTF-16", "")),
                order=choose("OME order", ORDERS),
                planes=choose("OME planes", ("all", "each", *["reversed"] * (pages == "stack"))),
            )
        case "none":
            return None
        case kind:
            return ImageJ(one_directory=kind == "one directory")


def _storing(choose: Choose, fields: Fields) -> Fields:
    """How the numbers become bytes."""
    compression = choose("compression", (*LOSSLESS, *["jpeg"] * _suits_jpeg(fields)))
    in_blocks = compression == "jpeg" or fields["photometric"] == "ycbcr"
    chosen: Fields = {
        "byte_order": choose("byte order", ("little", "big")),
        "big": choose("BigTIFF", (False, True)),
        "compression": compression,
        "segments": choose("segments", (*(STRIPS_OF_BLOCKS if in_blocks else STRIPS), *TILES)),
    }
    if _has_bands(fields):
        chosen["separate"] = choose("separate", (False, True))
    if compression in PREDICTED and (predictor := _predictor(fields)):
        chosen["predictor"] = choose("predictor", (1, predictor))
    if compression == "jpeg":
        chosen["tables"] = choose("tables", (False, True))
    if compression == "none" and isinstance(chosen["segments"], Strips):
        chosen["byte_counts"] = choose("byte counts", ("stated", "missing", "zero"))
    if compression == "none" and fields["dtype"] in {"uint1", "uint2", "uint4", "uint8"} and not in_blocks:
        chosen["fill_order"] = choose("fill order", (1, 2))
    return chosen


def _suits_jpeg(fields: Fields) -> bool:
    return fields["dtype"] == "uint8" and fields["photometric"] in JPEG_PHOTOMETRICS and fields.get("extra", "none") == "none"


def _has_bands(fields: Fields) -> bool:
    return fields["photometric"] in {"rgb", "rgb unstated", "cmyk"} or fields.get("extra", "none") != "none"


def _predictor(fields: Fields) -> int | None:
    """The one that fits the numbers, beside 1."""
    if fields["dtype"].startswith("float"):
        return 3
    return None if fields["dtype"] in {"uint1", "uint2", "uint4"} or fields["photometric"] == "ycbcr" else 2
