"""Garbage collection of cycles is rare during bulk work, and normal afterwards."""

import gc
from contextlib import suppress
from weakref import ref

from infrastructure.eventstore.garbage_collection import GENERATION_THRESHOLD, infrequent_collection


class Cycle:
    def __init__(self):
        self.itself = self


def test_the_collector_is_as_before_afterwards_also_after_an_error():
    before = gc.get_threshold()
    with suppress(ZeroDivisionError), infrequent_collection():
        assert gc.get_threshold() == (GENERATION_THRESHOLD, *before[1:])
        assert gc.get_freeze_count() > 0
        raise ZeroDivisionError
    assert (gc.get_threshold(), gc.get_freeze_count(), gc.isenabled()) == (before, 0, True)


def test_cycles_are_still_collected():
    with infrequent_collection():
        gone = ref(Cycle())
        kept = [[] for _ in range(2 * GENERATION_THRESHOLD)]
    assert gone() is None
    assert kept
