"""Queries show a reader own and shared things; all others look absent."""

import asyncio
from datetime import timedelta
from functools import partial
from uuid import uuid4

import psycopg
import pytest

from application.poll_interval import PollInterval
from domain.access import Actor, Grant, Role
from domain.classification import JobStatus
from domain.errors import Forbidden, Invalid, NotFound, Unavailable
from domain.values import ImageWarning, result_id
from infrastructure.postgres.query_database import PositionWaiter, PostgresQueryDatabase
from projections import activity, classifications, datasets, devices, images, models, results, statistics, users
from projections.access import ADMINISTRATORS
from projections.engine import checkpoints
from projections.images import Filter
from projections.results import Versions
from tests.given import NOW
from tests.rigs.scenario import LABELS, record_full_history

pytestmark = pytest.mark.anyio
NOBODY = Actor(id=uuid4(), role=Role.RESEARCHER)


@pytest.fixture
async def db(app_url):
    db = PostgresQueryDatabase(app_url)
    await db.open()
    yield db
    await db.close()


@pytest.fixture
def history(scenario):
    history = record_full_history(scenario)
    scenario.follow()
    return history


# ---- access ----------------------------------------------------------------------------------------------------------------------
async def everything_seen(db, actor, history, now):
    """Each list as `actor` sees it, emptied of what belongs to nobody."""
    return {
        "datasets": (await datasets.listed(db, actor)).items,
        "grants": await datasets.grants(db, actor, history.cells),
        "images": (await images.listed(db, actor)).items,
        "images by dataset": (await images.listed(db, actor, where=Filter(dataset_id=history.cells))).items,
        "images by device": (await images.listed(db, actor, where=Filter(device_id=history.scope))).items,
        "images by uploader": (await images.listed(db, actor, where=Filter(uploaded_by=history.ada.id))).items,
        "images by name": (await images.listed(db, actor, where=Filter(q="cell"), order_by="filename")).items,
        "jobs": (await classifications.listed(db, actor)).items,
        "jobs by dataset": (await classifications.listed(db, actor, dataset_id=history.cells)).items,
        "jobs by image": (await classifications.listed(db, actor, image_id=history.images[2])).items,
        "jobs by maker": (await classifications.listed(db, actor, created_by=history.ada.id)).items,
        "failures": (await classifications.failures(db, actor, history.whole)).items,
        "results": (await results.listed(db, actor)).items,
        "results by job": (await results.listed(db, actor, where=results.Filter(classification_id=history.whole))).items,
        "results by image": (await results.listed(db, actor, where=results.Filter(image_id=history.images[2]))).items,
        "today": (await statistics.today(db, actor, now=now)).last_10_results,
        "activity": [seen for seen in (await activity.after(db, actor, position=0)).items if actor.id not in seen.subjects],
        "about": await activity.about(db, actor, history.images[0]),
    }


async def test_to_a_stranger_every_list_is_empty_and_to_owner_and_administrator_none(db, scenario, history):
    foreign = await everything_seen(db, NOBODY, history, scenario.now)
    assert {name: found for name, found in foreign.items() if found} == {}
    for actor in (history.ada, history.admin, Actor(id=history.bob.id, role=Role.ANALYST)):
        assert [name for name, found in (await everything_seen(db, actor, history, scenario.now)).items() if not found] == []


async def test_a_share_that_was_withdrawn_shows_nothing_any_more(db, scenario, history):
    seen = await everything_seen(db, history.eve, history, scenario.now)
    assert {name: found for name, found in seen.items() if found} == {}


@pytest.mark.parametrize("reader", ["nobody", "service"])
async def test_foreign_absent_and_deleted_things_look_the_same(db, history, reader):
    actor = NOBODY if reader == "nobody" else Actor(id=uuid4(), kind="service", scopes=frozenset({"unrelated"}))
    (result, *_) = (await results.listed(db, history.ada)).items
    foreign = [
        (datasets.get, history.cells),
        (images.get, history.images[0]),
        (classifications.get, history.whole),
        (results.get, result.id),
        (users.get, history.ada.id),
    ]
    for get, found in foreign:
        said = []
        for wanted in (found, uuid4()):
            with pytest.raises(NotFound) as missing:
                await get(db, actor, wanted)
            said.append(missing.value.detail)
        assert said[0] == said[1]
    for get, gone in ((datasets.get, history.gone), (images.get, history.images[3]), (classifications.get, history.deleted)):
        for reader_of_all in (history.ada, history.admin):
            with pytest.raises(NotFound):
                await get(db, reader_of_all, gone)


