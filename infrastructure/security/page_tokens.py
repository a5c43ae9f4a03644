"""The tokens in the cookie of the pages: the id of a session and its digest. They are derived, so none is stored."""

import base64
import binascii
from typing import Final
from uuid import UUID

from domain.errors import NotAuthenticated
from infrastructure.security.key_ring import Purpose
from infrastructure.security.keyed_digest import DIGEST_BYTES, KeyedDigest
from infrastructure.security.keys import Keys

ID_BYTES: Final = 16
TOKEN_CHARACTERS: Final = -(-(ID_BYTES + DIGEST_BYTES) * 4 // 3)
PADDING: Final = "=" * (-TOKEN_CHARACTERS % 4)


class KeyedPageTokens:
    """Implements `PageTokens`. A token has exactly one form for each key."""

    def __init__(self, keys: Keys) -> None:
        self._digest = KeyedDigest(keys, Purpose.PAGE_TOKENS)

    def issue(self, session: UUID) -> str:
        return _text(session.bytes + self._digest.of(session.bytes))

    def session_of(self, token: str) -> UUID:
        content = _content(token)
        if not self._digest.matches(content[ID_BYTES:], content[:ID_BYTES]):
            raise NotAuthenticated("Invalid token")
        return UUID(bytes=content[:ID_BYTES])


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _content(token: str) -> bytes:
    """Raises NotAuthenticated for a token in another form."""
    if len(token) != TOKEN_CHARACTERS or not token.isascii():
        raise NotAuthenticated("Invalid token")
    try:
        content = base64.b64decode(token + PADDING, altchars=b"-_", validate=True)
    except binascii.Error:
        raise NotAuthenticated("Invalid token") from None
    if _text(content) != token:
        raise NotAuthenticated("Invalid token")
    return content
