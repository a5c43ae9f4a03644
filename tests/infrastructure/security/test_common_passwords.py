"""The list of common and leaked passwords: every entry is found, and hardly anything else."""

import random
import string
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from infrastructure.security.common_passwords import BYTES, FALSE_POSITIVE_RATE, FILE, HASHES, BloomFilter, compiled, is_common
from scripts.common_passwords import ALSO

ENTRIES = (Path(__file__).parents[2] / "data" / "common-passwords.txt").read_text().splitlines()


def random_password(draw):
    return "".join(draw.choice(string.ascii_letters + string.digits + " ") for _ in range(20))


def test_every_entry_of_the_sample_is_common_in_any_case_and_with_digits_or_signs_around_it():
    assert len(ENTRIES) == 1000
    assert all(is_common(entry) and is_common(entry.upper()) for entry in (*ENTRIES, *ALSO))
    assert all(is_common(f"{entry}!") and is_common(f"1{entry}!!") for entry in ALSO)


@given(st.sets(st.text(max_size=40), max_size=40))
def test_every_compiled_entry_is_found(entries):
    known = BloomFilter(compiled(entries, size=1000))
    assert all(entry in known for entry in entries)


def test_random_passwords_are_not_common():
    draw = random.Random(19)
    assert not any(is_common(random_password(draw)) for _ in range(2000))


def test_the_file_is_below_a_megabyte_and_as_full_as_the_stated_rate_of_mistakes_allows():
    content = FILE.read_bytes()
    assert len(content) == BYTES < 1_000_000
    filled = sum(byte.bit_count() for byte in content) / (8 * BYTES)
    assert filled**HASHES < FALSE_POSITIVE_RATE
    assert filled > 0.3, "an empty list finds nothing"
