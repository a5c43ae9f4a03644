"""`bioscope jobs`: jobs are started, listed, shown, watched, cancelled and retried by the person who is signed in."""

import asyncio
import json
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from click.testing import CliRunner

from api.cli import main
from api.cli.client.credentials import Credentials, store_credentials
from api.cli.client.job_progress import speed
from api.cli.moments import short_moment
from api.cli.shapes import Job
from scripts.commands import shapes
from tests.api.http_calls import dataset, image_in, run
from tests.api.test_accounts import login
from tests.api.test_client import server_of
from tests.api.test_commands import assert_shape
from tests.api.test_registry_commands import url  # noqa: F401 - a fixture
from tests.api.worker_events import WorkerEvents

pytestmark = pytest.mark.anyio


@pytest.fixture
def bioscope(url, monkeypatch, tmp_path):  # noqa: F811 - a fixture
    """Runs a command on a machine where nobody is signed in."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    async def run_command(*arguments, code=0):
        ended = await asyncio.to_thread(CliRunner().invoke, main, [str(one) for one in arguments])
        assert ended.exit_code == code, ended.output + repr(ended.exception)
        assert ended.exception is None or isinstance(ended.exception, SystemExit), "a traceback"
        return ended

    return run_command


@pytest.fixture
async def http(api, url, bioscope):  # noqa: F811 - a fixture
    """The API for the person who is signed in on that machine."""
    address = api.account("researcher")
    tokens = (await login(api, address)).json()
    store_credentials(Credentials(url, tokens["access_token"], tokens["refresh_token"]))
    http = await api.signed_in(address)
    await WorkerEvents(api).model()
    return http


async def job_with_a_failure(api, http):
    """A job over two images that has ended: one has a result, one a failure."""
    workers, home = WorkerEvents(api), await dataset(http)
    good, bad = [await image_in(http, home, path=f"A1/{name}.jpg") for name in ("good", "bad")]
    job = await run(http, dataset_id=home)
    await workers.plan(job, [good, bad])
    await workers.judge(job, [good], [bad])
    await workers.complete(job, succeeded=1, failed=1)
    return job, home, bad


def in_one_line(text):
    return " ".join(text.split())


async def test_without_a_sign_in_a_command_says_how_to_sign_in(bioscope):
    for arguments in (["list"], ["show"], ["watch"], ["cancel", uuid4()], ["retry", uuid4()], ["run", uuid4()]):
        assert "run `bioscope login` first" in (await bioscope("jobs", *arguments, code=2)).stderr


async def test_jobs_are_listed_with_filters(api, bioscope, http):
    job, home, _ = await job_with_a_failure(api, http)
    pending = await run(http, dataset_id=home)
    lines = [line.split() for line in (await bioscope("jobs", "list")).stdout.splitlines()]
    assert [line[:4] for line in lines] == [
        ["job", "status", "model", "done"],
        [pending, "pending", "shapes@1", "0/?"],
        [job, "completed", "shapes@1", "2/2"],
    ]
    everything = [pending, job]
    name = (await http.get(f"/api/datasets/{home}")).json()["name"]
    for options, jobs in {
        ("--limit", "1"): [pending],
        ("--status", "completed"): [job],
        ("--dataset", home): everything,
        ("--dataset", name): everything,
        ("--mine",): everything,
    }.items():
        printed = (await bioscope("jobs", "list", *options, "--json")).stdout
        assert_shape(shapes()["bioscope jobs list"], printed)
        assert [one["id"] for one in json.loads(printed)] == jobs
    assert "there is no dataset 'none' that you may see" in (await bioscope("jobs", "list", "--dataset", "none", code=2)).stderr
    assert "Did you mean 'completed'?" in (await bioscope("jobs", "list", "--status", "complete", code=2)).stderr


async def test_a_job_is_shown_with_the_files_that_failed_and_why(api, bioscope, http):
    job, _, _ = await job_with_a_failure(api, http)
    for arguments in ([job], []):
        shown = in_one_line((await bioscope("jobs", "show", *arguments)).stdout)
        assert f"job {job} status completed model shapes@1" in shown
        assert "results 1 of 2 images failures 1" in shown
        assert shown.endswith("file reason in words A1/bad.jpg damaged_image It is torn.")
    printed = (await bioscope("jobs", "show", job, "--json")).stdout
    assert_shape(shapes()["bioscope jobs show"], printed)
    assert [one["reason"] for one in json.loads(printed)["failures"]] == ["damaged_image"]


async def test_a_failure_of_an_image_that_was_deleted_is_shown_with_its_id(api, bioscope, http):
    job, _, bad = await job_with_a_failure(api, http)
    await http.delete(f"/api/images/{bad}")
    assert f"{bad} damaged_image" in in_one_line((await bioscope("jobs", "show", job)).stdout)


async def test_the_newest_job_of_somebody_without_jobs_is_asked_for_by_id(bioscope, http):
    for command in ("show", "watch"):
        assert "you have not started any job yet: give the id of a job" in (await bioscope("jobs", command, code=2)).stderr
    assert "Job not found" in (await bioscope("jobs", "show", uuid4(), code=1)).stderr
    assert "See `bioscope jobs list`." in (await bioscope("jobs", "show", "x", code=2)).stderr


async def test_a_watch_of_a_job_that_nobody_may_see_ends_at_once(bioscope, http):
    job = uuid4()
    refused = await bioscope("jobs", "watch", job, code=2)
    assert f"there is no job {job} that you may see: `bioscope jobs list` lists those" in in_one_line(refused.stderr)


async def test_a_job_over_a_part_shows_what_was_chosen(bioscope, http):
    home = await dataset(http)
    image = await image_in(http, home)
    chosen = await run(http, dataset_id=home, filter={"path": "A1/*", "without_result": True})
    listed = await run(http, image_ids=[image])
    everything = await run(http, dataset_id=home)
    assert "chosen path A1/*, without_result priority" in in_one_line((await bioscope("jobs", "show", chosen)).stdout)
    assert "chosen a list of 1 image priority" in in_one_line((await bioscope("jobs", "show", listed)).stdout)
    assert "chosen" not in (await bioscope("jobs", "show", everything)).stdout
    printed = (await bioscope("jobs", "show", chosen, "--json")).stdout
    assert_shape(shapes()["bioscope jobs show"], printed)
    assert json.loads(printed)["filter"] == {"path": "A1/*", "without_result": True}


async def test_a_watched_job_ends_the_command_with_its_outcome(api, bioscope, http):
    workers, home = WorkerEvents(api), await dataset(http)
    image = await image_in(http, home)
    job = await run(http, image_id=image)
    watching = asyncio.create_task(bioscope("jobs", "watch", job, "--json"))
    await workers.judge(job, [image])
    await workers.complete(job, succeeded=1)
    done = await watching
    assert_shape(shapes()["bioscope jobs watch"], done.stdout)
    assert json.loads(done.stdout)["status"] == "completed"
    told = in_one_line(done.stderr)
    assert f"Job {job} completed: 1 result, 0 failures. Results: bioscope results list --job {job}" in told
    failed, _, _ = await job_with_a_failure(api, http)
    assert f"Failures: bioscope jobs show {failed}" in in_one_line((await bioscope("jobs", "watch", failed, code=1)).stderr)


async def test_a_cancelled_job_keeps_its_results(bioscope, http):
    job = await run(http, dataset_id=await dataset(http))
    assert f"Job {job} cancelled: 0 results, 0 failures." in in_one_line((await bioscope("jobs", "cancel", job)).stderr)
    assert "bioscope: " in (await bioscope("jobs", "cancel", job, code=1)).stderr


def test_a_retry_names_the_new_job_and_may_be_watched(monkeypatch):
    job, new = str(uuid4()), str(uuid4())
    state = dict.fromkeys(Job.__struct_fields__)
    state |= {"id": new, "status": "completed", "model_name": "shapes", "model_version": 1, "model_sha256": "ab", "threshold": 0.5}
    state |= {"planned": True, "images": 1, "listed": 0, "succeeded": 1, "failed": 0, "created_by_id": str(uuid4()), "priority": "normal"}
    state |= dict.fromkeys(("created_at", "updated_at"), "2026-03-02T09:31:00Z")
    answers = {
        f"/api/classifications/{job}/retry": [(201, {"id": new, "status": "pending"})],
        f"/api/classifications/{new}": [(200, state)],
    }
    with server_of(answers) as server:
        monkeypatch.setenv("BIOSCOPE_TOKEN", "token")
        monkeypatch.setenv("BIOSCOPE_URL", server)
        done = CliRunner().invoke(main, ["jobs", "retry", job, "--json"])
        watched = CliRunner().invoke(main, ["jobs", "retry", job, "--watch"])
    assert_shape(shapes()["bioscope jobs retry"], done.stdout)
    assert json.loads(done.stdout) == {"id": new, "status": "pending", "retry_of": job}
    assert f"Watch it with: bioscope jobs watch {new}" in in_one_line(done.stderr)
    assert f"Job {new} completed: 1 result, 0 failures." in in_one_line(watched.stderr)


async def started(bioscope, http, *arguments):
    """The job that `bioscope jobs run` started, as the API has it."""
    done = await bioscope("jobs", "run", *arguments, "--json")
    assert_shape(shapes()["bioscope jobs run"], done.stdout)
    new = json.loads(done.stdout)["id"]
    assert f"The job {new} has started. Watch it with: bioscope jobs watch {new}" in in_one_line(done.stderr)
    return (await http.get(f"/api/classifications/{new}")).json()


async def test_a_job_is_started_over_a_dataset_with_its_choices(bioscope, http):
    home = await dataset(http, "smears")
    for named in ("smears", home):
        plain = await started(bioscope, http, "--dataset", named)
        assert (plain["dataset_id"], plain["filter"], plain["model_name"], plain["priority"]) == (home, None, "shapes", "normal")
    choices = ["--model", "shapes@1", "--threshold", "0", "--priority", "high", "--deadline", "2h", "--top-k", "1", "--fresh"]
    chosen = await started(bioscope, http, "--dataset", home, *choices, "--plane", "z=max", "--plane", "c=0")
    assert [chosen[name] for name in ("model_version", "threshold", "priority", "top_k", "fresh")] == [1, 0.0, "high", 1, True]
    assert chosen["deadline"] is not None
    assert chosen["planes"] == {"z": "max", "c": [0]}


async def test_a_job_is_started_over_a_part_of_a_dataset(api, bioscope, http):
    home, admin = await dataset(http), await api.client("admin")
    device = (await admin.post("/api/devices", json={"name": "Microscope", "hostname": "scope-1"})).json()["id"]
    for options, expected in {
        ("--path", "A1/*", "--label", "round", "--verdict", "needs_review"): {"path": "A1/*", "label": "round", "verdict": "needs_review"},
        ("--device", "scope-1"): {"device_id": device},
        ("--device", device, "--without-result"): {"device_id": device, "without_result": True},
        ("--uploaded-from", "2026-03-01", "--uploaded-before", "2026-03-02T12:00:00Z"): {
            "uploaded_from": "2026-03-01T00:00:00Z",
            "uploaded_before": "2026-03-02T12:00:00Z",
        },
    }.items():
        job = await started(bioscope, http, "--dataset", home, *options)
        assert {name: value for name, value in job["filter"].items() if value not in (None, False)} == expected


async def test_a_job_is_started_over_a_list_of_images(bioscope, http):
    home = await dataset(http)
    images = [await image_in(http, home) for _ in range(2)]
    job = await started(bioscope, http, *images, "--model", "shapes")
    assert (job["listed"], job["dataset_id"]) == (2, home)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "give either --dataset or the ids of images"),
        ([uuid4(), "--dataset", "smears"], 2, "give either --dataset or the ids of images, not both"),
        ([uuid4(), "--path", "A1/*", "--without-result"], 2, "--path, --without-result chooses images of a dataset: leave it out"),
        (["smears"], 2, "'smears' is not an id."),
        (["--dataset", "none"], 2, "there is no dataset 'none' that you may see"),
        (["--dataset", "smears", "--device", "none"], 2, "there is no device 'none' that you may see"),
        (["--dataset", "smears", "--model", "none"], 2, "there is no model 'none'; choose one of: shapes"),
        (["--dataset", "smears", "--model", "shapes@"], 2, "'shapes@' is not a model"),
        (["--dataset", "smears", "--threshold", "2"], 2, "2.0 is not in the range 0<=x<=1"),
        (["--dataset", "smears", "--plane", "z=first"], 2, "z=first is wrong: planes are numbers from 0"),
        (["--dataset", "smears", "--label", "square"], 1, "filter.label must be a label of the model version: flat, round"),
        (["--dataset", "smears", "--path", ""], 1, "filter.path"),
        (["--dataset", "smears", "--deadline", "2020-01-01"], 1, "deadline must be in the future"),
        ([uuid4()], 1, "not found"),
    ],
)
async def test_a_wrong_choice_starts_no_job_and_is_answered_with_what_to_do(bioscope, http, arguments, code, sentence):
    await dataset(http, "smears")
    assert sentence in in_one_line((await bioscope("jobs", "run", *arguments, code=code)).stderr)
    assert (await http.get("/api/classifications/")).json() == []


async def test_a_started_job_may_be_watched_until_it_has_ended(api, bioscope, http):
    workers, home = WorkerEvents(api), await dataset(http)
    image = await image_in(http, home)
    watching = asyncio.create_task(bioscope("jobs", "run", image, "--watch", code=1))
    while not (jobs := (await http.get("/api/classifications/")).json()):
        await asyncio.sleep(0.05)
    job = jobs[0]["id"]
    await workers.plan(job, [image])
    await workers.judge(job, [], [image])
    await workers.complete(job, succeeded=0, failed=1)
    assert f"Failures: bioscope jobs show {job}" in in_one_line((await watching).stderr)


async def test_a_list_fits_80_columns_and_breaks_no_time(api, bioscope, http, monkeypatch):
    job, _, _ = await job_with_a_failure(api, http)
    monkeypatch.setenv("COLUMNS", "80")
    title, row = (await bioscope("jobs", "list")).stdout.splitlines()
    assert title.split() == ["job", "status", "model", "done", "started", "(UTC)"]
    assert len(row) <= 80
    assert f"{datetime.now(UTC):%b} " in row
    assert row.startswith(f"{job}  completed  shapes@1   2/2  ")


def test_a_moment_of_another_year_is_shown_as_a_day():
    now = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    assert short_moment(now, now=now) == "Mar 01 12:30"
    assert short_moment(datetime(2025, 12, 31, 23, 59, tzinfo=UTC), now=now) == "2025-12-31"


def test_the_pace_of_a_job_is_shown_as_far_as_the_server_knows_it():
    for rate, remaining, text in (
        (12.34, 100, "12.3/s, 2 min left"),
        (0.5, 4800, "0.5/s, 1 h 20 min left"),
        (3.0, 12.4, "3.0/s, 12 s left"),
        (None, None, ""),
        (2.0, None, "2.0/s"),
        (2.0, 0.0, "2.0/s"),
    ):
        assert speed({"rate": rate, "remaining_seconds": remaining}) == text
    assert speed({}) == ""
