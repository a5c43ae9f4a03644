"""The token of the first administrator: derived from a key, the same for the life of the installation, and stored nowhere."""

import base64
import binascii
from typing import Final

from infrastructure.security.key_ring import Purpose
from infrastructure.security.keyed_digest import KeyedDigest
from infrastructure.security.keys import Keys

PREFIX: Final = "bsb_"
"""Lets scanners for leaked secrets recognise a token."""
SUBJECT: Final = b"first administrator"


class KeyedBootstrapTokens:
    """Implements `BootstrapTokens`. Whether the token still serves, the log decides."""

    def __init__(self, keys: Keys) -> None:
        self._digest = KeyedDigest(keys, Purpose.BOOTSTRAP_TOKENS)

    def token(self) -> str:
        return PREFIX + base64.urlsafe_b64encode(self._digest.of(SUBJECT)).decode()

    def is_genuine(self, token: str) -> bool:
        try:
            return token.startswith(PREFIX) and self._digest.matches(_bytes(token.removeprefix(PREFIX)), SUBJECT)
        except ValueError:
            return False


def _bytes(text: str) -> bytes:
    """Raises ValueError, also for a second spelling of the same bytes."""
    try:
        content = base64.b64decode(text, altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if base64.urlsafe_b64encode(content).decode() != text:
        raise ValueError("another spelling")
    return content
