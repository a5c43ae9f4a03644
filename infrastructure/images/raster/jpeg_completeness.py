"""Whether the data of a JPEG end early. Decoders paint what is missing grey without a word.

So the decoder is asked twice: with noise after the data, too. A whole picture looks the same then, as its last pixel is known before the
noise begins.
"""

import hashlib
from typing import Final

NOISE: Final = hashlib.shake_128(b"more picture data").digest(4096).replace(b"\xff", b"\x7f")
END_OF_IMAGE: Final = b"\xff\xd9"
FILL: Final = b"\xff"


def with_noise(data: bytes, scan_end: int) -> bytes:
    """The JPEG with noise behind its entropy-coded data, which end at `scan_end`."""
    return data[:scan_end].rstrip(FILL) + NOISE + END_OF_IMAGE
