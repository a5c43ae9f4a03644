"""The job scheduler: its decisions on rows, and its work on Postgres."""

import json
from datetime import timedelta
from functools import partial
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.jobs.dispatch_policy import (
    check,
    check_capacity,
    chunk_capacity,
    classify,
    expired_leases,
    fair_share,
    inspect,
    inspection_capacity,
    live_slots,
)
from application.jobs.job_scheduler import Scheduler, SchedulerLimits
from application.jobs.planner import PlanningLimits
from application.jobs.tasks import Kind, Task, decode, encode
from application.jobs.topics import BULK, EXTERNAL, URGENT
from application.jobs.work_queue import Chunk, Lane, Lease, OpenJob, Worker
from domain import classification, image
from domain.access import Role
from domain.classification import ChunkJudged, JobStatus, Priority
from domain.model_check import ModelCheckFailed, ModelCheckPassed, ModelPackageUploaded
from infrastructure.postgres.system.work_queue import PostgresWorkQueue
from projections.engine import postgres_store
from tests.given import NOW
from tests.rigs.scenario import SHA256
from tests.rigs.waiting import wait_until

LEASE = timedelta(seconds=60)
ONE_IMAGE_CHUNKS = SchedulerLimits(PlanningLimits(images_per_command=1), seconds_per_tick=60)  # each part of a plan has chunks of its own


# ---- decisions -------------------------------------------------------------------------------------------------------------------
ADA, BOB = uuid4(), uuid4()


def open_job(position=1, *, by=ADA, chunks=3, image_id=None, priority=Priority.NORMAL, external=False):
    waiting = tuple(Chunk(id=uuid4(), number=number) for number in range(chunks))
    about = {"image_id": image_id, "created_by": by, "priority": priority, "external": external}
    return OpenJob(id=uuid4(), position=position, waiting=waiting, **about)


def release(*, kind=Kind.CLASSIFY, job=None, by=ADA, ago=0, urgent=False, abandoned=False, external=False):
    at = NOW - timedelta(seconds=ago)
    about = {"kind": kind, "job": job, "number": 0, "urgent": urgent, "attempts": 1, "held_at": at, "abandoned": abandoned}
    return Lease(id=uuid4(), created_by=by, external=external, **about)


def worker(seconds, slots=1, lane="bulk"):
    return Worker(seen_at=NOW - timedelta(seconds=seconds), slots=slots, lane=lane)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.integers(0, 20))
def test_no_job_gets_a_second_chunk_before_each_waiting_one_has_its_first(counts, capacity):
    jobs = [open_job(position, chunks=count) for position, count in enumerate(counts)]
    chosen = fair_share(jobs, [], capacity=capacity)
    assert len(chosen) == min(capacity, sum(counts))
    got = {job.id: [chunk.number for other, chunk in chosen if other is job] for job in jobs}
    for job, count in zip(jobs, counts, strict=True):
        assert got[job.id] == list(range(len(got[job.id])))
        assert len(got[job.id]) == count or len(got[job.id]) >= max(map(len, got.values())) - 1


def test_a_job_with_chunks_in_flight_waits_for_those_with_none():
    busy, idle = open_job(1), open_job(2)
    chosen = fair_share([busy, idle], [release(job=busy.id), release(job=busy.id)], capacity=3)
    assert [job is idle for job, _ in chosen] == [True, True, False]


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.sampled_from(Priority)), max_size=8),
    st.lists(st.integers(0, 2), max_size=6),
    st.integers(0, 20),
)
def test_people_get_equal_shares_whatever_the_number_and_priority_of_their_jobs(asked, in_flight, capacity):
    people = [uuid4() for _ in range(3)]
    jobs = [open_job(position, by=people[of], chunks=count, priority=rank) for position, (of, count, rank) in enumerate(asked)]
    chosen = fair_share(jobs, [release(by=people[of]) for of in in_flight], capacity=capacity)
    waiting = {one: sum(len(job.waiting) for job in jobs if job.created_by == one) for one in people}
    got = {one: sum(job.created_by == one for job, _ in chosen) for one in people}
    has = {one: got[one] + sum(people[of] == one for of in in_flight) for one in people}
    assert len(chosen) == min(capacity, sum(waiting.values()))
    for one in people:
        others = [has[other] for other in people if got[other]]
        assert got[one] == waiting[one] or all(has[one] >= other - 1 for other in others)


