"""Upload validation: checks type, header and structure of an image while it streams in.

The file name and the type that a client states are ignored. An accepted file has a complete structure. Whether its pixels can be decoded
is checked later, by `infrastructure.images` in a separate process with limits.
"""

from typing import BinaryIO, Final

from domain.errors import DamagedImage, UnsupportedImage
from infrastructure.images.validation.jpeg import JpegStructure
from infrastructure.images.validation.layout import PageLayout
from infrastructure.images.validation.limits import ImageHeader, ImageLimits
from infrastructure.images.validation.png import SIGNATURE, PngStructure
from infrastructure.images.validation.tiff import MAGIC
from infrastructure.images.validation.tiff_pages import header_of, read_pages

__all__ = ["ImageHeader", "ImageLimits", "ImageUploadValidator", "examine"]

ACCEPTED_FORMATS: Final = "JPEG, PNG and TIFF images (also OME-TIFF and BigTIFF) are accepted; renaming a file does not change its type"
JPEG_START: Final = b"\xff\xd8\xff"
SIGNATURES: Final = (JPEG_START, SIGNATURE, *MAGIC)
OTHER_FORMATS: Final = (
    (0, b"\x89PNG", "a PNG image that was damaged by a transfer in text mode"),
    (0, b"GIF8", "a GIF image"),
    (0, b"BM", "a BMP image"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"<?xml", "an XML file"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"ZISRAWFILE", "a Zeiss CZI file"),
    (0, b"\x70\0\0\0", "a Leica LIF file"),
    (0, b"\xda\xce\xbe\x0a", "a Nikon ND2 file"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (4, b"ftyp", "an AVIF, HEIC or MP4 file"),
    (8, b"WEBP", "a WebP image"),
)
MAX_SIGNATURE_BYTES: Final = 12
BLOCK_BYTES: Final = 1 << 20


class _WholeFile:
    """Used for TIFF, which can only be parsed when it is complete, since its directories may be anywhere."""

    def feed(self, chunk: bytes) -> None:
        """Do nothing until the file is complete."""


class ImageUploadValidator:
    """Validates one upload: `feed` receives the bytes as they arrive, `finish` the complete file.

    Both raise UnsupportedImage (type, coding or depth), DamagedImage and ImageTooLarge, each with a `reason`; `feed` does so as early as
    possible. Memory is bounded. `finish` reads a TIFF's directories, and the whole file if its pixels are JPEG-coded. It may block for
    100 ms, so it must not run on an event loop. Nothing may be fed after an error.
    """

    def __init__(self, *, limits: ImageLimits) -> None:
        self._limits = limits
        self._start = b""
        self._structure: JpegStructure | PngStructure | _WholeFile | None = None
        self.pages: tuple[PageLayout, ...] = ()

    def feed(self, chunk: bytes) -> None:
        if self._structure is None:
            self._start += chunk
            chunk = self._begin()
        if self._structure is not None:
            self._structure.feed(chunk)

    def finish(self, file: BinaryIO) -> ImageHeader:
        """Validate the complete, seekable file, which contains exactly the bytes that were fed. Changes its position."""
        match self._structure:
            case None:
                raise _too_short(self._start)
            case _WholeFile():
                self.pages = read_pages(file, self._limits)
                return header_of(self.pages)
            case JpegStructure() | PngStructure() as structure:
                return structure.finish()

    @property
    def is_multi_pass(self) -> bool:
        """Whether it is a progressive JPEG or an interlaced PNG, which is only coarser if its last part is missing."""
        match self._structure:
            case JpegStructure() as jpeg:
                return jpeg.progressive
            case PngStructure() as png:
                return png.interlaced
            case _:
                return False

    @property
    def has_metadata(self) -> bool:
        """Whether it is a JPEG or PNG that may contain metadata."""
        return isinstance(self._structure, JpegStructure | PngStructure) and self._structure.has_metadata

    @property
    def has_trailer(self) -> bool:
        """Whether it is a JPEG with appended data other than pictures, as phones write it."""
        return isinstance(self._structure, JpegStructure) and self._structure.has_trailer

    @property
    def scan_end(self) -> int | None:
        """The offset at which the picture data of a JPEG end; None for other files."""
        return self._structure.scan_end if isinstance(self._structure, JpegStructure) else None

    def _begin(self) -> bytes:
        """Choose the parser once the type is known; return the bytes to feed to it."""
        start = self._start
        if not any(known.startswith(start[: len(known)]) for known in SIGNATURES):
            if len(start) < MAX_SIGNATURE_BYTES:
                return b""
            raise _unsupported(start)
        if start.startswith(JPEG_START):
            self._structure = JpegStructure(self._limits)
        elif start.startswith(SIGNATURE):
            self._structure = PngStructure(self._limits)
        elif start[:4] in MAGIC:
            self._structure = _WholeFile()
        return start


def examine(file: BinaryIO, *, limits: ImageLimits) -> tuple[ImageHeader, ImageUploadValidator]:
    """Validate a complete file. Raises as `ImageUploadValidator` does."""
    validator = ImageUploadValidator(limits=limits)
    file.seek(0)
    while chunk := file.read(BLOCK_BYTES):
        validator.feed(chunk)
    return validator.finish(file), validator


def _too_short(start: bytes) -> DamagedImage | UnsupportedImage:
    if not start:
        return DamagedImage("The file is empty. Choose a JPEG, PNG or TIFF image and send it again", reason="empty")
    if any(known.startswith(start) for known in SIGNATURES):
        return DamagedImage("The file ends after its first bytes: it is incomplete. Send it again", reason="truncated")
    return _unsupported(start)


def _unsupported(start: bytes) -> UnsupportedImage:
    names = [name for at, magic, name in OTHER_FORMATS if start.startswith(magic, at)]
    found = f"The file is {names[0]}" if names else "The file is not an image of a known type"
    return UnsupportedImage(f"{found}. {ACCEPTED_FORMATS}", reason="unsupported_type")
