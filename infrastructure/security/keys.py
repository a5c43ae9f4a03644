"""Data keys of subjects, which can be destroyed. Re-exports the keys that are derived from the root key."""

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import Final, NamedTuple
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from infrastructure.security.key_ring import (
    KEY_BYTES,
    KEY_ID_BYTES,
    Key,
    KeyRing,
    Keys,
    MissingKey,
    Purpose,
    RootKey,
    WrongRootKey,
    key_id,
    new_root_key,
)

__all__ = ["DataKey", "DataKeys", "Key", "KeyRing", "Keys", "MissingKey", "Purpose", "RootKey", "WrongRootKey", "new_root_key"]

NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
WRAPPED_FORM: Final = b"\x02"  # first byte of a wrapped key; the first format had none, and another length
FIRST_FORM_BYTES: Final = NONCE_BYTES + KEY_BYTES + TAG_BYTES
HEADER_BYTES: Final = len(WRAPPED_FORM) + KEY_ID_BYTES
MAX_CACHE = 20_000
CACHE_SECONDS = 30.0  # another process may use an erased key for this long


class DataKey:
    """The key of one subject. Sealed values are key id, nonce, and AES-GCM ciphertext with tag. The first format had no key id."""

    def __init__(self, secret: bytes) -> None:
        self._id, self._cipher = key_id(secret), AESGCM(secret)

    def seal(self, clear: bytes, bound_to: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return self._id + nonce + self._cipher.encrypt(nonce, clear, bound_to)

    def open(self, sealed: bytes, bound_to: bytes) -> bytes:
        """Decrypt. Raises InvalidTag for a wrong tag or the id of another key."""
        if sealed[:KEY_ID_BYTES] != self._id:
            raise InvalidTag
        return self.open_first_form(sealed[KEY_ID_BYTES:], bound_to)

    def open_first_form(self, sealed: bytes, bound_to: bytes) -> bytes:
        """Decrypt a value without key id. Raises InvalidTag."""
        return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to)


class WrappingKey(NamedTuple):
    id: bytes
    cipher: AESGCM


class DataKeys:
    """The data keys of subjects (user, dataset, image, device). A subject without a row has no key, or its key was destroyed.

    `fetch` reads wrapped keys by subject. `get` and `prefetch` are for subjects of existing sealed values: a missing key was destroyed
    for good, so its absence is cached too.

    `withheld` is true in a process without wrapping keys; then `create`, `get` and `look_up` raise MissingKey. A wrapped key has 65 bytes:
    a format byte, the id of the wrapping key, nonce, and ciphertext with tag. The first format had 60 bytes.
    """

    def __init__(
        self, keys: Keys, fetch: Callable[[Iterable[UUID]], Mapping[UUID, bytes]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._keys, self._clock = keys, clock
        self.withheld = not keys.holds(Purpose.DATA_KEYS)
        self._wrapping = () if self.withheld else tuple(WrappingKey(key.id, AESGCM(key.secret)) for key in keys.all(Purpose.DATA_KEYS))
        self._fetch = fetch
        self._cache: OrderedDict[UUID, tuple[float, DataKey | None]] = OrderedDict()
        self._lock = Lock()

    def create(self, subject: UUID) -> tuple[DataKey, bytes]:
        """A new key, and its wrapped form to be stored with the first event that needs it. Raises MissingKey."""
        self._require_wrapping_keys()
        secret, nonce, wrapping = AESGCM.generate_key(256), os.urandom(NONCE_BYTES), self._wrapping[0]
        header = WRAPPED_FORM + wrapping.id
        return DataKey(secret), header + nonce + wrapping.cipher.encrypt(nonce, secret, header + subject.bytes)

    def get(self, subject: UUID) -> DataKey | None:
        """The key of `subject`, or None if it was destroyed. Raises MissingKey, WrongRootKey."""
        self._require_wrapping_keys()
        cached = self._cache.get(subject)
        if cached is None or cached[0] < self._clock():
            self.prefetch([subject])
            cached = self._cache.get(subject)
        return cached[1] if cached is not None else self.look_up(subject)  # another thread may have evicted it

    def look_up(self, subject: UUID) -> DataKey | None:
        """As `get`, for a subject that may get its first key at any time: a missing key is not cached."""
        self._require_wrapping_keys()
        with self._lock:
            expires_at, cached = self._cache.get(subject, (0.0, None))
        if cached is not None and expires_at >= self._clock():
            return cached
        return self._unwrap(subject, self._fetch([subject]).get(subject))

    def prefetch(self, subjects: Iterable[UUID]) -> None:
        """Load the keys of many subjects in one query. Does nothing if keys are withheld."""
        if self.withheld:
            return
        now = self._clock()
        with self._lock:
            missing = {subject for subject in subjects if (cached := self._cache.get(subject)) is None or cached[0] < now}
        if not missing:
            return
        wrapped = self._fetch(missing)
        with self._lock:
            for subject in missing:
                self._cache[subject] = (now + CACHE_SECONDS, self._unwrap(subject, wrapped.get(subject)))
            while len(self._cache) > max(MAX_CACHE, len(missing)):
                self._cache.popitem(last=False)

    def unwrap(self, subject: UUID, wrapped: bytes) -> DataKey:
        """Decrypt a wrapped key. Raises WrongRootKey if no wrapping key opens it for `subject`, MissingKey."""
        self._require_wrapping_keys()
        for wrapping in self._wrapping:
            if (key := _unwrapped(subject, wrapped, wrapping)) is not None:
                return key
        raise WrongRootKey("the root key does not open the data keys of this database: it may belong to another installation")

    def forget(self, subject: UUID) -> None:
        with self._lock:
            self._cache.pop(subject, None)

    def _require_wrapping_keys(self) -> None:
        if self.withheld:
            self._keys.all(Purpose.DATA_KEYS)

    def _unwrap(self, subject: UUID, wrapped: bytes | None) -> DataKey | None:
        return None if wrapped is None else self.unwrap(subject, wrapped)


def _unwrapped(subject: UUID, wrapped: bytes, wrapping: WrappingKey) -> DataKey | None:
    first_form = len(wrapped) == FIRST_FORM_BYTES
    header = b"" if first_form else wrapped[:HEADER_BYTES]
    sealed = wrapped[len(header) :]
    if not first_form and header != WRAPPED_FORM + wrapping.id:
        return None
    try:
        return DataKey(wrapping.cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], header + subject.bytes))
    except (InvalidTag, ValueError):  # ValueError: too short
        return None
