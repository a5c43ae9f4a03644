"""Descriptions of the ways in which a file can store one picture.

Not every combination of fields is a valid file; `choices` makes only those that the product accepts.
"""

from typing import Literal

import msgspec

Profile = Literal["none", "sRGB", "wide"]
ByteOrder = Literal["little", "big"]
Colour = Literal["grey", "rgb", "palette", "cmyk", "ycbcr"]


class Encoding(msgspec.Struct, frozen=True, kw_only=True):
    """What all containers share. `orientation`: as in TIFF and EXIF, 1 to 8. `profile`: the embedded ICC profile."""

    orientation: int = 1
    profile: Profile = "none"

    def __str__(self) -> str:
        """The container, and each field that differs from its default."""
        fields = msgspec.structs.fields(type(self))
        stated = [(field.name, value) for field in fields if (value := getattr(self, field.name)) != field.default]
        return " ".join((type(self).__name__.removesuffix("Encoding").lower(), *(_described(*pair) for pair in reversed(stated))))


class Strips(msgspec.Struct, frozen=True):
    """`rows`: 0 stores all rows in one strip; None does so too, and leaves the tag RowsPerStrip out."""

    rows: int | None

    def __str__(self) -> str:
        return "one strip, RowsPerStrip missing" if self.rows is None else f"strips of {self.rows or 'all'} rows"


class Tiles(msgspec.Struct, frozen=True):
    """Multiples of 16."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"tiles of {self.width}x{self.height}"


class Ome(msgspec.Struct, frozen=True, kw_only=True):
    """OME-XML. `unit` of PhysicalSizeX ("" leaves the attribute out: micrometres). `declared`: the encoding that the XML declaration
    names; the bytes are UTF-8. `planes`: one TiffData for all, one for each plane in the order of the pages, or in reverse."""

    unit: Literal["", "µm", "nm", "Å", "mm"] = "µm"
    declared: Literal["", "UTF-8", "UTF-16"] = "UTF-8"
    order: Literal["XYZCT", "XYZTC", "XYCTZ", "XYCZT", "XYTCZ", "XYTZC"] = "XYZCT"
    planes: Literal["all", "each", "reversed"] = "all"

    def __str__(self) -> str:
        return f"OME-XML ({self.unit or 'no unit'}, {self.declared or 'undeclared'}, {self.order}, {self.planes})"


class ImageJ(msgspec.Struct, frozen=True, kw_only=True):
    """A description by ImageJ. `one_directory`: the planes of a stack lie behind each other, and only the first has a directory."""

    one_directory: bool = False

    def __str__(self) -> str:
        return "ImageJ, one directory" if self.one_directory else "ImageJ"


class Sizes(msgspec.Struct, frozen=True):
    """How many times, focal planes and channels a stack has."""

    times: int = 1
    depths: int = 1
    channels: int = 1

    @property
    def planes(self) -> int:
        return self.times * self.depths * self.channels

    def __str__(self) -> str:
        return f"T{self.times}Z{self.depths}C{self.channels}"


class TiffEncoding(Encoding, frozen=True, kw_only=True):
    """`photometric`: the tag's meaning; "unstated" leaves the tag out. `full`: the stored number that means white, of unsigned integers
    and floats (of signed integers, the span). `gaps`: parts of the picture are NaN and infinite. `map_scale`: a colour map holds 8-bit
    values times this. `byte_counts`: of strips. `tables`: the tables of JPEG strips and tiles stand in a tag of their own.
    `reference`: the tag ReferenceBlackWhite is stated, with its default. `layout`: where the directories stand; "backwards" puts each
    page before the one that it follows."""

    photometric: Literal["black", "white", "grey unstated", "rgb", "rgb unstated", "palette", "cmyk", "ycbcr"]
    dtype: Literal["uint1", "uint2", "uint4", "uint8", "uint16", "int8", "int16", "float16", "float32"]
    full: int
    gaps: bool = False
    map_scale: Literal[1, 257] = 257
    extra: Literal["none", "alpha", "associated alpha", "unspecified"] = "none"
    byte_order: ByteOrder = "little"
    big: bool = False
    segments: Strips | Tiles = Strips(0)
    separate: bool = False
    compression: Literal["none", "lzw", "deflate", "old deflate", "packbits", "zstd", "jpeg"] = "none"
    predictor: Literal[1, 2, 3] = 1
    fill_order: Literal[1, 2] = 1
    byte_counts: Literal["stated", "missing", "zero"] = "stated"
    subsampling: tuple[int, int] = (1, 1)
    tables: bool = False
    reference: bool = False
    pages: Literal["single", "thumbnail first", "thumbnail last", "mask last", "half-size level", "two alike", "stack"] = "single"
    sizes: Sizes = Sizes()
    metadata: Ome | ImageJ | None = None
    resolution: Literal["none", "cm", "inch"] = "none"
    layout: Literal["directories first", "directories last", "backwards"] = "directories first"

    @property
    def colour(self) -> Colour:
        name = self.photometric.removesuffix(" unstated")
        return "grey" if name in {"black", "white", "grey"} else name  # type: ignore[return-value]

    @property
    def bits(self) -> int:
        return int(self.dtype.lstrip("uintfloa"))

    @property
    def bands(self) -> int:
        """Samples per pixel in the file."""
        colours = {"grey": 1, "palette": 1, "rgb": 3, "ycbcr": 3, "cmyk": 4}[self.colour]
        return colours + (self.extra != "none")


class PngEncoding(Encoding, frozen=True, kw_only=True):
    """`full`: as for TIFF. `transparent`: a tRNS chunk. `filters`: by their names in the standard; "mixed" takes all of them in turn."""

    colour: Literal["grey", "rgb", "palette"]
    bits: Literal[1, 2, 4, 8, 16]
    full: int
    alpha: bool = False
    transparent: bool = False
    significant_bits: bool = False
    interlaced: bool = False
    filters: Literal["none", "sub", "up", "average", "paeth", "mixed"] = "none"
    resolution: bool = False
    many_chunks: bool = False


class JpegEncoding(Encoding, frozen=True, kw_only=True):
    """`colour`: the components as they are stored; "cmyk" is not inverted and has no Adobe marker, the other two of ink are inverted and
    have one. `restart`: in blocks, 0 for none. `trailer`: what a phone appends."""

    colour: Literal["grey", "ycbcr", "rgb", "cmyk", "adobe cmyk", "ycck"]
    subsampling: tuple[int, int] = (1, 1)
    progressive: bool = False
    restart: int = 0
    trailer: bool = False
    exif_order: ByteOrder = "big"


def _described(name: str, value: object) -> str:
    match value:
        case True:
            return name.replace("_", " ")
        case str() | Strips() | Tiles() | Ome() | ImageJ() | Sizes():
            return f"{name.replace('_', ' ')} {value}" if name in {"profile", "byte_order", "byte_counts"} else str(value)
        case _:
            return f"{name.replace('_', ' ')} {value}"
