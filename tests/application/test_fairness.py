"""How long the work of one person delays that of another, computed with the dispatch policy alone and simulated workers."""

from collections import deque
from datetime import timedelta
from uuid import UUID, uuid4

from application.jobs.dispatch_policy import chunk_capacity, fair_share
from application.jobs.tasks import Kind
from application.jobs.work_queue import Chunk, Lease, OpenJob
from domain.classification import Priority
from tests.given import NOW

ADA, BOB = UUID(int=1), UUID(int=2)
SECONDS_PER_IMAGE = 0.03
TURN_SECONDS = 0.05  # from an answer until the scheduler has seen it and sent the next task
IMAGES = 64


class Simulation:
    """Jobs over single images, which one slot of a worker answers in the order in which they were sent. Time is in seconds."""

    def __init__(self):
        self.now, self.free_at = 0.0, 0.0
        self.open, self.sent, self.requested, self.answered = {}, deque(), {}, {}

    def request(self, person, *, priority=Priority.NORMAL):
        chunk = Chunk(id=uuid4(), number=0)
        job = OpenJob(
            id=uuid4(), position=len(self.requested) + 1, image_id=uuid4(), created_by=person, waiting=(chunk,), priority=priority
        )
        self.open[job.id], self.requested[job.id] = job, self.now
        return job.id

    def run(self, seconds, *, each_turn=lambda: None):
        until = self.now + seconds
        while self.now < until:
            each_turn()
            self._turn()
            self.now += TURN_SECONDS

    def _turn(self):
        while self.sent and self.sent[0][1] <= self.now:
            job, at = self.sent.popleft()
            self.answered[job.id] = at
        leases = [lease_of(job) for job, _ in self.sent]
        capacity = chunk_capacity(leases, urgent=True, slots=1)
        for job, _ in fair_share(list(self.open.values()), leases, capacity=capacity, one_each=True):
            self.free_at = max(self.free_at, self.now) + SECONDS_PER_IMAGE
            self.sent.append((self.open.pop(job.id), self.free_at))

    def waited(self, job):
        return self.answered[job] - self.requested[job]


def lease_of(job):
    about = {"kind": Kind.CLASSIFY, "number": 0, "urgent": True, "attempts": 1, "abandoned": False}
    return Lease(id=uuid4(), job=job.id, created_by=job.created_by, held_at=NOW + timedelta(), **about)


def test_a_thousand_single_images_of_one_person_delay_one_of_another_by_less_than_a_fifth_of_a_second():
    simulation = Simulation()
    of_ada = [simulation.request(ADA) for _ in range(1000)]
    simulation.run(1.0)
    of_bob = []

    def now_and_then():
        if len(of_bob) < 100 and len(of_bob) < (simulation.now - 1) / 0.23:
            of_bob.append(simulation.request(BOB))

    simulation.run(40.0, each_turn=now_and_then)
    alone = SECONDS_PER_IMAGE
    delays = sorted(simulation.waited(job) - alone for job in of_bob)
    assert len(delays) == 100
    assert delays[98] < 0.2
    assert len(simulation.answered) == len(of_ada) + len(of_bob)


def test_a_slot_is_kept_busy_while_its_share_is_limited():
    simulation = Simulation()
    for _ in range(1000):
        simulation.request(ADA)
    simulation.run(20.0)
    assert len(simulation.answered) > 0.9 * 20.0 / SECONDS_PER_IMAGE


def test_a_person_of_higher_priority_comes_first_among_ones_own_jobs_only():
    simulation = Simulation()
    for _ in range(50):
        simulation.request(ADA)
    of_bob, urgent = simulation.request(BOB), simulation.request(ADA, priority=Priority.HIGH)
    simulation.run(3.0)
    assert simulation.answered[of_bob] <= simulation.answered[urgent]
    assert sum(at < simulation.answered[urgent] for at in simulation.answered.values()) <= 5
