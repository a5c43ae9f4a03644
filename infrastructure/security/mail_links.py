"""The tokens of links in mails: derived from a key, bound to purpose, stream, request and address, and stored nowhere."""

import base64
import binascii
from typing import Final
from uuid import UUID

from application.ports import MailLink
from domain.errors import InvalidLink
from domain.links import LinkPurpose
from domain.values import canonical
from infrastructure.security.key_ring import Purpose
from infrastructure.security.keyed_digest import DIGEST_BYTES, KeyedDigest
from infrastructure.security.keys import Keys

PREFIX: Final = "bsl_"
"""Lets scanners for leaked secrets recognise a token."""
PURPOSES: Final = tuple(LinkPurpose)
CLAIM_BYTES: Final = 1 + 16 + 16
"""The number of the purpose, the stream and the request."""
TOKEN_BYTES: Final = CLAIM_BYTES + DIGEST_BYTES
TOKEN_CHARACTERS: Final = len(PREFIX) + TOKEN_BYTES * 4 // 3


class KeyedMailLinks:
    """Implements `MailLinks`. A token has exactly one form."""

    def __init__(self, keys: Keys) -> None:
        self._digest = KeyedDigest(keys, Purpose.MAIL_LINKS)

    def token(self, link: MailLink, *, address: str) -> str:
        claim = _claim(link)
        return PREFIX + base64.urlsafe_b64encode(claim + self._digest.of(_bound(claim, address))).decode()

    def read(self, token: str) -> MailLink:
        claim = _content(token)[:CLAIM_BYTES]
        if claim[0] >= len(PURPOSES):
            raise InvalidLink
        return MailLink(PURPOSES[claim[0]], UUID(bytes=claim[1:17]), UUID(bytes=claim[17:]))

    def is_genuine(self, token: str, *, address: str) -> bool:
        content = _content(token)
        return self._digest.matches(content[CLAIM_BYTES:], _bound(content[:CLAIM_BYTES], address))


def _claim(link: MailLink) -> bytes:
    return bytes([PURPOSES.index(link.purpose)]) + link.stream.bytes + link.request_id.bytes


def _bound(claim: bytes, address: str) -> bytes:
    return claim + canonical(address).encode()


def _content(token: str) -> bytes:
    """Raises InvalidLink."""
    if len(token) != TOKEN_CHARACTERS or not token.startswith(PREFIX) or not token.isascii():
        raise InvalidLink
    text = token.removeprefix(PREFIX)
    try:
        content = base64.b64decode(text, altchars=b"-_", validate=True)
    except binascii.Error:
        raise InvalidLink from None
    if base64.urlsafe_b64encode(content).decode() != text:
        raise InvalidLink
    return content
