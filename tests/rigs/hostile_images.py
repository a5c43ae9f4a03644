"""Hostile image files, made in memory, and a list of all with the refusal of each."""

import io
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import msgspec
from PIL import Image

from domain.errors import DamagedImage, DomainError, ImageTooLarge, UnsupportedImage

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
BYTE, ASCII, SHORT, LONG, RATIONAL, DOUBLE, IFD, LONG8 = 1, 2, 3, 4, 5, 12, 13, 16
LAYOUTS = {BYTE: "B", ASCII: "B", SHORT: "H", LONG: "I", RATIONAL: "Q", DOUBLE: "d", IFD: "I", LONG8: "Q"}
ZIP = b"PK\x03\x04" + bytes(26) + b"PK\x05\x06" + bytes(18)
HTML = b"<html><script>alert(1)</script></html>"
LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    '<OME><Image><Pixels DimensionOrder="XYZCT" SizeX="8" SizeY="8" SizeZ="1" SizeC="1" SizeT="1">&b;</Pixels></Image></OME>'
)


class Elsewhere(msgspec.Struct, frozen=True):
    """So many values of a tag, which stand at `at` in the file: several tags may point there."""

    kind: int
    count: int
    at: int


Value = tuple[int, Sequence[int] | bytes] | Elsewhere


class HostileImage(msgspec.Struct, frozen=True, kw_only=True):
    """`late`: the structure holds, and only a full decode finds out."""

    name: str
    data: bytes
    error: type[DomainError]
    late: bool = False


# ---- JPEG


@cache
def jpeg(width: int = 64, height: int = 48, *, mode: str = "RGB", **options: object) -> bytes:
    """A good one, of a picture with some detail."""
    return _encoded(picture(width, height, mode), "JPEG", quality=90, **options)


