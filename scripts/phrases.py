"""Numbers in the sentences of documents: a phrase has `#` at the place of each."""

import re
from collections.abc import Sequence
from typing import Final

WORDS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
FRACTIONS: Final = {"a": 1.0, "an": 1.0, "half a": 0.5, "half an": 0.5, "a quarter of a": 0.25}
NUMBER: Final = rf"(\d[\d,]*(?:\.\d+)?|{'|'.join(WORDS[1:])}|an?|half an?|a quarter of a)"


class PhraseMissing(Exception):
    """A document has no such sentence."""


def pattern(phrase: str) -> re.Pattern[str]:
    text = r"\s+".join(re.escape(word) for word in phrase.split())
    return re.compile(text.replace(r"\#", NUMBER))


def number(text: str) -> float:
    """The value of a number as documents write it."""
    words = " ".join(text.split())
    if words in FRACTIONS:
        return FRACTIONS[words]
    return WORDS.index(words) if words in WORDS else float(words.replace(",", ""))


def numbers(document: str, phrase: str) -> tuple[float, ...]:
    """Raises PhraseMissing."""
    return tuple(map(number, _found(document, phrase).groups()))


def with_numbers(document: str, phrase: str, written: Sequence[str]) -> str:
    """The document with other numbers in the phrase. Raises PhraseMissing."""
    found = _found(document, phrase)
    for place in range(len(written), 0, -1):
        document = document[: found.start(place)] + written[place - 1] + document[found.end(place) :]
    return document


def _found(document: str, phrase: str) -> re.Match[str]:
    found = pattern(phrase).search(document)
    if found is None:
        raise PhraseMissing(f"the document has no sentence {phrase!r} any more")
    return found
