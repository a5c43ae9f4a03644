"""Each use case with a crash at each call of a port: after recovery it was done once, or not at all."""

import pytest

from tests.simulation.crashes import USE_CASES, broken_by_a_crash, calls_of

OTHERS = ("start", *(name for name in USE_CASES if name != "upload"))


@pytest.mark.parametrize("use_case", ["upload", *(pytest.param(name, marks=pytest.mark.long) for name in OTHERS)])
def test_one_crash_at_each_call_breaks_nothing(use_case):
    calls = calls_of(use_case)
    assert len(calls) > 20
    assert {call.process for call in calls} >= {"projector-0", "relay-0"}
    assert list(broken_by_a_crash(use_case, calls)) == []
