"""A burst is let in, a crowd that stays is thinned, and nobody is turned away once it has gone."""

import pytest

from api.room import AT_ONCE, CROWDED, GONE, STAYS, THIN, Room


@pytest.fixture
def room():
    return Room()


def asked(room, already, now):
    """Whether one more is let in beside so many."""
    room.count = already + 1
    return room.is_left(now)


def crowd(room, *, since, until):
    """One more than can be worked on, every tenth of a second."""
    for tenth in range(round((until - since) * 10) + 1):
        assert not asked(room, AT_ONCE, since + tenth / 10)


def test_as_many_as_can_be_worked_on_are_let_in_and_no_more(room):
    assert asked(room, AT_ONCE - 1, 0.0)
    assert not asked(room, AT_ONCE, 0.0)


def test_a_burst_leaves_the_room_as_large_as_it_was(room):
    crowd(room, since=0.0, until=STAYS)
    assert asked(room, AT_ONCE - 1, STAYS)


def test_many_who_are_never_too_many_are_all_let_in(room):
    assert all(asked(room, AT_ONCE - 1, second) for second in range(100))


def test_a_crowd_that_stays_is_thinned(room):
    crowd(room, since=0.0, until=STAYS + 0.2)
    assert not asked(room, CROWDED, STAYS + 0.3)
    assert asked(room, CROWDED - 1, STAYS + 0.3)


def test_it_is_thin_while_somebody_is_turned_away(room):
    crowd(room, since=0.0, until=STAYS + 0.2)
    for tenth in range(round((THIN - 0.4) * 10)):
        assert not asked(room, CROWDED, STAYS + 0.3 + tenth / 10)


def test_after_a_while_it_is_tried_whether_so_many_are_still_too_many(room):
    crowd(room, since=0.0, until=STAYS + 0.2)
    crowd(room, since=STAYS + 0.3, until=THIN + 0.2)
    assert asked(room, AT_ONCE - 1, THIN + 0.9)
    assert not asked(room, AT_ONCE, THIN + 0.9)


def test_if_so_many_still_are_too_many_the_crowd_is_thinned_at_once(room):
    crowd(room, since=0.0, until=2 * THIN)
    assert not asked(room, CROWDED, 2 * THIN + 0.1)


def test_clients_that_wait_for_their_answers_are_all_let_in_again_in_the_end(room):
    crowd(room, since=0.0, until=STAYS + 0.2)
    let_in = [asked(room, 63, STAYS + 0.3 + tenth / 10) for tenth in range(2 * round(THIN) * 10)]
    assert not let_in[0]
    assert all(let_in[round(THIN + 1) * 10 :])


def test_when_the_crowd_has_gone_as_many_as_ever_are_let_in(room):
    crowd(room, since=0.0, until=STAYS + 0.2)
    assert asked(room, AT_ONCE - 1, STAYS + 0.2 + GONE + 0.1)


def test_the_next_crowd_is_a_burst_again(room):
    crowd(room, since=0.0, until=STAYS + 0.2)
    crowd(room, since=10.0, until=10.0 + STAYS)
    assert asked(room, AT_ONCE - 1, 10.0 + STAYS)


def test_who_waits_for_its_client_takes_no_room(room):
    room.count = 1
    with room:
        assert room.count == 0
    assert room.count == 1
