"""Keys by purpose: the set that one process holds, and the root key from which all are derived."""

import base64
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 4
SALT: Final = b"bioscope"
KEY_ID_PREFIX: Final = b"bioscope key id"


class Purpose(StrEnum):
    """The purpose of a key. The values are inputs of the derivation and never change."""

    DATA_KEYS = "wrap data keys"
    EMAIL_CLAIMS = "claim email"
    USERNAME_CLAIMS = "claim username"
    HOSTNAME_CLAIMS = "claim hostname"
    INVITATION_CLAIMS = "claim invitation"
    REGISTRATION_CLAIMS = "claim registration"
    SERVICE_CLAIMS = "claim service"
    BOOTSTRAP_CLAIMS = "claim bootstrap"
    MAIL_LINKS = "mail link"
    BOOTSTRAP_TOKENS = "bootstrap token"
    PAGE_TOKENS = "page token"
    REQUEST_DIGESTS = "payload"
    ACCESS_TOKENS = "access tokens"
    REFRESH_TOKENS = "refresh token child"
    REFRESH_TOKEN_ROWS = "refresh token row"  # noqa: S105 - a purpose, not a secret
    SIGNED_URLS = "signed url"
    RATE_LIMITS = "limits"
    HEADS = "heads"
    EVENT_SOURCE = "event source"
    RELAY_RECORDS = "relay records"
    BACKUPS = "backup"


class WrongRootKey(Exception):
    """The root key is missing, invalid, or of another installation. The message says what to do."""


class MissingKey(WrongRootKey):
    """This process does not hold the key for a purpose. The message names the purpose and what to do."""


class Key:
    """A secret of 32 bytes for one purpose. `id` (4 bytes) is derived from it without revealing it, and stored with its output."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise WrongRootKey(f"a key must have {KEY_BYTES} bytes, this one has {len(secret)}")
        self.secret, self.id = secret, key_id(secret)

    def __repr__(self) -> str:
        return f"Key({self.id.hex()})"

    def hmac(self, value: bytes) -> bytes:
        """The HMAC-SHA256 of `value`, 32 bytes."""
        mac = HMAC(self.secret, SHA256())
        mac.update(value)
        return mac.finalize()

    def signing(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.secret)


class Keys(ABC):
    """The keys that a process holds. For each purpose the current key comes first, then the replaced ones."""

    @abstractmethod
    def holds(self, purpose: str) -> bool:
        """Whether there is a secret key for `purpose`."""

    @abstractmethod
    def all(self, purpose: str) -> tuple[Key, ...]:
        """The secret keys for `purpose`, newest first. Raises MissingKey."""

    @abstractmethod
    def public(self, purpose: str) -> tuple[Ed25519PublicKey, ...]:
        """The public keys that verify signatures for `purpose`, newest first. Raises MissingKey."""

    def newest(self, purpose: str) -> Key:
        """The key for new values. Raises MissingKey."""
        return self.all(purpose)[0]

    def signing(self, purpose: str) -> Ed25519PrivateKey:
        """The key for new signatures. Raises MissingKey."""
        return self.newest(purpose).signing()


class KeyRing(Keys):
    """A fixed set of keys. Components get their keys when they are created, so a missing key fails at the start of the process."""

    def __init__(self, secret: Mapping[str, Sequence[Key]], public: Mapping[str, Sequence[Ed25519PublicKey]] | None = None) -> None:
        self._secret = {purpose: tuple(keys) for purpose, keys in secret.items()}
        self._public = {purpose: tuple(keys) for purpose, keys in (public or {}).items()}

    def holds(self, purpose: str) -> bool:
        return bool(self._secret.get(purpose))

    def all(self, purpose: str) -> tuple[Key, ...]:
        if not self.holds(purpose):
            raise _missing(purpose)
        return self._secret[purpose]

    def public(self, purpose: str) -> tuple[Ed25519PublicKey, ...]:
        if self.holds(purpose):
            return tuple(key.signing().public_key() for key in self._secret[purpose])
        if not self._public.get(purpose):
            raise _missing(purpose)
        return self._public[purpose]


NO_KEYS: Final = KeyRing({})


class RootKey(Keys):
    """The one secret of an installation, from which all keys are derived. It decrypts all private data that was not erased."""

    def __init__(self, root: bytes) -> None:
        if len(root) != KEY_BYTES:
            raise WrongRootKey(f"the root key must be {KEY_BYTES} random bytes in base64; run: openssl rand -base64 {KEY_BYTES}")
        self._root = root
        self._derived: dict[str, Key] = {}

    @classmethod
    def read(cls, path: Path) -> "RootKey":
        try:
            return cls(base64.b64decode(path.read_text().strip(), validate=True))
        except FileNotFoundError:
            raise WrongRootKey(f"no root key at {path}: set BIOSCOPE_ROOT_KEY_FILE, or let `bioscope up` create one") from None
        except OSError as error:
            raise WrongRootKey(
                f"the root key {path} cannot be read ({error.strerror}): check BIOSCOPE_ROOT_KEY_FILE and its permissions"
            ) from None
        except ValueError:
            raise WrongRootKey(f"{path} must contain {KEY_BYTES} random bytes in base64: openssl rand -base64 {KEY_BYTES}") from None

    def holds(self, purpose: str) -> bool:  # noqa: ARG002 - every key can be derived
        return True

    def all(self, purpose: str) -> tuple[Key, ...]:
        if purpose not in self._derived:
            self._derived[purpose] = Key(self.derive(purpose))
        return (self._derived[purpose],)

    def public(self, purpose: str) -> tuple[Ed25519PublicKey, ...]:
        return (self.signing(purpose).public_key(),)

    def derive(self, purpose: str) -> bytes:
        """32 bytes derived for `purpose` with HKDF-SHA256 (RFC 5869)."""
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=SALT, info=purpose.encode()).derive(self._root)


def new_root_key() -> str:
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()


def key_id(secret: bytes) -> bytes:
    """The id of a key, 4 bytes. A plain hash is enough for a random secret, and fast enough to be computed for each event read."""
    return hashlib.sha256(KEY_ID_PREFIX + secret).digest()[:KEY_ID_BYTES]


def public_key_id(public: Ed25519PublicKey) -> str:
    """The id of a public key: 16 hexadecimal digits of its hash."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]


def _missing(purpose: str) -> MissingKey:
    return MissingKey(
        f"this process does not hold the key for {purpose!r}: run this where the root key is (BIOSCOPE_ROOT_KEY_FILE),"
        " or export the keys of the process again with `bioscope keys export`"
    )
