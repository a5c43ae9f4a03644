"""Limits of sign-in attempts, compared with a table of rules for any sequence of attempts."""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.limits.sign_in_attempts import HOUR_SECONDS, MINUTE_SECONDS, SignInLimits, SignInRates
from domain.errors import Forbidden, NotAuthenticated, Taken, TooMany, Unavailable
from domain.links import LinkPurpose
from infrastructure.security.rate_limits import LocalRateLimiter
from tests.twins.known_addresses import MemoryKnownAddresses

DAYS = 30
ACCOUNTS = {"ada@example.org": UUID(int=1), "bob@example.org": UUID(int=2)}
UNKNOWN = "nobody@example.org"
HOME, ELSEWHERE = "203.0.113.7", "198.51.100.1"
RATES = SignInRates(account_and_address_per_minute=2, account_per_hour=4, address_per_minute=3)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def attempts_by(clock, rates=RATES):
    return SignInLimits(limits=LocalRateLimiter(clock=clock), known_addresses=MemoryKnownAddresses(days=DAYS, clock=clock), rates=rates)


def tried(attempts, email, network, *, ends=None):
    """Whether a password was compared: refused are only those beyond the limits. `ends` is raised by the comparison."""
    try:
        with attempts.password(email, network, lambda: ACCOUNTS.get(email)):
            if ends is not None:
                raise ends
            attempts.remember(ACCOUNTS[email], network)
    except TooMany:
        return False
    except (NotAuthenticated, Forbidden, Unavailable):
        pass
    return True


def wrong(attempts, email, network):
    return tried(attempts, email, network, ends=NotAuthenticated("Invalid credentials"))


class Try(NamedTuple):
    email: str
    network: str
    right: bool
    wait: float


class Failure(NamedTuple):
    at: float
    email: str
    network: str
    unknown_network: bool


class Table:
    """The limits as the contract's table has them, from all that ever happened."""

    def __init__(self):
        self.failures, self.signed_in = [], {}

    def known(self, email, network, now):
        return now - self.signed_in.get((email, network), float("-inf")) < DAYS * 86400

    def refuses(self, email, network, now):
        minute = [one for one in self.failures if one.at + MINUTE_SECONDS > now and one.network == network]
        hour = [one for one in self.failures if one.at + HOUR_SECONDS > now and one.email == email and one.unknown_network]
        return (
            sum(one.email == email for one in minute) >= RATES.account_and_address_per_minute
            or len(minute) >= RATES.address_per_minute
            or (not self.known(email, network, now) and len(hour) >= RATES.account_per_hour)
        )


tries = st.builds(
    Try,
    email=st.sampled_from([*ACCOUNTS, UNKNOWN]),
    network=st.sampled_from([HOME, ELSEWHERE, "2001:db8::/64"]),
    right=st.sampled_from([False, False, False, True]),
    wait=st.sampled_from([0.0, 0.0, 1.0, 30.0, 61.0, 1000.0, 86400.0 * 29]),
)


@given(st.lists(tries, max_size=60))
def test_each_try_is_taken_or_refused_as_the_table_says(sequence):
    clock, table = Clock(), Table()
    attempts = attempts_by(clock)
    for one in sequence:
        clock.now += one.wait
        right = one.right and one.email in ACCOUNTS
        refused = table.refuses(one.email, one.network, clock.now)
        ends = None if right else NotAuthenticated("Invalid credentials")
        assert tried(attempts, one.email, one.network, ends=ends) is not refused
        if right and not refused:
            table.signed_in[one.email, one.network] = clock.now
        elif not refused:
            table.failures.append(Failure(clock.now, one.email, one.network, not table.known(one.email, one.network, clock.now)))


@given(st.lists(tries.filter(lambda one: one.network != HOME), max_size=60))
def test_whatever_happens_elsewhere_an_owner_signs_in_from_a_known_address(sequence):
    clock = Clock()
    attempts = attempts_by(clock)
    assert tried(attempts, "ada@example.org", HOME)
    for one in sequence:
        clock.now += min(one.wait, 1000.0)
        wrong(attempts, one.email, one.network)
        assert tried(attempts, "ada@example.org", HOME)


