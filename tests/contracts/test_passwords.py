"""The contract of password hashing: argon2id and the in-memory twin."""

import pytest

from application.ports import PasswordRequester
from domain.errors import Invalid
from infrastructure.security.passwords import Argon2Passwords
from tests.twins.passwords import MemoryPasswords

ADA = PasswordRequester("ada", is_stranger=False)
ONE, OTHER = "a long and winding road", "an even longer and winding road"


@pytest.fixture(params=["memory", "argon2"], scope="module")
def passwords(request):
    return MemoryPasswords() if request.param == "memory" else Argon2Passwords("embedded")


def hashed(passwords, password, **about):
    return passwords.hash(password, requester=ADA, **about)


def matching(passwords, password, *candidates):
    return passwords.matching(password, candidates, requester=ADA)


def test_a_password_matches_its_own_hash_alone(passwords):
    one = hashed(passwords, ONE)
    assert (matching(passwords, ONE, one), matching(passwords, OTHER, one), matching(passwords, ONE)) == (0, None, None)


def test_two_hashes_of_a_password_differ_unless_one_is_made_like_the_other(passwords):
    one = hashed(passwords, ONE)
    assert hashed(passwords, ONE) != one
    assert hashed(passwords, ONE, like=one) == one
    assert hashed(passwords, OTHER, like=one) != one


def test_the_password_of_a_hash_that_is_like_the_first_is_found_too(passwords):
    one = hashed(passwords, ONE)
    like_it = hashed(passwords, OTHER, like=one)
    assert matching(passwords, ONE, one, like_it) == 0
    assert matching(passwords, OTHER, one, like_it) == 1
    assert matching(passwords, "neither of the two passwords", one, like_it) is None


def test_a_hash_with_another_salt_than_the_first_never_matches(passwords):
    one, other = hashed(passwords, ONE), hashed(passwords, OTHER)
    assert matching(passwords, OTHER, one, other) is None


def test_what_is_no_hash_matches_nothing_and_hides_no_other_candidate(passwords):
    one = hashed(passwords, ONE)
    for none in (b"", b"plain", b"\xff\\xfe", b"$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$", b"$argon2id$v=19$m=1,t=0,p=0$!!!!$!!!!"):
        assert matching(passwords, ONE, none) is None
        assert matching(passwords, ONE, none, one) == 1
        assert matching(passwords, ONE, hashed(passwords, ONE, like=none)) == 0


def test_more_than_a_kibibyte_is_no_password(passwords):
    with pytest.raises(Invalid):
        hashed(passwords, "x" * 1025)
    assert matching(passwords, "x" * 1025, hashed(passwords, "x" * 1024)) is None
