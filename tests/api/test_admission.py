"""Admission control: it admits a burst, limits lasting overload, and admits everything again after the load has gone."""

import pytest

from api.middleware.admission import Admission
from api.options import AdmissionLimits

LIMITS = AdmissionLimits()
NORMAL, OVERLOADED = LIMITS.normal, LIMITS.overloaded
OVERLOADED_AFTER, RECOVERED_AFTER, PROBE_INTERVAL = (
    LIMITS.overloaded_after_seconds,
    LIMITS.recovered_after_seconds,
    LIMITS.probe_interval_seconds,
)


@pytest.fixture
def admission():
    return Admission(LIMITS)


def is_admitted(admission, already, now, *, with_credential=True):
    """Whether one more is let in beside so many."""
    admission.count = already + 1
    return admission.admits(now, has_credential=lambda: with_credential)


def crowd(admission, *, since, until):
    """One more than can be worked on, every tenth of a second."""
    for tenth in range(round((until - since) * 10) + 1):
        assert not is_admitted(admission, NORMAL, since + tenth / 10)


def test_as_many_as_can_be_worked_on_are_let_in_and_no_more(admission):
    assert is_admitted(admission, NORMAL - 1, 0.0)
    assert not is_admitted(admission, NORMAL, 0.0)


def test_after_a_burst_as_many_are_let_in_as_before(admission):
    crowd(admission, since=0.0, until=OVERLOADED_AFTER)
    assert is_admitted(admission, NORMAL - 1, OVERLOADED_AFTER)


def test_many_who_are_never_too_many_are_all_let_in(admission):
    assert all(is_admitted(admission, NORMAL - 1, second) for second in range(100))


def test_a_crowd_that_stays_is_thinned(admission):
    crowd(admission, since=0.0, until=OVERLOADED_AFTER + 0.2)
    assert not is_admitted(admission, OVERLOADED, OVERLOADED_AFTER + 0.3)
    assert is_admitted(admission, OVERLOADED - 1, OVERLOADED_AFTER + 0.3)


def test_it_is_thin_while_somebody_is_turned_away(admission):
    crowd(admission, since=0.0, until=OVERLOADED_AFTER + 0.2)
    for tenth in range(round((PROBE_INTERVAL - 0.4) * 10)):
        assert not is_admitted(admission, OVERLOADED, OVERLOADED_AFTER + 0.3 + tenth / 10)


def test_after_a_while_it_is_tried_whether_so_many_are_still_too_many(admission):
    crowd(admission, since=0.0, until=OVERLOADED_AFTER + 0.2)
    crowd(admission, since=OVERLOADED_AFTER + 0.3, until=PROBE_INTERVAL + 0.2)
    assert is_admitted(admission, NORMAL - 1, PROBE_INTERVAL + 0.9)
    assert not is_admitted(admission, NORMAL, PROBE_INTERVAL + 0.9)


def test_if_so_many_still_are_too_many_the_crowd_is_thinned_at_once(admission):
    crowd(admission, since=0.0, until=2 * PROBE_INTERVAL)
    assert not is_admitted(admission, OVERLOADED, 2 * PROBE_INTERVAL + 0.1)


def test_clients_that_wait_for_their_answers_are_all_let_in_again_in_the_end(admission):
    crowd(admission, since=0.0, until=OVERLOADED_AFTER + 0.2)
    let_in = [is_admitted(admission, 63, OVERLOADED_AFTER + 0.3 + tenth / 10) for tenth in range(2 * round(PROBE_INTERVAL) * 10)]
    assert not let_in[0]
    assert all(let_in[round(PROBE_INTERVAL + 1) * 10 :])


def test_when_the_crowd_has_gone_as_many_as_ever_are_let_in(admission):
    crowd(admission, since=0.0, until=OVERLOADED_AFTER + 0.2)
    assert is_admitted(admission, NORMAL - 1, OVERLOADED_AFTER + 0.2 + RECOVERED_AFTER + 0.1)


def test_the_next_crowd_is_a_burst_again(admission):
    crowd(admission, since=0.0, until=OVERLOADED_AFTER + 0.2)
    crowd(admission, since=10.0, until=10.0 + OVERLOADED_AFTER)
    assert is_admitted(admission, NORMAL - 1, 10.0 + OVERLOADED_AFTER)


def test_who_waits_for_its_client_is_not_counted(admission):
    admission.count = 1
    with admission:
        assert admission.count == 0
    assert admission.count == 1


def test_strangers_leave_users_a_third_of_the_room_also_in_a_crowd(admission):
    for capacity, now in ((NORMAL, 0.0), (OVERLOADED, 2 * PROBE_INTERVAL)):
        assert is_admitted(admission, capacity - capacity // LIMITS.credentials_share - 1, now, with_credential=False)
        assert not is_admitted(admission, capacity - capacity // LIMITS.credentials_share, now, with_credential=False)
        assert is_admitted(admission, capacity - 1, now, with_credential=True)
        crowd(admission, since=now, until=2 * PROBE_INTERVAL)


def test_strangers_who_are_turned_away_are_no_crowd(admission):
    for tenth in range(10):
        assert not is_admitted(admission, NORMAL - 1, tenth / 10, with_credential=False)
    assert is_admitted(admission, NORMAL - 1, 1.0, with_credential=True)


def test_who_somebody_is_is_asked_only_where_users_alone_have_room(admission):
    def unexpected():
        raise AssertionError("it was asked")

    admission.count = 1
    assert admission.admits(0.0, has_credential=unexpected)
    admission.count = NORMAL + 1
    assert not admission.admits(0.0, has_credential=unexpected)