@given(st.lists(tries, max_size=40))
def test_an_unknown_account_is_refused_exactly_when_one_that_nobody_signed_in_to_is(sequence):
    clock = Clock()
    attempts, unknown = attempts_by(clock), attempts_by(clock)
    for one in sequence:
        clock.now += one.wait
        assert wrong(attempts, "ada@example.org", one.network) is wrong(unknown, UNKNOWN, one.network)


def test_right_passwords_do_not_count():
    attempts = attempts_by(Clock())
    assert all(tried(attempts, "ada@example.org", HOME) for _ in range(100))
    assert [wrong(attempts, "ada@example.org", HOME) for _ in range(3)] == [True, True, False]


def test_the_right_password_is_not_tried_beyond_the_limits():
    attempts = attempts_by(Clock())
    assert [wrong(attempts, "ada@example.org", HOME) for _ in range(2)] == [True, True]
    assert not tried(attempts, "ada@example.org", HOME)


@pytest.mark.parametrize("ends", [Unavailable("Too many sign-ins at the moment"), RuntimeError("an error of ours")])
def test_a_try_that_was_never_compared_does_not_count(ends):
    attempts = attempts_by(Clock())
    for _ in range(20):
        try:
            assert tried(attempts, "ada@example.org", HOME, ends=ends)
        except RuntimeError:
            continue


def test_wrong_current_passwords_count_like_wrong_sign_ins():
    attempts = attempts_by(Clock())
    assert tried(attempts, "ada@example.org", HOME, ends=Forbidden("The current password is wrong"))
    assert wrong(attempts, "ADA@Example.org", HOME)
    assert not wrong(attempts, "ada@example.org", HOME)


def test_tries_at_the_same_time_do_not_pass_the_limits_together():
    attempts = attempts_by(Clock(), SignInRates(account_and_address_per_minute=50, account_per_hour=100, address_per_minute=60))
    with ThreadPoolExecutor(64) as threads:
        compared = sum(threads.map(lambda number: wrong(attempts, "ada@example.org", f"10.0.0.{number % 16}"), range(640)))
    assert compared == 100


def test_a_refused_try_counts_nowhere():
    """Or a guesser of one account would use up what its neighbours have."""
    attempts = attempts_by(Clock(), SignInRates(account_and_address_per_minute=2, account_per_hour=4, address_per_minute=3))
    assert [wrong(attempts, "ada@example.org", HOME) for _ in range(20)] == [True] * 2 + [False] * 18
    assert wrong(attempts, "bob@example.org", HOME)
    assert not wrong(attempts, UNKNOWN, HOME)


# ---- mails ----
MAILS = SignInRates(mails_per_hour=2, mails_per_hour_for_strangers=5)


def mailed(attempts, email, network, purpose=LinkPurpose.VERIFY_EMAIL):
    """Whether a mail is sent; None if the request is refused."""
    try:
        attempts.mail(email, network)
    except TooMany:
        return None
    return attempts.may_send(purpose, email, network, lambda: ACCOUNTS.get(email))


@pytest.mark.parametrize("email", ["ada@example.org", UNKNOWN])
def test_strangers_share_the_mails_to_an_address(email):
    attempts = attempts_by(Clock(), MAILS)
    sent = [[mailed(attempts, email, f"198.51.100.{number}") for _ in range(3)] for number in range(4)]
    assert sent == [[True, True, None], [True, True, None], [True, False, None], [False, False, None]]


