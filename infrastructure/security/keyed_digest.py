"""Keyed digests (HMAC-SHA256) that start with the id of their key."""

import hmac
from typing import Final

from domain.email_address import mailbox, spellings
from domain.values import canonical
from infrastructure.security.key_ring import KEY_ID_BYTES, Keys, Purpose

MAC_BYTES: Final = 32
DIGEST_BYTES: Final = KEY_ID_BYTES + MAC_BYTES


class KeyedDigest:
    """Digests under the keys of one purpose: the key id and the MAC, 36 bytes. Earlier digests of 32 bytes, without id, stay valid.

    The constructor raises MissingKey if there is no key for `purpose`.
    """

    def __init__(self, keys: Keys, purpose: str) -> None:
        self._keys = keys.all(purpose)

    def of(self, value: bytes) -> bytes:
        """The digest to store, made with the newest key."""
        key = self._keys[0]
        return key.id + key.hmac(value)

    def forms(self, value: bytes) -> tuple[bytes, ...]:
        """All forms in which the digest of `value` may be stored; the one to store is first."""
        macs = [(key.id, key.hmac(value)) for key in self._keys]
        return (*(key_id + mac for key_id, mac in macs), *(mac for _, mac in macs))

    def matches(self, digest: bytes, value: bytes) -> bool:
        """Whether `digest` belongs to `value`, compared in constant time. An unknown key id does not match."""
        return sum(hmac.compare_digest(digest, form) for form in self.forms(value)) > 0


OF_ADDRESSES: Final = frozenset({Purpose.EMAIL_CLAIMS, Purpose.INVITATION_CLAIMS, Purpose.REGISTRATION_CLAIMS})


class ClaimDigests:
    """The digests of claimed values, by scope. All spellings of an e-mail address have the same one."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._of: dict[str, KeyedDigest] = {}

    def of(self, scope: str, value: str) -> bytes:
        """The digest to store. Raises MissingKey."""
        claimed = mailbox(value) if _is_address(scope) else canonical(value)
        return self._scope(scope).of(claimed.encode())

    def forms(self, scope: str, value: str) -> tuple[bytes, ...]:
        """All forms in which the digest may be stored; those of the value as it is spelled are first. Raises MissingKey."""
        claimed = spellings(value) if _is_address(scope) else (canonical(value),)
        return tuple(form for one in claimed for form in self._scope(scope).forms(one.encode()))

    def _scope(self, scope: str) -> KeyedDigest:
        if scope not in self._of:
            self._of[scope] = KeyedDigest(self._keys, f"claim {scope}")
        return self._of[scope]


def _is_address(scope: str) -> bool:
    return f"claim {scope}" in OF_ADDRESSES


CLAIM_PURPOSES: Final = (
    Purpose.EMAIL_CLAIMS,
    Purpose.USERNAME_CLAIMS,
    Purpose.HOSTNAME_CLAIMS,
    Purpose.INVITATION_CLAIMS,
    Purpose.REGISTRATION_CLAIMS,
    Purpose.SERVICE_CLAIMS,
    Purpose.BOOTSTRAP_CLAIMS,
)
