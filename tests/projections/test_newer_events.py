"""Events of a newer release: the projector stops before them, says why, and loses nothing."""

import asyncio
from contextlib import closing

import msgspec
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.jobs.job_scheduler import Scheduler
from application.jobs.work_queue import SchedulerSnapshot, ToFinish
from domain import classification
from domain.access import Role
from domain.errors import UpgradeNeeded
from infrastructure.postgres.system.work_queue import PostgresWorkQueue
from projections.engine import postgres_store
from projections.engine.batches import FOLD_VERSIONS
from projections.engine.checkpoints import Checkpoint, CheckpointConflict, FoldsDiffer, folds_difference
from projections.engine.postgres_store import PostgresReadModels
from projections.engine.projector import Projector
from projections.engine.sequencer import Sequencer
from projections.process.composition import LogDecoder
from projections.process.dead_letters import dead_letters_of, retry_with
from projections.rebuild.digests import digests
from tests.given import NOW
from tests.older_release import at_version, without
from tests.projections.test_projector import damage, made_apart
from tests.projections.test_sequencer import Models, Store, linked
from tests.projections.test_subscription import SubscriptionRig
from tests.rigs.scenario import record_full_history
from tests.rigs.waiting import wait_until_async


def test_all_that_stands_before_an_unknown_event_is_applied_and_the_rest_once_it_is_known(scenario, log, projector, connection, owner_url):
    record_full_history(scenario)
    position = next(one.position for one in log.read(0, 1000) if one.type == "ImageDescribed")
    applied = []
    feed = Sequencer(projector, log, on_applied=applied.append)
    feed.refresh()
    with without("ImageDescribed"):
        for _ in range(2):
            with pytest.raises(UpgradeNeeded, match=rf"^position {position} holds ImageDescribed version 1, .*; upgrade this process$"):
                feed.catch_up()
    assert projector.checkpoint().position == feed.checkpoint.position == position - 1
    assert [news.position for news in applied] == [position - 1]
    assert dead_letters_of(connection, log) == []
    while feed.catch_up():
        pass
    assert projector.checkpoint().position == log.head()
    assert digests(connection) == made_apart(owner_url, log, scenario, "anew", 500)


def test_a_newer_schema_version_is_waited_for_like_an_unknown_type(scenario, log, projector):
    scenario.device(scenario.user(Role.ADMIN))
    feed = Sequencer(projector, log)
    feed.refresh()
    with at_version("DeviceRegistered", 1), pytest.raises(UpgradeNeeded, match="position 2 holds DeviceRegistered version 2"):
        feed.catch_up()
    assert feed.checkpoint.position == 1
    assert feed.catch_up()


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30))
def test_however_records_come_nothing_behind_an_unknown_event_is_applied(unknown, delivered, size):
    feed = Sequencer(models := Models(), store := Store(30))
    read = store.read
    store.read = lambda after, limit: [at_place(one, unknown) for one in read(after, limit)]
    records = [linked(position) for position in range(1, delivered + 1)]
    records = [one._replace(event=at_place(one.event, unknown)) for one in records]
    for start in range(0, len(records), size):
        try:
            feed.process(records[start : start + size], cluster="c", next_offset=start + size)
        except UpgradeNeeded:
            break
    for _ in range(2):
        with pytest.raises(UpgradeNeeded):
            feed.catch_up()
    assert models.applied == list(range(1, unknown))


def at_place(event, unknown):
    return msgspec.structs.replace(event, type="ImageTagged") if event.position == unknown else event


def test_a_process_that_waits_goes_on_where_another_one_has_passed_the_event(scenario, log, projector, app_url):
    scenario.user()
    scenario.device(scenario.user(Role.ADMIN))
    scenario.user()
    feed = Sequencer(projector, log)
    feed.refresh()
    with without("DeviceRegistered"), pytest.raises(UpgradeNeeded):
        feed.catch_up()
    newer = Projector(lambda: PostgresReadModels(postgres_store.connect(app_url)), LogDecoder(log))
    assert newer.checkpoint().position == 2
    newer.apply(log.read(2, 1), Checkpoint(3))
    newer.close()
    with without("DeviceRegistered"):
        assert not feed.catch_up()
        assert feed.catch_up()
    assert feed.checkpoint.position == log.head() == 4


def test_a_retry_of_dead_letters_waits_for_the_upgrade_too(scenario, log, projector, owner_url, connection):
    ada = scenario.user()
    image = scenario.image(ada, scenario.dataset(ada))
    scenario.accept(image)
    topic = damage(owner_url, log.head() - 1)
    scenario.follow()
    damage(owner_url, log.head() - 1, topic)
    with without("ImageAccepted"), pytest.raises(UpgradeNeeded):
        retry_with(projector, PostgresReadModels(connection), log)
    assert [letter.type for letter in dead_letters_of(connection, log)] == ["ModelVersionAdded"]
    assert retry_with(projector, PostgresReadModels(connection), log).remaining == 0


