"""Which images are sent to external classifiers next, how far ahead, and when they are given up."""

from collections import Counter, defaultdict
from itertools import count
from uuid import UUID, uuid4

import pytest
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from application.jobs.external_answers import ImageKey
from infrastructure.bridge.waiting_images import LONGEST_WAIT_IN_LEASES, BridgeLimits, WaitingImage, WaitingImages

ADA, BOB = UUID(int=1), UUID(int=2)
LEASE = 60.0
LIMITS = BridgeLimits(window=4, ahead_seconds=5.0, lease_seconds=LEASE, attempts=3)


def image(partition=0, *, key=None, owner=ADA, model_name="cells", urgent=False, attempts=0, sent_at=None):
    about = {"owner": owner, "model_name": model_name, "partition": partition, "urgent": urgent, "attempts": attempts, "sent_at": sent_at}
    return WaitingImage(key=key or ImageKey(uuid4(), uuid4()), **about)


def waiting(*images, partitions=1):
    found = WaitingImages(LIMITS, partitions=partitions)
    found.add(images)
    return found


def send(found, now):
    sent = found.to_send(now)
    found.mark_sent(sent, now)
    return sent


# ---- the window --------------------------------------------------------------------------------------------------------------------
def test_at_first_each_partition_gets_two_images():
    images = [image(partition) for partition in (0, 0, 0, 1, 2, 2, 2)]
    found = waiting(*images, partitions=3)
    assert send(found, 0.0) == [*images[:2], *images[3:6]]
    assert send(found, 0.0) == []


def test_as_many_images_are_sent_ahead_as_were_answered_lately_up_to_the_window():
    images = [image() for _ in range(30)]
    found = waiting(*images)
    ahead = Counter()
    for number in range(10):
        now = 0.1 * number
        send(found, now)
        ahead[number] = sum(one.sent_at is not None for one in images[number:])
        found.answer(images[number].key, now)
    assert [ahead[number] for number in range(7)] == [2, 2, 2, 3, 4, 4, 4]


def test_after_a_quiet_time_the_window_is_small_again():
    images = [image() for _ in range(20)]
    found = waiting(*images)
    for number in range(6):
        send(found, 0.0)
        found.answer(images[number].key, 0.0)
    assert len(send(found, 1.0)) == 1, "the window of four was full but for one"
    for one in images[6:10]:
        found.answer(one.key, 20.0)
    assert len(send(found, 40.0)) == 2


def test_a_single_image_is_sent_before_others_and_beyond_their_window():
    bulk, single = [image() for _ in range(4)], image(urgent=True)
    found = waiting(*bulk)
    assert send(found, 0.0) == bulk[:2]
    found.add([single])
    assert send(found, 0.0) == [single]
    singles = [image(urgent=True) for _ in range(5)]
    found.add(singles)
    assert send(found, 0.0) == singles[:1], "the whole window holds four"


def test_people_take_turns_whoever_came_first_and_however_much_they_have():
    of_ada, of_bob = [image() for _ in range(6)], [image(owner=BOB) for _ in range(6)]
    found = waiting(*of_ada)
    assert send(found, 0.0) == of_ada[:2]
    found.add(of_bob)
    turns = []
    for number, answered in enumerate([*of_ada[:2], of_bob[0], of_ada[2]]):
        found.answer(answered.key, 10.0 * number)
        turns += send(found, 10.0 * number)
    assert turns == [of_bob[0], of_ada[2], of_bob[1], of_ada[3]]


def test_a_model_whose_classifier_is_silent_leaves_the_window_of_another_one_free():
    silent, other = [image() for _ in range(9)], image(model_name="bones")
    found = waiting(*silent, other)
    assert send(found, 0.0) == [*silent[:2], other]


def test_an_image_that_was_overtaken_no_longer_fills_the_window():
    lost, answered, *later = (image() for _ in range(5))
    found = waiting(lost, answered, *later)
    assert send(found, 0.0) == [lost, answered]
    found.answer(answered.key, 1.0)
    assert send(found, 1.0) == later[:2]