def test_ones_own_jobs_go_by_priority_and_those_of_others_wait_no_longer_for_it():
    low, high = open_job(1, priority=Priority.LOW, chunks=2), open_job(2, priority=Priority.HIGH, chunks=2)
    normal, other = open_job(3, chunks=1), open_job(4, by=BOB, priority=Priority.LOW, chunks=2)
    chosen = fair_share([low, high, normal, other], [], capacity=9)
    assert [job for job, _ in chosen if job.created_by == ADA] == [high, high, normal, low, low]
    assert [job for job, _ in chosen].index(other) == 1


def test_a_person_with_nothing_in_flight_gets_one_chunk_beyond_the_capacity():
    ada, bob = open_job(1, chunks=3), open_job(2, by=BOB, chunks=3)
    busy = [release(by=ADA) for _ in range(4)]
    assert fair_share([ada, bob], busy, capacity=0) == []
    assert fair_share([ada, bob], busy, capacity=0, one_each=True) == [(bob, bob.waiting[0])]
    assert fair_share([ada, bob], busy, capacity=2, one_each=True) == [(bob, bob.waiting[0]), (bob, bob.waiting[1])]


def test_a_slot_has_room_for_four_chunks_of_datasets_and_64_inspections_and_single_images_take_none():
    given = [release(), release(), release(urgent=True), release(kind=Kind.INSPECT)]
    assert (chunk_capacity(given, slots=1), chunk_capacity(given, slots=3)) == (2, 10)
    assert chunk_capacity(given, urgent=True, slots=2) == 7
    assert inspection_capacity(given, slots=1) == 63


def test_only_workers_of_the_bulk_lane_seen_lately_count_and_one_is_always_assumed():
    assert live_slots([worker(1, 2), worker(9, 3), worker(11, 5), worker(0, 7, "urgent")], now=NOW) == 5
    assert live_slots([worker(1, 2), worker(0, 7, "urgent")], lane="urgent", now=NOW) == 7
    assert live_slots([], now=NOW) == 1


@pytest.mark.parametrize(
    ("ago", "beat_ago", "is_lost"),
    [(61, 0, True), (59, 0, False), (61, None, False), (61, 62, False), (3600, 3599, True)],
)
def test_work_is_lost_when_its_lease_is_over_and_a_worker_has_lived_since(ago, beat_ago, is_lost):
    workers = [] if beat_ago is None else [worker(beat_ago), worker(7200)]
    given = release(ago=ago)
    assert expired_leases([given], workers, duration=LEASE, now=NOW) == ([given] if is_lost else [])
    assert expired_leases([release(ago=ago, abandoned=True)], workers, duration=LEASE, now=NOW) == []


@pytest.mark.parametrize("external", [True, False])
def test_only_a_bridge_loses_the_chunks_of_external_classifiers_and_only_a_worker_the_others(external):
    """While no bridge runs, its tasks wait in Kafka, however many workers run."""
    given, others = release(ago=61, external=external), release(ago=61, external=not external)
    live = worker(0, lane="external" if external else "bulk")
    assert expired_leases([given, others], [live], duration=LEASE, now=NOW) == [given]


@pytest.mark.parametrize("image_id", [None, uuid4()])
def test_chunks_of_external_classifiers_go_to_the_bridge(image_id):
    job = open_job(image_id=image_id, external=True)
    assert classify(job, job.waiting[0]).topic == EXTERNAL


@pytest.mark.parametrize(
    ("lane", "workers"),
    [
        (Lane(urgent=False), "bulk"),
        (Lane(urgent=True), "urgent"),
        (Lane(urgent=False, external=True), "external"),
        (Lane(urgent=True, external=True), "external"),
    ],
)
def test_each_lane_has_the_capacity_of_its_workers(lane, workers):
    assert lane.workers == workers
    assert release(urgent=lane.urgent, external=lane.external).lane == lane


