"""JPEG and PNG: one picture, decoded whole by Pillow."""

import hashlib
import io
from typing import BinaryIO, Final

from PIL import Image, JpegImagePlugin, PngImagePlugin

from domain.errors import DamagedImage
from infrastructure.imaging.decoding import FAILURES, decoding
from infrastructure.imaging.png_rows import check_rows
from infrastructure.imaging.renditions import shown
from infrastructure.upload_gate import ImageLimits, Sniffed, examine

ORIENTATION: Final = 0x0112
TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
NOISE: Final = hashlib.shake_128(b"more picture data").digest(4096).replace(b"\xff", b"\x7f")
END: Final = b"\xff\xd9"
ROWS_AT_ONCE: Final = 256

Image.MAX_IMAGE_PIXELS = None  # Pillow would only warn; the gate has asked before


def decoded(file: BinaryIO, sniffed: Sniffed, scan_end: int | None, *, edge: int) -> Image.Image:
    """Upright, L or RGB with 8 bits, its longer edge at least `edge` where the original has that many.

    Raises DamagedImage (decode_failed, incomplete), ImageTooLarge (too_much_memory).
    """
    if scan_end is None:
        with decoding("PNG"):
            check_rows(file)
            file.seek(0)
            png = PngImagePlugin.PngImageFile(file)
            png.load()
            return upright(png, shown(png))
    with decoding("JPEG"):
        file.seek(0)
        jpeg = _jpeg(file, sniffed, edge)
        picture, seen = upright(jpeg, shown(jpeg)), _digest(jpeg)
        del jpeg  # two of them may be more than there is memory
        file.seek(0)
        longer = io.BytesIO(file.read(scan_end) + NOISE + END)
        ends_early = _digest(_jpeg(longer, sniffed, edge)) != seen
    if ends_early:
        raise DamagedImage("The JPEG file is damaged: a part of its picture is missing. Save or export it again", reason="incomplete")
    return picture


def check_whole(data: bytes) -> None:
    """Whether a JPEG or PNG holds all of its picture. Raises DamagedImage (incomplete), and what the gate raises."""
    file = io.BytesIO(data)
    sniffed, gate = examine(file, limits=ImageLimits())
    decoded(file, sniffed, gate.scan_end, edge=1)


def upright(source: Image.Image, picture: Image.Image) -> Image.Image:
    """`picture`, turned as the EXIF data of `source` tell."""
    try:
        turn = TURNS.get(int(source.getexif().get(ORIENTATION, 1)))
    except FAILURES:  # spoilt EXIF data spoils no pixel
        turn = None
    return picture if turn is None else picture.transpose(turn)


def _jpeg(file: BinaryIO, sniffed: Sniffed, edge: int) -> JpegImagePlugin.JpegImageFile:
    """All of the file is read and unpacked, but fewer pixels are computed where fewer will do.

    When the data of a picture ends too early, the decoder paints the rest gray without a word. So it is asked twice: with noise after
    the data, too. A whole picture looks the same then, as its last pixel is known before the noise begins. What a progressive one has
    last is its finest detail, which only shows in full size.
    """
    picture = JpegImagePlugin.JpegImageFile(file)
    if "progressive" not in picture.info:
        picture.draft(None, (min(2 * edge, sniffed.width), min(2 * edge, sniffed.height)))
    picture.load()
    return picture


def _digest(picture: Image.Image) -> bytes:
    seen = hashlib.blake2b()
    for top in range(0, picture.height, ROWS_AT_ONCE):
        seen.update(picture.crop((0, top, picture.width, min(top + ROWS_AT_ONCE, picture.height))).tobytes())
    return seen.digest()
