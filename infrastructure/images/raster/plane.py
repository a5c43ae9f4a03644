"""Reading of JPEG and PNG files: one plane, with the file's orientation and profile."""

import hashlib
import io
from typing import Any, BinaryIO, Final, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from domain.errors import DamagedImage
from domain.values import ImageWarning
from infrastructure.images.colour import MAX_PROFILE_BYTES
from infrastructure.images.decoding import FAILURES, decoding
from infrastructure.images.metadata import camera, pixel_size
from infrastructure.images.orientation import upright
from infrastructure.images.raster import png_chunks
from infrastructure.images.raster.jpeg_completeness import with_noise
from infrastructure.images.raster.jpeg_markers import with_usable_segments
from infrastructure.images.raster.png_chunks import pixel_chunks
from infrastructure.images.raster.png_rows import check_rows
from infrastructure.images.rendering import Colours, Plane
from infrastructure.images.validation import ImageUploadValidator
from infrastructure.images.validation.limits import incomplete

ORIENTATION: Final = 0x0112
START_OF_JPEG: Final = b"\xff\xd8"
JPEG_FILL: Final = frozenset({127, 128})
"""The values that decoders fill in if the data of a JPEG end early; 127 for inverted bands (CMYK)."""
TRAILER_IGNORED: Final = ImageWarning(
    "trailing_data_ignored", "The camera has stored other data behind the picture, which are not used: a video or its own notes"
)

Image.MAX_IMAGE_PIXELS = None  # Pillow would only warn; the validator checks the size


class EmbeddedMetadata(NamedTuple):
    """Metadata embedded in a file. `profile` is not checked. `adobe`: the JPEG has an Adobe marker."""

    exif: bytes = b""
    profile: bytes = b""
    dots_per_inch: tuple[float, float] | None = None
    adobe: bool = False


NO_METADATA: Final = EmbeddedMetadata()


class RasterMetadata(NamedTuple):
    """The camera or program, and the edge length of a pixel in micrometres; None if the file does not contain it."""

    acquired_with: str | None
    pixel_size_um: float | None


def read(file: BinaryIO, validator: ImageUploadValidator) -> Plane:
    """The plane of a JPEG or PNG. Raises DamagedImage (decode_failed, and incomplete if the data seem to end early)."""
    return _png(file, validator) if validator.scan_end is None else _jpeg(file, validator)


def check_complete(file: BinaryIO, validator: ImageUploadValidator) -> None:
    """Decode everything. Raises DamagedImage (decode_failed, incomplete)."""
    file.seek(0)
    if validator.scan_end is None:
        _check_rows(file)
        return
    _check_jpeg(file.read(), validator.scan_end, reduced=not validator.is_multi_pass)


def about(file: BinaryIO) -> RasterMetadata:
    """Metadata of the file. Damaged metadata are ignored, since they do not affect pixels."""
    metadata = _metadata_of(file)
    try:
        return RasterMetadata(camera(_loaded(metadata.exif)), pixel_size(metadata.dots_per_inch))
    except FAILURES:
        return RasterMetadata(None, None)


def _jpeg(file: BinaryIO, validator: ImageUploadValidator) -> Plane:
    file.seek(0)
    data = file.read()
    pixels = _decoded_jpeg(data)
    if set(pixels[-1, -1].tolist()) <= JPEG_FILL or validator.is_multi_pass:
        assert validator.scan_end is not None
        _check_jpeg(data, validator.scan_end, reduced=not validator.is_multi_pass)
    metadata = _metadata_of(file) if validator.has_metadata else NO_METADATA
    if pixels.shape[2] == 4 and metadata.adobe:
        pixels = np.subtract(np.uint8(255), pixels, out=pixels)  # programs that write this marker store inverted CMYK
    colours = {1: Colours.GREY, 3: Colours.RGB, 4: Colours.CMYK}[pixels.shape[2]]
    warnings = (TRAILER_IGNORED,) if validator.has_trailer else ()
    return _plane(pixels, colours, None, metadata, warnings)


