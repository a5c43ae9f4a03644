"""Tokens of links in mails: each has one form, and belongs to one purpose, stream, request, address and installation."""

import base64
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from application.ports import MailLink
from domain.errors import Invalid, InvalidLink
from domain.links import LinkPurpose
from domain.values import text
from infrastructure.security.bootstrap_tokens import KeyedBootstrapTokens
from infrastructure.security.keys import RootKey
from infrastructure.security.mail_links import PREFIX, TOKEN_CHARACTERS, KeyedMailLinks

ROOT, OTHER = RootKey(bytes(32)), RootKey(bytes([1]) * 32)
LINKS = KeyedMailLinks(ROOT)
ADDRESS = "ada@example.org"
LINK = MailLink(LinkPurpose.RESET_PASSWORD, UUID(int=1), UUID(int=2))
TOKEN = LINKS.token(LINK, address=ADDRESS)
CONTENT = base64.urlsafe_b64decode(TOKEN.removeprefix(PREFIX))


def is_accepted(token, *, links=LINKS, address=ADDRESS, link=LINK):
    """Whether the token is taken as one for `link`."""
    try:
        return links.read(token) == link and links.is_genuine(token, address=address)
    except InvalidLink:
        return False


def written(content):
    return PREFIX + base64.urlsafe_b64encode(content).decode()


@given(st.sampled_from(LinkPurpose), st.uuids(), st.uuids(), st.emails())
def test_a_token_is_read_and_is_genuine_for_its_address(purpose, stream, request_id, address):
    link = MailLink(purpose, stream, request_id)
    token = LINKS.token(link, address=address)
    assert LINKS.read(token) == link
    assert LINKS.is_genuine(token, address=address.upper().lower())
    assert len(token) == TOKEN_CHARACTERS
    assert token == LINKS.token(link, address=address), "a mail that is sent again has the same link"


@pytest.mark.parametrize("token", [TOKEN, KeyedBootstrapTokens(ROOT).token()])
def test_a_token_is_refused_as_a_stored_text(token):
    with pytest.raises(Invalid, match="must not contain a key or the token of a link"):
        text(f"see {token}", name="name", maximum=200)


@pytest.mark.parametrize("bit", range(len(CONTENT) * 8))
def test_no_bit_of_a_token_can_be_changed(bit):
    changed = bytearray(CONTENT)
    changed[bit // 8] ^= 1 << bit % 8
    assert not is_accepted(written(bytes(changed)))


@pytest.mark.parametrize(
    "token",
    [
        "",
        PREFIX,
        TOKEN[:-1],
        TOKEN + "A",
        TOKEN + "=",
        " " + TOKEN,
        TOKEN + "\n",
        TOKEN.upper(),
        TOKEN.removeprefix(PREFIX),
        TOKEN.replace(PREFIX, "bsk_"),
        TOKEN[:-1] + "\u00e4",
        TOKEN[:-1] + "\x00",
        TOKEN.replace("A", "\uff21", 1),
        written(CONTENT[:-1]),
        written(CONTENT + b"\x00"),
        written(bytes([len(LinkPurpose)]) + CONTENT[1:]),
        written(bytes([255]) + CONTENT[1:]),
        written(CONTENT[:33] + bytes(36)),
        KeyedBootstrapTokens(ROOT).token(),
        KeyedMailLinks(OTHER).token(LINK, address=ADDRESS),
        *(LINKS.token(LINK._replace(purpose=purpose), address=ADDRESS) for purpose in LinkPurpose if purpose is not LINK.purpose),
        LINKS.token(LINK._replace(stream=UUID(int=3)), address=ADDRESS),
        LINKS.token(LINK._replace(request_id=UUID(int=3)), address=ADDRESS),
        LINKS.token(LINK, address="bob@example.org"),
    ],
)
def test_another_token_is_refused(token):
    assert not is_accepted(token)
    assert is_accepted(TOKEN)


@given(st.text(max_size=200) | st.binary(max_size=100).map(written))
def test_whatever_is_sent_is_refused_as_an_invalid_link(token):
    assume(token != TOKEN)
    assert not is_accepted(token)
