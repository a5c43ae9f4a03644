"""Reinspection: what is recorded when a newer reader decodes a stored image."""

from uuid import uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import image
from domain.errors import Conflict
from domain.image import MAX_OUTDATED, NOT_READABLE, Inspection
from domain.values import ImageWarning
from tests.given import LATER, NOW
from tests.strategies import STREAMS, of_type

ME = uuid4()
MAX_EVENT_BYTES = 256 * 1024
FOUND = Inspection(width=8, height=6, bands=3, dtype="uint8", pages=1, axes="YXS", pixel_size_um=None, reader=1, warnings=())
NEWER = msgspec.structs.replace(FOUND, reader=2)

inspections = of_type(Inspection)
results = st.lists(STREAMS, max_size=6)


def uploaded():
    about = {"filename": "a.tif", "sha256": "00", "size": 1, "media_type": "image/tiff", "width": 9, "height": 9}
    return image.evolve(None, image.upload(uuid4(), dataset=uuid4(), device=None, **about, by=ME, at=NOW))


def accepted(found=FOUND):
    state = uploaded()
    return image.evolve(state, *image.accept(state, found, by=ME, at=NOW))


def rejected():
    state = uploaded()
    return image.evolve(state, *image.reject(state, reason="unsupported_layout", detail="Save it again.", by=ME, at=NOW))


def after(state, events):
    for event in events:
        state = image.evolve(state, event)
    return state


def reinspected(state, found, outdated=()):
    events = image.reinspect(state, found, outdated=outdated, by=ME, at=LATER)
    return after(state, events), events


@given(before=inspections, found=inspections, outdated=results)
def test_a_second_reinspection_finds_nothing_new(before, found, outdated):
    for start in (accepted(before), rejected()):
        state, _ = reinspected(start, found, outdated)
        assert image.reinspect(state, found, outdated=outdated, by=ME, at=LATER) == []


@given(before=inspections, found=inspections, outdated=results)
def test_what_the_newest_reader_found_is_what_is_known(before, found, outdated):
    start = accepted(before)
    state, events = reinspected(start, found, outdated)
    assert state.version == start.version + len(events)
    if found.reader >= before.reader:
        assert (state.inspection, state.outdated) == (found, frozenset(outdated))
    else:
        assert state == start


@given(first=results, second=results)
def test_an_outdated_result_is_named_once_and_stays(first, second):
    state, early = reinspected(accepted(), NEWER, first)
    state, late = reinspected(state, msgspec.structs.replace(NEWER, reader=3), second)
    named = [one for event in (*early, *late) for one in event.outdated]
    assert len(named) == len(set(named))
    assert set(named) == state.outdated == {*first, *second}


@pytest.mark.parametrize("count", [0, 1, MAX_OUTDATED, MAX_OUTDATED + 1, 3 * MAX_OUTDATED])
def test_an_event_stays_small_however_many_results_are_outdated(count):
    outdated = [uuid4() for _ in range(count)]
    warnings = tuple(ImageWarning(f"code_{number}", "d" * 1000) for number in range(20))
    state, events = reinspected(accepted(), msgspec.structs.replace(NEWER, warnings=warnings), outdated)
    assert max(len(msgspec.json.encode(event)) for event in events) < MAX_EVENT_BYTES
    assert [one for event in events for one in event.outdated] == outdated
    assert [event.originator_version for event in events] == list(range(3, 3 + len(events)))
    assert state.outdated == frozenset(outdated)


def test_a_rejected_image_that_can_be_read_now_is_accepted():
    state, _ = reinspected(rejected(), NEWER)
    assert (state.accepted, state.rejected, state.inspection) == (True, None, NEWER)


def test_an_accepted_image_that_cannot_be_read_any_more_keeps_what_is_known_of_it_and_is_given_a_warning():
    [event] = image.keep_unreadable(accepted(), detail="Export it again", by=ME, at=LATER)
    state = image.evolve(accepted(), event)
    warning = ImageWarning(NOT_READABLE, "Export it again")
    assert state.accepted
    assert state.inspection == msgspec.structs.replace(FOUND, warnings=(warning,))
    assert image.keep_unreadable(state, detail="Export it again", by=ME, at=LATER) == []
    readable, _ = reinspected(state, NEWER)
    assert readable.inspection == NEWER


def test_a_new_reason_replaces_the_one_before():
    state = accepted()
    for detail in ("Save it again", "Crop it"):
        state = after(state, image.keep_unreadable(state, detail=detail, by=ME, at=LATER))
    assert state.inspection.warnings == (ImageWarning(NOT_READABLE, "Crop it"),)


def test_a_rejected_image_that_still_cannot_be_read_stays_as_it_is():
    assert image.keep_unreadable(rejected(), detail="Save it again", by=ME, at=LATER) == []


def test_an_image_that_was_deleted_or_never_inspected_is_refused():
    gone = accepted()
    gone = image.evolve(gone, image.delete(gone, by=ME, at=LATER))
    for state in (gone, uploaded()):
        with pytest.raises(Conflict):
            image.reinspect(state, NEWER, by=ME, at=LATER)
        with pytest.raises(Conflict):
            image.keep_unreadable(state, detail="Save it again", by=ME, at=LATER)
