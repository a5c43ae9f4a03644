"""The contract of read models and the work queue: Postgres and the in-memory twins."""

import os
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import uuid4

import msgspec
import psycopg
import pytest

from application.jobs.job_scheduler import Scheduler, SchedulerLimits
from application.jobs.planner import PlanningLimits
from application.jobs.tasks import Kind
from application.jobs.topics import BULK, EXTERNAL
from application.jobs.work_queue import Lane, Worker
from domain import classification, model_check
from domain import image as image_of
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.postgres.system.work_queue import PostgresWorkQueue
from infrastructure.postgres.system.workers import RENEW
from infrastructure.security.keys import RootKey
from projections.engine import postgres_store
from projections.engine.batches import FOLD_VERSIONS, TABLES, Changes, PoisonEvent
from projections.engine.checkpoints import Checkpoint, CheckpointConflict, FoldsDiffer, NotInLog
from projections.engine.postgres_store import PostgresReadModels
from projections.engine.projection import TableChanges
from projections.engine.projector import Projector
from projections.process.composition import LogDecoder
from tests.rigs.scenario import Scenario, record_full_history
from tests.twins.event_store import MemoryRecorder
from tests.twins.read_models import MemoryDatabase, MemoryModels, MemoryWork

ROOT = RootKey(os.urandom(32))


class MirroredRecorder(MemoryRecorder):
    """In memory, where chunks can be small, and copied into the table with whose hashes Postgres compares the checkpoint."""

    def __init__(self, owner_url):
        super().__init__(ROOT)
        self._owner = psycopg.connect(owner_url, autocommit=True, options="-c session_replication_role=replica")

    def close(self):
        self._owner.close()

    def insert(self, events, append):
        before = self.max_notification_id() or 0
        outcome = super().insert(events, append)
        for one in self.select_recorded(before, len(events)):
            stored = (one.position, one.stream, one.version, one.type, one.schema_version, one.data, one.meta, one.event_id)
            self._owner.execute(f"insert into es.events values ({', '.join(10 * ['%s'])})", (*stored, one.recorded_at, one.hash))
        return outcome


class InPostgres:
    def __init__(self, url, owner_url):
        self._url = url
        self.log = RecorderEventStore(MirroredRecorder(owner_url), ROOT)
        self._look = psycopg.connect(url, autocommit=True, options="-c search_path=read -c timezone=UTC")

    def close(self):
        self._look.close()
        self.log.close()

    def models(self):
        return PostgresReadModels(postgres_store.connect(self._url))

    def work(self):
        return PostgresWorkQueue(postgres_store.connect(self._url))

    def rows(self, table):
        (found,) = self._look.execute(f"select coalesce(json_agg(t), '[]')::text from {table.name} t").fetchone()
        return msgspec.json.decode(found, type=list[table.row])

    def beat(self, slots=1, lane="bulk"):
        self._look.execute(
            "insert into ops.workers values (%s, clock_timestamp(), %s, %s) on conflict (id) do update set seen_at = excluded.seen_at",
            (lane, slots, lane),
        )

    def let_leases_end(self, lane="bulk"):
        ago = "- interval '2 minutes'"
        self._look.execute(f"update ops.releases set released_at = released_at {ago}, held_at = held_at {ago}")
        self.beat(lane=lane)

    def hold(self, *work):
        self._look.execute(RENEW, (list(work),))

    @property
    def folds(self):
        return dict(self._look.execute("select name, version from folds").fetchall())

    def fold_by(self, name, version):
        self._look.execute("update folds set version = %s where name = %s", (version, name))


