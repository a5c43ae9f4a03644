"""Whatever comes from Kafka, in whatever order: applied is every event once, in the log's order."""

from itertools import pairwise
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.ports import Recorded
from projections.batches import Applied
from projections.checkpoints import Checkpoint, Outrun
from projections.feed import Ahead, Feed

STREAM = UUID(int=7)


def event(position):
    return Recorded(
        position=position, stream=STREAM, version=position, type="Seen", schema_version=1, event_id=UUID(int=position), data=b""
    )


class Store:
    """A log of `head` events."""

    def __init__(self, head):
        self.newest = head

    def head(self):
        return self.newest

    def read(self, after, limit):
        return [event(position) for position in range(after + 1, min(self.newest, after + limit) + 1)]


class Models:
    """Read models that remember only what was applied; `rivals` of other members move them when they are asked for."""

    def __init__(self, rivals=()):
        self.at, self.applied, self.rivals = Checkpoint(0), [], list(rivals)

    def checkpoint(self):
        return self.at

    def apply(self, batch, to):
        if self.rivals and (ahead := self.rivals.pop(0)):
            self.move([event(self.at.position + number) for number in range(1, ahead + 1)])
        if batch[0].position != self.at.position + 1:
            raise Outrun
        self.move(batch, to)
        return Applied(to.position)

    def move(self, batch, to=None):
        self.applied += [one.position for one in batch]
        self.at = to or self.at._replace(position=batch[-1].position)


def frames(most):
    return st.lists(st.lists(st.integers(1, most), min_size=1, max_size=12), max_size=20)


@given(head=st.integers(40, 60), delivered=frames(40), rivals=st.lists(st.sampled_from([0, 0, 0, 1, 3]), max_size=5))
def test_any_order_with_repeats_and_holes_becomes_the_log(head, delivered, rivals):
    models = Models(rivals)
    feed, offset = Feed(models, Store(head)), 0
    for positions in delivered:
        offset += len(positions)
        feed.take([event(position) for position in positions], cluster="one", next_offset=offset)
        assert models.applied == list(range(1, len(models.applied) + 1))
        assert len(models.applied) >= max(positions)
    while models.at.position < head:
        feed.catch_up()
    assert models.applied == list(range(1, max(head, len(models.applied)) + 1))
    assert sum(feed.sources.values()) <= len(models.applied)


@given(head=st.integers(1, 60), cuts=st.lists(st.integers(1, 60), max_size=6))
def test_what_comes_whole_and_in_order_never_asks_the_store(head, cuts):
    models = Models()
    feed = Feed(models, Store(head))
    edges = sorted({0, head, *(cut for cut in cuts if cut < head)})
    for begin, end in pairwise(edges):
        feed.take([event(position) for position in range(begin + 1, end + 1)], cluster="one", next_offset=end)
    assert models.applied == list(range(1, head + 1))
    assert feed.sources == {"kafka": head}
    assert models.at == Checkpoint(head, "one", head)


def test_a_hole_is_filled_from_the_store_before_what_follows_it():
    models = Models()
    feed = Feed(models, Store(10))
    feed.take([event(1), event(2), event(6)], cluster="one", next_offset=3)
    assert models.applied == [1, 2, 3, 4, 5, 6]
    assert feed.sources == {"kafka": 3, "store": 3}
    assert feed.at == Checkpoint(6, "one", 3)


def test_the_offset_moves_on_past_what_was_seen_before():
    models = Models()
    feed = Feed(models, Store(4))
    while feed.catch_up():
        pass
    feed.take([event(1), event(2)], cluster="one", next_offset=2)
    assert models.at.cluster == ""
    feed.take([event(3), event(4), event(5)], cluster="one", next_offset=5)
    assert models.at == Checkpoint(5, "one", 5)


def test_a_checkpoint_that_another_member_moved_is_read_again():
    models = Models(rivals=[2])
    feed = Feed(models, Store(5))
    feed.take([event(1), event(2), event(3)], cluster="one", next_offset=3)
    assert models.applied == [1, 2, 3]
    assert feed.sources == {"kafka": 1}


def test_kafka_ahead_of_the_store_is_an_alarm():
    feed = Feed(Models(), Store(3))
    with pytest.raises(Ahead, match="ends at 3, Kafka knows 6"):
        feed.take([event(6)], cluster="one", next_offset=1)


def test_every_batch_is_told_of():
    told = []
    feed = Feed(Models(), Store(3), applied=told.append)
    feed.take([event(2)], cluster="one", next_offset=1)
    feed.catch_up()
    assert [applied.position for applied in told] == [1, 2, 3]


@given(forked=st.integers(1, 30), head=st.integers(0, 40))
def test_events_that_the_log_does_not_know_are_not_believed_after_it_was_put_back(forked, head):
    """Kafka held 30 events; from `forked` on they are of a future that the restored log has not."""
    models = Models()
    feed = Feed(models, Store(head))
    feed.doubt(30)
    feed.take([event(position) if position < forked else other(position) for position in range(1, 31)], cluster="one", next_offset=30)
    assert models.applied == list(range(1, min(forked - 1, head, 30) + 1))
    feed.take([event(position) for position in range(31, 41)], cluster="one", next_offset=40) if head == 40 else None
    assert set(models.applied) <= set(range(1, head + 1))


def other(position):
    return msgspec.structs.replace(event(position), event_id=UUID(int=1000 + position))
