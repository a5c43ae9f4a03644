"""The position that a request means by `as_of`."""

import pytest

from application.history.as_of import position_of
from domain.errors import Invalid, NotFound
from tests.rigs.scenario import Scenario


@pytest.fixture
def positions(log):
    """The times at which two events were recorded."""
    scenario = Scenario(log, None)
    scenario.user(name="ada"), scenario.user(name="bob")
    return [one.recorded_at.isoformat() for one in log.read(0, 10)]


def test_a_position_a_time_and_now_are_accepted(log, positions):
    assert [position_of(as_of, log=log) for as_of in ("1", positions[0], "2", positions[1], None)] == [1, 1, 2, 2, 2]


@pytest.mark.parametrize("wrong", ["0", "3", "9" * 40, "yesterday", "2026-03-01T12:00:00", "", "1.5"])
def test_what_names_no_moment_of_the_log_is_refused(log, positions, wrong):
    with pytest.raises(Invalid):
        position_of(wrong, log=log)


def test_before_the_first_event_nothing_is_found(log, positions):
    with pytest.raises(NotFound):
        position_of("2001-01-01T00:00:00Z", log=log)
