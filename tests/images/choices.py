"""The space of all accepted encodings, by families: no combination is invalid."""

from collections.abc import Callable

from tests.images.choices_tiff import ORIENTATIONS, PROFILES, Choose, choose_tiff, choose_tiff_in_jpeg, choose_tiff_of_imagej
from tests.images.encodings import Encoding, JpegEncoding, PngEncoding


def choose_png(choose: Choose) -> PngEncoding:
    colour, bits, alpha = choose("kind", PNG_KINDS)
    transparent = not alpha and choose("transparent", (False, True))
    full = choose("full", (65535, 4095)) if bits == 16 else 2**bits - 1
    return PngEncoding(
        colour=colour,
        bits=bits,
        alpha=alpha,
        transparent=transparent,
        full=full,
        significant_bits=choose("significant bits", (False, True)) if full == 4095 else False,
        interlaced=choose("interlaced", (False, True)),
        filters=choose("filters", ("none", "mixed", "sub", "up", "average", "paeth")),
        resolution=choose("resolution", (False, True)),
        many_chunks=choose("many chunks", (False, True)),
        orientation=choose("orientation", ORIENTATIONS),
        profile="none" if colour == "grey" else choose("profile", PROFILES),
    )


PNG_KINDS = (
    *(("grey", bits, False) for bits in (8, 1, 2, 4, 16)),
    *(("rgb", bits, alpha) for alpha in (False, True) for bits in (8, 16)),
    *(("palette", bits, False) for bits in (8, 1, 2, 4)),
    *(("grey", bits, True) for bits in (8, 16)),
)


JPEG_KINDS = (
    *(("ycbcr", subsampling) for subsampling in ((1, 1), (2, 1), (2, 2))),
    *((colour, (1, 1)) for colour in ("grey", "rgb", "adobe cmyk", "cmyk", "ycck")),
)


def choose_jpeg(choose: Choose) -> JpegEncoding:
    colour, subsampling = choose("kind", JPEG_KINDS)
    orientation = choose("orientation", ORIENTATIONS)
    return JpegEncoding(
        colour=colour,
        subsampling=subsampling,
        progressive=choose("progressive", (False, True)),
        restart=choose("restart", (0, 1, 7)),
        trailer=choose("trailer", (False, True)),
        orientation=orientation,
        exif_order="big" if orientation == 1 else choose("EXIF order", ("big", "little")),
        profile=choose("profile", PROFILES) if colour in {"ycbcr", "rgb"} else "none",
    )


FAMILIES: dict[str, Callable[[Choose], Encoding]] = {
    "TIFF": choose_tiff,
    "PNG": choose_png,
    "JPEG": choose_jpeg,
    "TIFF in JPEG": choose_tiff_in_jpeg,
    "TIFF of ImageJ": choose_tiff_of_imagej,
}
