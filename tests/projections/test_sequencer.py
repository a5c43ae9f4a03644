"""The sequencer: whatever Kafka delivers, each event of the log is applied once and in order."""

from itertools import pairwise
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from application.history.hash_chain import START
from application.ports import ChainedEvent, RecordedEvent
from projections.engine.batches import BatchResult
from projections.engine.checkpoints import Checkpoint, CheckpointConflict, NotInLog
from projections.engine.sequencer import Sequencer

STREAM = UUID(int=7)


def hash_at(position, *, log=0):
    return b"%d of log %d" % (position, log) if position else START


def event(position, *, log=0):
    about = {"stream": STREAM, "version": position, "type": "DeviceCameOnline", "schema_version": 1, "event_id": UUID(int=position)}
    return RecordedEvent(position=position, data=b"", hash=hash_at(position, log=log), **about)


def linked(position, *, previous_hash=None):
    """As it comes from Kafka."""
    return ChainedEvent(event(position), hash_at(position - 1) if previous_hash is None else previous_hash)


def of_another_log(position, *, forked):
    """An event of a log that is another one from position `forked` on."""
    return ChainedEvent(event(position, log=1), hash_at(position - 1, log=int(position > forked)))


class Store:
    """A log of `head` events."""

    def __init__(self, head):
        self.newest = head

    def head(self):
        return self.newest

    def read(self, after, limit):
        return [event(position) for position in range(after + 1, min(self.newest, after + limit) + 1)]


class Models:
    """Read models that remember only what was applied; `rivals` of other members move them when they are asked for.

    As in the database, what the log does not hold is refused, where the log is known.
    """

    def __init__(self, rivals=(), *, store=None):
        self.at, self.applied, self.rivals, self.store = Checkpoint(0), [], list(rivals), store

    def checkpoint(self):
        return self.at

    def apply(self, batch, to):
        if self.rivals and (ahead := self.rivals.pop(0)):
            self.move([event(self.at.position + number) for number in range(1, ahead + 1)])
        if batch[0].position != self.at.position + 1:
            raise CheckpointConflict
        if self.store is not None and [batch[-1]] != self.store.read(to.position - 1, 1):
            raise NotInLog
        self.move(batch, to)
        return BatchResult(to.position)

    def move(self, batch, to=None):
        self.applied += [one.position for one in batch]
        self.at = (to or self.at)._replace(position=batch[-1].position, hash=batch[-1].hash)


def frames(maximum):
    return st.lists(st.lists(st.integers(1, maximum), min_size=1, max_size=12), max_size=20)


@given(head=st.integers(40, 60), delivered=frames(40), rivals=st.lists(st.sampled_from([0, 0, 0, 1, 3]), max_size=5))
def test_any_order_with_repeats_and_holes_becomes_the_log(head, delivered, rivals):
    models = Models(rivals)
    feed, offset = Sequencer(models, Store(head)), 0
    for positions in delivered:
        offset += len(positions)
        feed.process([linked(position) for position in positions], cluster="one", next_offset=offset)
        assert models.applied == list(range(1, len(models.applied) + 1))
        assert len(models.applied) >= max(positions)
    while models.at.position < head:
        feed.catch_up()
    assert models.applied == list(range(1, max(head, len(models.applied)) + 1))
    assert sum(feed.sources.values()) <= len(models.applied)


@given(head=st.integers(1, 60), cuts=st.lists(st.integers(1, 60), max_size=6))
def test_what_comes_whole_and_in_order_never_asks_the_store(head, cuts):
    models = Models()
    feed = Sequencer(models, Store(head))
    edges = sorted({0, head, *(cut for cut in cuts if cut < head)})
    for begin, end in pairwise(edges):
        feed.process([linked(position) for position in range(begin + 1, end + 1)], cluster="one", next_offset=end)
    assert models.applied == list(range(1, head + 1))
    assert feed.sources == {"kafka": head}
    assert models.at == Checkpoint(head, "one", head, hash_at(head))


