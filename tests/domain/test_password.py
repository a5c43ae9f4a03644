"""The rule for new passwords: what is refused, why, and that long random phrases pass."""

import random
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from domain import password
from domain.errors import Invalid
from domain.password import KEYBOARDS, NAMES, SEQUENCE

ADA = ("ada.lovelace@example.org", "countess", "Ada", "Lovelace", "BioScopeAI Core", "bioscope", "scope.uni-example.de")
WORDS = [
    *("acorn", "badge", "cactus", "dune", "eagle", "fiddle", "glacier", "harbor", "igloo", "jacket", "kettle", "lantern", "meadow"),
    *("napkin", "orchid", "pebble", "quilt", "ribbon", "saddle", "tunnel", "umbrella", "velvet", "walnut", "yogurt", "zipper", "candle"),
]
OWN_WORDS = st.sampled_from(["ada", "Lovelace", "COUNTESS", "bioscope", "example"])


def refused(text, *, names=ADA):
    """The reason for which a password is refused, or None."""
    try:
        password.check(text, names=names)
    except Invalid as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "text",
    [
        "qwertyuiopasdfgh",
        "poiuytrewqlkjhg",
        "qwertzuiopü+asdfg",
        "azertyuiopqsdfg",
        "йцукенгшщзхъфыва",
        "1qaz2wsx3edc4rfv",
        "qawsedrftgyhujik",
        "147258369147258",
        "!@#$%^&*()_+!@#",
        "zyxwvutsrqponmlk",
        "абвгдежзийклмнопр",
        "a b c d e f g h i j",
        "a1b2c3d4e5f6g7h8",
        "aaaaaaaaaaaaaaa",
        "aaaaaaaaaaaaaaab",
        "111222333444555",
        "112233445566778899",
        "abcabcabcabcabc",
        "PasswordPassword",
        "p@ssw0rdp@ssw0rd",
        "passwordpassword1!",
        "hello hello hello 12",
        "123456789012345",
        "098765432109876",
        "123456789101112131415",
        "1990198919881987",
        "10203040506070809",
        "1 2 3 4 5 6 7 8 9 10",
        "qwerty123456789",
    ],
)
def test_a_sequence_or_a_repetition_is_refused(text):
    assert SEQUENCE in (refused(text, names=()) or "")


@pytest.mark.parametrize(
    "text",
    [
        "ada.lovelace@example.org",
        "ADA.LOVELACE@EXAMPLE.ORG",
        "ada lovelace 1815!",
        "Lovelace.1815-12",
        "l0vel4ce-Ada-1815",
        "countess-countess!!x",
        "lovelace@bioscope",
        "bioscopeai-core-26",
        "scope.uni-example",
        "my-example-lovelace",
    ],
)
def test_the_own_name_or_address_and_those_of_the_service_are_refused(text):
    assert NAMES in (refused(text) or "")
    assert refused(text, names=("someone@somewhere.net", "someone")) is None or SEQUENCE in refused(text)


@pytest.mark.parametrize(("length", "reason"), [(0, "has 0"), (14, "has 14"), (129, "has 129"), (100_000, "has 100000")])
def test_the_length_is_refused_with_the_limits(length, reason):
    phrase = random.Random(1)
    message = refused("".join(phrase.choice(string.ascii_letters) for _ in range(length)))
    assert "15 to 128 characters" in message
    assert reason in message


@pytest.mark.parametrize("text", ["a long and winding road", "ada plays bassoon at dawn", "lovesmicroscopes ada", "ein Käfig voll Narren"])
def test_an_ordinary_phrase_passes_even_with_a_name_in_it(text):
    assert refused(text) is None


@given(st.lists(st.sampled_from(WORDS), min_size=4, max_size=8, unique=True), st.sampled_from(["", " ", "-", "_"]))
def test_four_or_more_different_words_pass(words, separator):
    assert refused(separator.join(words)) is None


@pytest.mark.parametrize(
    "text", ["🧫🔬🧬🦠🧪⚗🧲💉🩸🩺🔭🛰🚀🪐🌌", ";*:~)|&#\\?%(^<{", "显微镜下的细胞像星星一样闪闪发光", "ذهبت القطة إلى السوق"]
)
def test_signs_and_all_scripts_are_allowed(text):
    assert refused(text) is None


def test_a_random_password_passes():
    draw = random.Random(19)
    for length in range(20, 129):
        assert refused("".join(draw.choice(string.ascii_letters + string.digits + string.punctuation) for _ in range(length))) is None


@given(st.text(min_size=1, max_size=14), st.integers(2, 60))
def test_every_part_shorter_than_a_password_is_refused_however_often_it_is_repeated(part, times):
    text = part * times
    assume(15 <= len(password.normalised(text)) <= 128 and len(password.normalised(part)) < 15 and part == part.strip())
    assert refused(text) is not None


@given(st.sampled_from([row for rows in KEYBOARDS for row in rows if len(row) >= 9]), st.integers(0, 5), st.booleans(), st.booleans())
def test_every_row_of_every_keyboard_is_refused_in_both_directions(row, start, is_reversed, is_capital):
    text = (row[start:] + row + row)[:20]
    text = text[::-1] if is_reversed else text
    assert refused(text.upper() if is_capital else text) is not None


@given(st.integers(0, 99_999), st.sampled_from([1, -1, 2, 10]), st.integers(15, 40))
def test_counting_is_refused(first, step, length):
    numbers = "".join(str(abs(first + step * number)) for number in range(40))
    assume(first + step * 40 > 0)
    assert refused(numbers[:length]) is not None


@given(st.lists(OWN_WORDS, min_size=2, max_size=9), st.text("0123456789.-_! ", max_size=10))
def test_names_in_any_order_and_number_are_refused(names, end):
    text = "".join(names) + end
    assume(15 <= len(text) <= 128)
    assert refused(text) is not None


@given(st.text(max_size=200))
def test_any_text_is_accepted_or_refused_with_advice_and_never_repeated(text):
    message = refused(text)
    assert message is None or message.startswith("password ")
    assert message is None or len(text) < 15 or text not in message


@given(st.text(min_size=15, max_size=128), st.lists(st.text(max_size=60), max_size=6))
def test_more_names_never_allow_more(text, names):
    assert refused(text, names=()) is None or refused(text, names=names) is not None


@given(st.sampled_from("\0\t\n\r\x1b\x7f\x85"), st.integers(0, 20))
def test_control_characters_are_refused(sign, place):
    phrase = "acorn badge cactus dune"
    assert refused(phrase) is None
    assert "control characters" in refused(phrase[:place] + sign + phrase[place:])