@given(st.lists(st.tuples(st.sampled_from(["198.51.100.1", "198.51.100.2", "2001:db8::/64"]), st.sampled_from([0.0, 1.0, 600.0]))))
def test_whatever_strangers_request_an_owner_gets_mails_at_a_known_address(sequence):
    clock = Clock()
    attempts = attempts_by(clock, MAILS)
    attempts.remember(ACCOUNTS["ada@example.org"], HOME)
    for network, wait in sequence:
        clock.now += wait
        mailed(attempts, "ada@example.org", network)
    assert [mailed(attempts, "ada@example.org", HOME) for _ in range(3)] == [True, True, None]


def test_an_address_that_is_not_proved_yet_is_refused_beyond_what_strangers_may_request():
    attempts = attempts_by(Clock(), MAILS)
    for number in range(5):
        attempts.mail_to_new_address("ada@example.org", f"198.51.100.{number}")
    with pytest.raises(TooMany):
        attempts.mail_to_new_address("ada@example.org", HOME)
    assert mailed(attempts, "ada@example.org", HOME) is False
    assert mailed(attempts, "ada@example.org", HOME, LinkPurpose.RESET_PASSWORD), "which a registration may not prevent"


@pytest.mark.parametrize("email", ["ada@example.org", UNKNOWN])
def test_a_refused_registration_does_not_show_whether_the_account_of_its_address_knows_a_network(email):
    attempts = attempts_by(Clock(), MAILS)
    attempts.remember(ACCOUNTS["ada@example.org"], HOME)
    assert [mailed(attempts, email, HOME) for _ in range(2)] == [True, True]
    for number in range(3):
        attempts.mail_to_new_address(email, f"198.51.100.{number}")
    with pytest.raises(TooMany):
        attempts.mail_to_new_address(email, "198.51.100.3")


# ---- user names ----
def named(attempts, *, link=1, network=HOME, ends=None):
    """Whether the user name was looked up. `ends` is raised by the look-up."""
    try:
        with attempts.user_name(UUID(int=link), network):
            if ends is not None:
                raise ends
    except TooMany:
        return False
    except (Taken, Unavailable):
        pass
    return True


@pytest.mark.parametrize("request_mail", [SignInLimits.mail, SignInLimits.mail_to_new_address])
def test_mails_to_one_mailbox_count_together_however_its_address_is_spelled(request_mail):
    attempts = attempts_by(Clock(), SignInRates(mails_per_hour=3))
    for email in ("ada@münchen.example", "ada@xn--mnchen-3ya.example", "Ada@mün\u00adchen.example"):
        request_mail(attempts, email, HOME)
    with pytest.raises(TooMany):
        request_mail(attempts, "ada@m\u200bünchen.example", HOME)


def test_wrong_passwords_of_one_account_count_together_however_its_address_is_spelled():
    attempts = attempts_by(Clock())
    assert all(wrong(attempts, email, HOME) for email in ("ada@exam\u00adple.org", "ada@example.org"))
    assert not wrong(attempts, "ada@exa\u200bmple.org", HOME)


def test_user_names_that_are_taken_count_for_the_link_and_for_the_network():
    attempts = attempts_by(Clock(), SignInRates(user_names_per_hour=3, registrations_per_hour=5))
    taken, other = Taken("used", scope="username"), Taken("used", scope="email")
    assert all(named(attempts, ends=ends) for ends in (None, other, Unavailable("later")) * 4)
    assert [named(attempts, ends=taken) for _ in range(5)] == [True] * 3 + [False] * 2
    assert not named(attempts, network=ELSEWHERE), "the same link"
    assert [named(attempts, link=2, ends=taken) for _ in range(3)] == [True] * 2 + [False]
    assert named(attempts, link=2, network=ELSEWHERE)


def test_unknown_refresh_tokens_and_registrations_have_limits_of_their_own():
    attempts = attempts_by(Clock(), SignInRates(address_per_minute=3, registrations_per_hour=2))

    def taken(call, maximum):
        for _ in range(maximum):
            call(HOME)
        with pytest.raises(TooMany):
            call(HOME)
        call(ELSEWHERE)

    taken(attempts.unknown_token, 3)
    taken(attempts.registration, 2)
    assert wrong(attempts, "ada@example.org", HOME)