def test_when_the_clock_is_set_back_a_day_work_in_flight_is_lost_and_beats_from_before_count_for_nothing():
    ahead = -86400
    assert expired_leases([given := release(ago=ahead)], [worker(0)], duration=LEASE, now=NOW) == [given]
    assert expired_leases([release(ago=ahead)], [worker(ahead)], duration=LEASE, now=NOW) == []
    assert expired_leases([release(ago=-1)], [worker(0)], duration=LEASE, now=NOW) == []
    assert live_slots([worker(ahead, 5), worker(0, 2)], now=NOW) == 2


def test_a_task_is_only_a_reference_and_survives_its_way_through_kafka():
    job, image_id = open_job(), uuid4()
    task = classify(job, Chunk(id=uuid4(), number=7), attempt=2).task
    (inspection,) = (outgoing.task for outgoing in inspect([image_id]))
    assert json.loads(encode(task)) == {"kind": "classify", "attempt": 2, "job": str(job.id), "number": 7}
    assert json.loads(encode(inspection)) == {"kind": "inspect", "image_ids": [str(image_id)]}
    assert (decode(encode(task)), decode(encode(inspection))) == (task, inspection)


def test_of_a_task_of_the_first_release_only_the_references_are_taken():
    job, image_id = uuid4(), uuid4()
    carried = {"images": [{"id": str(image_id), "sha256": SHA256}], "attempt": 2, "dataset": None, "model_name": "", "threshold": 0.0}
    classify_it = decode(json.dumps(carried | {"kind": "classify", "job": str(job), "number": 3}).encode())
    inspect_it = decode(json.dumps(carried | {"kind": "inspect", "job": None, "number": None}).encode())
    assert classify_it == Task(kind=Kind.CLASSIFY, job=job, number=3, attempt=2)
    assert inspect_it == Task(kind=Kind.INSPECT, image_ids=(image_id,), attempt=2)


@pytest.mark.parametrize(
    "incomplete", ['{"kind": "classify"}', '{"kind": "inspect"}', '{"kind": "check"}', '{"kind": "classify", "number": 3}']
)
def test_a_task_that_refers_to_nothing_is_none(incomplete):
    with pytest.raises(msgspec.ValidationError):
        decode(incomplete.encode())


def test_inspections_go_out_in_bursts_of_sixteen():
    assert [len(outgoing.task.work) for outgoing in inspect([uuid4() for _ in range(40)])] == [16, 16, 8]


def test_few_packages_are_checked_at_once():
    given = [release(kind=Kind.CHECK), release(kind=Kind.INSPECT), release()]
    assert check_capacity(given, [], now=NOW) == 1
    assert check_capacity(given, [worker(1, 8), worker(2, 8), worker(60, 8), worker(0, 1, "urgent")], now=NOW) == 3


def test_a_check_is_a_reference_too():
    check_id = uuid4()
    outgoing = check(check_id, attempt=2)
    assert (outgoing.topic, outgoing.task.work) == (BULK, (check_id,))
    assert json.loads(encode(outgoing.task)) == {"kind": "check", "attempt": 2, "check_id": str(check_id)}
    assert decode(encode(outgoing.task)) == outgoing.task


# ---- at work ---------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def scheduler_limits():
    return SchedulerLimits(seconds_per_tick=60)


@pytest.fixture
def scheduler(app_url, log, scheduler_limits):
    connect = partial(postgres_store.connect, app_url)
    scheduler = Scheduler(lambda: PostgresWorkQueue(connect()), log, lease=60, attempts=2, limits=scheduler_limits)
    yield scheduler
    scheduler.close()


@pytest.fixture
def step(scenario, scheduler):
    """Read models up to date, the scheduler's turn, and what it gives out."""

    def step(*, remember=True):
        scenario.follow()
        given = scheduler.tick()
        if remember:
            scheduler.dispatched(given)
        scenario.follow()
        return given

    return step


def beat(connection, slots=1):
    connection.execute(
        "insert into ops.workers values ('w', clock_timestamp(), %s, 'bulk') on conflict (id) do update set seen_at = excluded.seen_at",
        (slots,),
    )


def wait_past_the_lease(connection):
    connection.execute("update ops.releases set released_at = released_at - interval '2 minutes'")
    beat(connection)


def classified(given):
    return [outgoing for outgoing in given if outgoing.task.kind is Kind.CLASSIFY]


def phase(log, job):
    return log.load(job, classification.evolve).phase