class InMemory:
    """`checked`: its log is the one that its read models are made from."""

    def __init__(self, *, checked=True):
        recorder = MemoryRecorder(ROOT)
        self.log, self._database = RecorderEventStore(recorder, ROOT), MemoryDatabase(log_hash=recorder.hash_at if checked else None)

    def close(self):
        pass

    def models(self):
        return MemoryModels(self._database)

    def work(self):
        return MemoryWork(self._database)

    def rows(self, table):
        return list(self._database.tables[table.name].values())

    def beat(self, slots=1, lane="bulk"):
        self._database.workers[lane] = Worker(seen_at=datetime.now(UTC), slots=slots, lane=lane)

    def let_leases_end(self, lane="bulk"):
        for given in self._database.releases.values():
            given.released_at -= timedelta(minutes=2)
            given.held_at = given.held_at and given.held_at - timedelta(minutes=2)
        self.beat(lane=lane)

    def hold(self, *work):
        for one in work:
            self._database.releases[one].held_at = datetime.now(UTC)

    @property
    def folds(self):
        return self._database.folds

    def fold_by(self, name, version):
        self._database.folds[name] = version


@pytest.fixture(params=["memory", "postgres"])
def stood(request):
    """Where the read models stand."""
    stood = (
        InMemory() if request.param == "memory" else InPostgres(request.getfixturevalue("app_url"), request.getfixturevalue("owner_url"))
    )
    yield stood
    stood.close()


@pytest.fixture
def scenario(stood):
    projector = Projector(stood.models, LogDecoder(stood.log))
    yield Scenario(stood.log, projector)
    projector.close()


@pytest.fixture
def checkpoint(scenario):
    """At a position of a log of four events."""
    for _ in range(4):
        scenario.user()

    def at(position, *kafka):
        (event,) = scenario.log.read(position - 1, 1)
        return Checkpoint(position, *kafka)._replace(hash=event.hash)

    return at


def by_key(table, rows):
    return {tuple(str(getattr(row, name)) for name in table.key): row for row in rows}


def test_the_same_events_leave_the_same_rows_in_both(app_url, owner_url):
    places = [InMemory(checked=False), InPostgres(app_url, owner_url)]
    log = places[1].log
    record_full_history(Scenario(log, None))
    for stood, batch in zip(places, (7, 50), strict=True):
        projector = Projector(stood.models, LogDecoder(log))
        Scenario(log, projector).follow(batch=batch)
        projector.close()
    for table in TABLES:
        memory, postgres = (by_key(table, stood.rows(table)) for stood in places)
        assert memory == postgres
        assert memory
    places[1].close()


def test_who_lost_the_checkpoint_writes_nothing(stood, checkpoint):
    first, second = stood.models(), stood.models()
    before = second.read_checkpoint()
    letter = PoisonEvent(1, uuid4(), "ImageUploaded", "torn")
    first.write(before, checkpoint(1), Changes())
    with pytest.raises(CheckpointConflict):
        second.write(before, checkpoint(2), Changes(dead_letters=[letter]))
    assert second.parked_events().dead_letters == {}
    assert second.read_checkpoint().checkpoint.position == 1
    first.close()
    second.close()


def test_what_the_log_does_not_hold_is_refused(stood, checkpoint):
    models = stood.models()
    letter = PoisonEvent(1, uuid4(), "ImageUploaded", "torn")
    untrue = [checkpoint(1)._replace(hash=checkpoint(2).hash), checkpoint(4)._replace(position=5), Checkpoint(1)]
    for at in untrue:
        with pytest.raises(NotInLog):
            models.write(models.read_checkpoint(), at, Changes(dead_letters=[letter]))
    assert models.parked_events().dead_letters == {}
    assert models.read_checkpoint().checkpoint == Checkpoint(0)
    models.write(models.read_checkpoint(), checkpoint(1), Changes(dead_letters=[letter]))
    models.close()


def test_the_cluster_is_kept_until_another_is_named_and_generations_differ(stood, checkpoint):
    models = stood.models()
    models.write(models.read_checkpoint(), checkpoint(1, "cluster", 17), Changes())
    models.write(models.read_checkpoint(), checkpoint(2), Changes())
    before = models.read_checkpoint()
    assert before.checkpoint == checkpoint(2, "cluster", 17)
    models.write(before, before.checkpoint, Changes(), generations=1)
    assert models.read_checkpoint().generation == before.generation + 1
    with pytest.raises(CheckpointConflict):
        models.write(before, checkpoint(3), Changes())
    models.close()


