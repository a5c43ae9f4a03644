"""Lists of results: filters, versions of the results of an image, and no list that walks through all results for a page."""

from datetime import timedelta

import msgspec
import psycopg
import pytest

from domain.classification import JobStatus, Verdict
from domain.values import result_id
from infrastructure.postgres.query_database import PostgresQueryDatabase
from projections import classifications, results
from projections.results import Filter, Versions
from tests.given import NOW
from tests.projections.test_queries import NOBODY

pytestmark = pytest.mark.anyio
ROWS = 20_000
CHANGES = {
    "label": "case when g % 1000 = 0 then 'rare' else 'round' end",
    "verdict": "case when g % 1000 = 0 then 'out_of_domain' else 'clear' end",
    "model_name": "case when g % 1000 = 0 then 'cells' else r.model_name end",
    "image_id": "md5((g / 2)::text)::uuid",
    "position": "r.position + g",
}


@pytest.fixture
async def db(app_url):
    db = PostgresQueryDatabase(app_url)
    await db.open()
    yield db
    await db.close()


class ResultsRig:
    def __init__(self, scenario):
        self.scenario, self.ada = scenario, scenario.user()
        scenario.model()
        scenario.model("cells")
        self.dataset = scenario.dataset(self.ada)

    def image(self):
        return self.scenario.image(self.ada, self.dataset)

    def judged(self, image, *, model="shapes", confidence=0.9):
        """The job that saw something in the image, a second later than the last one."""
        self.scenario.later(seconds=1)
        job = self.scenario.job(self.ada, image=image, model=model)
        self.scenario.judge(job, 0, [image], confidence=confidence)
        return job


@pytest.fixture
def lab(scenario):
    return ResultsRig(scenario)


async def jobs_listed(db, lab, where=results.NO_FILTER, *, actor=None, **options):
    lab.scenario.follow()
    return [one.classification_id for one in (await results.listed(db, actor or lab.ada, where=where, **options)).items]


# ---- versions ----------------------------------------------------------------------------------------------------------------------
async def test_lists_show_the_newest_result_of_each_image_and_model_and_all_on_demand(db, lab):
    one, other = lab.image(), lab.image()
    first, cells, elsewhere, again = lab.judged(one), lab.judged(one, model="cells"), lab.judged(other), lab.judged(one)
    assert await jobs_listed(db, lab) == [again, elsewhere, cells]
    assert await jobs_listed(db, lab, versions=Versions.ALL) == [again, elsewhere, cells, first]
    assert await jobs_listed(db, lab, Filter(image_id=one)) == [again, cells]
    assert await jobs_listed(db, lab, Filter(image_id=one), versions=Versions.ALL) == [again, cells, first]


async def test_a_job_shows_its_own_results_also_after_a_later_run(db, lab):
    image = lab.image()
    first, _ = lab.judged(image), lab.judged(image)
    assert await jobs_listed(db, lab, Filter(classification_id=first)) == [first]
    assert await jobs_listed(db, lab, Filter(classification_id=first), versions=Versions.NEWEST) == []


async def test_each_result_carries_its_number_and_whether_it_is_the_newest(db, lab):
    image = lab.image()
    jobs = [lab.judged(image), lab.judged(image, model="cells"), lab.judged(image), lab.judged(image)]
    lab.scenario.follow()
    numbered = {one.classification_id: (one.result_version, one.is_newest) for one in await everything(db, lab)}
    assert [numbered[job] for job in jobs] == [(1, False), (1, True), (2, False), (3, True)]
    found = await results.get(db, lab.ada, result_id(jobs[2], image))
    assert (found.result_version, found.is_newest, found.filename, found.path) == (2, False, "cell.png", None)


async def test_without_a_deleted_job_an_earlier_result_is_the_newest_and_numbers_stay(db, lab):
    image = lab.image()
    jobs = [lab.judged(image) for _ in range(3)]
    lab.scenario.delete_job(lab.ada, jobs[2])
    lab.scenario.delete_job(lab.ada, jobs[0])
    lab.scenario.follow()
    assert [(one.classification_id, one.result_version, one.is_newest) for one in await everything(db, lab)] == [(jobs[1], 2, True)]
    assert await jobs_listed(db, lab) == [jobs[1]]


async def test_pages_of_newest_results_lead_past_any_number_of_earlier_ones(db, lab):
    images = [lab.image() for _ in range(3)]
    newest = [lab.judged(image) for image in images for _ in range(9)][8::9]
    lab.scenario.follow()
    found, cursor = [], None
    while True:
        page = await results.listed(db, lab.ada, size=1, cursor=cursor)
        found += [one.classification_id for one in page.items]
        if (cursor := page.next_cursor) is None:
            break
    assert found == newest[::-1]


async def everything(db, lab):
    return (await results.listed(db, lab.ada, versions=Versions.ALL)).items