async def test_a_service_reads_the_images_its_scope_names_and_nothing_else(db, scenario, history):
    service = Actor(id=uuid4(), kind="service", scopes=frozenset({"images:read"}))
    assert (await images.get(db, service, history.images[0])).filename == "renamed.png"
    assert (await results.listed(db, service)).items == []
    assert (await datasets.listed(db, service)).items == []


async def test_only_administrators_list_people_and_only_analysts_see_devices(db, history):
    assert {user.username for user in (await users.listed(db, history.admin)).items} == {"ada", "eve", "admin"}
    for actor in (history.ada, history.eve):
        with pytest.raises(Forbidden):
            await users.listed(db, actor)
    assert (await users.get(db, history.ada, history.ada.id)).username == "ada"
    assert (await devices.listed(db, history.ada, is_online=True, location="Room 1")).items[0].id == history.scope
    assert (await devices.listed(db, history.ada, is_online=False)).items == []
    with pytest.raises(Forbidden):
        await devices.get(db, history.eve, history.scope)


# ---- rows ------------------------------------------------------------------------------------------------------------------------
async def test_rows_hold_the_fields_of_their_events(db, history):
    dataset = await datasets.get(db, history.ada, history.cells)
    assert (dataset.name, dataset.owner_username, dataset.grant) == ("cells", "ada", Grant.OWNER)
    assert (await datasets.get(db, Actor(id=history.bob.id, role=Role.ANALYST), history.cells)).grant is Grant.ANALYST
    assert [(share.grant, share.username) for share in await datasets.grants(db, history.ada, history.cells)] == [
        (Grant.OWNER, "ada"),
        (Grant.ANALYST, "[erased]"),
        (Grant.VIEWER, None),  # of a team
    ]
    seen = await images.get(db, history.ada, history.images[1])
    assert (seen.width, seen.height, seen.pixel_size_um, seen.accepted, seen.analyzed, seen.uploaded_at) == (95, 94, 0.25, True, True, NOW)
    assert (await images.get(db, history.ada, history.images[-1])).rejected == "damaged_image"
    job = await classifications.get(db, history.ada, history.whole)
    assert (job.status, job.images, job.chunks, job.judged, job.succeeded, job.failed) == (JobStatus.COMPLETED, 11, 2, 2, 10, 1)
    assert [(one.image_id, one.reason) for one in (await classifications.failures(db, history.ada, history.whole)).items] == [
        (history.images[-2], "damaged_image")
    ]
    (model,) = await models.listed(db)
    assert (model.name, model.production.labels, model.production.number) == ("shapes", LABELS, 1)
    assert await models.get(db, name_or_id="shapes") == await models.get(db, name_or_id=str(model.id)) == model
    with pytest.raises(NotFound):
        await models.get(db, name_or_id="unknown")


async def test_deleting_a_job_an_image_or_a_dataset_hides_its_results_from_everybody(db, scenario, history):
    for reader in (history.ada, history.admin):
        found = (await results.listed(db, reader, versions=Versions.ALL)).items
        assert {one.classification_id for one in found} == {history.whole, history.single}
        assert history.images[3] not in {one.image_id for one in found}
        assert len(found) == 10
        for hidden in ({"classification_id": history.deleted}, {"classification_id": history.drowned}, {"image_id": history.images[3]}):
            assert (await results.listed(db, reader, where=results.Filter(**hidden))).items == []
        assert (await statistics.today(db, reader, now=scenario.now)).classified_last_24_hours == 10


async def test_a_result_that_was_computed_from_other_pixels_says_so_wherever_it_is_shown(db, scenario, history):
    outdated = result_id(history.whole, history.images[0])
    shown = [
        *(await results.listed(db, history.ada, versions=Versions.ALL)).items,
        *(await results.listed(db, history.ada, where=results.Filter(classification_id=history.whole))).items,
        *(await results.listed(db, history.ada, where=results.Filter(image_id=history.images[0]))).items,
        *(await statistics.today(db, history.ada, now=scenario.now)).last_10_results,
        await results.get(db, history.ada, outdated),
    ]
    marked = [one for one in shown if [warning.code for warning in one.warnings] == ["other_pixels"]]
    assert [one.id for one in marked] == [outdated] * 5
    assert marked[0].warnings[0].detail == ("Reader 3 gives other pixels than this result was computed from. Run the model again")
    assert all(one.warnings == () for one in shown if one.id != outdated)


