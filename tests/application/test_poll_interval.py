"""The interval of polling grows while nothing happens."""

from hypothesis import given
from hypothesis import strategies as st

from application.poll_interval import PollInterval

SECONDS = st.floats(0.001, 100)


@given(SECONDS, SECONDS, st.lists(st.booleans(), max_size=40))
def test_polls_become_rarer_until_something_happens(shortest, longest, happenings):
    interval = PollInterval(shortest, longest)
    before = None
    for happens in happenings:
        if happens:
            interval.shorten()
            before = None
        seconds = interval.take()
        assert seconds == (shortest if before is None else min(2 * before, max(shortest, longest)))
        before = seconds
