"""The contract of the work queue: what jobs cover, which results they may repeat, whose turn it is. Postgres and the in-memory twin."""

from datetime import timedelta
from functools import partial
from uuid import uuid4

import msgspec
import pytest

from application.jobs.job_scheduler import Scheduler, SchedulerLimits
from application.jobs.planner import PlanningLimits
from application.jobs.tasks import Kind
from application.jobs.work_queue import JobFile
from domain import classification
from domain import image as image_of
from domain.access import Grant, Role
from domain.classification import ChunkJudged, ImageFilter, JobStatus, PlaneSelection, Priority, Verdict
from domain.values import result_id
from infrastructure.images.reader_version import READER_VERSION
from projections.engine.batches import TABLES
from tests.contracts.test_read_models import scenario, stood
from tests.given import NOW

__all__ = ["scenario", "stood"]

CLASSIFICATIONS = next(table for table in TABLES if table.name == "classifications")
PAGES = SchedulerLimits(PlanningLimits(images_per_command=2, images_per_turn=4), seconds_per_tick=60)


@pytest.fixture
def ada(scenario):
    scenario.model()
    return scenario.user()


@pytest.fixture
def cells(scenario, ada):
    return scenario.dataset(ada)


@pytest.fixture
def work(stood):
    work = stood.work()
    yield work
    work.close()


@pytest.fixture
def scheduler(stood, scenario):
    scheduler = Scheduler(stood.work, scenario.log, lease=60, attempts=2, limits=PAGES)
    yield scheduler
    scheduler.close()


@pytest.fixture
def step(scenario, scheduler):
    """The scheduler's turn, and the chunks that it gives out."""

    def step():
        scenario.follow()
        outgoing = scheduler.tick()
        scheduler.dispatched(outgoing)
        scenario.follow()
        return [(one.task.job, one.task.number) for one in outgoing if one.task.kind is Kind.CLASSIFY]

    return step


def state(scenario, job):
    return scenario.log.load(job, classification.evolve)


def covered(scenario, work, job, *, after=0, maximum=100):
    """The images that the job covers, as the queue finds them at the position of its request."""
    scenario.follow()
    (asked,) = (one for one in work.snapshot().to_plan if one.id == job)
    return work.classifiable(state(scenario, job), after=after, until=asked.position, maximum=maximum)


def ids(page):
    return [image.id for image in page.images]


def sha256(number):
    return f"{number:064x}"


# ---- what a job covers -------------------------------------------------------------------------------------------------------------
def test_a_list_covers_its_images_in_the_order_of_their_upload(scenario, work, ada, cells):
    images = [scenario.image(ada, cells) for _ in range(5)]
    job = scenario.job(ada, images=(images[3], images[0], images[4]))
    scenario.delete_image(ada, images[4])
    assert ids(covered(scenario, work, job)) == [images[0], images[3]]


def test_a_filter_by_time_device_and_path(scenario, work, ada, cells):
    scope = scenario.device(scenario.user(Role.ADMIN))
    first = scenario.image(ada, cells, path="A1/One_1.TIF")
    scenario.later(hours=1)
    second = scenario.image(ada, cells, path="A1/two.png", device=scope)
    scenario.later(hours=1)
    third = scenario.image(ada, cells, filename="100%.tif")

    def found(*, path=None, **asked):
        return ids(covered(scenario, work, scenario.job(ada, dataset=cells, where=ImageFilter(**asked), path=path)))

    assert found() == [first, second, third]
    assert found(uploaded_from=NOW + timedelta(hours=1)) == [second, third]
    assert found(uploaded_before=NOW + timedelta(hours=1)) == [first]
    assert found(device_id=scope) == [second]
    assert found(device_id=uuid4()) == []
    assert found(path="a1/*") == [first, second]
    assert found(path="*.tif") == [first, third]
    assert found(path="*?_?.tif") == [first]
    assert found(path="100%*") == [third]
    assert found(path="%") == found(path="A1") == []
    assert found(path="*", device_id=scope) == [second]


