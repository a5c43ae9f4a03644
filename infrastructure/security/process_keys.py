"""The keys that each process needs, and key files."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from infrastructure.atomic_files import write_private
from infrastructure.configuration.settings import Settings
from infrastructure.security.key_ring import NO_KEYS, Key, KeyRing, Keys, Purpose, RootKey, WrongRootKey, public_key_id
from infrastructure.security.keyed_digest import CLAIM_PURPOSES

FORMAT: Final = 1


class Needs(NamedTuple):
    """The purposes for which a process needs secret keys, and those for which it only needs public keys."""

    secret: frozenset[Purpose]
    public: frozenset[Purpose] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.secret or self.public)


PROCESS_NEEDS: Final[Mapping[str, Needs]] = {
    "api": Needs(
        frozenset(
            {
                Purpose.DATA_KEYS,
                *CLAIM_PURPOSES,
                Purpose.REQUEST_DIGESTS,
                Purpose.ACCESS_TOKENS,
                Purpose.REFRESH_TOKENS,
                Purpose.REFRESH_TOKEN_ROWS,
                Purpose.SIGNED_URLS,
                Purpose.RATE_LIMITS,
                Purpose.MAIL_LINKS,
                Purpose.BOOTSTRAP_TOKENS,
                Purpose.PAGE_TOKENS,
            }
        ),
        frozenset({Purpose.HEADS}),
    ),
    "relay": Needs(frozenset({Purpose.HEADS, Purpose.EVENT_SOURCE, Purpose.RELAY_RECORDS})),
    "projector": Needs(frozenset({Purpose.DATA_KEYS, Purpose.EVENT_SOURCE, Purpose.RELAY_RECORDS}), frozenset({Purpose.HEADS})),
    "inference": Needs(frozenset()),
    "inference-bridge": Needs(frozenset()),
}


class StoredKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key in a key file: `id` in hexadecimal, `key` in base64."""

    id: str
    key: str


class KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a key file: the keys of `process` by purpose, newest first."""

    format: int
    process: str
    secret: dict[str, list[StoredKey]]
    public: dict[str, list[StoredKey]]


def process_keys(settings: Settings, process: str) -> Keys:
    """Exactly the keys that a process needs, from its key file or derived from the root key. Raises WrongRootKey, MissingKey."""
    needs = PROCESS_NEEDS[process]
    return restricted(operator_keys(settings), needs) if needs else NO_KEYS


def operator_keys(settings: Settings) -> Keys:
    """All available keys: those of the key file if one is set, else those of the root key. Raises WrongRootKey."""
    return RootKey.read(settings.root_key_path) if settings.key_path is None else read_key_file(settings.key_path)


def restricted(keys: Keys, needs: Needs) -> KeyRing:
    """Only the keys in `needs`. Raises MissingKey."""
    return KeyRing({purpose: keys.all(purpose) for purpose in needs.secret}, {purpose: keys.public(purpose) for purpose in needs.public})


def exported(keys: Keys, process: str) -> str:
    """The content of the key file of `process`. Raises MissingKey."""
    needs = PROCESS_NEEDS[process]
    secret = {purpose.value: [_stored(key) for key in keys.all(purpose)] for purpose in sorted(needs.secret)}
    public = {purpose.value: [_stored_public(key) for key in keys.public(purpose)] for purpose in sorted(needs.public)}
    content = msgspec.json.encode(KeyFile(FORMAT, process, secret, public))
    return msgspec.json.format(content, indent=1).decode() + "\n"


def read_key_file(path: Path) -> KeyRing:
    """The keys of a key file. Raises WrongRootKey."""
    try:
        file = msgspec.json.decode(path.read_bytes(), type=KeyFile)
    except FileNotFoundError:
        raise WrongRootKey(f"no key file at {path}: create it with `bioscope keys export`, or unset BIOSCOPE_KEY_FILE") from None
    except OSError as error:
        raise WrongRootKey(f"the key file {path} cannot be read ({error.strerror}): check BIOSCOPE_KEY_FILE and its permissions") from None
    except msgspec.MsgspecError:
        raise _damaged(path) from None
    if file.format != FORMAT:
        raise WrongRootKey(f"the key file {path} has format {file.format}; this release reads format {FORMAT}")
    try:
        secret = {purpose: [_key(stored) for stored in keys] for purpose, keys in file.secret.items()}
        public = {purpose: [_public(stored) for stored in keys] for purpose, keys in file.public.items()}
    except ValueError:
        raise _damaged(path) from None
    return KeyRing(secret, public)


def write_key_file(path: Path, keys: Keys, process: str) -> None:
    """Write a key file atomically, readable only by this user. Raises MissingKey, OSError."""
    write_private(path, exported(keys, process))


def _stored(key: Key) -> StoredKey:
    return StoredKey(key.id.hex(), base64.b64encode(key.secret).decode())


def _stored_public(key: Ed25519PublicKey) -> StoredKey:
    return StoredKey(public_key_id(key), base64.b64encode(key.public_bytes_raw()).decode())


def _key(stored: StoredKey) -> Key:
    """Raises ValueError if the id does not belong to the key."""
    secret = base64.b64decode(stored.key, validate=True)
    if len(secret) != 32 or (key := Key(secret)).id.hex() != stored.id:
        raise ValueError(stored.id)
    return key


def _public(stored: StoredKey) -> Ed25519PublicKey:
    """Raises ValueError if the id does not belong to the key."""
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(stored.key, validate=True))
    if public_key_id(key) != stored.id:
        raise ValueError(stored.id)
    return key


def _damaged(path: Path) -> WrongRootKey:
    return WrongRootKey(f"the key file {path} is damaged: create it again with `bioscope keys export`")
