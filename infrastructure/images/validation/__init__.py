"""Upload validation: while an image streams in, its type, its header and its structure are checked.

The file's name and the type that a client claims do not matter. An accepted file is complete in its structure; whether its pixels can
be decoded is checked later, by `infrastructure.images`, in a process with limits of its own.
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

ACCEPTED_FORMATS: Final = "JPEG, PNG and TIFF images (OME-TIFF and BigTIFF too) are taken; a file's name does not change its type"
JPEG_START: Final = b"\xff\xd8\xff"
SIGNATURES: Final = (JPEG_START, SIGNATURE, *MAGIC)
OTHER_FORMATS: Final = (
    (0, b"\x89PNG", "a PNG image that was changed on its way, as if it were text"),
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
    """A TIFF can only be parsed when it is complete: its directories may be anywhere."""

    def feed(self, chunk: bytes) -> None:
        """Do nothing: nothing can be checked yet."""


class ImageUploadValidator:
    """Feed it the bytes that arrive, then give it the whole file.

    Both calls raise UnsupportedImage (the type, coding or depth is not supported), DamagedImage, ImageTooLarge, each with a `reason`;
    `feed` as early as possible. Memory does not grow with the file. `finish` reads a TIFF's directories (and the whole file when
    its pixels are JPEG-coded), so it may take some 100 ms: not on an event loop. Nothing may be fed after an error.
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
        """`file` holds exactly what was fed, and is seekable. Its position is changed."""
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
        """Whether it is a progressive JPEG or an interlaced PNG: without its last part it would just be coarser."""
        match self._structure:
            case JpegStructure() as jpeg:
                return jpeg.progressive
            case PngStructure() as png:
                return png.interlaced
            case _:
                return False

    @property
    def has_metadata(self) -> bool:
        """Whether it is a JPEG or PNG that may hold anything beside the pixels."""
        return isinstance(self._structure, JpegStructure | PngStructure) and self._structure.has_metadata

    @property
    def has_trailer(self) -> bool:
        """Whether it is a JPEG to which a phone has appended other data than pictures."""
        return isinstance(self._structure, JpegStructure) and self._structure.has_trailer

    @property
    def scan_end(self) -> int | None:
        """Where the picture data of a JPEG end, in bytes from the start."""
        return self._structure.scan_end if isinstance(self._structure, JpegStructure) else None

    def _begin(self) -> bytes:
        """Return all bytes so far once the type is known, for the parser of its structure."""
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
    """Validate a complete file."""
    validator = ImageUploadValidator(limits=limits)
    file.seek(0)
    while chunk := file.read(BLOCK_BYTES):
        validator.feed(chunk)
    return validator.finish(file), validator


def _too_short(start: bytes) -> DamagedImage | UnsupportedImage:
    if not start:
        return DamagedImage("The file is empty. Choose a JPEG, PNG or TIFF image and send it again", reason="empty")
    if any(known.startswith(start) for known in SIGNATURES):
        return DamagedImage("The file ends after its first bytes: it was cut off. Send it again", reason="truncated")
    return _unsupported(start)


def _unsupported(start: bytes) -> UnsupportedImage:
    names = [name for at, magic, name in OTHER_FORMATS if start.startswith(magic, at)]
    found = f"The file is {names[0]}" if names else "The file is no image that we know"
    return UnsupportedImage(f"{found}. {ACCEPTED_FORMATS}", reason="unsupported_type")
