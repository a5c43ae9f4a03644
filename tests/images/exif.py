"""EXIF data that states an orientation and nothing more."""

from tests.images.encodings import ByteOrder
from tests.images.tiff_writer import SHORT, Form

ORIENTATION = 274


def exif(orientation: int, byte_order: ByteOrder) -> bytes:
    """A TIFF structure with one directory of one entry (Exif 3.0, 4.5.2)."""
    form = Form(little=byte_order == "little")
    header = (b"II" if form.little else b"MM") + form.pack("HI", 42, 8)
    return header + form.pack("HHHIHHI", 1, ORIENTATION, SHORT, 1, orientation, 0, 0)
