"""The rule for new passwords, after NIST SP 800-63B-4: long, and neither a sequence, nor repeated, nor the person's or service's name.

No kinds of characters are required, and none but control characters are refused. Lists of known passwords are not part of this module.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import pairwise, takewhile
from typing import Final

from domain.errors import Invalid
from domain.values import MAX_PASSWORD_CHARACTERS, MIN_PASSWORD_CHARACTERS, canonical, invalid

ADVICE: Final = "Four or five unrelated words make a good password"
COMMON: Final = "is on a list of common and leaked passwords"
SEQUENCE: Final = "is a sequence or a repetition, which is easy to guess"
NAMES: Final = "consists mostly of your name, your address or the name of this service"

KEYBOARDS: Final = (
    ("1234567890-=", "qwertyuiop[]", "asdfghjkl;'", "zxcvbnm,./"),  # US
    ("1234567890ß", "qwertzuiopü+", "asdfghjklöä#", "yxcvbnm,.-"),  # German
    ("&é\"'(-è_çà)=", "azertyuiop^$", "qsdfghjklmù*", "wxcvbn,;:!"),  # French
    ("1234567890[]", "',.pyfgcrl/=", "aoeuidhtns-", ";qjkxbmwvz"),  # Dvorak
    ("1234567890-=", "qwfpgjluy;[]", "arstdhneio'", "zxcvbkm,./"),  # Colemak
    ("1234567890-=", "йцукенгшщзхъ", "фывапролджэ", "ячсмитьбю."),  # Russian
    ("!@#$%^&*()_+",),
    ("789", "456", "123"),  # keypad
)
ALPHABETS: Final = ("abcdefghijklmnopqrstuvwxyz", "0123456789", "абвгдежзийклмнопрстуфхцчшщъыьэюя", "αβγδεζηθικλμνξοπρστυφχψω")
MIN_RUN, RUN_COST = 3, 2  # a run along a row is two choices: where it begins, and how long it is
MIN_WALK, WALK_COST = 8, 4  # a walk over neighbouring keys; words such as "dessert" are shorter ones
MIN_CHOICES: Final = 10
REPETITION: Final = -1
MIN_NAME: Final = 3
MIN_OTHER: Final = 8  # letters that are not part of a name; a digit or sign counts half
COUNTING_STEPS: Final = (1, -1, 2, -2, 5, 10, 11, 100, 111)
ENDS: Final = re.compile(r"^[\W\d_]{1,4}|[\W\d_]{1,4}$")
LOOKALIKES: Final = str.maketrans("0134578@$!€", "oleastbasie")


def normalised(password: str) -> str:
    """NFKC, in which passwords are hashed, so that all keyboards give the same one."""
    return unicodedata.normalize("NFKC", password)


def check(password: str, *, names: Iterable[str]) -> None:
    """Raises Invalid, with the reason and advice, for a password that breaks the rule.

    `names` are the person's e-mail address, user name and names, and the names of the service.
    """
    length = len(normalised(password))
    if not MIN_PASSWORD_CHARACTERS <= length <= MAX_PASSWORD_CHARACTERS:
        wrong = f"must have {MIN_PASSWORD_CHARACTERS} to {MAX_PASSWORD_CHARACTERS} characters, has {length}"
        raise invalid("password", f"{wrong}. {ADVICE}" if length < MIN_PASSWORD_CHARACTERS else wrong)
    if any(unicodedata.category(character) == "Cc" for character in password):
        raise invalid("password", "must not contain control characters, such as line breaks")
    plain = canonical(password)
    if is_sequence(plain):
        raise refused(SEQUENCE)
    if is_made_of(plain, names):
        raise refused(NAMES)


def refused(reason: str) -> Invalid:
    return invalid("password", f"{reason}. {ADVICE}")


def guesses(password: str) -> set[str]:
    """The forms of a password in which lists contain it: canonical, and without the digits or signs before and after it."""
    plain = canonical(password)
    return {plain, _without_ends(plain)}


def is_sequence(plain: str) -> bool:
    """Whether a canonical password is one short part again and again, counts, or follows rows of keys or the alphabet."""
    letters, inner = "".join(filter(str.isalnum, plain)), _without_ends(plain)
    signs = len(set(plain) - set(letters))
    forms = ((plain, 0), (letters, signs), (inner, len(plain) - len(inner)))
    interleaved = _choices(plain[::2]) + _choices(plain[1::2])
    return interleaved < MIN_CHOICES or any(
        _repeats(form) or _counts(form) or _choices(form) + others < MIN_CHOICES for form, others in forms
    )


def is_made_of(plain: str, names: Iterable[str]) -> bool:
    """Whether little is left of a canonical password without the names, their parts, and digits that were appended."""
    parts = {part for name in names for part in _parts(name)}
    if not parts:
        return False
    anywhere = re.compile("|".join(re.escape(part) for part in sorted(parts, key=len, reverse=True)))
    return any(_weight(anywhere.sub("", form)) < MIN_OTHER for form in (plain, plain.translate(LOOKALIKES)) if anywhere.search(form))


def _weight(rest: str) -> float:
    return sum(1.0 if character.isalpha() else 0.5 for character in rest)


def _parts(name: str) -> Iterator[str]:
    """The name, what stands between its signs, and the whole without signs."""
    plain = canonical(name)
    pieces = re.split(r"[\W_]+", plain)
    return (part for part in {plain, *pieces, "".join(pieces)} if len(part) >= MIN_NAME)


def _without_ends(plain: str) -> str:
    return ENDS.sub("", plain)


def _repeats(text: str) -> bool:
    """Whether the text is a part shorter than a password, again and again; the last one may be cut off."""
    size = _period(text)
    return 0 < size < MIN_PASSWORD_CHARACTERS and 2 * size <= len(text) + 1


def _period(text: str) -> int:
    """The length of the shortest part that gives the text when it is repeated and cut off."""
    return next((size for size in range(1, len(text)) if text[size:] == text[:-size]), len(text))


def _counts(text: str) -> bool:
    """Whether the text consists of numbers with a constant difference, such as 10 11 12 or 1990 1989 1988."""
    return text.isdecimal() and any(_counts_from(text, width, step) for width in range(1, 7) for step in COUNTING_STEPS)


def _counts_from(text: str, width: int, step: int) -> bool:
    number, at = int(text[:width]), 0
    while at < len(text) and number >= 0:
        written = str(number).zfill(width) if text[0] == "0" else str(number)
        if not written.startswith(text[at : at + len(written)]):
            return False
        at, number = at + len(written), number + step
    return at >= len(text)


def _choices(text: str) -> int:
    """How many choices the text takes at most, given the rows of keys and the alphabets."""
    once = text[: _period(text)]
    choices, at = int(once != text), 0
    while at < len(once):
        length, cost = _run(once, at)
        choices, at = choices + cost, at + length
    return choices


def _run(text: str, at: int) -> tuple[int, int]:
    """The length and cost of the longest run or walk that begins at a place."""
    run, walk = _along_line(text, at), _along_neighbours(text, at)
    if walk >= MIN_WALK and walk > run:
        return walk, WALK_COST
    return (run, RUN_COST) if run >= MIN_RUN else (1, 1)


def _along_line(text: str, at: int) -> int:
    """The length of the part from `at` on that follows one line."""
    length, lines = 1, EVERY_LINE
    for one, following in pairwise(text[at:]):
        lines &= LINES_OF_PAIRS.get(one + following, frozenset())
        if not lines:
            break
        length += 1
    return length


def _along_neighbours(text: str, at: int) -> int:
    """The length of the part from `at` on in which each key is a neighbour of the one before."""
    return 1 + sum(1 for _ in takewhile(lambda pair: "".join(pair) in NEIGHBOURS, pairwise(text[at:])))


def _lines() -> Iterator[str]:
    """Rows and columns of keyboards, and alphabets, in both directions."""
    for rows in (*KEYBOARDS, ALPHABETS):
        columns = [] if rows is ALPHABETS else ["".join(keys) for keys in zip(*rows, strict=False)]
        for line in map(canonical, (*rows, *columns)):
            yield line
            yield line[::-1]


def _lines_of_pairs() -> dict[str, frozenset[int]]:
    """The lines on which one character follows another. A repeated character is on a line of its own."""
    found: dict[str, set[int]] = {}
    for number, line in enumerate(_lines()):
        for one, following in pairwise(line):
            found.setdefault(one + following, set()).add(number)
        for one in line:
            found.setdefault(one + one, set()).add(REPETITION)
    return {pair: frozenset(lines) for pair, lines in found.items()}


def _neighbours() -> frozenset[str]:
    """Pairs of keys beside or below each other, on any keyboard. Each row begins half a key further to the right."""
    below = (
        (above, key)
        for rows in KEYBOARDS
        for upper, lower in pairwise(rows)
        for at, key in enumerate(lower)
        for above in upper[at : at + 2]
    )
    return frozenset(LINES_OF_PAIRS) | {pair for above, key in below for pair in (above + key, key + above)}


LINES_OF_PAIRS: Final = _lines_of_pairs()
EVERY_LINE: Final = frozenset[int]().union(*LINES_OF_PAIRS.values())
NEIGHBOURS: Final = _neighbours()
