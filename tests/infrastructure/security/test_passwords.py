"""Password hashing: correct, of equal cost for unknown accounts, few at a time."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import pytest

from application.ports import PasswordRequester
from domain.errors import Invalid, Unavailable
from infrastructure.security.passwords import (
    MAX_CONCURRENT_HASHES,
    MAX_QUEUED_PER_REQUESTER,
    QUEUE_SLOTS_FOR_USERS,
    Argon2Passwords,
    BoundedQueue,
)
from tests.rigs.waiting import wait_until

PASSWORD = "a long and winding road"
ADA = PasswordRequester("ada", is_stranger=False)


@pytest.fixture(scope="module")
def passwords():
    return Argon2Passwords("embedded")


def seconds(call):
    """Of this thread's work: what others do beside it does not count."""
    began = time.thread_time()
    call()
    return time.thread_time() - began


def test_a_password_fits_its_own_hash_and_no_other(passwords):
    known = passwords.hash(PASSWORD, requester=ADA)
    assert known.startswith(b"$argon2id$v=19$m=19456,t=2,p=1$")
    assert passwords.verify(PASSWORD, known, requester=ADA)
    assert not passwords.verify(PASSWORD + "s", known, requester=ADA)
    assert passwords.hash(PASSWORD, requester=ADA) != known


def test_in_production_a_hash_takes_64_mib_and_three_passes():
    assert Argon2Passwords("production").hash(PASSWORD, requester=ADA).startswith(b"$argon2id$v=19$m=65536,t=3,p=1$")


def test_two_ways_to_type_a_letter_are_one_password(passwords):
    assert passwords.verify(
        "cafe\N{COMBINING ACUTE ACCENT} with \N{LATIN SMALL LIGATURE FI}sh",
        passwords.hash("café with fish", requester=ADA),
        requester=ADA,
    )


@pytest.mark.parametrize("odd", ["\0" * 20, "\ud800 lone surrogates", "🧫" * 128, ""])
def test_odd_passwords_are_passwords(passwords, odd):
    known = passwords.hash(odd, requester=ADA)
    assert passwords.verify(odd, known, requester=ADA)
    assert not passwords.verify(odd + "x", known, requester=ADA)


def test_nobody_signs_in_without_a_hash_or_with_what_is_none(passwords):
    for known in (None, b"", b"plain", b"\xff\xfe", b"$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$"):
        assert not passwords.verify(PASSWORD, known, requester=ADA)
        assert not passwords.verify("", known, requester=ADA)


def test_more_than_a_kibibyte_is_refused_before_it_costs_anything(passwords):
    with pytest.raises(Invalid):
        passwords.hash("x" * 1025, requester=ADA)
    assert not passwords.verify("x" * 1025, passwords.hash("x" * 1024, requester=ADA), requester=ADA)


def test_an_unknown_account_costs_as_much_as_a_known_one(passwords):
    known = passwords.hash(PASSWORD, requester=ADA)
    real, none = [], []
    for _ in range(15):
        real.append(seconds(lambda: passwords.verify("wrong", known, requester=ADA)))
        none.append(seconds(lambda: passwords.verify("wrong", None, requester=ADA)))
    assert abs(median(real) - median(none)) < 0.35 * median(real)


def test_a_weaker_hash_is_outdated_and_a_stronger_one_is_not(passwords):
    production = Argon2Passwords("production")
    weak, strong = passwords.hash(PASSWORD, requester=ADA), production.hash(PASSWORD, requester=ADA)
    assert production.outdated(weak)
    assert not production.outdated(strong)
    assert not passwords.outdated(strong)
    assert not passwords.outdated(weak)
    assert passwords.outdated(b"pbkdf2$1$x")
    assert passwords.outdated(weak.replace(b"argon2id", b"argon2i"))


def callers(queue, number, *, let_go, is_stranger=False, entered=None, name=None):
    """Whether each of `number` callers passed; those inside stay until `let_go`. And the most that were inside at a time.

    `entered` hears of each who comes in whether it is a stranger.
    """
    inside, maximum, lock = 0, 0, threading.Lock()

    def call(each):
        nonlocal inside, maximum
        with queue.slot(PasswordRequester(name or f"{is_stranger} {each}", is_stranger)):
            with lock:
                inside += 1
                maximum = max(maximum, inside)
                if entered is not None:
                    entered.append(is_stranger)
            let_go.wait(5)
            with lock:
                inside -= 1

    threads = ThreadPoolExecutor(number)
    return [threads.submit(call, each) for each in range(number)], lambda: maximum