async def test_a_rejected_image_that_a_newer_reader_can_read_is_accepted(db, scenario, history):
    scenario.reinspect(history.images[-1], width=7, warnings=(ImageWarning("values_scaled", "x"),))
    scenario.follow()
    seen = await images.get(db, history.ada, history.images[-1])
    assert (seen.accepted, seen.rejected, seen.rejected_detail) == (True, None, None)
    assert (seen.width, seen.reader, [one.code for one in seen.warnings]) == (7, 3, ["values_scaled"])


# ---- lists -----------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("order_by", ["uploaded_at", "-uploaded_at", "filename", "-filename", "created_at", "-created_at"])
async def test_cursors_and_pages_walk_the_same_list_in_the_asked_order(db, scenario, order_by):
    ada = scenario.user()
    places = [scenario.dataset(ada), scenario.dataset(ada)]
    for number in range(17):
        scenario.later(seconds=number % 3)
        scenario.image(ada, places[number % 2], f"{number * 7 % 5} cell.png")
    scenario.follow()
    by_page = [image for page in range(1, 6) for image in (await images.listed(db, ada, order_by=order_by, page=page, size=4)).items]
    by_cursor, cursor = [], None
    while True:
        page = await images.listed(db, ada, order_by=order_by, size=4, cursor=cursor)
        by_cursor += page.items
        if (cursor := page.next_cursor) is None:
            break
    column = "filename" if "filename" in order_by else "uploaded_at"
    expected = sorted(by_page, key=lambda image: (getattr(image, column), image.id), reverse=order_by.startswith("-"))
    assert by_page == by_cursor == expected
    assert len(by_page) == 17


async def test_images_are_found_by_every_filter(db, history):
    async def found(**where):
        return {image.id for image in (await images.listed(db, history.ada, where=Filter(**where), size=200)).items}

    alive = {one for one in history.images if one != history.images[3]}
    assert await found() == await found(dataset_id=history.cells) == await found(device_id=history.scope) == alive
    assert await found(uploaded_by=history.bob.id) == await found(dataset_id=uuid4()) == await found(device_id=uuid4()) == set()
    assert await found(analyzed=False) == set(history.images[-2:])
    assert await found(analyzed=True) == alive - set(history.images[-2:])
    assert await found(q="CELL 1.") == {history.images[1]}
    assert await found(q="RENAMED") == {history.images[0]}
    assert await found(q="%") == await found(q="_") == await found(q="\\") == set()
    assert await found(created_from=NOW, created_to=NOW) == alive
    assert await found(created_from=NOW + timedelta(seconds=1)) == await found(created_to=NOW - timedelta(seconds=1)) == set()


async def test_the_total_is_given_where_it_is_cheap(db, history):
    assert (await images.listed(db, history.ada, where=Filter(dataset_id=history.cells), size=2)).total == 11
    assert (await images.listed(db, history.ada, where=Filter(dataset_id=history.cells, q="a"), size=2)).total is None
    assert (await images.listed(db, NOBODY, where=Filter(dataset_id=history.cells), size=2)).total == 0


@pytest.mark.parametrize("wrong", ["size", "-id", "uploaded_at; drop table images", "", "-"])
async def test_an_unknown_order_is_refused(db, wrong):
    with pytest.raises(Invalid, match="Invalid order_by field"):
        await images.listed(db, NOBODY, order_by=wrong)


@pytest.mark.parametrize("cursor", ["x", "", "bnVsbA", "WyJub3QgYSB0aW1lIixudWxsXQ", "é", "W251bGwsbnVsbF0"])
async def test_a_cursor_that_was_not_made_here_is_refused(db, cursor):
    with pytest.raises(Invalid, match="cursor"):
        await datasets.listed(db, NOBODY, cursor=cursor)