def test_what_is_set_aside_is_parked_no_more_and_what_is_healed_is_neither(stood, scenario):
    ada = scenario.user()
    for _ in range(3):
        scenario.dataset(ada)
    one, two, three, four = scenario.log.read(0, 4)
    at_four = Checkpoint(4, hash=four.hash)
    models = stood.models()
    letter = PoisonEvent(one.position, one.stream, one.type, "torn")
    models.write(models.read_checkpoint(), at_four, Changes(dead_letters=[letter], parked=[two, three, four]))
    assert (models.parked_events().dead_letters, models.parked_events().parked) == (
        {1: one.stream},
        {2: two.stream, 3: three.stream, 4: four.stream},
    )
    assert models.parked_events().positions == [1, 2, 3, 4]
    next_letter = PoisonEvent(three.position, three.stream, three.type, "torn")
    models.write(models.read_checkpoint(), at_four, Changes(dead_letters=[next_letter], resolved=[1, 2]))
    assert (models.parked_events().dead_letters, models.parked_events().parked) == ({3: three.stream}, {4: four.stream})
    models.close()


def test_an_error_undoes_what_was_written_while_the_checkpoint_was_held(stood):
    models = stood.models()
    letter = PoisonEvent(1, uuid4(), "ImageUploaded", "torn")

    def fail_late(models):
        with models.locked_checkpoint() as token:
            models.write(token, token.checkpoint, Changes(dead_letters=[letter]), generations=1)
            raise LookupError

    with pytest.raises(LookupError):
        fail_late(models)
    assert models.parked_events().dead_letters == {}
    with models.locked_checkpoint() as token:
        models.write(token, token.checkpoint, Changes(dead_letters=[letter]), generations=1)
    assert models.parked_events().dead_letters == {1: letter.stream}
    models.close()


@pytest.mark.parametrize("batch", [1, 50])
def test_a_second_answer_for_an_image_does_not_change_the_first(stood, scenario, batch):
    scenario.log.recorder._ruled = lambda _: None  # as before the record had rules
    ada = scenario.user()
    scenario.model()
    cells = scenario.dataset(ada)
    images = [scenario.image(ada, cells) for _ in range(3)]
    job = scenario.job(ada, dataset=cells)
    scenario.plan(job, images)
    scenario.judge(job, 0, images[:2], images[2:], confidence=0.75)
    (first,) = (scenario.log.decode(one) for one in scenario.log.read(0, 1000) if one.type == "ChunkJudged")
    lie, *_ = reversed(first.results)
    other = msgspec.structs.replace(first.failures[0], reason="other")
    for results, failures in (((lie,), ()), ((msgspec.structs.replace(lie, label="flat"), first.results[0]), (other,))):
        again = msgspec.structs.replace(first, originator_id=uuid4(), results=results, failures=failures)
        scenario.log.append(scenario.command(), msgspec.structs.replace(again, labels=("flat", "round")))
    scenario.follow(batch=batch)
    by_name = {table.name: stood.rows(table) for table in TABLES}
    assert [(row.label, row.scores) for row in by_name["results"]] == 2 * [("round", {"round": 0.75, "flat": 0.25})]
    assert [row.reason for row in by_name["failures"]] == [first.failures[0].reason]


def test_rows_are_loaded_by_their_id_and_the_missing_are_left_out(stood, scenario):
    ada = scenario.user()
    scenario.dataset(ada)
    scenario.follow()
    models = stood.models()
    loaded = models.load({"users": {ada.id, uuid4()}, "datasets": {uuid4()}})
    assert list(loaded["users"]) == [ada.id]
    assert loaded.get("datasets", {}) == {}
    assert models.load({}) == {}
    models.close()


def test_a_row_that_was_never_there_can_be_deleted(stood, checkpoint):
    models = stood.models()
    (work,) = (table for table in TABLES if table.name == "work")
    models.write(models.read_checkpoint(), checkpoint(1), Changes(rows=[TableChanges(work, [], [uuid4()])]))
    assert models.read_checkpoint().checkpoint.position == 1
    models.close()