def test_a_plan_covers_exactly_the_images_that_were_there_and_good_when_it_was_asked_for(scenario, step, connection):
    ada = scenario.user()
    scenario.model()
    cells, worms = scenario.dataset(ada), scenario.dataset(ada)
    good = [scenario.image(ada, cells) for _ in range(15)]
    rejected, deleted = scenario.image(ada, cells), scenario.image(ada, cells)
    scenario.image(ada, worms)
    scenario.reject(rejected)
    job = scenario.job(ada, dataset=cells)
    late = scenario.image(ada, cells)
    scenario.delete_image(ada, deleted)
    step()
    planned = scenario.log.load(job, classification.evolve)
    assert (planned.images, planned.chunks, planned.planned) == (15, 2, True)
    covered = [
        UUID(one["id"])
        for (images,) in connection.execute("select images from work where job = %s order by number", (job,))
        for one in images
    ]
    assert covered == good
    assert late not in covered


@pytest.mark.parametrize("scheduler_limits", [SchedulerLimits(PlanningLimits(images_per_command=2), seconds_per_tick=60)])
def test_a_big_plan_goes_on_where_a_crash_left_it(scenario, step):
    ada = scenario.user()
    scenario.model()
    cells = scenario.dataset(ada)
    found = [scenario.image(ada, cells) for _ in range(5)]
    job = scenario.job(ada, dataset=cells)
    scenario.plan(job, found[:2], more=True)
    step()
    parts = [scenario.log.decode(one) for one in scenario.log.history(job)[1:]]
    assert [(part.part, part.first_chunk, len(part.images), part.last) for part in parts] == [
        (0, 0, 2, False),
        (1, 1, 2, False),
        (2, 2, 1, True),
    ]
    assert [one.id for part in parts for one in part.images] == found


def test_a_job_over_an_empty_dataset_fails_with_a_reason(scenario, step, log):
    ada = scenario.user()
    scenario.model()
    job = scenario.job(ada, dataset=scenario.dataset(ada))
    step()
    assert phase(log, job) is JobStatus.FAILED


def test_a_dataset_job_runs_from_request_to_end(scenario, step, log, connection):
    ada = scenario.user()
    scenario.model()
    cells = scenario.dataset(ada)
    found = [scenario.image(ada, cells) for _ in range(15)]
    job = scenario.job(ada, dataset=cells)
    step()
    given = classified(step())
    assert [(outgoing.topic, outgoing.task.number) for outgoing in given] == [(BULK, 0), (BULK, 1)]
    assert classified(step()) == []
    scenario.judge(job, 0, found[:8])
    scenario.judge(job, 1, found[8:14], found[14:])
    step()
    assert phase(log, job) is JobStatus.COMPLETED
    step()
    row = connection.execute("select status, succeeded, failed from classifications").fetchone()
    assert row == ("completed", 14, 1)
    assert connection.execute("select count(*) from ops.releases r join work w on w.id = r.id where w.job is not null").fetchone() == (0,)


def test_a_single_image_goes_out_at_once_on_the_urgent_topic(scenario, step):
    ada = scenario.user()
    scenario.model()
    job = scenario.job(ada, image=scenario.image(ada, scenario.dataset(ada)))
    (outgoing,) = classified(step())
    assert (outgoing.topic, outgoing.task) == (URGENT, Task(kind=Kind.CLASSIFY, job=job, number=0))


@pytest.mark.parametrize("scheduler_limits", [ONE_IMAGE_CHUNKS])
def test_at_most_four_chunks_a_slot_are_given_out_and_jobs_take_turns(scenario, step, connection):
    ada = scenario.user()
    scenario.model()
    cells = scenario.dataset(ada)
    for _ in range(8):
        scenario.image(ada, cells)
    first, second = scenario.job(ada, dataset=cells), scenario.job(ada, dataset=cells)
    step()
    given = classified(step())
    assert [outgoing.task.job for outgoing in given] == [first, second, first, second]
    beat(connection, slots=2)
    assert len(classified(step())) == 4


def test_uploaded_images_are_inspected_and_inspected_ones_are_not_asked_for_again(scenario, step):
    ada = scenario.user()
    cells = scenario.dataset(ada)
    first, second = scenario.image(ada, cells), scenario.image(ada, cells)
    (outgoing,) = step()
    assert (outgoing.topic, outgoing.task.kind, outgoing.task.work) == (BULK, Kind.INSPECT, (first, second))
    scenario.accept(first)
    scenario.reject(second)
    assert step() == []


