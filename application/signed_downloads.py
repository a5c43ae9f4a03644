"""The content of signed addresses, and response headers that keep a browser from running a downloaded file as a script."""

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
INLINE_TYPES = frozenset({"image/jpeg", "image/png", "image/webp"})  # types that a browser may display inline
ACCEPTED_TYPES = INLINE_TYPES | {"image/tiff", "application/json", "text/csv"}
WINDOWS_PER_LIFETIME: Final = 4
LABEL_BYTES: Final = 9


def expiry(seconds: int, now: float) -> int:
    """When an address expires that is requested at `now` and must work for at least `seconds`. Times are in seconds since 1970.

    All addresses requested within one window (a quarter of `seconds`) expire together. They are equal, so caches can serve them.
    An address therefore works for at most a quarter longer than `seconds`.
    """
    window = max(1, seconds // WINDOWS_PER_LIFETIME)
    return math.ceil((math.ceil(now) + seconds) / window) * window


class SignedBlob(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a signed address gives access to. `name` is a sha256 or the name of a rendition; `ends` is in seconds since 1970."""

    name: str
    filename: str
    media_type: str
    inline: bool
    ends: int

    @property
    def served_type(self) -> str:
        """The Content-Type of the response (with `nosniff`): a type that runs no script, whatever was stored."""
        return self.media_type if self.media_type in ACCEPTED_TYPES else INERT

    @property
    def disposition(self) -> str:
        """The Content-Disposition of the response (RFC 6266): inline only for types that a browser displays."""
        return content_disposition(self.filename, inline=self.inline and self.media_type in INLINE_TYPES)

    def cache_control(self, now: float) -> str:
        """The Cache-Control of the response at `now`: cached until the address expires, since the bytes under a name never change."""
        return f"private, max-age={max(0, int(self.ends - now))}, immutable"


class Holder(msgspec.Struct, frozen=True):
    """The recipient of an address: a user's session, or a key or service token that works `until` then (seconds since 1970)."""

    id: UUID
    until: int | None = None


class LocalAddress(msgspec.Struct, frozen=True, kw_only=True):
    """The content of an address of the API itself. It works while its holder may see the image, until `ends` (seconds since 1970).

    `holder_id` is a session; with `is_service`, it is an API key, or a service with a signed token. `folder` is that of a rendition (such
    as `thumbnail/2`), "" for the uploaded file. `label` is a digest of file name and media type, so that a cached response with others is
    not reused.
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
        """The file that the address gives access to, of an image with these properties."""
        return blob_of(sha256=sha256, filename=filename, media_type=media_type, folder=self.folder, inline=self.inline, ends=self.ends)


def blob_of(*, sha256: str, filename: str, media_type: str, folder: str, inline: bool, ends: int) -> SignedBlob:
    """The uploaded file of an image, or its rendition in `folder`."""
    if not folder:
        return SignedBlob(name=sha256, filename=filename, media_type=media_type, inline=inline, ends=ends)
    name, filename = derivatives.joined(folder, sha256), f"{PurePosixPath(filename).stem}.jpg"
    return SignedBlob(name=name, filename=filename, media_type=derivatives.MEDIA_TYPE, inline=inline, ends=ends)


def content_disposition(filename: str, *, inline: bool) -> str:
    """A Content-Disposition header (RFC 6266) with the file name in ASCII for old clients and in UTF-8 (RFC 5987)."""
    safe = safe_filename(filename)
    plain = "".join(character if character.isascii() and character not in '"\\%' else "_" for character in safe)
    return f"{'inline' if inline else 'attachment'}; filename=\"{plain}\"; filename*=UTF-8''{quote(safe, safe='')}"
