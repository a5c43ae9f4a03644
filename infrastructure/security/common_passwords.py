"""The list of common and leaked passwords that comes with the package, as a Bloom filter (Bloom, CACM 13(7), 1970).

A password of the list is always found. Another one is found by mistake with a probability of `FALSE_POSITIVE_RATE` at most.
`common_passwords.md` names the source and its licence; scripts/common_passwords.py writes the file.
"""

import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

from domain.password import guesses

FILE: Final = Path(__file__).with_name("common_passwords.bloom")
BYTES: Final = 960_000
HASHES: Final = 16
FALSE_POSITIVE_RATE: Final = 2e-5


class BloomFilter:
    """A set of texts in few bytes."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __contains__(self, text: str) -> bool:
        return all(self._content[bit >> 3] & 1 << (bit & 7) for bit in _bits(text, len(self._content)))


def compiled(texts: Iterable[str], *, size: int = BYTES) -> bytes:
    """The content of the filter of these texts, in `size` bytes."""
    content = bytearray(size)
    for text in texts:
        for bit in _bits(text, size):
            content[bit >> 3] |= 1 << (bit & 7)
    return bytes(content)


def is_common(password: str) -> bool:
    """Whether the list contains the password, whatever its case, or without the digits or signs at its ends."""
    return any(guess in common_passwords() for guess in guesses(password))


@cache
def common_passwords() -> BloomFilter:
    return BloomFilter(FILE.read_bytes())


def _bits(text: str, size: int) -> Iterator[int]:
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).digest()
    first, step = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big") | 1
    return ((first + number * step) % (8 * size) for number in range(HASHES))