def plan_chunks(scenario, job, chunks):
    """Each part of a plan has chunks of its own."""
    for number, images in enumerate(chunks, 1):
        scenario.plan(job, images, more=number < len(chunks))


@pytest.fixture
def deleted(scenario):
    """A deleted job with eight results, beside one that stays."""
    ada = scenario.user()
    scenario.model()
    cells = scenario.dataset(ada)
    seen = [scenario.image(ada, cells) for _ in range(8)]
    for one in seen:
        scenario.accept(one)
    kept, deleted = scenario.job(ada, dataset=cells), scenario.job(ada, dataset=cells)
    for job in (kept, deleted):
        plan_chunks(scenario, job, [seen[:4], seen[4:]])
        for number in range(2):
            scenario.judge(job, number, seen[4 * number : 4 * number + 4])
    scenario.follow()
    scenario.delete_job(ada, deleted)
    return deleted


def shown(stood, job):
    """How many results of the job are, and of all others."""
    (results,) = (table for table in TABLES if table.name == "results")
    left = [row.classification_id == job for row in stood.rows(results) if not row.hidden]
    return left.count(True), left.count(False)


def follow_in_small_statements(stood, scenario):
    """Three results are hidden by one statement."""
    if isinstance(stood, InPostgres):
        connect = partial(postgres_store.connect, stood._url)
        projector = Projector(lambda: PostgresReadModels(connect(), hidden_rows_per_statement=3), LogDecoder(scenario.log))
        with closing(projector):
            scenario.follow(projector=projector)
    else:
        scenario.follow()


def test_the_results_of_a_job_that_was_deleted_are_hidden(stood, scenario, deleted):
    follow_in_small_statements(stood, scenario)
    assert shown(stood, deleted) == (0, 8)


@pytest.mark.parametrize("stood", ["postgres"], indirect=True)
def test_of_a_job_too_large_for_one_statement_all_but_a_piece_are_hidden_ahead(stood, scenario, deleted):
    follow_in_small_statements(stood, scenario)
    with postgres_store.connect(stood._url) as connection:
        transactions = connection.execute("select count(*) from results where hidden group by xmin order by count(*) desc").fetchall()
    assert transactions == [(3,), (3,), (2,)]


# ---- open work -------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def scheduler_limits():
    return SchedulerLimits(seconds_per_tick=60)


@pytest.fixture
def step(stood, scenario, scheduler_limits):
    """Read models up to date, the scheduler's turn, and what it gives out."""
    scheduler = Scheduler(stood.work, scenario.log, lease=60, attempts=2, limits=scheduler_limits)

    def step():
        scenario.follow()
        given = scheduler.tick()
        scheduler.dispatched(given)
        scenario.follow()
        return [(outgoing.topic, outgoing.task.kind, outgoing.task.work, outgoing.task.attempt) for outgoing in given]

    yield step
    scheduler.close()


def test_one_leads_at_a_time(stood):
    first, second = stood.work(), stood.work()
    assert first.try_to_lead()
    assert first.try_to_lead()
    assert not second.try_to_lead()
    first.close()
    second.close()


def test_a_glance_shows_jobs_to_plan_to_finish_and_without_a_home(stood, scenario):
    ada = scenario.user()
    scenario.model()
    cells, gone, empty = scenario.dataset(ada), scenario.dataset(ada), scenario.dataset(ada)
    seen, lost = scenario.image(ada, cells), scenario.image(ada, gone)
    to_plan, done, orphan, cancelled = (
        scenario.job(ada, dataset=empty),
        scenario.job(ada, image=seen),
        scenario.job(ada, image=lost),
        scenario.job(ada, dataset=cells),
    )
    scenario.judge(done, 0, [seen])
    scenario.cancel(ada, cancelled)
    scenario.delete_dataset(ada, gone)
    scenario.follow()
    work = stood.work()
    glance = work.snapshot()
    assert [job.id for job in glance.to_plan] == [to_plan]
    assert [(job.id, job.succeeded, job.failed) for job in glance.to_finish] == [(done, 1, 0)]
    assert [job.id for job in glance.orphans] == [orphan]
    assert (glance.workers, glance.leases) == ([], [])
    stood.beat(3)
    assert [(worker.slots, worker.lane) for worker in work.snapshot().workers] == [(3, "bulk")]
    work.close()


