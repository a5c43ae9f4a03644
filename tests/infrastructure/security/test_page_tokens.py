"""The tokens in the cookie of the pages: only those that were issued are accepted, each in one form."""

import base64
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import NotAuthenticated
from infrastructure.security.key_ring import Purpose, RootKey
from infrastructure.security.keyed_digest import KeyedDigest
from infrastructure.security.page_tokens import TOKEN_CHARACTERS, KeyedPageTokens

ROOT = RootKey(bytes(32))
TOKENS, OTHER = KeyedPageTokens(ROOT), KeyedPageTokens(RootKey(b"x" * 32))


@given(st.uuids())
def test_a_token_names_its_session(session):
    token = TOKENS.issue(session)
    assert TOKENS.session_of(token) == session
    assert len(token) == TOKEN_CHARACTERS


@given(st.uuids(), st.integers(0, TOKEN_CHARACTERS - 1), st.characters())
def test_a_changed_token_is_refused(session, position, character):
    token = TOKENS.issue(session)
    changed = token[:position] + character + token[position + 1 :]
    if changed != token:
        with pytest.raises(NotAuthenticated):
            TOKENS.session_of(changed)


@given(st.text() | st.text(alphabet="ABCabc019-_", min_size=TOKEN_CHARACTERS, max_size=TOKEN_CHARACTERS))
def test_any_other_text_is_refused(text):
    with pytest.raises(NotAuthenticated):
        TOKENS.session_of(text)


@given(st.uuids(), st.sampled_from([purpose for purpose in Purpose if purpose is not Purpose.PAGE_TOKENS]))
def test_a_token_of_another_installation_or_purpose_is_refused(session, purpose):
    digest = KeyedDigest(ROOT, purpose).of(session.bytes)
    of_purpose = base64.urlsafe_b64encode(session.bytes + digest).decode().rstrip("=")
    for token in (OTHER.issue(session), of_purpose, TOKENS.issue(session) + "=", TOKENS.issue(session)[:-1]):
        with pytest.raises(NotAuthenticated):
            TOKENS.session_of(token)


def test_a_token_of_another_session_is_refused():
    one, other = TOKENS.issue(UUID(int=1)), TOKENS.issue(UUID(int=2))
    with pytest.raises(NotAuthenticated):
        TOKENS.session_of(one[:22] + other[22:])
