"""What a signed address stands for, and how its bytes are handed to a browser without becoming anything but a picture."""

import hashlib
import math
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote
from uuid import UUID

import msgspec

from application import derivatives
from application.filenames import safe_filename

INERT = "application/octet-stream"
INLINE_TYPES = frozenset({"image/jpeg", "image/png", "image/webp"})  # what a browser may draw itself
ACCEPTED_TYPES = INLINE_TYPES | {"image/tiff", "application/json", "text/csv"}
WINDOWS_PER_LIFETIME: Final = 4
LABEL_BYTES: Final = 9


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
        return self.media_type if self.media_type in ACCEPTED_TYPES else INERT

    @property
    def disposition(self) -> str:
        """The Content-Disposition to answer with (RFC 6266): inline only for what a browser draws."""
        return content_disposition(self.filename, inline=self.inline and self.media_type in INLINE_TYPES)

    def cache_control(self, now: float) -> str:
        """The Cache-Control to answer with at `now`: the bytes under a name never change, and are kept for as long as the address works."""
        return f"private, max-age={max(0, int(self.ends - now))}, immutable"


class Holder(msgspec.Struct, frozen=True):
    """Whom an address is given to: the session of a user, or a service, whose token works `until` then (seconds since 1970)."""

    id: UUID
    until: int | None = None


class LocalAddress(msgspec.Struct, frozen=True, kw_only=True):
    """What an address of our own route stands for. It works while its holder may see the image, and until it `ends` (seconds since 1970).

    `holder_id` is a session, or a service. `folder` is that of a picture (such as `thumbnail/2`), "" for the uploaded file. `label`
    differs with file name and type: caches keep both under the address.
    """

    image_id: UUID
    holder_id: UUID
    is_service: bool
    folder: str
    inline: bool
    ends: int
    label: bytes

    @classmethod
    def of(cls, blob: SignedBlob, image_id: UUID, holder: Holder) -> "LocalAddress":
        return cls(
            image_id=image_id,
            holder_id=holder.id,
            is_service=holder.until is not None,
            folder=derivatives.split(blob.name)[0],
            inline=blob.inline,
            ends=blob.ends,
            label=hashlib.sha256(f"{blob.media_type}/{blob.filename}".encode()).digest()[:LABEL_BYTES],
        )

    def blob(self, *, sha256: str, filename: str, media_type: str) -> SignedBlob:
        """What it gives of an image with this file."""
        return blob_of(sha256=sha256, filename=filename, media_type=media_type, folder=self.folder, inline=self.inline, ends=self.ends)


def blob_of(*, sha256: str, filename: str, media_type: str, folder: str, inline: bool, ends: int) -> SignedBlob:
    """The file of an image, or the picture of it in `folder`."""
    if not folder:
        return SignedBlob(name=sha256, filename=filename, media_type=media_type, inline=inline, ends=ends)
    name, filename = derivatives.joined(folder, sha256), f"{PurePosixPath(filename).stem}.jpg"
    return SignedBlob(name=name, filename=filename, media_type=derivatives.MEDIA_TYPE, inline=inline, ends=ends)


def content_disposition(filename: str, *, inline: bool) -> str:
    """RFC 6266 with both forms of the name: plain ASCII for old clients, and all of it in UTF-8 (RFC 5987)."""
    safe = safe_filename(filename)
    plain = "".join(character if character.isascii() and character not in '"\\%' else "_" for character in safe)
    return f"{'inline' if inline else 'attachment'}; filename=\"{plain}\"; filename*=UTF-8''{quote(safe, safe='')}"