def segment(marker: int, body: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def frame(width: int, height: int, *, marker: int = 0xC0, bits: int = 8, components: Sequence[tuple[int, int]] = ((1, 0x11),)) -> bytes:
    listed = b"".join(struct.pack("BBB", identity, sampling, 0) for identity, sampling in components)
    return segment(marker, struct.pack(">BHHB", bits, height, width, len(components)) + listed)


def scan(*components: int, last: int = 63) -> bytes:
    return segment(0xDA, bytes([len(components)]) + b"".join(bytes([it, 0]) for it in components) + bytes([0, last, 0]))


def bare_jpeg(*parts: bytes, end: bytes = b"\xff\xd9") -> bytes:
    return b"\xff\xd8" + b"".join(parts) + end


def with_frame(data: bytes, new: bytes) -> bytes:
    """The same JPEG with another frame header."""
    at = next(at for at in (data.find(bytes((0xFF, marker))) for marker in (0xC0, 0xC2)) if at > 0)
    (length,) = struct.unpack_from(">H", data, at + 2)
    return data[:at] + new + data[at + 2 + length :]


def ends_early(data: bytes, part: float) -> bytes:
    """Cut inside the picture data, and closed with an end marker as if nothing were missing."""
    kept = data[: int(len(data) * part)]
    return kept.rstrip(b"\xff") + b"\xff\xd9"


def _jpegs() -> Iterator[HostileImage]:
    good, colours = jpeg(), ((1, 0x11), (2, 0x11), (3, 0x11))
    start = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
    damaged: Mapping[str, bytes] = {
        "only its start": b"\xff\xd8\xff",
        "start and end alone": bare_jpeg(start),
        "no frame": bare_jpeg(start, scan(1), b"\0" * 9),
        "no scan": bare_jpeg(start, frame(8, 8)),
        "zero width": bare_jpeg(start, frame(0, 8), scan(1), b"\0"),
        "zero height": bare_jpeg(start, frame(8, 0), scan(1), b"\0"),
        "no components": bare_jpeg(start, frame(8, 8, components=()), scan(1), b"\0"),
        "two frames": bare_jpeg(start, frame(8, 8), frame(8, 8), scan(1), b"\0"),
        "a frame that is too short": bare_jpeg(start, segment(0xC0, b"\x08\0"), scan(1), b"\0"),
        "components with one name": bare_jpeg(start, frame(8, 8, components=((1, 0x11),) * 3), scan(1), b"\0"),
        "sampling of zero": bare_jpeg(start, frame(8, 8, components=((1, 0x01),)), scan(1), b"\0"),
        "a scan of no component": bare_jpeg(start, frame(8, 8), scan(), b"\0"),
        "a scan of a foreign component": bare_jpeg(start, frame(8, 8), scan(7), b"\0"),
        "a scan past the last coefficient": bare_jpeg(start, frame(8, 8), scan(1, last=64), b"\0"),
        "a component that is never scanned": bare_jpeg(start, frame(8, 8, components=colours), scan(1), b"\0", scan(2), b"\0"),
        "a segment of length 0": bare_jpeg(start, b"\xff\xfe\0\0", good[2:]),
        "a segment of length 1": bare_jpeg(start, b"\xff\xfe\0\1", good[2:]),
        "a segment longer than the file": bare_jpeg(start, b"\xff\xfe\xff\xff"),
        "rubbish between segments": bare_jpeg(start, b"rubbish", good[2:]),
        "a second start inside": bare_jpeg(start, good),
        "a restart outside of a scan": bare_jpeg(start, b"\xff\xd0\0\2", good[2:]),
        "restarts that nobody announced": jpeg(restart_marker_blocks=1).replace(b"\xff\xdd\0\4", b"\xff\xfe\0\4"),
        "restarts that are missing": jpeg(restart_marker_blocks=1).replace(b"\xff\xd1", b""),
        "a broken restart interval": bare_jpeg(start, segment(0xDD, b"\1"), good[2:]),
        "a progressive one without its last scans": _without_last_scan(jpeg(progressive=True)),
        "cut in the middle": good[: len(good) // 2],
        "without its end": good[:-2],
        "an archive behind it": good + ZIP,
        "a page behind it": good + HTML,
        "another JPEG behind it": good + good,
        "much padding behind it": good + bytes(65_537),
        "an end in mid-scan, and more": ends_early(good, 0.7) + good[int(len(good) * 0.7) :],
        "pictures announced, and rubbish": good[:2] + segment(0xE2, b"MPF\0") + good[2:] + b"\0\0rubbish",
        "a second picture that is cut off": good[:2] + segment(0xE2, b"MPF\0") + good[2:] + good[:-20],
    }
    unsupported: Mapping[str, bytes] = {
        "12 bits": bare_jpeg(start, frame(8, 8, marker=0xC1, bits=12), scan(1), b"\0"),
        "lossless": bare_jpeg(start, frame(8, 8, marker=0xC3), scan(1), b"\0"),
        "arithmetic coding": bare_jpeg(start, frame(8, 8, marker=0xC9), scan(1), b"\0"),
        "two bands": bare_jpeg(start, frame(8, 8, components=((1, 0x11), (2, 0x11))), scan(1, 2), b"\0"),
    }
    large: Mapping[str, bytes] = {
        "65535 x 65535 pixels": with_frame(good, frame(65_535, 65_535, components=colours)),
        "40 bands": bare_jpeg(start, frame(8, 8, components=[(it, 0x11) for it in range(40)]), scan(1), b"\0"),
        "a hundred passes": bare_jpeg(start, frame(8, 8), (scan(1) + b"\0") * 100),
        "200,000 comments": bare_jpeg(start, segment(0xFE) * 200_000, good[2:]),
        "100 Mpx progressive": bare_jpeg(start, frame(10_000, 10_000, marker=0xC2, components=colours), scan(1, 2, 3), b"\0"),
    }
    yield from _listed("JPEG", damaged, DamagedImage)
    yield from _listed("JPEG", unsupported, UnsupportedImage)
    yield from _listed("JPEG", large, ImageTooLarge)
    late = {f"an end at {part:.0%}, as if nothing were missing": ends_early(good, part) for part in (0.5, 0.8, 0.95, 0.99)}
    late["without any Huffman code"] = bare_jpeg(start, frame(64, 64), scan(1), b"\x5a" * 300)
    late["other dimensions than its data"] = with_frame(good, frame(512, 512, components=((1, 0x22), (2, 0x11), (3, 0x11))))
    yield from _listed("JPEG", late, DamagedImage, late=True)


def _without_last_scan(data: bytes) -> bytes:
    return data[: data.rindex(b"\xff\xda")] + b"\xff\xd9"


# ---- PNG


@cache
def png(width: int = 40, height: int = 30, *, mode: str = "RGB") -> bytes:
    return _encoded(picture(width, height, mode), "PNG")


def chunk(kind: bytes, body: bytes = b"", *, crc: int | None = None, length: int | None = None) -> bytes:
    right = zlib.crc32(kind + body)
    return struct.pack(">I", len(body) if length is None else length) + kind + body + struct.pack(">I", right if crc is None else crc)


def header(width: int = 8, height: int = 8, bits: int = 8, colour: int = 0, *rest: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, *(rest or (0, 0, 0))))


def bare_png(*chunks: bytes, end: bytes = chunk(b"IEND")) -> bytes:
    return PNG_SIGNATURE + b"".join(chunks) + end


def zeros_packed(mebibytes: int) -> bytes:
    """So many zeros as zlib packs them: the packed form of one MiB, again and again."""
    packing, piece = zlib.compressobj(9), bytes(1 << 20)
    first, again = (packing.compress(piece) + packing.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    end = packing.flush()[:-4] + struct.pack(">HH", (mebibytes << 20) % 65_521, 1)
    return first + again * (mebibytes - 1) + end


def rows(width: int = 8, height: int = 8) -> bytes:
    return zlib.compress(bytes((width + 1) * height))


def _pngs() -> Iterator[HostileImage]:
    pixels = chunk(b"IDAT", rows())
    palette = chunk(b"PLTE", bytes(6))
    damaged: Mapping[str, bytes] = {
        "only its signature": PNG_SIGNATURE,
        "no header": bare_png(pixels),
        "the header not first": bare_png(chunk(b"tEXt", b"a\0b"), header(), pixels),
        "a header too short": bare_png(chunk(b"IHDR", bytes(12)), pixels),
        "two headers": bare_png(header(), header(), pixels),
        "zero width": bare_png(header(0, 8), pixels),
        "zero height": bare_png(header(8, 0), pixels),
        "3 bits": bare_png(header(8, 8, 3), pixels),
        "16-bit palette": bare_png(header(8, 8, 16, 3), palette, pixels),
        "colour type 5": bare_png(header(8, 8, 8, 5), pixels),
        "unknown compression": bare_png(header(8, 8, 8, 0, 1, 0, 0), pixels),
        "unknown filter": bare_png(header(8, 8, 8, 0, 0, 1, 0), pixels),
        "unknown interlacing": bare_png(header(8, 8, 8, 0, 0, 0, 2), pixels),
        "a wrong checksum of the header": bare_png(header()[:-1] + b"\0", pixels),
        "a wrong checksum of the pixels": bare_png(header(), chunk(b"IDAT", rows(), crc=0)),
        "a wrong checksum of a text": bare_png(header(), chunk(b"tEXt", b"a\0b", crc=1), pixels),
        "a wrong checksum of the end": bare_png(header(), pixels, end=chunk(b"IEND", crc=7)),
        "one bit flipped": _flipped(png(), len(png()) // 2),
        "no pixels": bare_png(header()),
        "no end": bare_png(header(), pixels, end=b""),
        "an end with a body": bare_png(header(), pixels, end=chunk(b"IEND", b"more")),
        "a chunk longer than the file": bare_png(header(), chunk(b"IDAT", rows(), length=100_000)),
        "a chunk of 4 GiB": bare_png(header(), chunk(b"IDAT", rows(), length=0xFFFFFFFF)),
        "a chunk without a name": bare_png(header(), chunk(b"\0\0\0\0"), pixels),
        "a critical chunk that nobody knows": bare_png(header(), chunk(b"EVIL"), pixels),
        "no palette": bare_png(header(8, 8, 8, 3), pixels),
        "a palette of four bytes": bare_png(header(8, 8, 8, 3), chunk(b"PLTE", bytes(4)), pixels),
        "a palette of 257 colours": bare_png(header(8, 8, 8, 3), chunk(b"PLTE", bytes(771)), pixels),
        "a palette after the pixels": bare_png(header(8, 8, 8, 2), pixels, palette),
        "pixels torn apart": bare_png(header(), pixels, chunk(b"tEXt", b"a\0b"), pixels),
        "an archive behind it": png() + ZIP,
        "a page behind it": png() + HTML,
        "another PNG behind it": png() + png(),
        "much padding behind it": png() + bytes(65_537),
        "cut in the middle": png()[: len(png()) // 2],
    }
    yield from _listed("PNG", damaged, DamagedImage)
    large = {
        "30000 x 30000 pixels": bare_png(header(30_000, 30_000, 1), chunk(b"IDAT", zlib.compress(bytes(3751 * 3000)))),
        "2 billion pixels wide": bare_png(header(2**31 - 1, 1), pixels),
        "200,000 chunks": bare_png(header(), chunk(b"tEXt", b"a\0b") * 200_000, pixels),
    }
    yield from _listed("PNG", large, ImageTooLarge)
    late = {
        "pixels that are no zlib data": bare_png(header(), chunk(b"IDAT", b"not compressed at all")),
        "empty pixels": bare_png(header(), chunk(b"IDAT")),
        "fewer rows than it claims": bare_png(header(8, 800), pixels),
        "pixels cut, checksums mended": bare_png(header(300, 300), chunk(b"IDAT", zlib.compress(bytes(range(256)) * 353)[:200])),
        "a filter that does not exist": bare_png(header(), chunk(b"IDAT", zlib.compress(b"\x09" * 72))),
    }
    yield from _listed("PNG", late, DamagedImage, late=True)


# ---- TIFF


def page(width: int = 8, height: int = 8, **changed: Value | None) -> dict[int, Value]:
    """The tags of an uncompressed 8-bit gray page whose pixels stand right behind the header.

    `changed`: t256=(LONG, [9]), or None to leave a tag out; t256=Elsewhere(LONG, 1000, 16) for a list of values that stands at byte 16.
    """
    tags: dict[int, Value] = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [8]),
        259: (SHORT, [1]),
        262: (SHORT, [1]),
        273: (LONG, [16]),
        277: (SHORT, [1]),
        278: (LONG, [height]),
        279: (LONG, [width * height]),
    }
    for name, value in changed.items():
        tags.pop(int(name[1:]), None)
        if value is not None:
            tags[int(name[1:])] = value
    return tags


def tiff(
    *pages: Mapping[int, Value], pixels: bytes = bytes(64), order: str = "<", big: bool = False, last: int = 0, doubled: bool = False
) -> bytes:
    """Header (padded to 16 bytes), pixels, then each directory with its longer values behind it. `last`: where the last one leads to."""
    file = bytearray(16) + pixels
    word, many = ("Q", "Q") if big else ("I", "H")
    link = 8 if big else 4
    struct.pack_into(order + ("2sHHH" if big else "2sH"), file, 0, b"II" if order == "<" else b"MM", *((43, 8, 0) if big else (42,)))
    for tags in pages:
        struct.pack_into(order + word, file, link, len(file))
        entries = [*sorted(tags.items()), *([(257, (LONG, [9]))] if doubled else [])]
        size = struct.calcsize("=" + many) + len(entries) * (20 if big else 12)
        body, longer, behind = bytearray(), bytearray(), len(file) + size + struct.calcsize("=" + word)
        for tag, value in entries:
            if isinstance(value, Elsewhere):
                body += struct.pack(order + "HH" + word * 2, tag, value.kind, value.count, value.at)
                continue
            kind, values = value
            packed = struct.pack(f"{order}{len(values)}{LAYOUTS[kind]}", *values)
            body += struct.pack(order + "HH" + word, tag, kind, len(values))
            if len(packed) <= struct.calcsize("=" + word):
                body += packed.ljust(struct.calcsize("=" + word), b"\0")
            else:
                body += struct.pack(order + word, behind + len(longer))
                longer += packed
        link = len(file) + size
        file += struct.pack(order + many, len(entries)) + body + bytes(struct.calcsize("=" + word)) + longer
    struct.pack_into(order + word, file, link, last)
    return bytes(file)


def _tiffs() -> Iterator[HostileImage]:
    good = tiff(page())
    inside = len(good) - 4
    packed = zlib.compress(bytes(64))
    deflated = {"t259": (SHORT, [8]), "t279": (LONG, [len(packed)])}
    many_parts = bare_jpeg(segment(0xFE) * 6000, frame(8, 8), scan(1), b"\0")
    damaged: Mapping[str, bytes] = {
        "only its header": b"II*\0",
        "no directory": tiff(),
        "a directory past the end": b"II*\0" + struct.pack("<I", 5000) + bytes(64),
        "a directory at the end": b"II*\0" + struct.pack("<I", 71) + bytes(64),
        "a directory cut off": good[:inside],
        "65,535 tags past the end": good[:80] + b"\xff\xff" + good[82:],
        "a directory that leads to itself": tiff(page(), last=80),
        "pages in a circle": tiff(page(), page(), page(), last=80),
        "levels that lead to their page": tiff(page(t330=(IFD, [80]))),
        "levels past the end": tiff(page(t330=(IFD, [99_999]))),
        "a level listed twice": tiff(page(t330=(IFD, [80, 80]))),
        "a value past the end": tiff(page(t270=(ASCII, b"x" * 40)))[:-30],
        "a value of 4 GiB": _huge_value(big=False),
        "a value of 16 EiB": _huge_value(big=True),
        "a strip past the end": tiff(page(t273=(LONG, [5000]))),
        "a strip longer than the file": tiff(page(t279=(LONG, [5000]))),
        "no strip": tiff(page(t273=None, t279=None)),
        "fewer strips than rows": tiff(page(t278=(LONG, [2]))),
        "more strips than rows": tiff(page(t273=(LONG, [16] * 9), t279=(LONG, [1] * 9))),
        "fewer sizes than strips": tiff(page(t278=(LONG, [4]), t273=(LONG, [16, 48]), t279=(LONG, [32]))),
        "fewer pixels than it claims": tiff(page(t279=(LONG, [40]))),
        "the same few pixels for many": tiff(page(4000, 4000, t278=(LONG, [1]), t273=(LONG, [16] * 4000), t279=(LONG, [64] * 4000))),
        "zero width": tiff(page(t256=(LONG, [0]))),
        "zero height": tiff(page(t257=(LONG, [0]))),
        "no width": tiff(page(t256=None)),
        "no bands": tiff(page(t277=(SHORT, [0]))),
        "a width that is no integer": tiff(page(t256=(DOUBLE, [8]))),
        "strips of no rows": tiff(page(t278=(LONG, [0]))),
        "tiles of no size": tiff(page(t322=(LONG, [0]), t323=(LONG, [16]), t324=(LONG, [16]), t325=(LONG, [64]))),
        "two heights": tiff(page(), doubled=True),
        "a BigTIFF with other offsets": tiff(page(), big=True)[:4] + b"\4" + tiff(page(), big=True)[5:],
        "a level whose pixels are outside": _with_level(page(t273=(LONG, [5000]))),
        "a JPEG block without its end": _jpeg_tiff(jpeg()[:-40]),
        "a JPEG block larger than the page": _jpeg_tiff(jpeg(64, 48), width=32, height=32),
        "a JPEG block that is none": _jpeg_tiff(b"not a jpeg at all" * 8),
        "JPEG blocks that lie one over the other": _jpeg_strips(25, many_parts, overlapping=True),
    }
    yield from _listed("TIFF", damaged, DamagedImage)
    unsupported: Mapping[str, bytes] = {
        "12 bits": tiff(page(t258=(SHORT, [12]))),
        "64 bits": tiff(page(t258=(SHORT, [64]), t339=(SHORT, [3]))),
        "32-bit integers": tiff(page(t258=(SHORT, [32]))),
        "complex numbers": tiff(page(t258=(SHORT, [32]), t339=(SHORT, [5]))),
        "bands of various depths": tiff(page(t277=(SHORT, [3]), t258=(SHORT, [5, 6, 5]))),
        "JPEG 2000": tiff(page(t259=(SHORT, [33003]))),
        "old-style JPEG": tiff(page(t259=(SHORT, [6]))),
        "LZMA": tiff(page(t259=(SHORT, [34925]))),
        "an unknown compression": tiff(page(t259=(SHORT, [999]))),
        "an unreadable second page": tiff(page(), page(t259=(SHORT, [2]))),
    }
    yield from _listed("TIFF", unsupported, UnsupportedImage)
    grey_tile = zeros_packed(96)
    large: Mapping[str, bytes] = {
        "100,000 x 100,000 pixels": tiff(page(t256=(LONG, [100_000]), t257=(LONG, [100_000]))),
        "4 billion pixels wide": tiff(page(t256=(LONG, [2**32 - 1]))),
        "33 bands": tiff(page(t277=(SHORT, [33]))),
        "257 pages": tiff(*[page()] * 257),
        "5,000 pages": tiff(*[page()] * 5000, order=">", big=True),
        "2,000 levels": _with_level(*[page()] * 2000),
        "20 pages of 100 Mpx": tiff(*[page(10_000, 10_000, t278=(LONG, [1]), **_strips(10_000))] * 20),
        "one tile of 2 Gpx": tiff(
            page(t322=(LONG, [65_536]), t323=(LONG, [32_768]), t324=(LONG, [16]), t325=(LONG, [9]), t259=(SHORT, [8]))
        ),
        "2 million strips": tiff(
            page(1, 2_000_000, t278=(LONG, [1]), t273=Elsewhere(SHORT, 2_000_000, 16), t279=Elsewhere(SHORT, 2_000_000, 16)),
            pixels=b"\1\0" * 2_000_000,
        ),
        "a million depths, told by each page": tiff(*[page(t258=Elsewhere(SHORT, 10**6, 16))] * 200, pixels=b"\x08\0" * 10**6),
        "a million number formats": tiff(page(t339=Elsewhere(SHORT, 10**6, 16)), pixels=b"\1\0" * 10**6),
        "a million levels": tiff(page(t330=Elsewhere(SHORT, 10**6, 16)), pixels=b"\1\0" * 10**6),
        "2,000 levels, each below another": _nested(2000),
        "JPEG blocks of many parts": _jpeg_strips(25, many_parts),
        "16 small pages in a tile of 100 Mpx each": tiff(*[page(**_large_tile(10_000, len(grey_tile)))] * 16, pixels=grey_tile),
        "half a million tiles that share a JPEG": _shared_jpeg_tiles(700),
        "100,000 tags": tiff(*[{**page(), **{40_000 + it: (SHORT, [1]) for it in range(1000)}}] * 100),
    }
    yield from _listed("TIFF", large, ImageTooLarge)
    bomb = zeros_packed(300)
    late: Mapping[str, bytes] = {
        "Deflate that is none": tiff(page(**deflated), pixels=bytes(64)),
        "Deflate cut short": tiff(page(t259=(SHORT, [8]), t279=(LONG, [len(packed) - 6])), pixels=packed[:-6]),
        "LZW that is none": tiff(page(64, 64, t259=(SHORT, [5]), t279=(LONG, [64])), pixels=b"\xff" * 64),
        "PackBits cut short": tiff(page(64, 64, t259=(SHORT, [32773]), t279=(LONG, [2])), pixels=b"\x81\0"),
        "Zstandard that is none": tiff(page(t259=(SHORT, [50000]), t279=(LONG, [64]))),
        "Deflate of odd bands that unpacks to 300 MiB": tiff(
            page(t277=(SHORT, [5]), t258=(SHORT, [8] * 5), t259=(SHORT, [8]), t279=(LONG, [len(bomb)])), pixels=bomb
        ),
        "Deflate of odd bands that is none": tiff(page(t277=(SHORT, [5]), t258=(SHORT, [8] * 5), **deflated)),
        "a broken second page": tiff(page(), page(**deflated)),
        "XML with entities": tiff(page(t270=(ASCII, LAUGHS.encode() + b"\0"))),
    }
    yield from _listed("TIFF", late, DamagedImage, late=True)
    yield from _listed("TIFF", {"a description of 5 MiB": tiff(page(t270=(ASCII, b"<" + b"x" * (5 << 20))))}, DamagedImage)
    odd = page(t277=(SHORT, [5]), t258=(SHORT, [16] * 5), t259=(SHORT, [5]))
    yield HostileImage(name="TIFF: LZW of odd bands that is none", data=tiff(odd), error=DamagedImage, late=True)


def _strips(count: int) -> dict[str, Value]:
    return {"t273": (LONG, [16] * count), "t279": (LONG, [64] * count), "t259": (SHORT, [8])}


def _large_tile(edge: int, size: int) -> dict[str, Value]:
    """One tile of so many pixels an edge, packed into `size` bytes, where the page shows a corner of it."""
    tile = {"t322": (LONG, [edge]), "t323": (LONG, [edge]), "t324": (LONG, [16]), "t325": (LONG, [size])}
    return {"t259": (SHORT, [8]), "t273": None, "t278": None, "t279": None, **tile}


def _shared_jpeg_tiles(across: int) -> bytes:
    tile, count = jpeg(8, 8, mode="L"), across**2
    places = {"t322": (LONG, [8]), "t323": (LONG, [8]), "t324": (LONG, [16] * count), "t325": (LONG, [len(tile)] * count)}
    return tiff(page(8 * across, 8 * across, t259=(SHORT, [7]), t273=None, t278=None, t279=None, **places), pixels=tile)


def _huge_value(*, big: bool) -> bytes:
    """The description claims to be as long as a count can say."""
    data = bytearray(tiff(page(t270=(ASCII, b"some words in ASCII")), big=big))
    at = data.index(struct.pack("<HH", 270, ASCII))
    struct.pack_into("<Q" if big else "<I", data, at + 4, 2**64 - 1 if big else 2**32 - 1)
    return bytes(data)


def _with_level(*levels: Mapping[int, Value]) -> bytes:
    """A page that lists the directories of a chain as its levels."""
    chain = tiff(*levels)
    places, at = [], struct.unpack_from("<I", chain, 4)[0]
    while at:
        places.append(at)
        (count,) = struct.unpack_from("<H", chain, at)
        (at,) = struct.unpack_from("<I", chain, at + 2 + 12 * count)
    return tiff(page(t330=(IFD, places)), pixels=chain[16:])


def _nested(depth: int) -> bytes:
    """A page with a level below it, and one below that, ..."""
    size = 2 + 12 * 10 + 4
    data = bytearray(tiff(*[page(t330=(IFD, [80 + size * it])) for it in range(1, depth)], page()))
    for it in range(1, depth):
        struct.pack_into("<I", data, 80 + size * it - 4, 0)
    return bytes(data)


def _jpeg_strips(count: int, block: bytes, *, overlapping: bool = False) -> bytes:
    """A page of many strips, each a JPEG of 8 x 8 pixels; `overlapping`: each is the same one with ever more padding."""
    offsets = [16 if overlapping else 16 + it * len(block) for it in range(count)]
    sizes = [len(block) + it * overlapping for it in range(count)]
    strips = {"t259": (SHORT, [7]), "t278": (LONG, [8]), "t273": (LONG, offsets), "t279": (LONG, sizes)}
    return tiff(page(8, 8 * count, **strips), pixels=block + bytes(count) if overlapping else block * count)


def _jpeg_tiff(block: bytes, *, width: int = 64, height: int = 48) -> bytes:
    colours = {"t277": (SHORT, [3]), "t258": (SHORT, [8] * 3), "t262": (SHORT, [6]), "t259": (SHORT, [7]), "t279": (LONG, [len(block)])}
    return tiff(page(width, height, **colours), pixels=block)


# ---- neither


def _others() -> Iterator[HostileImage]:
    yield HostileImage(name="empty", data=b"", error=DamagedImage)
    yield from _listed("cut to", {f"{count} bytes": jpeg()[:count] for count in (1, 2)}, DamagedImage)
    starts: Mapping[str, bytes] = {
        "text": b"just some words, and no picture at all",
        "one letter": b"a",
        "a page": HTML,
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "XML with entities": LAUGHS.encode(),
        "GIF": _encoded(picture(8, 8, "P"), "GIF"),
        "BMP": _encoded(picture(8, 8), "BMP"),
        "WebP": _encoded(picture(8, 8), "WEBP"),
        "PDF": b"%PDF-1.7\n1 0 obj\n",
        "an archive": ZIP,
        "a program": b"\x7fELF\2\1\1" + bytes(60),
        "zeros": bytes(4096),
        "PNG sent as text": png().replace(b"\r\n", b"\n", 1),
        "JPEG behind a space": b" " + jpeg(),
        "PNG behind a byte order mark": b"\xef\xbb\xbf" + png(),
        "JPEG XL": b"\xff\x0a" + bytes(30),
        "HEIC": b"\0\0\0\x18ftypheic" + bytes(30),
        "TIFF with a wrong version": b"II\x2c\0" + tiff(page())[4:],
        "TIFF of no byte order": b"IM*\0" + tiff(page())[4:],
    }
    yield from _listed("not taken", starts, UnsupportedImage)


@cache
def hostile_files() -> tuple[HostileImage, ...]:
    """All of them, each with a name of its own."""
    return (*_others(), *_jpegs(), *_pngs(), *_tiffs())


def cuts(data: bytes, *, head: int = 64, spread: int = 40) -> list[int]:
    """Lengths to cut a file to: every byte of its head and of its end, and some between."""
    between = (len(data) * part // spread for part in range(1, spread))
    return sorted({*range(min(head, len(data))), *between, *range(max(0, len(data) - 16), len(data))})


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Something with detail in every part, always the same."""
    noise = zlib.compress(bytes(range(256)), 0)[7:] * (width * height * 3 // 256 + 1)
    steps = bytes((at * 7 + at // 13 + value) % 256 for at, value in enumerate(noise[: width * height * 3]))
    return Image.frombytes("RGB", (width, height), steps).convert(mode)


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _listed(kind: str, files: Mapping[str, bytes], error: type[DomainError], *, late: bool = False) -> Iterator[HostileImage]:
    for name, data in files.items():
        yield HostileImage(name=f"{kind}: {name}", data=data, error=error, late=late)