def test_what_was_sent_and_not_remembered_is_sent_again(scenario, step):
    scenario.image(ada := scenario.user(), scenario.dataset(ada))
    assert step(remember=False) == step() != []
    assert step() == []


def test_a_chunk_that_nobody_answers_for_is_given_out_again_and_then_the_job_ends_all_the_same(scenario, step, log, connection):
    ada = scenario.user()
    scenario.model()
    cells = scenario.dataset(ada)
    found = [scenario.image(ada, cells) for _ in range(3)]
    for one in found:
        scenario.accept(one)
    job = scenario.job(ada, dataset=cells)
    step()
    assert [outgoing.task.attempt for outgoing in step()] == [1]
    wait_past_the_lease(connection)
    assert [outgoing.task.attempt for outgoing in step()] == [2]
    wait_past_the_lease(connection)
    assert step() == []
    step()
    assert phase(log, job) is JobStatus.FAILED
    reasons = connection.execute("select reason, count(*) from failures group by reason").fetchall()
    assert reasons == [("worker_lost", 3)]


def test_work_waits_for_a_worker_as_long_as_there_is_none(scenario, step, log, connection):
    ada = scenario.user()
    scenario.model()
    job = scenario.job(ada, image=scenario.image(ada, scenario.dataset(ada)))
    step()
    connection.execute("update ops.releases set released_at = released_at - interval '1 day'")
    assert step() == []
    assert phase(log, job) is JobStatus.RUNNING


def test_an_image_that_no_worker_survives_is_rejected_wait_until(scenario, step, log, connection):
    deadly = scenario.image(ada := scenario.user(), scenario.dataset(ada))
    step()
    wait_past_the_lease(connection)
    assert [outgoing.task.attempt for outgoing in step()] == [2]
    wait_past_the_lease(connection)
    step()
    assert log.load(deadly, image.evolve).rejected == "inspection_failed"


def test_an_image_that_is_renamed_while_it_is_given_up_is_rejected_all_the_same(scenario, step, log, connection, monkeypatch):
    deadly = scenario.image(ada := scenario.user(), scenario.dataset(ada))
    step()
    wait_past_the_lease(connection)
    step()
    wait_past_the_lease(connection)
    scenario.follow()
    load, renamed = log.load, []

    def load_then_rename(stream, evolve, **how):
        found = load(stream, evolve, **how)
        if stream == deadly and not renamed:
            renamed.append(stream)
            log.append(scenario.command(ada), *image.describe(found, filename="renamed.png", by=ada.id, at=scenario.now))
        return found

    monkeypatch.setattr(log, "load", load_then_rename)
    step()
    state = load(deadly, image.evolve)
    assert (state.filename, state.rejected) == ("renamed.png", "inspection_failed")


def test_an_answer_that_comes_late_is_the_only_one(scenario, step, log, scheduler, connection):
    ada = scenario.user()
    scenario.model()
    only = scenario.image(ada, scenario.dataset(ada))
    job = scenario.job(ada, image=only)
    step()
    for _ in range(2):
        wait_past_the_lease(connection)
        scheduler.dispatched(scheduler.tick())
    scenario.follow()
    with pytest.raises(Exception, match="Somebody else"):
        scenario.judge(job, 0, [only])
    judged = [one for one in log.read(0, 100) if one.type == ChunkJudged.__name__]
    assert len(judged) == 1


@pytest.mark.parametrize("scheduler_limits", [ONE_IMAGE_CHUNKS])
def test_nothing_more_is_given_out_for_cancelled_and_deleted_jobs_images_and_datasets(scenario, step, log):
    ada = scenario.user()
    scenario.model()
    cells, gone = scenario.dataset(ada), scenario.dataset(ada)
    found = [scenario.image(ada, cells) for _ in range(6)]
    drowned = [scenario.image(ada, gone) for _ in range(2)]
    for one in (*found, *drowned):
        scenario.accept(one)
    cancelled, deleted, orphan = scenario.job(ada, dataset=cells), scenario.job(ada, dataset=cells), scenario.job(ada, dataset=gone)
    step()
    scenario.cancel(ada, cancelled)
    scenario.delete_job(ada, deleted)
    scenario.delete_dataset(ada, gone)
    assert step() == []
    step()
    assert phase(log, orphan) is JobStatus.CANCELLED
    single = scenario.job(ada, image=found[0])
    scenario.delete_image(ada, found[0])
    assert step() == []
    step()
    assert phase(log, single) is JobStatus.FAILED