@pytest.mark.parametrize("scheduler_limits", [SchedulerLimits(PlanningLimits(images_per_command=1), seconds_per_tick=60)])
def test_work_is_given_out_given_out_again_and_given_up(stood, scenario, step):
    ada = scenario.user()
    scenario.model()
    cells = scenario.dataset(ada)
    first, second = scenario.image(ada, cells), scenario.image(ada, cells)
    assert [(kind, set(work), attempt) for _, kind, work, attempt in step()] == [(Kind.INSPECT, {first, second}, 1)]
    scenario.accept(first)
    scenario.accept(second)
    job = scenario.job(ada, dataset=cells)
    assert step() == []
    given = step()
    assert [(kind, attempt) for _, kind, _, attempt in given] == [(Kind.CLASSIFY, 1)] * 2
    work = stood.work()
    assert {(release.job, release.number, release.attempts, release.urgent) for release in work.snapshot().leases} == {
        (job, 0, 1, False),
        (job, 1, 1, False),
    }
    assert work.waiting(urgent=False, maximum=9) == []
    scenario.judge(job, 0, [first])
    stood.let_leases_end()
    assert [attempt for *_, attempt in step()] == [2]
    stood.let_leases_end()
    assert step() == []
    step()
    assert scenario.log.load(job, classification.evolve).phase is classification.JobStatus.COMPLETED
    work.delete_done()
    assert work.snapshot().leases == []
    work.close()


@pytest.mark.parametrize("scheduler_limits", [SchedulerLimits(planning=PlanningLimits(images_per_command=1))])
def test_chunks_of_external_classifiers_take_no_capacity_from_others_and_are_lost_with_a_bridge_only(stood, scenario, step):
    ada = scenario.user()
    scenario.model()
    scenario.external(ada)
    cells = scenario.dataset(ada)
    images = [scenario.image(ada, cells) for _ in range(6)]
    step()
    external, single = scenario.job(ada, dataset=cells, model="vesicles"), scenario.job(ada, image=images[0], model="vesicles")
    own = scenario.job(ada, dataset=cells)
    while not all(scenario.log.load(job, classification.evolve).planned for job in (external, own)):
        step()
    step()
    with closing(stood.work()) as work:
        in_flight = Counter(lease.lane for lease in work.snapshot().leases if lease.kind is Kind.CLASSIFY)
        lanes = {Lane(urgent=True, external=True): 1, Lane(urgent=False, external=True): 4, Lane(urgent=False): 4}
        assert in_flight == lanes, "four chunks for each slot, and the single image"
        assert {lease.job for lease in work.snapshot().leases if lease.external} == {external, single}
        assert work.snapshot().external
        assert [job.id for job in work.waiting(urgent=False, maximum=9)] == [own]
        assert [(job.id, job.external) for job in work.waiting(urgent=False, external=True, maximum=9)] == [(external, True)]
        stood.let_leases_end()
        assert {topic for topic, *_ in step()} == {BULK}
        stood.hold(*(lease.id for lease in work.snapshot().leases if not lease.external))
    stood.beat(lane="external")
    assert {(topic, attempt) for topic, _, _, attempt in step()} == {(EXTERNAL, 2)}


def test_work_that_a_worker_has_in_hand_is_not_lost_however_long_it_takes(stood, scenario, step):
    image = scenario.image(ada := scenario.user(), scenario.dataset(ada))
    step()
    for _ in range(5):
        stood.let_leases_end()
        stood.hold(image)
        assert step() == []
    stood.let_leases_end()
    assert [(work, attempt) for _, _, work, attempt in step()] == [((image,), 2)]
    stood.let_leases_end()
    step()
    assert scenario.log.load(image, image_of.evolve).rejected