def test_a_filter_by_the_newest_result_of_the_model_as_it_was_at_the_request(scenario, work, ada, cells):
    scenario.model("others")
    images = [scenario.image(ada, cells) for _ in range(3)]
    for model, seen in (("shapes", images[:2]), ("others", images[2:])):
        job = scenario.job(ada, images=tuple(seen), model=model)
        scenario.plan(job, seen)
        scenario.judge(job, 0, seen)
    scenario.later(minutes=1)
    again = scenario.job(ada, image=images[1])
    scenario.judge(again, 0, images[1:2], verdict=Verdict.NEEDS_REVIEW, label="flat")

    def asked(**where):
        return scenario.job(ada, dataset=cells, where=ImageFilter(**where))

    jobs = {
        asked(label="round"): [images[0]],
        asked(label="flat"): [images[1]],
        asked(verdict=Verdict.NEEDS_REVIEW): [images[1]],
        asked(verdict=Verdict.CLEAR, label="round"): [images[0]],
        asked(verdict=Verdict.CLEAR, label="flat"): [],
        asked(without_result=True): [images[2]],
    }
    scenario.later(minutes=1)
    late = scenario.job(ada, image=images[2])
    scenario.judge(late, 0, images[2:])
    assert {job: ids(covered(scenario, work, job)) for job in jobs} == jobs


def test_the_newest_result_is_the_one_that_was_recorded_last_whatever_the_clock_of_its_worker_said(scenario, work, ada, cells):
    image = scenario.image(ada, cells)
    scenario.judge(scenario.job(ada, image=image), 0, [image], label="round")
    scenario.later(minutes=-5)
    scenario.judge(scenario.job(ada, image=image), 0, [image], label="flat")
    jobs = {label: scenario.job(ada, dataset=cells, where=ImageFilter(label=label)) for label in ("round", "flat")}
    assert {label: ids(covered(scenario, work, job)) for label, job in jobs.items()} == {"round": [], "flat": [image]}


def test_a_page_looks_at_a_bounded_number_of_images_whatever_matches(scenario, work, ada, cells):
    images = [scenario.image(ada, cells, filename=f"{number % 3}.png") for number in range(7)]
    job = scenario.job(ada, dataset=cells, path="0.png")
    pages, after = [], 0
    while not pages or pages[-1].more:
        pages.append(covered(scenario, work, job, after=after, maximum=3))
        after = pages[-1].last
    assert [(ids(page), page.seen, page.more) for page in pages] == [
        ([images[0]], 3, True),
        ([images[3]], 3, True),
        ([images[6]], 1, False),
    ]
    assert work.last_position([]) == 0
    assert work.last_position([images[6], images[2]]) == pages[-1].last


def test_a_filter_that_matches_nothing_fails_the_job_with_a_reason(stood, scenario, step, ada, cells):
    scenario.image(ada, cells)
    for covers, reason in (
        ({"dataset": cells, "path": "x"}, "No image of the dataset matches the filter"),
        ({"dataset": scenario.dataset(ada)}, "The dataset holds no image that can be classified"),
    ):
        job = scenario.job(ada, **covers)
        step()
        step()
        assert state(scenario, job).phase is JobStatus.FAILED
        (row,) = (row for row in stood.rows(CLASSIFICATIONS) if row.id == job)
        assert row.reason == reason


def test_a_retry_covers_what_the_earlier_job_left_without_a_result(scenario, step, work, ada, cells):
    images = [scenario.image(ada, cells, sha256=sha256(number)) for number in range(4)]
    job = scenario.job(ada, dataset=cells)
    scenario.plan(job, images[:2], more=True)
    scenario.plan(job, images[2:])
    scenario.judge(job, 0, images[:1], images[1:2])
    scenario.cancel(ada, job)
    retry = scenario.retry(ada, job)
    assert ids(covered(scenario, work, retry)) == images[1:]
    scenario.delete_image(ada, images[3])
    assert ids(covered(scenario, work, retry)) == images[1:3]
    assert step() == []
    assert state(scenario, retry).images == 2


# ---- planning ----------------------------------------------------------------------------------------------------------------------
def parts_of(scenario, job):
    events = [scenario.log.decode(one) for one in scenario.log.history(job)]
    return [(len(event.images), event.last) for event in events if isinstance(event, classification.ClassificationPlanned)]


def test_a_large_job_is_planned_over_several_turns_and_delays_no_small_one(scenario, step, ada, cells):
    for _ in range(10):
        scenario.image(ada, cells)
    few = scenario.dataset(ada)
    scenario.image(ada, few)
    large = scenario.job(ada, dataset=cells)
    step()
    small = scenario.job(ada, dataset=few)
    step()
    assert (parts_of(scenario, large), parts_of(scenario, small)) == ([(2, False)] * 4, [(1, True)])
    step()
    assert parts_of(scenario, large) == [(2, False)] * 4 + [(2, True)]