def test_two_are_hashed_at_a_time_the_queue_is_short_and_the_rest_is_sent_away_at_once():
    let_go = threading.Event()
    calls, maximum = callers(BoundedQueue(max_queued=4), 12, let_go=let_go)
    wait_until(lambda: sum(call.done() for call in calls) >= 12 - MAX_CONCURRENT_HASHES - 4)
    refused = [call.exception() for call in calls if call.done()]
    let_go.set()
    assert all(isinstance(error, Unavailable) and error.retry_after == 5 for error in refused)
    assert sum(call.exception() is None for call in calls) == MAX_CONCURRENT_HASHES + 4
    assert maximum() == MAX_CONCURRENT_HASHES


def test_whoever_waits_too_long_is_sent_away_and_the_queue_is_free_again():
    let_go, queue = threading.Event(), BoundedQueue(timeout_seconds=0.05)
    calls, _ = callers(queue, 3, let_go=let_go)
    wait_until(lambda: any(call.done() for call in calls))
    let_go.set()
    assert sorted(type(call.exception()).__name__ for call in calls) == ["NoneType", "NoneType", "Unavailable"]
    with queue.slot(ADA):
        pass


def test_users_go_before_strangers_who_cannot_take_the_whole_queue():
    let_go, queue, entered = threading.Event(), BoundedQueue(max_queued=QUEUE_SLOTS_FOR_USERS + 3), []
    strangers, _ = callers(queue, MAX_CONCURRENT_HASHES + 5, let_go=let_go, is_stranger=True, entered=entered)
    wait_until(lambda: sum(call.done() for call in strangers) >= 2)
    users, _ = callers(queue, QUEUE_SLOTS_FOR_USERS, let_go=let_go, entered=entered)
    wait_until(lambda: len(queue._users) >= QUEUE_SLOTS_FOR_USERS)
    let_go.set()
    assert sum(call.exception() is None for call in strangers) == MAX_CONCURRENT_HASHES + 3
    assert all(call.exception() is None for call in users)
    assert entered[:MAX_CONCURRENT_HASHES] == [True] * MAX_CONCURRENT_HASHES
    assert entered.index(True, MAX_CONCURRENT_HASHES) >= MAX_CONCURRENT_HASHES + QUEUE_SLOTS_FOR_USERS - 1, (
        "as the last user is called, so may be the first stranger"
    )


@pytest.mark.parametrize("is_stranger", [True, False])
def test_nobody_takes_the_whole_queue_alone(is_stranger):
    let_go, queue = threading.Event(), BoundedQueue()
    one, _ = callers(queue, MAX_CONCURRENT_HASHES + MAX_QUEUED_PER_REQUESTER + 3, let_go=let_go, is_stranger=is_stranger, name="one")
    wait_until(lambda: sum(call.done() for call in one) >= 3)
    others, _ = callers(queue, QUEUE_SLOTS_FOR_USERS, let_go=let_go, is_stranger=is_stranger, name="another")
    let_go.set()
    assert sum(call.exception() is None for call in one) == MAX_CONCURRENT_HASHES + MAX_QUEUED_PER_REQUESTER
    assert all(call.exception() is None for call in others)
    again, _ = callers(queue, MAX_QUEUED_PER_REQUESTER, let_go=let_go, is_stranger=is_stranger, name="one")
    assert all(call.exception() is None for call in again), "its places are free again"


def test_one_computation_finds_the_password_among_hashes_with_one_salt(passwords):
    first = passwords.hash("the first password", requester=ADA)
    second = passwords.hash("the second password", requester=ADA, like=first)
    foreign = passwords.hash("the third password", requester=ADA)
    for password, candidates, expected in (
        ("the first password", [first, second], 0),
        ("the second password", [first, second], 1),
        ("the second password", [second], 0),
        ("another password", [first, second], None),
        ("the third password", [first, foreign], None),
        ("the first password", [], None),
        ("x" * 2000, [first], None),
    ):
        assert passwords.matching(password, candidates, requester=ADA) == expected
    assert passwords.verify("the second password", second, requester=ADA)
