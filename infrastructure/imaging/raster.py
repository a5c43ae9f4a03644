"""JPEG and PNG: one picture, decoded whole by Pillow."""

import hashlib
import io
from typing import BinaryIO, Final

from PIL import Image, JpegImagePlugin, PngImagePlugin

from domain.errors import DamagedImage
from infrastructure.imaging.decoding import FAILURES, decoding
from infrastructure.imaging.png_rows import check_rows
from infrastructure.imaging.renditions import shown
from infrastructure.upload_gate import Sniffed

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
            return _upright(png, shown(png))
    with decoding("JPEG"):
        file.seek(0)
        jpeg = _jpeg(file, sniffed, edge)
        picture = _upright(jpeg, shown(jpeg))
        file.seek(0)
        longer = io.BytesIO(file.read(scan_end) + NOISE + END)
        ends_early = _jpeg(longer, sniffed, edge).tobytes() != jpeg.tobytes()
    if ends_early:
        raise DamagedImage("The JPEG file is damaged: a part of its picture is missing. Save or export it again", reason="incomplete")
    return picture


def _jpeg(file: BinaryIO, sniffed: Sniffed, edge: int) -> JpegImagePlugin.JpegImageFile:
    """All of the file is read and unpacked, but fewer pixels are computed where fewer will do.

    When the data of a picture ends too early, the decoder paints the rest gray without a word. So it is asked twice: with noise after
    the data, too. A whole picture looks the same then, as its last pixel is known before the noise begins.
    """
    picture = JpegImagePlugin.JpegImageFile(file)
    picture.draft(None, (min(2 * edge, sniffed.width), min(2 * edge, sniffed.height)))
    picture.load()
    return picture


def _upright(source: Image.Image, picture: Image.Image) -> Image.Image:
    try:
        turn = TURNS.get(int(source.getexif().get(ORIENTATION, 1)))
    except FAILURES:  # spoilt EXIF data spoils no pixel
        turn = None
    return picture if turn is None else picture.transpose(turn)
