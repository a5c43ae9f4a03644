"""Signed addresses of blobs in a local folder. They are encrypted, and equal for equal content."""

import base64
import time
from collections.abc import Callable
from struct import Struct
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from application.signed_downloads import LocalAddress
from domain.errors import Forbidden
from infrastructure.security.key_ring import KEY_ID_BYTES, Key, Keys, Purpose

FORM: Final = "3."  # prefix of a token; tokens of earlier releases have another one and are refused
BOUND_TO: Final = b"bioscope local address 3"
LAYOUT: Final = Struct(">16s16s?16s?Q9s")
"""Image, holder, whether the holder is a service, folder of the rendition, whether it is inline, expiry, label: always 67 bytes."""
TAG_BYTES: Final = 16
TOKEN_LENGTH: Final = len(FORM) + (KEY_ID_BYTES + TAG_BYTES + LAYOUT.size) * 4 // 3  # no padding: the length is a multiple of 3


def seal(keys: Keys, address: LocalAddress) -> str:
    """A URL-safe token for `address`: key id, tag and ciphertext (AES-SIV, RFC 5297). Deterministic. Raises MissingKey."""
    key = keys.newest(Purpose.SIGNED_URLS)
    clear = LAYOUT.pack(
        address.image_id.bytes,
        address.holder_id.bytes,
        address.is_service,
        address.folder.encode(),
        address.inline,
        address.ends,
        address.label,
    )
    return FORM + base64.urlsafe_b64encode(key.id + _cipher(key).encrypt(clear, [BOUND_TO])).decode()


def unseal(keys: Keys, token: str, *, now: Callable[[], float] = time.time) -> LocalAddress:
    """The address in a token. Raises Forbidden if it was not issued by this installation, was changed, or has expired."""
    address = _opened(keys, token)
    if address.ends <= now():
        raise Forbidden("This link has expired; request a new one")
    return address


def _opened(keys: Keys, token: str) -> LocalAddress:
    if len(token) != TOKEN_LENGTH or not token.startswith(FORM):
        raise _refused()
    try:
        sealed = base64.b64decode(token.removeprefix(FORM), altchars=b"-_", validate=True)
        key = next(key for key in keys.all(Purpose.SIGNED_URLS) if key.id == sealed[:KEY_ID_BYTES])
        clear = _cipher(key).decrypt(sealed[KEY_ID_BYTES:], [BOUND_TO])
    except (ValueError, StopIteration, InvalidTag):
        raise _refused() from None
    image_id, holder_id, is_service, folder, inline, ends, label = LAYOUT.unpack(clear)
    return LocalAddress(
        image_id=UUID(bytes=image_id),
        holder_id=UUID(bytes=holder_id),
        is_service=is_service,
        folder=folder.rstrip(b"\0").decode(),
        inline=inline,
        ends=ends,
        label=label,
    )


def _cipher(key: Key) -> AESSIV:
    """A cipher with a derived key, because earlier releases used the key itself for HMACs."""
    return AESSIV(key.hmac(BOUND_TO))


def _refused() -> Forbidden:
    return Forbidden("This link is not valid; request a new one")