def checks_of(given):
    return [outgoing.task for outgoing in given if outgoing.task.kind is Kind.CHECK]


def test_uploaded_packages_are_checked_two_at_a_time_and_only_until_they_are_answered(scenario, step, connection):
    ada = scenario.user()
    first, second, third = (scenario.package(ada) for _ in range(3))
    assert [task.check_id for task in checks_of(step())] == [first, second]
    assert step() == []
    scenario.pass_check(first)
    assert [task.check_id for task in checks_of(step())] == [third]
    scenario.fail_check(second)
    scenario.fail_check(third)
    assert step() == []
    assert connection.execute("select count(*) from work where kind = 'check'").fetchone() == (0,)


def test_a_version_is_checked_again_when_somebody_asks(scenario, step):
    ada = scenario.user()
    scenario.pass_check(scenario.package(ada))
    again = scenario.test_model(ada, 1)
    assert [task.check_id for task in checks_of(step())] == [again]


def test_a_package_that_no_worker_survives_is_refused(scenario, step, log, connection):
    ada = scenario.user()
    deadly = scenario.package(ada)
    step()
    wait_past_the_lease(connection)
    assert [task.attempt for task in checks_of(step())] == [2]
    wait_past_the_lease(connection)
    assert step() == []
    (*_, answer) = [log.decode(one) for one in log.history(deadly)]
    assert (type(answer), answer.code, answer.environment) == (ModelCheckFailed, "worker_lost", None)
    step()
    assert connection.execute("select status, code from model_checks").fetchall() == [("failed", "worker_lost")]


def test_a_package_that_was_checked_while_it_was_given_up_keeps_its_answer(scenario, step, scheduler, log, connection):
    late = scenario.package(scenario.user())
    step()
    wait_past_the_lease(connection)
    step()
    wait_past_the_lease(connection)
    scenario.follow()
    scenario.pass_check(late)
    scheduler.dispatched(scheduler.tick())
    assert [type(log.decode(one)) for one in log.history(late)] == [ModelPackageUploaded, ModelCheckPassed]


def test_leases_of_answered_checks_are_deleted(scenario, step, scheduler, connection):
    done, open_still = scenario.package(ada := scenario.user()), scenario.package(ada)
    step()
    scenario.fail_check(done)
    scenario.follow()
    scheduler._work.delete_done()
    assert connection.execute("select id from ops.releases").fetchall() == [(open_still,)]


def test_a_scheduler_is_idle_while_no_work_is_open(scenario, scheduler, step):
    step()
    assert scheduler.is_idle
    scenario.image(ada := scenario.user(Role.RESEARCHER), scenario.dataset(ada))
    assert step() != []
    assert not scheduler.is_idle
    assert step() == []
    assert not scheduler.is_idle  # what was given out may be lost


def test_whoever_waits_for_tasks_is_woken_after_they_were_noted(scenario, app_url, log):
    woken = []
    scheduler = Scheduler(
        lambda: PostgresWorkQueue(postgres_store.connect(app_url), on_dispatched=lambda: woken.append("woken")), log, lease=60, attempts=2
    )
    scenario.image(ada := scenario.user(Role.RESEARCHER), scenario.dataset(ada))
    scenario.follow()
    given = scheduler.tick()
    assert woken == []
    scheduler.dispatched(given)
    assert woken == ["woken"]
    scheduler.close()


def test_only_one_scheduler_leads_and_another_takes_over(scenario, app_url, log):
    scenario.image(ada := scenario.user(Role.RESEARCHER), scenario.dataset(ada))
    scenario.follow()
    first, second = (Scheduler(lambda: PostgresWorkQueue(postgres_store.connect(app_url)), log, lease=60, attempts=2) for _ in range(2))
    assert first.tick() != []
    assert second.tick() == []
    first.close()
    assert wait_until(second.tick)
    second.close()
