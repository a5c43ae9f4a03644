"""Addresses of blobs in a local folder that need no header: what they give is in them, signed, and ends."""

import base64
import time
from collections.abc import Callable

import msgspec

from application.downloads import SignedBlob
from domain.errors import Forbidden
from infrastructure.keys import Keys
from infrastructure.security.key_ring import Purpose
from infrastructure.security.keyed_digest import DIGEST_BYTES, MAC_BYTES, KeyedDigest

FORM = "2."  # how a token begins since keys have ids; one without it begins with a bare MAC
TOKEN_MOST = 4096  # characters


def sign(keys: Keys, blob: SignedBlob) -> str:
    """A token that stands for `blob`, safe in a path: in base64 a keyed digest, then what it signs. Raises MissingKey."""
    said = msgspec.msgpack.encode(blob)
    return FORM + base64.urlsafe_b64encode(KeyedDigest(keys, Purpose.SIGNED_URLS).of(said) + said).decode().rstrip("=")


def verify_signed(keys: Keys, token: str, *, now: Callable[[], float] = time.time) -> SignedBlob:
    """What `token` stands for. Raises Forbidden when it was not signed by us, was changed, or has ended."""
    if len(token) > TOKEN_MOST:
        raise _refused()
    text = token.removeprefix(FORM)
    length = DIGEST_BYTES if text != token else MAC_BYTES
    try:
        whole = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise _refused() from None
    digest, said = whole[:length], whole[length:]
    if not KeyedDigest(keys, Purpose.SIGNED_URLS).matches(digest, said):
        raise _refused()
    blob = msgspec.msgpack.decode(said, type=SignedBlob)
    if blob.ends <= now():
        raise Forbidden("This address has ended; ask for a new one")
    return blob


def _refused() -> Forbidden:
    return Forbidden("This address is not one of ours; ask for a new one")