@pytest.mark.parametrize("eyes", [Role.RESEARCHER, Role.ADMIN])
async def test_jobs_and_results_come_newest_first_a_page_at_a_time(db, scenario, eyes):
    ada = scenario.user()
    reader = ada if ada.role is eyes else scenario.user(eyes, "root")
    scenario.model()
    image = scenario.image(ada, scenario.dataset(ada))
    jobs = []
    for _ in range(7):
        scenario.later(seconds=1)
        jobs.append(scenario.job(ada, image=image))
        scenario.judge(jobs[-1], 0, [image])
    scenario.follow()
    all_results = partial(results.listed, versions=Versions.ALL)
    for listed, of in ((classifications.listed, lambda job: job.id), (all_results, lambda result: result.classification_id)):
        first = await listed(db, reader, size=4)
        rest = await listed(db, reader, size=4, cursor=first.next_cursor)
        assert [of(one) for one in (*first.items, *rest.items)] == jobs[::-1]
        assert rest.next_cursor is None
    assert [job.id for job in (await classifications.listed(db, reader, status="running")).items] == jobs[::-1]
    assert (await classifications.listed(db, reader, status="completed")).items == []
    with pytest.raises(Invalid, match="status must be one of"):
        await classifications.listed(db, ada, status="sleeping")


# ---- statistics and activity -----------------------------------------------------------------------------------------------------
async def test_statistics_have_25_hours_oldest_first_and_count_the_last_24(db, scenario):
    ada = scenario.user()
    scenario.model()
    image = scenario.image(ada, scenario.dataset(ada))

    def judged(confidence):
        scenario.judge(scenario.job(ada, image=image), 0, [image], confidence=confidence)

    scenario.now = NOW - timedelta(hours=26)
    judged(0.1)
    scenario.now = NOW - timedelta(hours=24) + timedelta(seconds=1)
    judged(0.5)
    scenario.now = NOW - timedelta(minutes=10)
    judged(0.7)
    scenario.now = NOW
    judged(0.9)
    scenario.follow()
    now = NOW + timedelta(minutes=30)
    found = await statistics.today(db, ada, now=NOW)
    assert len(found.hourly_counts) == len({entry.hour for entry in found.hourly_counts}) == 25
    assert [entry.hour for entry in found.hourly_counts] == [NOW - timedelta(hours=back) for back in range(24, -1, -1)]
    assert {entry.hour: entry.count for entry in found.hourly_counts if entry.count} == {
        NOW - timedelta(hours=24): 1,
        NOW - timedelta(hours=1): 1,
        NOW: 1,
    }
    assert (found.classified_last_24_hours, round(found.average_confidence, 9)) == (3, 0.7)
    assert [result.confidence for result in found.last_10_results] == [0.9, 0.7, 0.5, 0.1]
    assert (await statistics.today(db, ada, now=now)).classified_last_24_hours == 2
    empty = await statistics.today(db, NOBODY, now=NOW)
    assert (empty.classified_last_24_hours, empty.average_confidence, empty.last_10_results) == (0, 0.0, [])
    assert [entry.count for entry in empty.hourly_counts] == [0] * 25


async def test_the_feed_goes_on_where_it_ended_and_skips_what_is_foreign(db, scenario, history, log):
    everything = [seen.position for seen in (await activity.after(db, history.admin, position=0, limit=500)).items]
    assert everything == list(range(1, log.head() + 1))
    seen, position, more = [], 0, True
    while more:
        feed = await activity.after(db, history.ada, position=position, limit=3, limits=activity.ScanLimits(events_per_scan=7))
        assert feed.position > position or not feed.more
        seen += [one.position for one in feed.items]
        position, more = feed.position, feed.more
    assert position == log.head()
    assert seen == sorted(set(seen))
    assert 0 < len(seen) < log.head()
    idle = await activity.after(db, history.ada, position=position)
    assert (idle.items, idle.position, idle.more) == ([], position, False)


async def test_an_images_trail_finds_the_chunk_that_judged_it(db, history, log):
    types = [log.read(position - 1, 1)[0].type for position in await activity.about(db, history.ada, history.images[2])]
    assert types == ["ImageUploaded", "ImageAccepted", "ChunkJudged", "ClassificationRequested", "ChunkJudged"]