def _png(file: BinaryIO, validator: ImageUploadValidator) -> Plane:
    try:
        with decoding("PNG"):
            samples = np.asarray(imagecodecs.png_decode(pixel_chunks(file)))
    except DamagedImage:
        _check_rows(file)  # raises a more specific error
        raise
    samples = samples if samples.ndim == 3 else samples[:, :, None]
    if validator.is_multi_pass or not samples[-1, -1].any():
        _check_rows(file)
    has_alpha = samples.shape[2] in {2, 4}
    pixels, alpha = (samples[:, :, :-1], samples[:, :, -1]) if has_alpha else (samples, None)
    colours = Colours.GREY if pixels.shape[2] == 1 else Colours.RGB
    return _plane(pixels, colours, alpha, _metadata_of(file) if validator.has_metadata else NO_METADATA, ())


def _plane(
    pixels: NDArray[Any], colours: Colours, alpha: NDArray[Any] | None, metadata: EmbeddedMetadata, warnings: tuple[ImageWarning, ...]
) -> Plane:
    orientation = _orientation(metadata)
    return Plane(
        pixels=upright(pixels, orientation),
        colours=colours,
        bits=pixels.dtype.itemsize * 8,
        alpha=None if alpha is None else upright(alpha, orientation),
        profile=metadata.profile,
        warnings=warnings,
    )


def _check_rows(file: BinaryIO) -> None:
    with decoding("PNG"):
        check_rows(file)


def _orientation(metadata: EmbeddedMetadata) -> int:
    try:
        return int(_loaded(metadata.exif).get(ORIENTATION, 1))
    except FAILURES:  # damaged EXIF data affect no pixel
        return 1


def _loaded(exif: bytes) -> Image.Exif:
    """The EXIF data only, as in browsers. Pillow itself would also search XMP and texts for an orientation."""
    loaded = Image.Exif()
    loaded.load(exif)
    return loaded


def _metadata_of(file: BinaryIO) -> EmbeddedMetadata:
    file.seek(0)
    if file.read(2) == START_OF_JPEG:
        file.seek(0)
        return _jpeg_metadata(file.read())
    profile = png_chunks.profile(file, maximum=MAX_PROFILE_BYTES + 1)  # a longer one is not used, with a warning
    return EmbeddedMetadata(exif=png_chunks.exif(file), profile=profile, dots_per_inch=png_chunks.dots_per_inch(file))


def _jpeg_metadata(data: bytes) -> EmbeddedMetadata:
    """The metadata of a JPEG; empty if Pillow cannot parse it."""
    try:
        info = JpegImagePlugin.JpegImageFile(io.BytesIO(with_usable_segments(data))).info
    except FAILURES:
        return NO_METADATA
    return EmbeddedMetadata(
        exif=info.get("exif", b""), profile=info.get("icc_profile") or b"", dots_per_inch=info.get("dpi"), adobe="adobe" in info
    )


def _decoded_jpeg(data: bytes) -> NDArray[np.uint8]:
    with decoding("JPEG"):
        pixels = np.asarray(imagecodecs.jpeg8_decode(data))
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _check_jpeg(data: bytes, scan_end: int, *, reduced: bool) -> None:
    """Raises DamagedImage (incomplete) if noise after the data changes the picture.

    `reduced`: all data are entropy-decoded, but only a small picture is computed. That is not enough for a progressive JPEG, whose last
    data are the finest detail.
    """
    sound = with_usable_segments(data)
    if _digest(sound, reduced=reduced) != _digest(with_noise(sound, scan_end - len(data) + len(sound)), reduced=reduced):
        raise incomplete("JPEG")


def _digest(data: bytes, *, reduced: bool) -> bytes:
    if not reduced:
        return hashlib.blake2b(np.ascontiguousarray(_decoded_jpeg(data)).data).digest()
    with decoding("JPEG"):
        picture = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
        picture.draft(None, (1, 1))
        return hashlib.blake2b(picture.tobytes()).digest()