@pytest.mark.anyio
async def test_the_follower_says_why_it_pauses_and_goes_on_by_itself():
    rig = SubscriptionRig(3)
    reasons = rig.pauses
    with without("DeviceCameOnline"):
        taken = asyncio.create_task(rig.deliver(1, 2, 3))
        await wait_until_async(lambda: len(reasons) >= 3)
        assert rig.follower.is_waiting
    await taken
    assert set(reasons) == {"position 1 holds DeviceCameOnline version 1, which a newer release wrote; upgrade this process"}
    assert rig.models.applied == [1, 2, 3]
    assert not rig.follower.is_waiting


def test_a_job_about_which_a_newer_release_wrote_holds_up_no_other(scenario, log):
    ada = scenario.user()
    scenario.model()
    cells = scenario.dataset(ada)
    images = [scenario.image(ada, cells) for _ in range(2)]
    sick, well = scenario.job(ada, image=images[0]), scenario.job(ada, image=images[1])
    for job, image in zip((sick, well), images, strict=True):
        scenario.plan(job, [image])
        scenario.judge(job, 0, [image])
    scenario.cancel(ada, sick)
    scheduler = Scheduler(lambda: Work(ToFinish(sick, 1, 0), ToFinish(well, 1, 0)), log, lease=60, attempts=3)
    with without("ClassificationCancelled"):
        scheduler.tick()
    assert log.load(well, classification.evolve).phase.ended
    assert [one.type for one in log.history(sick)][-1] == "ClassificationCancelled"


def test_a_chunk_that_must_end_and_waits_for_an_upgrade_holds_up_no_other(scenario, log, app_url, connection):
    ada = scenario.user()
    scenario.model()
    cells = scenario.dataset(ada)
    images = [scenario.image(ada, cells) for _ in range(2)]
    jobs = [scenario.job(ada, image=image) for image in images]
    for job, image in zip(jobs, images, strict=True):
        scenario.accept(image)
        scenario.plan(job, [image])
    scenario.delete_image(ada, images[0])
    scenario.follow()
    scheduler = Scheduler(lambda: PostgresWorkQueue(postgres_store.connect(app_url)), log, lease=60, attempts=3)
    with closing(scheduler):
        with without("ClassificationPlanned"):
            assert [outgoing.task.job for outgoing in scheduler.tick()] == [jobs[1]]
        assert log.history(jobs[0])[-1].type == "ClassificationPlanned"
        scheduler.tick()
    scenario.follow()
    assert connection.execute("select reason, classification_id from failures").fetchall() == [("image_deleted", jobs[0])]


class Work:
    """Open work of jobs that only have to be finished."""

    closed = False

    def __init__(self, *to_finish):
        self._to_finish = list(to_finish)

    def try_to_lead(self):
        return True

    def delete_done(self):
        pass

    def snapshot(self):
        return SchedulerSnapshot(now=NOW, to_plan=[], to_finish=self._to_finish, overdue=[], orphans=[], workers=[], leases=[])

    def waiting(self, **_):
        return []

    def to_check(self, maximum):
        return []

    def to_inspect(self, maximum):
        return []


# ---- fold versions -----------------------------------------------------------------------------------------------------------------
VERSIONS = st.dictionaries(st.sampled_from(["images", "users", "tags"]), st.integers(1, 3))


@given(VERSIONS, VERSIONS)
def test_read_models_are_written_by_the_fold_versions_that_made_them_alone(ours, stored):
    difference = folds_difference(ours, stored)
    assert (difference is None) == (ours == stored)
    if difference is not None:
        newer = any(stored.get(name, 0) > ours.get(name, 0) for name in stored)
        assert difference.is_newer == newer
        assert str(difference).endswith("upgrade this process" if newer else "run `bioscope migrate` to rebuild them")
        assert difference.reason in str(difference)
        assert not any(remedy in difference.reason for remedy in ("upgrade", "migrate"))


def test_the_difference_names_tables_and_versions():
    assert "images (version 1 there, version 2 here), tags (none there, version 1 here)" in str(
        folds_difference({"users": 1, "images": 2, "tags": 1}, {"users": 1, "images": 1})
    )


def test_read_models_of_a_newer_release_are_left_alone_until_the_process_is_upgraded(scenario, log, projector, owner_url, connection):
    scenario.user()
    scenario.follow()
    scenario.user()
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("update read.folds set version = 2 where name = 'users'")
        owner.execute("update read.checkpoint set generation = generation + 1")  # as a change-over does
    feed = Sequencer(projector, log)
    with pytest.raises(CheckpointConflict):
        projector.apply(log.read(1, 1), Checkpoint(2))
    for _ in range(2):
        with pytest.raises(FoldsDiffer, match=r"users \(version 2 there, version 1 here\): upgrade this process"):
            feed.refresh()
    assert connection.execute("select count(*) from users").fetchone() == (1,)
    assert dead_letters_of(connection, log) == []


def test_read_models_that_are_made_anew_are_those_of_the_release_that_made_them(scenario, log, owner_url):
    scenario.user()
    made_apart(owner_url, log, scenario, "anew", 500)
    with psycopg.connect(owner_url) as owner:
        assert dict(owner.execute("select name, version from anew.folds").fetchall()) == FOLD_VERSIONS
