"""`bioscope policies`: rules are previewed, set, shown and withdrawn through the API, by the person who is signed in."""

import asyncio
import json

import pytest
from click.testing import CliRunner

from api.cli import main
from api.cli.client.credentials import Credentials, store_credentials
from projections.process.policies import apply_policies
from scripts.commands import shapes
from tests.api.http_calls import dataset, image_in, run
from tests.api.test_accounts import login
from tests.api.test_commands import assert_shape
from tests.api.test_registry_commands import url  # noqa: F401 - a fixture
from tests.api.worker_events import WorkerEvents

pytestmark = pytest.mark.anyio

WHY = ("--reason", "Too many were missed")


@pytest.fixture
def bioscope(url, monkeypatch, tmp_path):  # noqa: F811 - a fixture
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    monkeypatch.setenv("COLUMNS", "200")

    async def run_command(*arguments, code=0):
        ended = await asyncio.to_thread(CliRunner().invoke, main, ["policies", *map(str, arguments)])
        assert ended.exit_code == code, ended.output + repr(ended.exception)
        assert ended.exception is None or isinstance(ended.exception, SystemExit), "a traceback"
        return ended

    return run_command


@pytest.fixture
async def job(api, url):  # noqa: F811 - a fixture
    """A job of the person who is signed in, with one result: round, 0.75."""
    address = api.account("admin")
    tokens = (await login(api, address)).json()
    store_credentials(Credentials(url, tokens["access_token"], tokens["refresh_token"]))
    http, workers = await api.signed_in(address), WorkerEvents(api)
    await workers.model()
    image = await image_in(http, await dataset(http))
    job = await run(http, image_id=image)
    await workers.judge(job, [image], confidence=0.75)
    return job


@pytest.fixture
async def name_of_dataset(api, job):
    http = await api.signed_in(api.account("admin"))
    [dataset] = (await http.get("/api/datasets")).json()
    return dataset["name"]


async def printed(bioscope, command, *arguments):
    ended = await bioscope(*command.split(), *arguments, "--json")
    assert_shape(shapes()[f"bioscope policies {command.split()[0]}"], ended.stdout)
    return json.loads(ended.stdout)


async def test_a_policy_is_previewed_set_applied_and_withdrawn(bioscope, job, settings):
    found = await bioscope("preview", "job", job, "--review-below", 0.9)
    assert "1 of all 1 results would get another label or verdict." in found.stdout
    assert [line.split() for line in found.stdout.splitlines()[2:]] == [["round", "clear", "1", "0"], ["round", "needs_review", "0", "1"]]
    assert (await bioscope("list")).stdout == "There is no policy.\n"
    assert (await bioscope("history", "job", job)).stdout == "No policy has been set.\n"
    assert (await bioscope("set", "job", job, "--review-below", 0.9, *WHY)).stderr.endswith("The policy of this job is set.\n")
    again = await bioscope("set", "job", job, "--review-below", 0.9, *WHY)
    assert again.stderr.endswith("The job has this policy already. The reason was not recorded.\n")
    assert "not yet" in (await bioscope("show", "job", job)).stdout
    await asyncio.to_thread(apply_policies, settings.postgres_url, lambda: False)
    assert "not yet" not in (await bioscope("show", "job", job)).stdout
    assert "review below 0.9" in (await bioscope("list")).stdout
    assert (await bioscope("withdraw", "job", job, "--reason", "Not needed")).stderr.endswith("The policy of this job is withdrawn.\n")
    history = (await bioscope("history", "job", job)).stdout
    assert "Too many were missed" in history
    assert "withdrawn" in history


async def test_the_json_has_the_documented_shape(bioscope, job):
    preview = await printed(bioscope, "preview", "model", "shapes", "--label-at", "flat=0.2")
    assert (preview["changed"], preview["after"]) == (1, [{"label": "flat", "verdict": "needs_review", "count": 1}])
    await bioscope("set", "model", "shapes", "--label-at", "flat=0.2", *WHY)
    [listed] = await printed(bioscope, "list")
    assert "shapes" in (await bioscope("list")).stdout
    assert listed["rules"] == {"label_at": {"flat": 0.2}}
    assert await printed(bioscope, "show", "model", "shapes") == listed
    [change] = await printed(bioscope, "history", "model", "shapes")
    assert await printed(bioscope, "history", "model", "shapes", "--as-of", change["position"]) == [change]
    earlier = await printed(bioscope, "show", "model", "shapes", "--as-of", change["position"])
    assert (earlier["rules"], earlier["applied_at"]) == (listed["rules"], None)


async def test_a_dataset_is_named_as_in_other_commands(bioscope, job, name_of_dataset):
    await bioscope("set", "dataset", name_of_dataset, "--review-below", 0.99999999, *WHY)
    assert "review below 0.99999999" in (await bioscope("show", "dataset", name_of_dataset)).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["set", "model", "cells", "--review-below", "1"], "there is no model 'cells'"),
        (["set", "job", "cells", "--review-below", "1"], "is not the id of a job"),
        (["set", "person", "cells", "--review-below", "1"], "is not one of"),
        (["set", "dataset", "none", "--review-below", "1"], "there is no dataset 'none' that you may see"),
        (["set", "model", "shapes", "--review-below", "high"], "is not a number"),
        (["set", "model", "shapes", "--review-below", "nan"], "'nan' is not a number from 0 to 1"),
        (["set", "model", "shapes", "--label-at", "flat=1.5"], "'flat=1.5' is not a number from 0 to 1"),
        (["set", "model", "shapes", "--review-outside", "0", "inf"], "inf is not a finite number"),
        (["set", "model", "shapes", "--review-below", "0.1", "--review-below", "0.2"], "twice for all labels"),
        (["set", "model", "shapes", "--label-at", "flat=0.1", "--label-at", "flat=0.2"], "twice for flat"),
        (["set", "model", "shapes", "--label-at", "0.1"], "needs a label"),
    ],
)
async def test_a_wrong_command_line_is_explained(bioscope, job, arguments, message):
    ended = await bioscope(*arguments, *WHY, code=2)
    assert message in ended.stderr


async def test_what_the_server_refuses_is_explained(bioscope, job):
    ended = await bioscope("set", "model", "shapes", "--label-at", "square=0.1", *WHY, code=1)
    assert "Labels: flat, round" in ended.stderr
    assert "at least one rule" in (await bioscope("set", "model", "shapes", *WHY, code=1)).stderr