# ---- filters -----------------------------------------------------------------------------------------------------------------------
async def test_filters_select_results_and_can_be_combined(db, lab):
    low, high = lab.judged(lab.image(), confidence=0.4), lab.judged(lab.image(), confidence=0.9)
    cells = lab.judged(lab.image(), model="cells", confidence=0.6)
    expected = {
        Filter(): [cells, high, low],
        Filter(dataset_id=lab.dataset): [cells, high, low],
        Filter(dataset_id=low): [],
        Filter(label="round"): [cells, high, low],
        Filter(label="flat"): [],
        Filter(verdict=Verdict.CLEAR): [cells, high, low],
        Filter(verdict=Verdict.NEEDS_REVIEW): [],
        Filter(min_confidence=0.6): [cells, high],
        Filter(max_confidence=0.6): [cells, low],
        Filter(min_confidence=0.5, max_confidence=0.8): [cells],
        Filter(model_name="shapes"): [high, low],
        Filter(model_name="shapes", model_version=2): [],
        Filter(model_version=1, max_confidence=0.4): [low],
        Filter(created_from=NOW + timedelta(seconds=2)): [cells, high],
        Filter(created_before=NOW + timedelta(seconds=2)): [low],
        Filter(classification_id=high, label="round"): [high],
        Filter(classification_id=high, max_confidence=0.5): [],
        Filter(classification_id=high, dataset_id=low): [],
    }
    for where, jobs in expected.items():
        assert await jobs_listed(db, lab, where) == jobs, where
        assert await jobs_listed(db, lab, where, actor=NOBODY) == [], where


async def test_a_job_of_few_scores_shows_the_highest(db, lab, connection):
    image = lab.image()
    job = lab.judged(image, confidence=0.75)
    lab.scenario.follow()
    whole = await results.get(db, lab.ada, result_id(job, image))
    connection.execute("update classifications set top_k = 1 where id = %s", (job,))
    assert whole.scores == {"round": 0.75, "flat": 0.25}
    assert (await results.get(db, lab.ada, result_id(job, image))).scores == {"round": 0.75}


# ---- plans -------------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def many(lab, connection, owner_url):
    """Two results of each of many images, one in a thousand unlike the others. All are outdated."""
    image = lab.image()
    job = lab.judged(image)
    lab.scenario.follow()
    columns = [row[0] for row in connection.execute("select attname from pg_attribute where attrelid = 'results'::regclass and attnum > 0")]
    known = {"id": "md5('r' || g)::uuid", "created_at": "r.created_at + g * interval '1 s'"} | CHANGES
    values = ", ".join(known.get(column, f"r.{column}") for column in columns)
    connection.execute(f"insert into results ({', '.join(columns)}) select {values} from results r, generate_series(1, {ROWS}) g")
    connection.execute("insert into outdated_results select id, image_id, 2 from results")
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("vacuum analyze read.results, read.outdated_results")
    return job, image


SELECTIVE = {
    "nothing": {},
    "rare label": {"label": "rare"},
    "unknown label": {"label": "unknown"},
    "frequent label": {"label": "round"},
    "rare verdict": {"verdict": "out_of_domain"},
    "frequent verdict": {"verdict": "clear"},
    "rare model": {"model_name": "cells"},
    "unknown version": {"model_name": "shapes", "model_version": 7},
    "time": {"created_from": NOW + timedelta(days=3)},
    "frequent confidence": {"min_confidence": 0.5},
    "combined": {"label": "rare", "verdict": "out_of_domain", "model_name": "cells", "max_confidence": 0.95},
}


@pytest.mark.parametrize("case", SELECTIVE)
@pytest.mark.parametrize("name", ["ALL_VERSIONS", "NEWEST_VERSIONS", "NEWEST_VERSIONS_OF_RECENT"])
async def test_a_page_costs_no_walk_through_all_results(lab, many, connection, name, case):
    plan = explained(connection, getattr(results, name), lab, **SELECTIVE[case])
    assert rows_read(plan) < ROWS / 10, plan
    assert not scanned(plan), plan


@pytest.mark.parametrize("named", ["classification_id", "image_id", "id"])
async def test_results_of_a_job_or_an_image_are_found_by_an_index(lab, many, connection, named):
    job, image = many
    connection.execute("update results set classification_id = id where classification_id = %s and label <> 'rare'", (job,))
    wanted = {"classification_id": job, "image_id": image, "id": result_id(job, image)}
    plan = explained(connection, results.OF_JOB_OR_IMAGE, lab, **{named: wanted[named]})
    assert rows_read(plan) < ROWS / 10, plan
    assert not scanned(plan), plan


async def test_the_rate_of_a_running_job_costs_no_walk_through_all_of_its_results(db, lab, many, connection):
    job, _ = many
    connection.execute("update results set created_at = now() - interval '1 day'")
    assert (await classifications.progress(db, lab.ada, [job]))[job].status is JobStatus.RUNNING
    plan = explained(connection, classifications.PROGRESS, lab, ids=[job])
    assert rows_read(plan) < ROWS / 10, plan


def explained(connection, query, lab, **conditions):
    known = msgspec.structs.asdict(results.NO_FILTER) | {"id": None, "all_versions": True}
    page = {"subject": lab.ada.id, "at": None, "after": None, "maximum": 26}
    [(plan,)] = connection.execute("explain (analyze, format json) " + query, known | page | conditions)
    return plan[0]["Plan"]


def nodes(plan):
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


def rows_read(plan):
    """Rows of the tables of results that the plan looked at."""
    read = [node for node in nodes(plan) if node.get("Relation Name") in {"results", "outdated_results"}]
    assert read
    return sum((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in read)


def scanned(plan):
    return [node for node in nodes(plan) if node["Node Type"] == "Seq Scan" and node["Relation Name"] in {"results", "outdated_results"}]
