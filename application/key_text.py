"""The text of an API key, as its owner stores it: `bsk_`, then the key's id, its secret and a checksum in base64url.

The checksum lets scanners and typing errors be recognized without a lookup. Exactly one text is accepted for each secret.
"""

import base64
import hashlib
import hmac
import os
from typing import Final
from uuid import UUID

import msgspec

PREFIX: Final = "bsk_"
ID_BYTES, SECRET_BYTES, CHECKSUM_BYTES = 16, 32, 4
KEY_CHARACTERS: Final = len(PREFIX) + -(-(ID_BYTES + SECRET_BYTES + CHECKSUM_BYTES) * 4 // 3)
"""The length of every key. Base64url without padding."""


class KeySecret:
    """The secret of a new key. It is shown to the owner once; only its hash is stored."""

    def __init__(self, value: bytes | None = None) -> None:
        self._value = os.urandom(SECRET_BYTES) if value is None else value

    def __repr__(self) -> str:
        return "KeySecret()"

    @property
    def hash(self) -> bytes:
        """SHA-256, 32 bytes. The secret has 256 random bits, so that a fast hash is enough."""
        return hashlib.sha256(self._value).digest()

    def text(self, key: UUID) -> str:
        """The key with this secret."""
        content = key.bytes + self._value
        return PREFIX + base64.urlsafe_b64encode(content + _checksum(content)).decode().rstrip("=")


class PresentedKey(msgspec.Struct, frozen=True):
    """A key that a client sent: the id that it names, and the hash of its secret."""

    id: UUID
    secret_hash: bytes

    def __repr__(self) -> str:
        return f"PresentedKey({self.id})"


def is_key(text: str) -> bool:
    """Whether a credential is meant as an API key."""
    return text.startswith(PREFIX)


def read_key(text: str) -> PresentedKey | None:
    """The key that `text` states. None if it has another form, or a wrong checksum."""
    if len(text) != KEY_CHARACTERS or not is_key(text) or not text.isascii():
        return None
    try:
        decoded = base64.b64decode(text[len(PREFIX) :] + "==", altchars=b"-_", validate=True)
    except ValueError:
        return None
    content, checksum = decoded[:-CHECKSUM_BYTES], decoded[-CHECKSUM_BYTES:]
    key, secret = UUID(bytes=content[:ID_BYTES]), KeySecret(content[ID_BYTES:])
    if not hmac.compare_digest(checksum, _checksum(content)) or secret.text(key) != text:
        return None
    return PresentedKey(key, secret.hash)


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(PREFIX.encode() + content).digest()[:CHECKSUM_BYTES]