def test_an_image_that_could_not_be_sent_is_sent_later_and_the_attempt_does_not_count():
    found = waiting(one := image())
    send(found, 0.0)
    found.mark_unsent([one])
    assert (one.attempts, one.sent_at, found.are_out) == (0, None, False)
    assert send(found, 1.0) == [one]
    assert one.attempts == 1


def test_what_was_answered_or_dropped_while_it_was_sent_is_not_sent_again():
    first, second = image(0), image(1)
    found = waiting(first, second, partitions=2)
    send(found, 0.0)
    found.answer(first.key, 0.1)
    found.discard(second.key)
    found.mark_unsent([first, second])
    assert (found.to_send(1.0), list(found.keys), found.are_out) == ([], [], False)


def test_the_whole_window_is_sent_to_a_silent_classifier_so_that_its_images_fail_together():
    images = [image() for _ in range(9)]
    found = waiting(*images)
    assert send(found, 0.0) == images[:2]
    found.give_up(LEASE)
    assert send(found, LEASE) == images[2:6]
    found.answer(images[2].key, LEASE + 1)
    assert send(found, LEASE + 1) == []
    for one in images[3:6]:
        found.answer(one.key, LEASE + 20)
    assert len(send(found, LEASE + 40)) == 2


def test_a_classifier_that_skips_an_image_is_not_silent():
    lost, answered, *others = (image() for _ in range(6))
    found = waiting(lost, answered)
    send(found, 0.0)
    found.answer(answered.key, 10.0)
    found.give_up(10.0 + LEASE)
    found.add(others)
    assert send(found, 10.0 + LEASE) == [lost, others[0]]


# ---- silence -----------------------------------------------------------------------------------------------------------------------
def test_after_a_silent_lease_an_image_is_sent_again_and_given_up_after_the_last_attempt():
    found = waiting(one := image())
    for attempt in range(1, 4):
        now = attempt * LEASE
        assert send(found, now) == [one]
        assert one.attempts == attempt
        assert found.next_overdue_at() == now + LEASE
        assert found.give_up(now + LEASE - 0.001) == []
        assert send(found, now + LEASE - 0.001) == []
        assert list(found.give_up(now + LEASE)) == ([one] if attempt == 3 else [])
    assert (found.to_send(999.0), found.next_overdue_at(), list(found.keys)) == ([], None, [])


def test_each_answer_of_the_model_begins_the_lease_again():
    first, second = image(0), image(1)
    found = waiting(first, second, partitions=2)
    send(found, 0.0)
    found.answer(first.key, 50.0)
    assert found.next_overdue_at() == 50.0 + LEASE
    found.show_life("cells", 70.0)
    assert found.next_overdue_at() == 70.0 + LEASE
    found.show_life("cells", 65.0)
    found.show_life("bones", 90.0)
    assert found.next_overdue_at() == 70.0 + LEASE


def test_an_overtaken_image_is_sent_again_a_lease_after_that_however_busy_the_classifier_is():
    lost, answered = image(), image()
    found = waiting(lost, answered)
    send(found, 0.0)
    found.answer(answered.key, 10.0)
    found.show_life("cells", 69.0)
    assert found.next_overdue_at() == 10.0 + LEASE
    assert found.give_up(70.0) == []
    assert send(found, 70.0) == [lost]


def test_an_image_whose_partition_nobody_reads_is_sent_again_in_the_end():
    found = waiting(one := image())
    send(found, 0.0)
    longest = LONGEST_WAIT_IN_LEASES * LEASE
    for now in range(0, int(longest), 30):
        found.show_life("cells", float(now))
        assert found.give_up(float(now)) == []
    assert found.next_overdue_at() == longest
    found.give_up(longest)
    assert send(found, longest) == [one]


def test_what_another_bridge_had_sent_is_not_sent_at_once():
    first, second = image(attempts=2, sent_at=100.0), image(attempts=3, sent_at=101.0)
    found = waiting(unsent := image(), second, first)
    assert (found.are_out, found.to_send(120.0)) == (True, [])
    assert found.give_up(100.0 + LEASE) == []
    assert send(found, 100.0 + LEASE) == [unsent, first]
    assert (unsent.attempts, first.attempts) == (1, 3)
    assert list(found.give_up(101.0 + LEASE)) == [second]


