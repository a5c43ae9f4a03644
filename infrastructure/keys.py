"""Every key that the installation uses, derived from one root secret; and the data keys of subjects, which can be destroyed."""

import base64
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from threading import Lock
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

ROOT_BYTES = 32
NONCE_BYTES = 12
CACHE_MOST = 20_000
CACHE_SECONDS = 30.0  # an erased key may serve another process that long


class WrongRootKey(Exception):
    """The root key file is missing or holds something else; the text says what to do."""


class RootKey:
    """The one secret of an installation. Whoever has it and a copy of the database can read everything not erased."""

    def __init__(self, root: bytes) -> None:
        if len(root) != ROOT_BYTES:
            raise WrongRootKey(
                f"the root key must be {ROOT_BYTES} random bytes in base64; make one with: openssl rand -base64 {ROOT_BYTES}"
            )
        self._root = root

    @classmethod
    def read(cls, path: Path) -> "RootKey":
        try:
            return cls(base64.b64decode(path.read_text().strip(), validate=True))
        except FileNotFoundError:
            raise WrongRootKey(f"no root key at {path}: set BIOSCOPE_ROOT_KEY_FILE, or let `bioscope up` make one") from None
        except OSError as error:
            raise WrongRootKey(
                f"the root key {path} cannot be read ({error.strerror}): check BIOSCOPE_ROOT_KEY_FILE and who may read it"
            ) from None
        except ValueError:
            raise WrongRootKey(f"{path} must hold {ROOT_BYTES} random bytes in base64: openssl rand -base64 {ROOT_BYTES}") from None

    def derive(self, purpose: str) -> bytes:
        """32 bytes that serve `purpose` alone (HKDF-SHA256, RFC 5869)."""
        return HKDF(algorithm=SHA256(), length=32, salt=b"bioscope", info=purpose.encode()).derive(self._root)

    def hmac(self, purpose: str, value: bytes) -> bytes:
        mac = HMAC(self.derive(purpose), SHA256())
        mac.update(value)
        return mac.finalize()

    def signing(self, purpose: str) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.derive(purpose))


def new_root_key() -> str:
    return base64.b64encode(os.urandom(ROOT_BYTES)).decode()


class DataKeys:
    """The key of each subject (user, dataset, image, device). One without a row in the store was destroyed, or never was.

    `fetch` reads wrapped keys by subject from the store. `get` and `prefetch` are for subjects of sealed values: where the key of such a
    subject is missing it was destroyed for ever, so they remember that too.
    """

    def __init__(self, root: RootKey, fetch: Callable[[Iterable[UUID]], Mapping[UUID, bytes]]) -> None:
        self._wrapping = AESGCM(root.derive("wrap data keys"))
        self._fetch = fetch
        self._known: OrderedDict[UUID, tuple[float, AESGCM | None]] = OrderedDict()
        self._lock = Lock()

    def create(self, subject: UUID) -> tuple[AESGCM, bytes]:
        """A new key, and its wrapped form that has to be stored with the first event that needs it."""
        key, nonce = AESGCM.generate_key(256), os.urandom(NONCE_BYTES)
        return AESGCM(key), nonce + self._wrapping.encrypt(nonce, key, subject.bytes)

    def get(self, subject: UUID) -> AESGCM | None:
        self.prefetch([subject])
        with self._lock:
            return self._known[subject][1]

    def look_up(self, subject: UUID) -> AESGCM | None:
        """As `get`, for a subject that may get its first key at any moment: that it is missing is looked up anew each time."""
        with self._lock:
            until, known = self._known.get(subject, (0.0, None))
        if known is not None and until >= time.monotonic():
            return known
        return self._unwrap(subject, self._fetch([subject]).get(subject))

    def prefetch(self, subjects: Iterable[UUID]) -> None:
        """Bring the keys of many subjects in one read."""
        now = time.monotonic()
        with self._lock:
            missing = {subject for subject in subjects if subject not in self._known or self._known[subject][0] < now}
        if not missing:
            return
        wrapped = self._fetch(missing)
        with self._lock:
            for subject in missing:
                self._known[subject] = (now + CACHE_SECONDS, self._unwrap(subject, wrapped.get(subject)))
            while len(self._known) > max(CACHE_MOST, len(missing)):
                self._known.popitem(last=False)

    def forget(self, subject: UUID) -> None:
        with self._lock:
            self._known.pop(subject, None)

    def _unwrap(self, subject: UUID, wrapped: bytes | None) -> AESGCM | None:
        if wrapped is None:
            return None
        try:
            return AESGCM(self._wrapping.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], subject.bytes))
        except InvalidTag:
            raise WrongRootKey("the root key does not open this database's data keys: is it another installation's?") from None