def test_another_process_continues_a_plan_behind_its_newest_image_though_reused_ones_form_parts_of_their_own(
    stood, scenario, step, scheduler, ada, cells
):
    images = [scenario.image(ada, cells, sha256=sha256(number)) for number in range(7)]
    known = [images[1], images[2], images[6]]
    earlier = scenario.job(ada, images=tuple(known))
    scenario.plan(earlier, known)
    scenario.judge(earlier, 0, known)
    job = scenario.job(ada, dataset=cells)
    step()
    scheduler.close()
    other = Scheduler(stood.work, scenario.log, lease=60, attempts=2, limits=PAGES)
    for _ in range(3):
        scenario.follow()
        other.tick()
    other.close()
    events = [scenario.log.decode(one) for one in scenario.log.history(job)[1:]]
    assert sorted(one.id for part in events for one in part.images) == sorted(images)
    assert [event.last for event in events] == [False] * (len(events) - 1) + [True]


# ---- reuse -------------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def judged(scenario, ada, cells):
    """An image with its result, and the job that gave it."""
    image = scenario.image(ada, cells)
    scenario.accept(image)
    job = scenario.job(ada, image=image)
    scenario.judge(job, 0, [image], confidence=0.7)
    return image, job


def answers_of(scenario, job):
    found = [scenario.log.decode(one) for one in scenario.log.read(0, 10_000) if one.type == ChunkJudged.__name__]
    return [result for event in found if event.job_id == job for result in event.results]


def test_an_image_with_a_result_is_answered_without_a_worker(scenario, step, ada, judged):
    image, earlier = judged
    again = scenario.job(ada, image=image, threshold=0.9)
    assert step() == []
    step()
    assert state(scenario, again).phase is JobStatus.COMPLETED
    (first,), (result,) = answers_of(scenario, earlier), answers_of(scenario, again)
    assert (result.scores, result.label, result.reused) == (first.scores, first.label, result_id(earlier, image))
    assert (first.verdict, result.verdict) == (Verdict.CLEAR, Verdict.NEEDS_REVIEW)
    third = scenario.job(ada, image=image)
    step()
    assert answers_of(scenario, third)[0].reused == result_id(earlier, image)


def test_a_result_is_reused_for_the_same_file_in_another_dataset(scenario, step, ada, judged):
    image, earlier = judged
    copy = scenario.image(ada, scenario.dataset(ada))
    scenario.accept(copy)
    again = scenario.job(ada, image=copy)
    assert step() == []
    (result,) = answers_of(scenario, again)
    assert (result.image_id, result.reused) == (copy, result_id(earlier, image))


@pytest.mark.parametrize(
    "difference",
    ["fresh", "planes", "model", "file", "version", "hidden job", "outdated", "external"],
)
def test_a_result_is_not_reused_where_another_one_could_come_out(scenario, work, ada, cells, judged, difference):
    image, earlier = judged
    match difference:
        case "fresh":
            job = scenario.job(ada, image=image, fresh=True)
        case "planes":
            job = scenario.job(ada, image=image, planes=PlaneSelection(z=1))
        case "model":
            scenario.model("others")
            job = scenario.job(ada, image=image, model="others")
        case "file":
            image = scenario.image(ada, cells, sha256=sha256(7))
            job = scenario.job(ada, image=image)
        case "version":
            scenario.model("shapes", sha256=sha256(8))
            job = scenario.job(ada, image=image, model="shapes@candidate")
        case "hidden job":
            scenario.delete_job(ada, earlier)
            job = scenario.job(ada, image=image)
        case "outdated":
            scenario.reinspect(image, outdated=[result_id(earlier, image)], reader=READER_VERSION)
            job = scenario.job(ada, image=image)
        case "external":
            job = external_job(scenario, ada, like=earlier)
    scenario.follow()
    wanted = JobFile(job, sha256(7) if difference == "file" else state_sha256(scenario, image))
    assert work.reusable({wanted}) == {}


def test_a_result_is_not_reused_until_the_present_reader_has_seen_its_image(scenario, work, ada, cells):
    image = scenario.image(ada, cells)
    scenario.accept(image, reader=READER_VERSION - 1)
    earlier = scenario.job(ada, image=image)
    scenario.judge(earlier, 0, [image])
    again, file = scenario.job(ada, image=image), state_sha256(scenario, image)
    scenario.follow()
    assert work.reusable({JobFile(again, file)}) == {}
    scenario.reinspect(image, reader=READER_VERSION)
    scenario.follow()
    assert [one.id for one in work.reusable({JobFile(again, file)}).values()] == [result_id(earlier, image)]


def external_job(scenario, owner, *, like):
    """A job as another one, which a program outside of the system answers."""
    first = scenario.log.decode(scenario.log.event(like, 1))
    asked = msgspec.structs.replace(first, originator_id=uuid4(), external=True)
    scenario.log.append(scenario.command(owner), asked)
    return asked.originator_id


