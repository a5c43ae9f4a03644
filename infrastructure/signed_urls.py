"""Addresses of blobs in a local folder that need no header: what they give is in them, signed, and ends."""

import base64
import hmac
import time
from collections.abc import Callable

import msgspec

from application.downloads import SignedBlob
from domain.errors import Forbidden
from infrastructure.keys import RootKey

PURPOSE = "signed url"
MAC_BYTES = 32
TOKEN_MOST = 4096  # characters


def sign(root: RootKey, blob: SignedBlob) -> str:
    """A token that stands for `blob`, safe in a path."""
    said = msgspec.msgpack.encode(blob)
    return base64.urlsafe_b64encode(root.hmac(PURPOSE, said) + said).decode().rstrip("=")


def verify_signed(root: RootKey, token: str, *, now: Callable[[], float] = time.time) -> SignedBlob:
    """What `token` stands for. Raises Forbidden when it was not signed by us, was changed, or has ended."""
    if len(token) > TOKEN_MOST:
        raise _refused()
    try:
        whole = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise _refused() from None
    mac, said = whole[:MAC_BYTES], whole[MAC_BYTES:]
    if not hmac.compare_digest(mac, root.hmac(PURPOSE, said)):
        raise _refused()
    blob = msgspec.msgpack.decode(said, type=SignedBlob)
    if blob.ends <= now():
        raise Forbidden("This address has ended; ask for a new one")
    return blob


def _refused() -> Forbidden:
    return Forbidden("This address is not one of ours; ask for a new one")
