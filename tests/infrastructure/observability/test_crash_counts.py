"""Crash counts: within a window, readable by another process, harmless when the file is damaged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrastructure.observability.crash_counts import CRASH_WINDOW_SECONDS, CRASHES_OF_A_LOOP, crash_loops, record_crash

TIMES = st.lists(st.floats(0, 1000), min_size=1, max_size=12).map(sorted)


@given(times=TIMES)
def test_exactly_the_ends_within_the_window_are_counted(tmp_path_factory, times):
    file = tmp_path_factory.mktemp("crashes") / "crashes.json"
    for number, at in enumerate(times, 1):
        counted = record_crash(file, "inference", now=at)
        assert counted == sum(at - earlier < CRASH_WINDOW_SECONDS for earlier in times[:number])
    expected = sum(times[-1] - at < CRASH_WINDOW_SECONDS for at in times)
    found = crash_loops(file, now=times[-1])
    assert found == ({"inference": expected} if expected >= CRASHES_OF_A_LOOP else {})


def test_a_loop_is_over_after_the_window(tmp_path):
    file = tmp_path / "crashes.json"
    for _ in range(CRASHES_OF_A_LOOP):
        record_crash(file, "relay", now=100.0)
    assert crash_loops(file, now=100.0 + CRASH_WINDOW_SECONDS - 1) == {"relay": CRASHES_OF_A_LOOP}
    assert crash_loops(file, now=100.0 + CRASH_WINDOW_SECONDS) == {}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"inference": "often"}', b"\xff"])
def test_a_damaged_file_says_nothing_and_is_replaced(tmp_path, content):
    file = tmp_path / "crashes.json"
    file.write_bytes(content)
    assert crash_loops(file) == {}
    assert record_crash(file, "relay") == 1
    assert record_crash(file, "relay") == 2


def test_without_a_supervisor_there_are_none(tmp_path):
    assert crash_loops(tmp_path / "none" / "crashes.json") == {}


def test_a_file_that_cannot_be_written_does_not_stop_the_supervisor(tmp_path):
    assert record_crash(tmp_path / "none" / "crashes.json", "relay") == 1