def state_sha256(scenario, image):
    return scenario.log.load(image, image_of.evolve).sha256


def test_only_results_that_the_person_may_read_are_reused(scenario, work, ada, cells, judged):
    image, earlier = judged
    bob, root = scenario.user(name="bob"), scenario.user(Role.ADMIN, name="root")
    copies = {person: scenario.image(person, scenario.dataset(person)) for person in (bob, root)}
    asked = {person: JobFile(scenario.job(person, image=copy), state_sha256(scenario, copy)) for person, copy in copies.items()}
    scenario.follow()
    assert {person for person, wanted in asked.items() if work.reusable({wanted})} == {root}
    scenario.share(ada, cells, bob, Grant.VIEWER)
    scenario.follow()
    found = work.reusable(set(asked.values()))
    assert {(wanted, result.id, result.image_id) for wanted, result in found.items()} == {
        (wanted, result_id(earlier, image), image) for wanted in asked.values()
    }
    assert work.reusable(set()) == {}


def test_of_a_dataset_the_known_images_are_answered_and_only_the_others_go_to_a_worker(scenario, step, ada, cells):
    images = [scenario.image(ada, cells, sha256=sha256(number)) for number in range(4)]
    for one in images:
        scenario.accept(one)
    earlier = scenario.job(ada, images=tuple(images[::2]))
    step()
    scenario.judge(earlier, 0, images[::2])
    step()
    job = scenario.job(ada, dataset=cells)
    given = [one for _ in range(4) for one in step()]
    answered = {result.image_id for result in answers_of(scenario, job)}
    assert answered == {images[0], images[2]}
    assert [of for of, _ in given] == [job, job]


# ---- deadlines ---------------------------------------------------------------------------------------------------------------------
def test_at_its_deadline_a_job_fails_and_its_results_stay(stood, scenario, step, ada, cells):
    images = [scenario.image(ada, cells, sha256=sha256(number)) for number in range(2)]
    late = scenario.job(ada, dataset=cells, deadline=NOW + timedelta(hours=1))  # long ago, by the clock of the database
    unplanned = scenario.job(ada, dataset=scenario.dataset(ada), deadline=NOW + timedelta(hours=1))
    scenario.plan(late, images[:1], more=True)
    scenario.plan(late, images[1:])
    scenario.judge(late, 0, images[:1])
    step()
    rows = {row.id: row for row in stood.rows(CLASSIFICATIONS)}
    assert (rows[late].status, rows[late].succeeded) == (JobStatus.FAILED, 1)
    assert rows[late].reason == "The deadline passed before every image had an answer: 1 of 2 have one"
    assert rows[unplanned].status is JobStatus.FAILED
    assert len(answers_of(scenario, late)) == 1


def test_a_job_whose_images_have_all_an_answer_is_completed_though_its_deadline_has_passed(scenario, step, ada, cells):
    image = scenario.image(ada, cells)
    job = scenario.job(ada, image=image, deadline=NOW + timedelta(hours=1))
    scenario.judge(job, 0, [image])
    step()
    assert state(scenario, job).phase is JobStatus.COMPLETED


def test_a_job_whose_images_have_all_an_answer_is_never_overdue(scenario, work, ada, cells):
    image = scenario.image(ada, cells)
    job = scenario.job(ada, image=image, deadline=NOW + timedelta(hours=1))
    scenario.follow()
    assert [one.id for one in work.snapshot().overdue] == [job]
    scenario.judge(job, 0, [image])
    scenario.follow()
    seen = work.snapshot()
    assert ([one.id for one in seen.to_finish], seen.overdue) == ([job], [])


# ---- whose turn it is --------------------------------------------------------------------------------------------------------------
def test_jobs_of_each_person_wait_by_priority_and_age_however_many_others_there_are(scenario, work, ada, cells):
    bob = scenario.user(name="bob")
    scenario.share(ada, cells, bob, Grant.ANALYST)
    images = [scenario.image(ada, cells, sha256=sha256(number)) for number in range(6)]
    levels = (Priority.NORMAL, Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.NORMAL)
    of_ada = [scenario.job(ada, image=image, priority=priority) for image, priority in zip(images, levels, strict=False)]
    of_bob = scenario.job(bob, image=images[5])
    scenario.follow()
    shown = partial(work.waiting, urgent=True)
    assert [job.id for job in shown(maximum=2)] == [of_ada[0], of_ada[3], of_bob]
    assert [(job.id, job.priority, job.created_by) for job in shown(maximum=9)] == [
        *((job, priority, ada.id) for job, priority in zip(of_ada, levels, strict=True)),
        (of_bob, Priority.NORMAL, bob.id),
    ]
