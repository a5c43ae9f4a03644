"""Dead letters: an event that is given up, once for each position."""

from uuid import uuid4

import pytest

from domain import dead_letter
from domain.errors import Invalid
from tests.given import NOW

ME = uuid4()


def discarded(**changes):
    about = {"position": 7, "stream": uuid4(), "type_name": "ImageUploaded", "error": "Undecodable", "reason": "the disk was damaged"}
    return dead_letter.discard(**about | changes, by=ME, at=NOW)


def test_a_discarded_event_says_who_gave_up_which_position():
    state = dead_letter.evolve(None, discarded())
    assert (state.position, state.discarded_by, state.discarded_at) == (7, ME, NOW)


def test_each_position_has_one_stream_that_is_the_first_version():
    first, second, other = discarded(), discarded(), discarded(position=8)
    assert first.originator_id == second.originator_id != other.originator_id
    assert {event.originator_version for event in (first, second, other)} == {1}


@pytest.mark.parametrize("wrong", [{"reason": ""}, {"reason": "x" * 501}, {"type_name": "DeadLetterDiscarded"}])
def test_a_reason_is_needed_and_a_record_of_a_discard_is_not_discarded(wrong):
    with pytest.raises(Invalid):
        discarded(**wrong)
