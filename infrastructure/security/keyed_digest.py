"""Keyed digests that name their key: HMAC-SHA256 under the keys of one purpose."""

import hmac
from typing import Final

from domain.values import canonical
from infrastructure.security.key_ring import KEY_ID_BYTES, Keys, Purpose

MAC_BYTES: Final = 32
DIGEST_BYTES: Final = KEY_ID_BYTES + MAC_BYTES


class KeyedDigest:
    """A digest is the id of its key, then the MAC: 36 bytes. Those of 32 bytes were stored before keys had ids, and stay valid.

    Raises MissingKey when it is made without a key for `purpose`.
    """

    def __init__(self, keys: Keys, purpose: str) -> None:
        self._keys = keys.all(purpose)

    def of(self, value: bytes) -> bytes:
        """The form that is written: under the newest key."""
        key = self._keys[0]
        return key.id + key.hmac(value)

    def forms(self, value: bytes) -> tuple[bytes, ...]:
        """Every form in which `value` may be stored, the one that is written first."""
        macs = [(key.id, key.hmac(value)) for key in self._keys]
        return (*(key_id + mac for key_id, mac in macs), *(mac for _, mac in macs))

    def matches(self, digest: bytes, value: bytes) -> bool:
        """In a time that does not depend on where they differ. An unknown key id is like a wrong MAC."""
        return sum(hmac.compare_digest(digest, form) for form in self.forms(value)) > 0


class ClaimDigests:
    """The digests under which the values of claims are stored, by their scope."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._of: dict[str, KeyedDigest] = {}

    def of(self, scope: str, value: str) -> bytes:
        """The form that is written. Raises MissingKey."""
        return self._scope(scope).of(canonical(value).encode())

    def forms(self, scope: str, value: str) -> tuple[bytes, ...]:
        """Every form in which the value may be stored, the one that is written first. Raises MissingKey."""
        return self._scope(scope).forms(canonical(value).encode())

    def _scope(self, scope: str) -> KeyedDigest:
        if scope not in self._of:
            self._of[scope] = KeyedDigest(self._keys, f"claim {scope}")
        return self._of[scope]


CLAIM_PURPOSES: Final = (Purpose.EMAIL_CLAIMS, Purpose.USERNAME_CLAIMS, Purpose.HOSTNAME_CLAIMS)
