"""Addresses of blobs in a local folder that need no header: sealed, so that they reveal nothing, and equal for equal content."""

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

FORM: Final = "3."  # the beginning of a token; those of earlier releases begin differently, and are refused
BOUND_TO: Final = b"bioscope local address 3"
LAYOUT: Final = Struct(">16s16s?16s?Q9s")
"""Image, holder, whether that is a service, folder of the picture, whether it is shown, end, label: 67 bytes, whatever they are."""
TAG_BYTES: Final = 16
TOKEN_LENGTH: Final = len(FORM) + (KEY_ID_BYTES + TAG_BYTES + LAYOUT.size) * 4 // 3  # no padding: the length is a multiple of 3


def seal(keys: Keys, address: LocalAddress) -> str:
    """A token for `address`, safe in a path: key id, tag and ciphertext (RFC 5297); always the same. Raises MissingKey."""
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
    """The address of a token. Raises Forbidden when it was not sealed here, was changed, or has expired."""
    address = _opened(keys, token)
    if address.ends <= now():
        raise Forbidden("This address has ended; ask for a new one")
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
    """Under a key of its own: earlier releases used this one for HMACs."""
    return AESSIV(key.hmac(BOUND_TO))


def _refused() -> Forbidden:
    return Forbidden("This address is not one of ours; ask for a new one")