def test_packages_are_checked_in_the_order_of_their_upload_until_they_are_answered(stood, scenario, step):
    ada = scenario.user()
    first, second, third = (scenario.package(ada) for _ in range(3))
    scenario.follow()
    work = stood.work()
    assert (work.to_check(2), work.to_check(9)) == ([first, second], [first, second, third])
    work.close()
    assert [(kind, works, attempt) for _, kind, works, attempt in step()] == [(Kind.CHECK, (first,), 1), (Kind.CHECK, (second,), 1)]
    scenario.pass_check(first)
    stood.let_leases_end()
    assert [(works, attempt) for _, _, works, attempt in step()] == [((second,), 2), ((third,), 1)]
    stood.let_leases_end()
    assert [(works, attempt) for _, _, works, attempt in step()] == [((third,), 2)]
    step()
    work = stood.work()
    work.delete_done()
    assert [(lease.id, lease.kind, lease.job) for lease in work.snapshot().leases] == [(third, Kind.CHECK, None)]
    assert scenario.log.load(second, model_check.evolve).answered
    work.close()


def test_what_was_given_up_is_marked(stood, scenario, step):
    image = scenario.image(ada := scenario.user(), scenario.dataset(ada))
    step()
    work = stood.work()
    assert [release.abandoned for release in work.snapshot().leases] == [False]
    work.mark_abandoned(image)
    assert [(release.id, release.abandoned) for release in work.snapshot().leases] == [(image, True)]
    work.close()


def test_waiting_chunks_come_in_order_the_oldest_job_first_and_single_images_apart(stood, scenario):
    ada = scenario.user()
    scenario.model()
    cells = scenario.dataset(ada)
    images = [scenario.image(ada, cells) for _ in range(4)]
    old, new, single = scenario.job(ada, dataset=cells), scenario.job(ada, dataset=cells), scenario.job(ada, image=images[2])
    for job in (new, old):
        plan_chunks(scenario, job, [[one] for one in images])
    scenario.follow()
    work = stood.work()
    assert [(job.id, [chunk.number for chunk in job.waiting]) for job in work.waiting(urgent=False, maximum=3)] == [
        (old, [0, 1, 2]),
        (new, [0, 1, 2]),
    ]
    assert [(job.id, job.image_id, len(job.waiting)) for job in work.waiting(urgent=True, maximum=3)] == [(single, images[2], 1)]
    assert [work.images_of([chunk.id])[chunk.id][0].id for chunk in work.waiting(urgent=False, maximum=9)[0].waiting] == images
    assert list(work.jobs({old, uuid4()})) == [old]
    assert work.to_inspect(3) == images[:3]
    scenario.delete_image(ada, images[0])
    scenario.reject(images[1])
    scenario.follow()
    assert work.deleted(images) == {images[0]}
    until = scenario.log.head()
    covered = partial(work.classifiable, scenario.log.load(old, classification.evolve), maximum=9)
    third = work.last_position(images[:3])
    assert [one.id for one in covered(after=0, until=until).images] == images[2:]
    assert [one.id for one in covered(after=third, until=until).images] == images[3:]
    assert covered(after=0, until=third - 1).images == ()
    scenario.delete_dataset(ada, cells)
    scenario.follow()
    assert work.waiting(urgent=False, maximum=3) == []
    assert work.to_inspect(9) == []
    work.close()


def test_who_begins_read_models_gives_them_its_fold_versions_and_others_write_nothing(stood):
    assert stood.folds == {}
    models = stood.models()
    token = models.read_checkpoint()
    assert stood.folds == FOLD_VERSIONS
    assert models.read_checkpoint() == token
    for version, remedy in ((2, "upgrade this process"), (0, "run `bioscope migrate` to rebuild them")):
        stood.fold_by("images", version)
        with pytest.raises(FoldsDiffer, match=remedy):
            models.read_checkpoint()
        with pytest.raises(FoldsDiffer), models.locked_checkpoint():
            pass
    models.close()
