"""What OME-TIFF and ImageJ write into ImageDescription, and the order in which they store the planes of a stack."""

from collections.abc import Iterator

import msgspec

from tests.images.encodings import ImageJ, Ome, Sizes, TiffEncoding

PIXEL_SIZE_UM = 0.325
IN_UNIT = {"": "0.325", "µm": "0.325", "nm": "325", "Å": "3250", "mm": "0.000325"}
OME_TYPES = {"float32": "float"}


class Plane(msgspec.Struct, frozen=True, kw_only=True):
    """Its time, focal plane and channel."""

    t: int = 0
    z: int = 0
    c: int = 0

    @property
    def is_first(self) -> bool:
        return not (self.t or self.z or self.c)


def planes(encoding: TiffEncoding) -> list[Plane]:
    """In the order in which the file holds them."""
    match encoding.metadata:
        case Ome(order=order, planes=stored):
            listed = list(_counted(encoding.sizes, order))
            return listed[::-1] if stored == "reversed" else listed
        case _:
            return list(_counted(encoding.sizes, "XYCZT"))


def _counted(sizes: Sizes, order: str) -> Iterator[Plane]:
    """`order`: the axes of which the first runs fastest."""
    lengths = {"T": sizes.times, "Z": sizes.depths, "C": sizes.channels}
    fast, middle, slow = order[2:]
    for k in range(lengths[slow]):
        for j in range(lengths[middle]):
            for i in range(lengths[fast]):
                yield Plane(**{fast.lower(): i, middle.lower(): j, slow.lower(): k})


def description(encoding: TiffEncoding, width: int, height: int) -> str | None:
    """Of the first directory. `width`, `height`: as stored."""
    match encoding.metadata:
        case Ome() as ome:
            return _ome_xml(encoding, ome, width, height)
        case ImageJ():
            return _imagej(encoding.sizes)
        case None:
            return None


def _imagej(sizes: Sizes) -> str:
    counts = {"images": sizes.planes, "channels": sizes.channels, "slices": sizes.depths, "frames": sizes.times}
    lines = [f"{name}={count}" for name, count in counts.items() if count > 1]
    hyperstack = ["hyperstack=true", "mode=grayscale"] if len(lines) > 2 else []
    return "\n".join(("ImageJ=1.54f", *lines, *hyperstack, "unit=micron", "loop=false", ""))


def _ome_xml(encoding: TiffEncoding, ome: Ome, width: int, height: int) -> str:
    sizes, samples = encoding.sizes, encoding.bands
    unit = f' PhysicalSizeXUnit="{ome.unit}" PhysicalSizeYUnit="{ome.unit}"' if ome.unit else ""
    size = IN_UNIT[ome.unit]
    channels = "".join(f'<Channel ID="Channel:0:{c}" SamplesPerPixel="{samples}"/>' for c in range(sizes.channels))
    return (
        f'{_declaration(ome)}<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" DimensionOrder="{ome.order}" Type="{OME_TYPES.get(encoding.dtype, encoding.dtype)}"'
        f' SizeX="{width}" SizeY="{height}" SizeC="{sizes.channels * samples}" SizeZ="{sizes.depths}" SizeT="{sizes.times}"'
        f' PhysicalSizeX="{size}" PhysicalSizeY="{size}"{unit}>{channels}{_tiff_data(encoding, ome)}</Pixels></Image></OME>'
    )


def _declaration(ome: Ome) -> str:
    return f'<?xml version="1.0" encoding="{ome.declared}"?>' if ome.declared else ""


def _tiff_data(encoding: TiffEncoding, ome: Ome) -> str:
    if ome.planes == "all":
        return "<TiffData/>"
    numbered = enumerate(planes(encoding))
    listed = [
        f'<TiffData IFD="{ifd}" FirstT="{it.t}" FirstZ="{it.z}" FirstC="{it.c * encoding.bands}" PlaneCount="1"/>' for ifd, it in numbered
    ]
    return "".join(listed[::-1] if ome.planes == "reversed" else listed)
