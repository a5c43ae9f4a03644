"""A burst is let in, a crowd that stays is thinned, and nobody is turned away once it has gone."""

import pytest

from api.middleware.admission import (
    CONCURRENCY_LIMIT,
    CREDENTIALS_SHARE,
    OVERLOAD_AFTER_SECONDS,
    OVERLOAD_ENDS_AFTER_SECONDS,
    OVERLOAD_LIMIT,
    PROBE_INTERVAL_SECONDS,
    Admission,
)


@pytest.fixture
def door():
    return Admission()


def asked(door, already, now, *, with_credential=True):
    """Whether one more is let in beside so many."""
    door.count = already + 1
    return door.admits(now, has_credential=lambda: with_credential)


def crowd(door, *, since, until):
    """One more than can be worked on, every tenth of a second."""
    for tenth in range(round((until - since) * 10) + 1):
        assert not asked(door, CONCURRENCY_LIMIT, since + tenth / 10)


def test_as_many_as_can_be_worked_on_are_let_in_and_no_more(door):
    assert asked(door, CONCURRENCY_LIMIT - 1, 0.0)
    assert not asked(door, CONCURRENCY_LIMIT, 0.0)


def test_after_a_burst_as_many_are_let_in_as_before(door):
    crowd(door, since=0.0, until=OVERLOAD_AFTER_SECONDS)
    assert asked(door, CONCURRENCY_LIMIT - 1, OVERLOAD_AFTER_SECONDS)


def test_many_who_are_never_too_many_are_all_let_in(door):
    assert all(asked(door, CONCURRENCY_LIMIT - 1, second) for second in range(100))


def test_a_crowd_that_stays_is_thinned(door):
    crowd(door, since=0.0, until=OVERLOAD_AFTER_SECONDS + 0.2)
    assert not asked(door, OVERLOAD_LIMIT, OVERLOAD_AFTER_SECONDS + 0.3)
    assert asked(door, OVERLOAD_LIMIT - 1, OVERLOAD_AFTER_SECONDS + 0.3)


def test_it_is_thin_while_somebody_is_turned_away(door):
    crowd(door, since=0.0, until=OVERLOAD_AFTER_SECONDS + 0.2)
    for tenth in range(round((PROBE_INTERVAL_SECONDS - 0.4) * 10)):
        assert not asked(door, OVERLOAD_LIMIT, OVERLOAD_AFTER_SECONDS + 0.3 + tenth / 10)


def test_after_a_while_it_is_tried_whether_so_many_are_still_too_many(door):
    crowd(door, since=0.0, until=OVERLOAD_AFTER_SECONDS + 0.2)
    crowd(door, since=OVERLOAD_AFTER_SECONDS + 0.3, until=PROBE_INTERVAL_SECONDS + 0.2)
    assert asked(door, CONCURRENCY_LIMIT - 1, PROBE_INTERVAL_SECONDS + 0.9)
    assert not asked(door, CONCURRENCY_LIMIT, PROBE_INTERVAL_SECONDS + 0.9)


def test_if_so_many_still_are_too_many_the_crowd_is_thinned_at_once(door):
    crowd(door, since=0.0, until=2 * PROBE_INTERVAL_SECONDS)
    assert not asked(door, OVERLOAD_LIMIT, 2 * PROBE_INTERVAL_SECONDS + 0.1)


def test_clients_that_wait_for_their_answers_are_all_let_in_again_in_the_end(door):
    crowd(door, since=0.0, until=OVERLOAD_AFTER_SECONDS + 0.2)
    let_in = [asked(door, 63, OVERLOAD_AFTER_SECONDS + 0.3 + tenth / 10) for tenth in range(2 * round(PROBE_INTERVAL_SECONDS) * 10)]
    assert not let_in[0]
    assert all(let_in[round(PROBE_INTERVAL_SECONDS + 1) * 10 :])


def test_when_the_crowd_has_gone_as_many_as_ever_are_let_in(door):
    crowd(door, since=0.0, until=OVERLOAD_AFTER_SECONDS + 0.2)
    assert asked(door, CONCURRENCY_LIMIT - 1, OVERLOAD_AFTER_SECONDS + 0.2 + OVERLOAD_ENDS_AFTER_SECONDS + 0.1)


def test_the_next_crowd_is_a_burst_again(door):
    crowd(door, since=0.0, until=OVERLOAD_AFTER_SECONDS + 0.2)
    crowd(door, since=10.0, until=10.0 + OVERLOAD_AFTER_SECONDS)
    assert asked(door, CONCURRENCY_LIMIT - 1, 10.0 + OVERLOAD_AFTER_SECONDS)


def test_who_waits_for_its_client_is_not_counted(door):
    door.count = 1
    with door:
        assert door.count == 0
    assert door.count == 1


def test_strangers_leave_users_a_third_of_the_room_also_in_a_crowd(door):
    for room, now in ((CONCURRENCY_LIMIT, 0.0), (OVERLOAD_LIMIT, 2 * PROBE_INTERVAL_SECONDS)):
        assert asked(door, room - room // CREDENTIALS_SHARE - 1, now, with_credential=False)
        assert not asked(door, room - room // CREDENTIALS_SHARE, now, with_credential=False)
        assert asked(door, room - 1, now, with_credential=True)
        crowd(door, since=now, until=2 * PROBE_INTERVAL_SECONDS)


def test_strangers_who_are_turned_away_are_no_crowd(door):
    for tenth in range(10):
        assert not asked(door, CONCURRENCY_LIMIT - 1, tenth / 10, with_credential=False)
    assert asked(door, CONCURRENCY_LIMIT - 1, 1.0, with_credential=True)


def test_who_somebody_is_is_asked_only_where_users_alone_have_room(door):
    def unexpected():
        raise AssertionError("it was asked")

    door.count = 1
    assert door.admits(0.0, has_credential=unexpected)
    door.count = CONCURRENCY_LIMIT + 1
    assert not door.admits(0.0, has_credential=unexpected)
