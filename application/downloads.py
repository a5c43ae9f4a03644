"""What a signed address stands for, and how its bytes are handed to a browser without becoming anything but a picture."""

import math
from typing import Final
from urllib.parse import quote

import msgspec

from application.filenames import safe_filename

INERT = "application/octet-stream"
SHOWN = frozenset({"image/jpeg", "image/png", "image/webp"})  # what a browser may draw itself
TAKEN = SHOWN | {"image/tiff", "application/json", "text/csv"}
WINDOWS_PER_LIFETIME: Final = 4


def expiry(seconds: int, now: float) -> int:
    """When an address ends that is asked for at `now` and must work for at least `seconds`. Times in seconds since 1970.

    All addresses asked for within one window (a quarter of `seconds`) end together, so that they are equal and caches find their content.
    An address therefore works for less than a quarter longer than `seconds`.
    """
    window = max(1, seconds // WINDOWS_PER_LIFETIME)
    return math.ceil((math.ceil(now) + seconds) / window) * window


class SignedBlob(msgspec.Struct, frozen=True, kw_only=True):
    """`name` is a sha256 or a derived name such as `thumbnail/SHA256`; `ends` in seconds since 1970."""

    name: str
    filename: str
    media_type: str
    inline: bool
    ends: int

    @property
    def served_type(self) -> str:
        """The content type to answer with (beside `nosniff`): one that runs no script, whatever was stored."""
        return self.media_type if self.media_type in TAKEN else INERT

    @property
    def disposition(self) -> str:
        """The Content-Disposition to answer with (RFC 6266): inline only for what a browser draws."""
        return content_disposition(self.filename, inline=self.inline and self.media_type in SHOWN)

    def cache_control(self, now: float) -> str:
        """The Cache-Control to answer with at `now`: the bytes under a name never change, and are kept for as long as the address works."""
        return f"private, max-age={max(0, int(self.ends - now))}, immutable"


def content_disposition(filename: str, *, inline: bool) -> str:
    """RFC 6266 with both forms of the name: plain ASCII for old clients, and all of it in UTF-8 (RFC 5987)."""
    kept = safe_filename(filename)
    plain = "".join(sign if sign.isascii() and sign not in '"\\%' else "_" for sign in kept)
    return f"{'inline' if inline else 'attachment'}; filename=\"{plain}\"; filename*=UTF-8''{quote(kept, safe='')}"