# ---- the database ----------------------------------------------------------------------------------------------------------------
async def test_who_waits_for_a_position_is_woken_when_it_is_readable(db, scenario, app_url, owner_url):
    visible = PositionWaiter(app_url)
    await visible.start()
    ada = scenario.user()
    assert not await visible.wait(1, 0.05)
    waiting = asyncio.create_task(visible.wait(1, 5))
    await asyncio.to_thread(scenario.follow)
    assert await waiting
    assert await checkpoints.position(db) == 1
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where query like 'listen%%' or query like 'select position from chec%%'"
        )
    scenario.dataset(ada)
    await asyncio.to_thread(scenario.follow)
    assert await visible.wait(2, 5)
    await visible.stop()


class LongInterval(PollInterval):
    """While nobody waits it looks in an hour."""

    def take(self):
        return 3600.0


async def test_who_waits_is_shown_the_position_though_every_wake_up_is_lost(app_url, owner_url):
    visible = PositionWaiter(app_url, poll_seconds=0.05, interval=LongInterval(0.05))
    await visible.start()
    assert not await visible.wait(1, 0.2)
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("update read.checkpoint set position = 1")
    assert await visible.wait(1, 5)
    await visible.stop()


async def test_a_database_that_is_away_is_reported_in_time():
    away = PostgresQueryDatabase("postgresql://nobody@127.0.0.1:1/none")
    await away.open()
    with pytest.raises(Unavailable) as said:
        await checkpoints.position(away)
    assert said.value.retry_after == 2
    await away.close()


async def test_connections_that_are_lost_while_idle_are_not_noticed(db, owner_url):
    await asyncio.gather(*(checkpoints.position(db) for _ in range(8)))
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'bioscope_app'")
    assert await asyncio.gather(*(checkpoints.position(db) for _ in range(8))) == [0] * 8


async def test_what_postgres_cannot_hold_is_refused(db, history):
    with pytest.raises(Invalid):
        await images.listed(db, history.ada, where=Filter(q="a\0"))


async def test_readers_cannot_write(db):
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        await db.rows("select ops.advance(position, generation, 9, hash, '', 0, 0) from checkpoint", {}, into=checkpoints.Position)


async def test_a_page_of_images_is_found_by_index_alone(scenario, connection, owner_url):
    ada = scenario.user()
    cells = scenario.dataset(ada)
    scenario.image(ada, cells)
    scenario.follow()
    connection.execute(
        "insert into images select (jsonb_populate_record(i, jsonb_build_object('id', gen_random_uuid(), 'filename', g::text,"
        " 'uploaded_at', i.uploaded_at + g * interval '1 s'))).* from images i, generate_series(1, 20000) g"
    )
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("analyze read.images")
    wanted = dict.fromkeys(Filter.__struct_fields__) | {"subject": ada.id, "at": None, "after": None, "maximum": 26, "skip": 0}
    for order_by, listing in images.LISTINGS.items():
        plan = "\n".join(row[0] for row in connection.execute("explain " + listing.by_dataset, wanted))
        assert "Seq Scan on images" not in plan, order_by


async def test_a_page_out_of_very_many_datasets_is_walked_newest_first(scenario, connection, owner_url):
    ada = scenario.user()
    scenario.model()
    scenario.job(ada, dataset=scenario.dataset(ada))
    scenario.follow()
    connection.execute(
        "insert into datasets select (jsonb_populate_record(d, jsonb_build_object('id', md5(g::text)::uuid,"
        " 'created_at', d.created_at + g * interval '1 s'))).* from datasets d, generate_series(1, 20000) g"
    )
    connection.execute(
        "insert into dataset_access select a.subject, md5(g::text)::uuid, a.role from dataset_access a, generate_series(1, 20000) g"
    )
    connection.execute(
        "insert into classifications select (jsonb_populate_record(c, jsonb_build_object('id', gen_random_uuid(),"
        " 'dataset_id', md5(g::text)::uuid, 'created_at', c.created_at + g * interval '1 s'))).*"
        " from classifications c, generate_series(1, 20000) g"
    )
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("analyze read.datasets, read.effective_access, read.classifications")
    wanted = {"at": None, "after": None, "maximum": 26, "dataset_id": None, "image_id": None, "created_by": None, "status": None}
    asked = {
        "datasets_newest": (datasets.LISTED, ada.id),
        "classifications_newest_of_all": (classifications.ALL_TOGETHER, ADMINISTRATORS),
    }
    for index, (query, subject) in asked.items():
        plan = "\n".join(row[0] for row in connection.execute("explain " + query, wanted | {"subject": subject}))
        assert index in plan, plan
        assert "Sort" not in plan, plan