@pytest.mark.parametrize("known", [True, False])
def test_only_an_image_that_waits_here_is_answered(known):
    found = waiting(one := image())
    key = one.key if known else ImageKey(UUID(int=0), UUID(int=0))
    assert found.answer(key, 0.0) is known
    assert found.answer(one.key, 0.0) is not known


# ---- any order of events -----------------------------------------------------------------------------------------------------------
class Classifiers(RuleBasedStateMachine):
    """Chunks come, images are sent, answered by classifiers that skip some, dropped, and given up; time passes."""

    def __init__(self):
        super().__init__()
        self.limits, self.now, self.partitions = BridgeLimits(window=3, lease_seconds=10.0, attempts=2), 0.0, 2
        self.found = WaitingImages(self.limits, partitions=self.partitions)
        self.numbers = count()
        self.open, self.sent, self.times_sent = {}, defaultdict(list), Counter()

    @rule(partitions=st.lists(st.integers(0, 1), min_size=1, max_size=6), model=st.sampled_from(["cells", "bones"]), urgent=st.booleans())
    def add(self, partitions, model, urgent):
        keys = [ImageKey(UUID(int=0), UUID(int=next(self.numbers))) for _ in partitions]
        images = [image(partition, key=key, model_name=model, urgent=urgent) for partition, key in zip(partitions, keys, strict=True)]
        self.found.add(images)
        self.open |= {one.key: one for one in images}

    @rule()
    def send(self):
        images = self.found.to_send(self.now)
        ahead = Counter(
            (one.model_name, one.partition) for one in self.open.values() if one.sent_at is not None and one.overtaken_at is None
        )
        for one in images:
            assert self.open[one.key] is one
            assert one.sent_at is None
            ahead[one.model_name, one.partition] += 1
            assert ahead[one.model_name, one.partition] <= self.limits.window
        self.found.mark_sent(images, self.now)
        for one in images:
            self.sent[one.model_name, one.partition].append(one)
            self.times_sent[one.key] += 1
            assert self.times_sent[one.key] <= self.limits.attempts

    @precondition(lambda self: any(self.sent.values()))
    @rule(data=st.data())
    def answer(self, data):
        place = data.draw(st.sampled_from(sorted(place for place, images in self.sent.items() if images)))
        one = data.draw(st.sampled_from(self.sent[place]))
        del self.sent[place][: self.sent[place].index(one) + 1]
        assert self.found.answer(one.key, self.now) is (self.open.pop(one.key, None) is not None)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def drop(self, data):
        key = data.draw(st.sampled_from(sorted(self.open)))
        del self.open[key]
        self.found.discard(key)

    @rule(seconds=st.sampled_from([0.0, 1.0, 4.0, 9.9, 11.0, 200.0]))
    def pass_time(self, seconds):
        self.now += seconds

    @rule()
    def give_up(self):
        for one in self.found.give_up(self.now):
            assert self.times_sent[one.key] == self.limits.attempts
            del self.open[one.key]
        due = self.found.next_overdue_at()
        assert due is None or due > self.now

    @invariant()
    def exactly_the_open_images_wait(self):
        assert set(self.found.keys) == set(self.open)
        assert self.found.model_names == {one.model_name for one in self.open.values()}

    @invariant()
    def every_image_that_was_sent_is_overdue_at_some_time(self):
        out = [one for one in self.open.values() if one.sent_at is not None]
        assert self.found.are_out is bool(out)
        due = self.found.next_overdue_at()
        assert (due is None) is (not out)
        assert due is None or due <= min(one.sent_at for one in out) + LONGEST_WAIT_IN_LEASES * self.limits.lease_seconds

    def teardown(self):
        """Whatever has happened, all images are sent often enough and given up."""
        for _ in range(200):
            self.send()
            self.now += 200.0
            self.give_up()
            if not self.open:
                return
        raise AssertionError(f"{len(self.open)} images wait for ever")


TestClassifiers = Classifiers.TestCase
TestClassifiers.settings = hypothesis(max_examples=150, stateful_step_count=40, deadline=None)
