"""Garbage collection of blobs: old ones that nothing refers to."""

from datetime import timedelta

import pytest

from application.blob_gc import MIN_AGE, BlobReferences, SweepResult, sweep_orphans
from domain.errors import Unavailable
from tests.given import NOW
from tests.twins.blobs import MemoryBlobs

AGED = NOW + MIN_AGE + timedelta(seconds=1)


@pytest.fixture
def blobs():
    return MemoryBlobs(clock=lambda: NOW)


def references(*, referred=(), waiting=()):
    def in_use(names):
        return BlobReferences(set(names) & set(referred), set(names) & set(waiting))

    return in_use


def test_what_nothing_refers_to_is_deleted(blobs):
    kept, orphan = blobs.keep(b"an image"), blobs.keep(b"an orphan")
    assert sweep_orphans(blobs, references(referred=[kept]), now=AGED) == SweepResult(freed=1, waiting=0)
    assert blobs.exists(kept)
    assert not blobs.exists(orphan)


def test_a_young_blob_stays_since_its_event_may_still_be_recorded(blobs):
    young = blobs.keep(b"an upload in progress")
    assert sweep_orphans(blobs, references(), now=NOW + MIN_AGE) == SweepResult(0, 0)
    assert sweep_orphans(blobs, references(), now=NOW + timedelta(hours=2), min_age=timedelta(hours=1)) == SweepResult(1, 0)
    assert not blobs.exists(young)


def test_what_an_event_that_waits_may_refer_to_stays_and_is_counted_once(blobs):
    waiting, both = blobs.keep(b"of a parked event"), blobs.keep(b"of a parked event and an image")
    in_use = references(referred=[both], waiting=[waiting, both])
    assert sweep_orphans(blobs, in_use, now=AGED) == SweepResult(freed=0, waiting=1)
    assert blobs.exists(waiting)
    assert blobs.exists(both)


def test_a_second_sweep_finds_nothing(blobs):
    blobs.keep(b"an orphan")
    assert [sweep_orphans(blobs, references(), now=AGED).freed for _ in range(2)] == [1, 0]


def test_where_references_cannot_be_read_nothing_is_deleted(blobs):
    sha256 = blobs.keep(b"an image")

    def away(_):
        raise Unavailable("The database is away")

    with pytest.raises(Unavailable):
        sweep_orphans(blobs, away, now=AGED)
    assert blobs.exists(sha256)
