"""`bioscope models`: what is registered is shown, promoted, retired and saved through the API, by the person who is signed in."""

import asyncio
import copy
import json
from hashlib import sha256
from uuid import UUID, uuid4
from zipfile import ZipFile

import msgspec
import pytest
import uvicorn
from click.testing import CliRunner

from api.cli import main
from api.cli.client.credentials import Credentials, store_credentials
from api.cli.client.registry import differences, print_model, split_reference
from api.cli.shapes import RegisteredModel, RegisteredVersion
from api.documents import examples
from application import accounts
from domain import model
from domain.values import model_id
from scripts.commands import shapes
from tests.api.http_calls import id_of
from tests.api.test_accounts import login
from tests.api.test_commands import assert_shape
from tests.api.test_models import stored
from tests.api.worker_events import REPORT, SHA256, WorkerEvents, now
from tests.rigs.waiting import wait_until_async

pytestmark = pytest.mark.anyio

WHY = "Validated on the slides of March"
WEIGHTS = b"weights"
PROMOTED = "Version 2 of the model shapes is now in production. It is no longer the candidate.\n"


@pytest.fixture
async def url(api):
    """The address of a server of the application."""
    server = uvicorn.Server(uvicorn.Config(api.app, port=0, lifespan="off", log_config=None, access_log=False))
    serving = asyncio.create_task(server.serve())
    await wait_until_async(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await serving


@pytest.fixture
def bioscope(url, monkeypatch, tmp_path):
    """Runs a command on a machine where nobody is signed in."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    async def run(*arguments, code=0, **keywords):
        ended = await asyncio.to_thread(CliRunner().invoke, main, ["models", *arguments], **keywords)
        assert ended.exit_code == code, ended.output + repr(ended.exception)
        assert ended.exception is None or isinstance(ended.exception, SystemExit), "a traceback"
        return ended

    return run


@pytest.fixture
def sign_in(api, url):
    """Signs somebody new in on that machine, and returns the account."""

    async def sign_in(role):
        address = api.account(role)
        tokens = (await login(api, address)).json()
        store_credentials(Credentials(url, tokens["access_token"], tokens["refresh_token"]))
        return accounts.find(address, api.services.log)

    return sign_in


@pytest.fixture
async def registered(api):
    """`shapes` has a version in production and a candidate of a person; `cells` has a candidate only."""
    workers, ada = WorkerEvents(api), await api.client("researcher")
    await workers.model("shapes", sha256=stored(api, WEIGHTS), kind=model.OutputKind.SOFTMAX)
    await workers.uploaded_model("shapes", UUID(await id_of(ada)), package=stored(api, b"package"))
    await workers.uploaded_model("cells", UUID(await id_of(ada)), package=SHA256)
    return (await ada.get("/api/users/me")).json()["username"]


def in_one_line(text):
    return " ".join(text.split())


def state(api, name="shapes"):
    return api.services.log.load(model_id(name), model.evolve)


# ---- reading -----------------------------------------------------------------------------------------------------------------------
async def test_without_a_sign_in_a_command_says_how_to_sign_in(bioscope):
    for arguments in (["list"], ["show", "x"], ["promote", "x", "1", "--reason", "y"], ["export", "x", "y.zip"], ["history", "x"]):
        assert "run `bioscope login` first" in (await bioscope(*arguments, code=2)).stderr


async def test_models_are_listed_with_aliases_and_labels(bioscope, sign_in, registered):
    await sign_in("viewer")
    lines = [line.split() for line in (await bioscope("list")).stdout.splitlines()]
    assert lines == [
        ["model", "production", "other", "aliases", "versions", "labels"],
        ["cells", "-", "candidate", "1", "1", "round,", "flat"],
        ["shapes", "1", "candidate", "2", "2", "round,", "flat"],
    ]
    printed = (await bioscope("list", "--json")).stdout
    assert_shape(shapes()["bioscope models list"], printed)
    assert [(one["name"], one["production"]) for one in json.loads(printed)] == [("cells", None), ("shapes", 1)]


async def test_an_installation_without_models_says_so(bioscope, sign_in):
    await sign_in("viewer")
    assert (await bioscope("list")).stdout == "No model is registered.\n"
    assert (await bioscope("list", "--json")).stdout == "[]\n"
    assert "there is no model 'shapes'; choose one of: none is registered" in (await bioscope("show", "shapes", code=2)).stderr


async def test_a_model_is_shown_with_versions_labels_in_words_and_checks(bioscope, sign_in, registered):
    await sign_in("viewer")
    shown = (await bioscope("show", "shapes@candidate")).stdout
    line = in_one_line(shown)
    assert "aliases candidate: 2, production: 1" in line
    assert "promoters administrators only" in line
    assert f"by package 1 - softmax {now():%Y-%m-%d}" in line
    assert f"{registered} {sha256(b'package').hexdigest()[:12]}" in line
    assert "Labels of version 2: round: without edges flat" in line
    where, seconds = REPORT.environment, REPORT.run_seconds
    compared = f"largest difference {REPORT.largest_difference:.2g} of {REPORT.tolerance:.2g}"
    assert f"{where.runtime}, {where.provider}, {where.cpu} passed, {compared}, {seconds * 1000:.1f} ms an image" in line
    assert "Labels of version 1: round flat" in in_one_line((await bioscope("show", "shapes")).stdout)
    printed = (await bioscope("show", "shapes", "--json")).stdout
    assert_shape(shapes()["bioscope models show"], printed)
    assert json.loads(printed)["versions"][1]["label_texts"] == {"round": "without edges"}


@pytest.mark.parametrize(("columns", "most"), [("80", 80), ("100", 100), ("", 100)], ids=["narrow", "wide", "file"])
def test_a_model_is_never_shown_wider_than_the_terminal_or_100_columns(columns, most, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    model = copy.deepcopy(examples.SCHEMAS["Model"])
    version = model["versions"][0]
    version |= {
        "description": "words " * 100,
        "release": "a-long-name " * 8,
        "added_by_username": "ada.of.a.distant.laboratory@example",
    }
    version["label_texts"] = {version["labels"][0]: "words " * 50}
    version["checks"][0]["environment"]["cpu"] = "Intel(R) Xeon(R) Processor @ 2.90GHz (avx2, avx512_vnni, amx_int8)"
    print_model(msgspec.convert(model, RegisteredModel), None)
    lines = capsys.readouterr().out.splitlines()
    assert most - 20 < max(map(len, lines)) <= most


async def test_a_failed_check_is_shown_with_its_reason(api, bioscope, sign_in, registered):
    workers, asked = WorkerEvents(api), await sign_in("researcher")
    await workers.failed_test("cells", asked.id)
    assert "failed: The test output differs" in in_one_line((await bioscope("show", "cells")).stdout)


async def test_what_does_not_exist_is_answered_with_what_does(bioscope, sign_in, registered):
    await sign_in("admin")
    for name in ("nothing", "\udcff", "a/b", "..", "x?y", ""):
        for arguments in (["show", name], ["history", name], ["promote", name, "1", "--reason", WHY], ["retire", name, "--reason", WHY]):
            ended = await bioscope(*arguments, code=2)
            assert ended.stdout == ""
            assert "choose one of: cells, shapes" in ended.stderr
    for version in ("3", "stable", "", "\udcff", "1" * 5000):
        ended = await bioscope("show", f"shapes@{version}", code=2)
        assert "it has the versions 1, 2 and the aliases candidate (2), production (1)" in ended.stderr


async def test_a_model_is_shown_as_it_was(api, bioscope, sign_in, registered):
    await sign_in("admin")
    before, head = now().isoformat(), api.services.log.head()
    await bioscope("promote", "shapes", "2", "--reason", WHY)
    for as_of in (before, str(head)):
        then = json.loads((await bioscope("show", "shapes", "--as-of", as_of, "--json")).stdout)
        assert then["production"] == 1
    assert "aliases production: 2" in in_one_line((await bioscope("show", "shapes", "--as-of", now().isoformat())).stdout)
    assert "as_of must be a time" in (await bioscope("show", "shapes", "--as-of", "yesterday", code=2)).stderr
    assert "beyond the end of the log" in (await bioscope("show", "shapes", "--as-of", "999999", code=2)).stderr
    assert "There was no model shapes" in (await bioscope("show", "shapes", "--as-of", "1", code=1)).stderr


# ---- changing ----------------------------------------------------------------------------------------------------------------------
async def test_a_promotion_is_recorded_under_the_person_who_is_signed_in(api, bioscope, sign_in, registered):
    admin = await sign_in("admin")
    assert (await bioscope("promote", "shapes", "2", "--reason", WHY)).stderr.endswith(PROMOTED)
    assert state(api).aliases == {"production": 2}
    last = api.services.log.history(model_id("shapes"))[-1]
    assert msgspec.json.decode(last.meta)["actor"] == {"id": str(admin.id), "kind": "user", "role": "admin"}
    again = in_one_line((await bioscope("promote", "shapes", "2", "--reason", "Another one")).stderr)
    assert again.endswith("Version 2 of the model shapes is in production already. The reason was not recorded.")
    stable = ["promote", "shapes", "1", "--alias", "stable", "--reason", WHY]
    assert (await bioscope(*stable)).stderr.endswith("`stable` is now version 1 of the model shapes.\n")
    again = in_one_line((await bioscope(*stable)).stderr)
    assert again.endswith("`stable` is version 1 of the model shapes already. The reason was not recorded.")
    assert state(api).aliases == {"production": 2, "stable": 1}


LABELS_DIFFER = "note: labels differ from those of version 1 in production: new square; missing flat"
KIND_DIFFERS = "note: kind differs from that of version 1 in production: softmax, not logits"


@pytest.fixture
async def different(api):
    """A candidate of another kind, with other labels than the version in production."""
    workers, ada = WorkerEvents(api), await api.client("researcher")
    await workers.model("shapes")
    await workers.uploaded_model("shapes", UUID(await id_of(ada)), labels=("round", "square"))


async def test_other_labels_go_into_production_only_if_somebody_agrees(api, bioscope, sign_in, different):
    await sign_in("admin")
    asked = ["promote", "shapes", "2", "--reason", WHY]
    for answer, code, end in (("", 2, "add --yes if the users of the model expect this"), ("n\n", 1, "Aborted!")):
        printed = in_one_line((await bioscope(*asked, code=code, input=answer)).stderr)
        assert LABELS_DIFFER in printed
        assert KIND_DIFFERS in printed
        assert printed.endswith(end)
        assert state(api).aliases == {"production": 1, "candidate": 2}
    assert LABELS_DIFFER not in in_one_line((await bioscope(*asked, "--alias", "stable")).stderr), "another alias"
    assert (await bioscope(*asked, input="y\n")).stderr.endswith(PROMOTED)
    assert state(api).aliases == {"production": 2, "stable": 2}


async def test_other_labels_go_into_production_without_a_question_with_yes(api, bioscope, sign_in, different):
    await sign_in("admin")
    printed = in_one_line((await bioscope("promote", "shapes", "2", "--reason", WHY, "--yes")).stderr)
    assert LABELS_DIFFER in printed
    assert "[y/N]" not in printed
    assert state(api).aliases == {"production": 2}


def test_the_same_labels_in_another_order_are_a_difference():
    version = {"number": 1, "kind": "softmax", "labels": ["round", "flat"], "added_at": now(), "size": 1, "review_below": 0.5, "checks": []}
    names = ("release", "unit", "digest", "package", "added_by", "added_by_username", "label_threshold")
    one = msgspec.convert(version | dict.fromkeys(names) | {"description": "", "label_texts": {}, "sha256": SHA256}, RegisteredVersion)
    two = msgspec.structs.replace(one, number=2, labels=("flat", "round"))
    about = {"id": uuid4(), "name": "shapes", "description": "", "promoters": (), "created_at": now(), "retired": False}
    both = RegisteredModel(production=1, aliases={"production": 1}, versions=(one, two), **about)
    assert differences(both, one) == ()
    assert differences(both, two) == ("labels differ from those of version 1 in production: the same in another order",)
    assert differences(msgspec.structs.replace(both, production=None, aliases={}), two) == ()


async def test_a_promoter_promotes_and_others_are_refused(api, bioscope, sign_in, registered):
    viewer = await sign_in("viewer")
    for arguments in (["promote", "shapes", "2"], ["retire", "shapes"]):
        ended = await bioscope(*arguments, "--reason", WHY, code=1)
        assert ended.stderr.endswith("bioscope: This needs the role admin, or the right to promote versions of the model shapes\n")
    answer = await (await api.client("admin")).put(f"/api/models/shapes/promoters/{viewer.id}")
    assert answer.status_code == 204
    await bioscope("promote", "shapes", "2", "--reason", WHY)
    assert f"promoters {viewer.username}" in in_one_line((await bioscope("show", "shapes")).stdout)


async def test_a_wrong_promotion_changes_nothing(api, bioscope, sign_in, registered):
    await sign_in("admin")
    head = api.services.log.head()
    for arguments, code, sentence in (
        (["7", "--reason", WHY], 2, "has no version '7'; it has the versions 1, 2"),
        (["0", "--reason", WHY], 2, "has no version '0'; it has the versions 1, 2"),
        (["candidate", "--reason", WHY], 2, "give a number; candidate is version 2 of the model shapes"),
        (["2"], 2, "Missing option '--reason'"),
        (["2", "--reason", " "], 2, "reason must have 1 to 1000 characters"),
        (["2", "--reason", "x" * 1001], 2, "reason must have 1 to 1000 characters"),
        (["2", "--reason", "a\udcffb"], 2, "reason must not contain control characters"),
        (["2", "--reason", WHY, "--alias", "Stable"], 2, "must begin with a letter"),
        (["2", "--reason", WHY, "--alias", ""], 2, "must begin with a letter"),
    ):
        assert sentence in in_one_line((await bioscope("promote", "shapes", *arguments, code=code)).stderr)
    assert (await bioscope("retire", "shapes", "--reason", " ", code=2)).stdout == ""
    assert api.services.log.head() == head


async def test_a_retired_model_is_listed_on_request_only(api, bioscope, sign_in, registered):
    await sign_in("admin")
    assert (await bioscope("retire", "cells", "--reason", "Replaced")).stderr.endswith("The model cells is retired.\n")
    assert state(api, "cells").retired
    assert "cells" not in (await bioscope("list")).stdout
    assert "cells (retired)" in (await bioscope("list", "--retired")).stdout
    assert "model cells (retired)" in in_one_line((await bioscope("show", "cells")).stdout)
    for arguments in (["promote", "cells", "1"], ["retire", "cells"]):
        assert "Model cells is retired, which cannot be undone" in (await bioscope(*arguments, "--reason", WHY, code=1)).stderr


# ---- history and packages ----------------------------------------------------------------------------------------------------------
async def test_the_history_says_when_who_what_and_why(bioscope, sign_in, registered, monkeypatch):
    monkeypatch.setattr("api.cli.client.registry.PAGE_SIZE", 2)
    admin = await sign_in("admin")
    await bioscope("promote", "shapes", "2", "--reason", WHY)
    await bioscope("retire", "shapes", "--reason", "Replaced")
    lines = [in_one_line(line) for line in (await bioscope("history", "shapes")).stdout.splitlines()]
    assert lines[0] == "when (UTC) who what reason"
    assert [line.split(maxsplit=2)[2] for line in lines[1:]] == [
        "the system added version 1",
        "the system put version 1 into production",
        f"{registered} added version 2",
        f"{registered} moved the alias candidate to version 2",
        f"{admin.username} put version 2 into production {WHY}",
        f"{admin.username} retired the model Replaced",
    ]
    printed = (await bioscope("history", "shapes", "--json")).stdout
    assert_shape(shapes()["bioscope models history"], printed)
    assert [one["reason"] for one in json.loads(printed)][-2:] == [WHY, "Replaced"]


async def test_a_package_is_saved_as_it_was_uploaded(bioscope, sign_in, registered, tmp_path):
    await sign_in("analyst")
    ended = await bioscope("export", "shapes@2", "two.zip")
    assert ended.stderr.endswith("Version 2 of the model shapes is in two.zip (7 bytes).\n")
    assert (tmp_path / "two.zip").read_bytes() == b"package"
    await bioscope("export", "shapes", "one.zip")
    with ZipFile(tmp_path / "one.zip") as archive:
        assert archive.read("model.onnx") == WEIGHTS


async def test_a_package_that_cannot_be_saved_leaves_no_file(api, bioscope, sign_in, registered, tmp_path, monkeypatch):
    (tmp_path / "there.zip").write_bytes(b"mine")
    await sign_in("analyst")
    for arguments, code, sentence in (
        (["shapes", "there.zip"], 2, "there.zip exists already: choose another name"),
        (["shapes", "missing/x.zip"], 2, "there is no folder missing"),
        (["shapes@3", "x.zip"], 2, "it has the versions 1, 2"),
        (["cells", "x.zip"], 2, "has no version 'production'; it has the versions 1 and the aliases candidate (1)"),
        (["cells@1", "x.zip"], 1, "There is no such file"),
    ):
        assert sentence in (await bioscope("export", *arguments, code=code)).stderr
    with monkeypatch.context() as changed:
        changed.setattr("api.cli.client.api_client.sha256", lambda: sha256(b"other bytes before"))
        assert "did not arrive as it is stored" in (await bioscope("export", "shapes@2", "x.zip", code=1)).stderr
    await sign_in("viewer")
    assert "needs the role analyst" in (await bioscope("export", "shapes@2", "x.zip", code=1)).stderr
    assert {path.name for path in tmp_path.glob("*.*")} == {"there.zip"}
    assert (tmp_path / "there.zip").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("reference", "named"),
    [("pbc8", ("pbc8", None)), ("pbc8@2", ("pbc8", "2")), ("pbc8@", ("pbc8", "")), ("@2", ("", "2")), ("a@b@c", ("a", "b@c"))],
)
def test_a_reference_names_a_model_and_perhaps_a_version(reference, named):
    assert split_reference(reference) == named


# ---- external classifiers --------------------------------------------------------------------------------------------------------------
async def test_an_external_classifier_is_declared_once(bioscope, sign_in, api):
    await sign_in("researcher")
    said = in_one_line((await bioscope("add-external", "vesicles", "--labels", "round, flat", "--review-below", "0.7")).stdout)
    assert "bioscope models promote vesicles 1 --reason TEXT" in said
    printed = (await bioscope("add-external", "vesicles", "--labels", "round,flat", "--review-below", "0.7", "--json")).stdout
    assert_shape(shapes()["bioscope models add-external"], printed)
    assert (json.loads(printed)["number"], json.loads(printed)["kind"]) == (1, "external")
    assert state(api, "vesicles").numbered(1).labels == ("round", "flat")


async def test_labels_of_an_external_classifier_are_given_in_words(bioscope, sign_in, api):
    await sign_in("researcher")
    words = ("--label-text", "rbc=red blood cells", "--label-text", "wbc=white = not red")
    await bioscope("add-external", "blood", "--labels", "rbc,wbc,other", *words)
    assert state(api, "blood").numbered(1).label_texts == {"rbc": "red blood cells", "wbc": "white = not red"}


@pytest.mark.parametrize(
    ("texts", "code", "said"),
    [
        (["rbc"], 2, "'rbc' has no words: write LABEL=TEXT"),
        (["rbc=red", "rbc=blood"], 2, "'rbc' is given twice"),
        (["plt=platelets"], 1, "must name labels only: plt is none"),
        (["rbc="], 1, "must have 1 to 200 characters"),
    ],
)
async def test_words_that_belong_to_no_label_are_refused(bioscope, sign_in, texts, code, said):
    await sign_in("researcher")
    words = [argument for text in texts for argument in ("--label-text", text)]
    assert said in in_one_line((await bioscope("add-external", "blood", "--labels", "rbc,wbc", *words, code=code)).stderr)


async def test_a_declaration_that_breaks_a_rule_is_refused_with_the_reason(bioscope, sign_in):
    await sign_in("researcher")
    refused = await bioscope("add-external", "Vesicles", "--labels", "round,flat", code=1)
    assert "must be 1 to 64 of a-z" in refused.stderr


async def test_a_threshold_of_an_external_classifier_is_a_number(bioscope, sign_in):
    refused = await bioscope("add-external", "vesicles", "--labels", "round,flat", "--review-below", "nan", code=2)
    assert "nan is not a finite number" in refused.stderr


async def test_an_external_classifier_is_neither_saved_nor_tested(bioscope, sign_in):
    await sign_in("researcher")
    await bioscope("add-external", "vesicles", "--labels", "round,flat")
    for arguments in (("export", "vesicles@1", "out.zip"), ("test", "vesicles@1")):
        assert "is an external classifier: it has no" in in_one_line((await bioscope(*arguments, code=1)).stderr)
