"""The text of an API key: one exact form, and every other one is refused without a lookup."""

import base64
import hashlib
import string
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from application.key_text import KEY_CHARACTERS, PREFIX, KeySecret, is_key, read_key

KEY = UUID("9d8f2f36-6a0b-4d55-8b6e-2e9a4b7c1d04")
SECRET = KeySecret(bytes(range(32)))
TEXT = SECRET.text(KEY)
BODY = TEXT.removeprefix(PREFIX)
CONTENT = base64.urlsafe_b64decode(BODY + "==")
ALPHABET = string.ascii_letters + string.digits + "-_"


def encoded(content, prefix=PREFIX):
    return prefix + base64.urlsafe_b64encode(content).decode().rstrip("=")


def summed(content, salt=b"bsk_"):
    return content + hashlib.sha256(salt + content).digest()[:4]


def other_unused_bits(text):
    """The same bytes, with unused bits of the last character set."""
    return text[:-1] + ALPHABET_IN_ORDER[ALPHABET_IN_ORDER.index(text[-1]) + 1]


ALPHABET_IN_ORDER = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
UNLIKE_KEYS = {
    "nothing": "",
    "the prefix alone": PREFIX,
    "no prefix": BODY,
    "another prefix": "bsp_" + BODY,
    "a prefix in capitals": "BSK_" + BODY,
    "a prefix with a hyphen": "bsk-" + BODY,
    "two prefixes": PREFIX + TEXT,
    "a space before": " " + TEXT,
    "a space after": TEXT + " ",
    "a line break after": TEXT + "\n",
    "a carriage return after": TEXT + "\r\n",
    "a tab within": TEXT[:20] + "\t" + TEXT[21:],
    "a line break within": TEXT[:20] + "\n" + TEXT[20:],
    "a NUL within": TEXT[:20] + "\0" + TEXT[21:],
    "a NUL after": TEXT + "\0",
    "padding": TEXT + "==",
    "one padding character": TEXT + "=",
    "padding in place of the end": TEXT[:-2] + "==",
    "padding within": TEXT[:20] + "=" + TEXT[21:],
    "one character less": TEXT[:-1],
    "one character more": TEXT + "A",
    "the first half": TEXT[: len(TEXT) // 2],
    "itself twice": TEXT + TEXT,
    "unused bits that are set": other_unused_bits(TEXT),
    "the alphabet of plain base64": PREFIX + base64.b64encode(CONTENT).decode().rstrip("=").replace("A", "+", 1),
    "a slash": TEXT[:20] + "/" + TEXT[21:],
    "a plus": TEXT[:20] + "+" + TEXT[21:],
    "a percent escape": TEXT[:20] + "%41" + TEXT[23:],
    "hexadecimal": PREFIX + CONTENT.hex(),
    "base32": PREFIX + base64.b32encode(CONTENT).decode(),
    "small letters": TEXT.lower(),
    "capitals": PREFIX + BODY.upper(),
    "Cyrillic letters": TEXT.replace("A", "\u0410"),
    "full-width letters": TEXT.replace("A", "\uff21"),
    "digits of another script": TEXT[:20] + "\u0661" + TEXT[21:],
    "a surrogate": TEXT[:20] + "\ud800" + TEXT[21:],
    "no checksum": encoded(CONTENT[:-4]),
    "a checksum of zeros": encoded(CONTENT[:-4] + bytes(4)),
    "a checksum without the prefix": encoded(summed(CONTENT[:-4], salt=b"")),
    "a checksum with another prefix": encoded(summed(CONTENT[:-4], salt=b"bsp_")),
    "a CRC as checksum": encoded(CONTENT[:-4] + __import__("zlib").crc32(CONTENT[:-4]).to_bytes(4, "big")),
    "the checksum of another key": encoded(CONTENT[:-4] + summed(bytes(16) + CONTENT[16:-4])[-4:]),
    "another id with the old checksum": encoded(bytes(16) + CONTENT[16:]),
    "another secret with the old checksum": encoded(CONTENT[:16] + bytes(32) + CONTENT[-4:]),
    "a short secret": encoded(summed(CONTENT[:16] + bytes(31))),
    "a long secret": encoded(summed(CONTENT[:16] + bytes(33))),
    "an id without a secret": encoded(summed(CONTENT[:16])),
    "a checksum before the id": encoded(CONTENT[-4:] + CONTENT[:-4]),
    "the secret before the id": encoded(summed(CONTENT[16:-4] + CONTENT[:16])[:-4] + CONTENT[-4:]),
    "a JWT": "eyJhbGciOiJIUzI1NiJ9.e30.c2ln",
    "a megabyte": PREFIX + "A" * 1_000_000,
}


def test_there_are_more_than_forty_forgeries():
    assert len(UNLIKE_KEYS) >= 50
    assert len(set(UNLIKE_KEYS.values())) == len(UNLIKE_KEYS)


@pytest.mark.parametrize("text", UNLIKE_KEYS.values(), ids=UNLIKE_KEYS)
def test_whatever_is_not_exactly_a_key_is_refused(text):
    assert read_key(text) is None


def test_a_key_states_its_id_and_the_hash_of_its_secret():
    assert len(TEXT) == KEY_CHARACTERS
    assert is_key(TEXT)
    presented = read_key(TEXT)
    assert (presented.id, presented.secret_hash) == (KEY, hashlib.sha256(bytes(range(32))).digest())


def test_secrets_differ_and_neither_shows_itself():
    one, other = KeySecret(), KeySecret()
    assert one.hash != other.hash
    for shown in (repr(one), str(one), repr(read_key(TEXT)), f"{read_key(TEXT)}"):
        assert BODY[24:] not in shown
        assert SECRET.hash.hex() not in shown
        assert repr(SECRET.hash) not in shown


@given(st.uuids(), st.binary(min_size=32, max_size=32))
def test_every_key_is_read_as_it_was_written(key, secret):
    text = KeySecret(secret).text(key)
    assert read_key(text).id == key
    assert read_key(text).secret_hash == hashlib.sha256(secret).digest()


@given(st.integers(0, len(TEXT) - 1), st.sampled_from(ALPHABET))
def test_no_single_typing_error_gives_a_key(place, character):
    assume(TEXT[place] != character)
    assert read_key(TEXT[:place] + character + TEXT[place + 1 :]) is None


@given(st.integers(0, len(TEXT) - 2))
def test_no_swap_of_neighbours_gives_a_key(place):
    assume(TEXT[place] != TEXT[place + 1])
    assert read_key(TEXT[:place] + TEXT[place + 1] + TEXT[place] + TEXT[place + 2 :]) is None


@given(st.text())
def test_no_text_raises(text):
    assert read_key(text) is None
    assert read_key(PREFIX + text) is None