def test_a_hole_is_filled_from_the_store_before_what_follows_it():
    models = Models()
    feed = Sequencer(models, Store(10))
    feed.process([linked(1), linked(2), linked(6)], cluster="one", next_offset=3)
    assert models.applied == [1, 2, 3, 4, 5, 6]
    assert feed.sources == {"kafka": 3, "store": 3}
    assert feed.checkpoint == Checkpoint(6, "one", 3, hash_at(6))


def test_the_offset_moves_on_past_what_was_seen_before():
    models = Models()
    feed = Sequencer(models, Store(4))
    while feed.catch_up():
        pass
    feed.process([linked(1), linked(2)], cluster="one", next_offset=2)
    assert models.at.cluster == ""
    feed.process([linked(3), linked(4), linked(5)], cluster="one", next_offset=5)
    assert models.at == Checkpoint(5, "one", 5, hash_at(5))


def test_a_checkpoint_that_another_member_moved_is_read_again():
    models = Models(rivals=[2])
    feed = Sequencer(models, Store(5))
    feed.process([linked(1), linked(2), linked(3)], cluster="one", next_offset=3)
    assert models.applied == [1, 2, 3]
    assert feed.sources == {"kafka": 1}


def test_every_batch_is_reported():
    told = []
    feed = Sequencer(Models(), Store(3), on_applied=told.append)
    feed.process([linked(2)], cluster="one", next_offset=1)
    feed.catch_up()
    assert [applied.position for applied in told] == [1, 2, 3]


# ---- what is not true ----------------------------------------------------------------------------------------------------------------
def test_an_event_behind_the_end_of_the_log_is_rejected_and_what_is_true_goes_on():
    models, store = Models(), Store(3)
    feed = Sequencer(models, store)
    feed.process([linked(1), linked(6), linked(7)], cluster="one", next_offset=3)
    assert models.applied == [1, 2, 3]
    assert feed.rejected == {"ahead": 1}
    store.newest = 5
    feed.process([linked(4), linked(5)], cluster="one", next_offset=5)
    assert models.applied == [1, 2, 3, 4, 5]


def test_an_event_that_does_not_follow_the_one_before_it_is_read_from_the_store():
    models = Models()
    feed = Sequencer(models, Store(3))
    feed.process([linked(1), linked(2, previous_hash=b"of another"), linked(3)], cluster="one", next_offset=3)
    assert models.applied == [1, 2, 3]
    assert feed.sources == {"kafka": 2, "store": 1}
    assert feed.rejected == {"unlinked": 1}


@given(forked=st.integers(1, 30), head=st.integers(0, 40), cuts=st.lists(st.integers(1, 29), max_size=4))
def test_the_future_of_a_log_that_was_put_back_to_an_older_copy_is_not_applied(forked, head, cuts):
    """Its records were written by our own relay, and each follows the one before it: up to `forked` the two logs are the same."""
    store = Store(head)
    models = Models(store=store)
    feed = Sequencer(models, store)
    records = [linked(position) if position < forked else of_another_log(position, forked=forked) for position in range(1, 31)]
    for begin, end in pairwise(sorted({0, 30, *cuts})):
        feed.process(records[begin:end], cluster="one", next_offset=end)
    while feed.catch_up():
        pass
    assert models.applied == list(range(1, head + 1))
    assert models.at.hash == hash_at(head)
    assert feed.rejected.total() > 0


@given(st.data())
def test_whatever_comes_the_read_models_show_the_log(data):
    store = Store(data.draw(st.integers(0, 12)))
    models = Models(store=store)
    feed = Sequencer(models, store)
    record = st.builds(
        lambda position, log, previous, back: ChainedEvent(event(position, log=log), hash_at(max(0, position - back), log=previous)),
        st.integers(1, 15),
        st.integers(0, 1),
        st.integers(0, 1),
        st.integers(1, 2),
    )
    for offset, records in enumerate(data.draw(st.lists(st.lists(record, max_size=8), max_size=8)), 1):
        feed.process(records, cluster="one", next_offset=offset)
        store.newest += data.draw(st.integers(0, 3))
        assert models.applied == list(range(1, len(models.applied) + 1))
        assert len(models.applied) <= store.newest
        assert models.at.hash == hash_at(models.at.position)
    while feed.catch_up():
        pass
    assert models.applied == list(range(1, store.newest + 1))
