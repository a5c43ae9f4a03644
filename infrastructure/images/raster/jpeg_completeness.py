"""Detection of JPEG data that end early, which decoders fill with grey silently.

The picture is decoded a second time with noise appended to the data. A complete picture is not affected, because its last pixel is decoded
before the noise.
"""

import hashlib
from typing import Final

NOISE: Final = hashlib.shake_128(b"more picture data").digest(4096).replace(b"\xff", b"\x7f")
END_OF_IMAGE: Final = b"\xff\xd9"
FILL: Final = b"\xff"


def with_noise(data: bytes, scan_end: int) -> bytes:
    """The JPEG with noise after its entropy-coded data, which end at the offset `scan_end`."""
    return data[:scan_end].rstrip(FILL) + NOISE + END_OF_IMAGE
