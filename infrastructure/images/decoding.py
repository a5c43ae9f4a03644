"""Calls of third-party decoders. Their errors become errors of this system, and users never see their messages."""

import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from domain.errors import DamagedImage

FAILURES: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,
    struct.error,
    zlib.error,
)


logging.getLogger("imagecodecs").setLevel(logging.CRITICAL)  # its errors are raised

PILLOW_OUT_OF_MEMORY: Final = "decoder error -9"


@contextmanager
def decoding(kind: str) -> Iterator[None]:
    """Translate decoder errors in the block: raises DamagedImage (decode_failed), MemoryError.

    Warnings count as failures, except those about TIFF tags: the validator has checked the tags, and EXIF data do not affect pixels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")
        try:
            yield
        except FAILURES as error:
            if PILLOW_OUT_OF_MEMORY in str(error):
                raise MemoryError from error
            raise DamagedImage(
                f"The {kind} file is damaged: its pixels cannot be decoded. Save or export it again", reason="decode_failed"
            ) from error
