"""`bioscope models add` and `bioscope models test`: what is uploaded, and what is said of the answer."""

import io
import json
import zipfile
from uuid import UUID

import pytest
from click.testing import CliRunner

from api.cli import main
from api.cli.client.api_client import CheckNotVisible, Client, RequestRefused
from api.cli.client.credentials import Credentials
from api.cli.client.model_package import NoPackage, open_archive, package_files
from api.documents import examples
from infrastructure.inference.models.bundled import models
from infrastructure.inference.packages.package import open_package
from scripts.commands import shapes
from tests.api.test_client import client_of, server_of
from tests.api.test_commands import assert_shape

CHECK = str(UUID(int=7))
PENDING = {
    "id": CHECK,
    "status": "pending",
    "requested_at": "2026-03-02T09:20:00Z",
    "model_name": None,
    "number": None,
    "report": None,
    "code": None,
    "detail": None,
    "file": None,
    "field": None,
}
REPORT = {"largest_difference": 0.000002, "tolerance": 0.001, "run_seconds": 0.0123}
PASSED = PENDING | {"status": "passed", "model_name": "cells", "number": 2, "report": REPORT}
REFUSED = PENDING | {
    "status": "failed",
    "code": "manifest_field",
    "detail": "must be a number",
    "file": "rdf.yaml",
    "field": "inputs[0].axes[2].size",
}
MODEL = examples.SCHEMAS["Model"] | {
    "name": "cells",
    "versions": [
        examples.SCHEMAS["Model"]["versions"][0] | {"number": number, "added_at": f"2026-03-02T09:20:{second:02}Z"}
        for number, second in ((1, 0), (2, 1))
    ],
    "aliases": {"production": 1, "candidate": 2},
}


def answers(check=PASSED, model=MODEL):
    return {
        "/api/users/me": [(200, {})],
        "/api/models?filename=cells.zip": [(202, PENDING)],
        "/api/models/cells/versions/1/checks": [(202, PENDING)],
        "/api/models/cells/versions/2/checks": [(202, PENDING)],
        f"/api/model-checks/{CHECK}": [(404, {"detail": "Check not found"}), (200, PENDING), (200, check)],
        "/api/models/cells": [(200, model)],
    }


def bioscope(url, *arguments):
    return CliRunner().invoke(main, ["models", *arguments], env={"BIOSCOPE_TOKEN": "token", "BIOSCOPE_URL": url, "COLUMNS": "200"})


@pytest.fixture
def package(tmp_path):
    path = tmp_path / "cells.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rdf.yaml", "type: model")
    return path


# ---- the archive -----------------------------------------------------------------------------------------------------------------------
def test_an_archive_is_sent_as_it_is(package):
    with open_archive(package) as (name, file):
        assert (name, file.read()) == ("cells.zip", package.read_bytes())


def test_a_folder_becomes_an_archive_that_is_always_the_same(tmp_path):
    folder = tmp_path / "cells"
    (folder / "sub").mkdir(parents=True)
    for name in ("rdf.yaml", "sub/model.onnx", ".hidden", "Thumbs.db"):
        (folder / name).write_bytes(name.encode())
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_bytes(b"secret")
    found = []
    for _ in range(2):
        with open_archive(folder) as (name, file):
            found.append(file.read() if file.seek(0) == 0 else b"")
        assert name == "cells.zip"
    assert found[0] == found[1]
    with zipfile.ZipFile(io.BytesIO(found[0])) as archive:
        assert {one: archive.read(one) for one in archive.namelist()} == {"rdf.yaml": b"rdf.yaml", "sub/model.onnx": b"sub/model.onnx"}


def test_the_archive_of_a_folder_is_a_package():
    with open_archive(models() / "pbc8") as (_, file):
        file.seek(0)
        assert open_package(file.read()).manifest.model == "pbc8"


def test_a_network_is_sent_with_the_files_beside_it(tmp_path):
    network = tmp_path / "cells.onnx"
    for name in ("cells.onnx", "bioscope.yaml", "labels.txt", "other.txt"):
        (tmp_path / name).write_bytes(name.encode())
    assert set(package_files(network)) == {"cells.onnx", "bioscope.yaml", "labels.txt"}
    (tmp_path / "labels.txt").unlink()
    with pytest.raises(NoPackage, match=r"needs labels\.txt beside it"):
        package_files(network)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.mkdir(), "has no file"),
        (lambda path: path.write_text("x"), r"give a \.zip archive, a folder, or an \.onnx file"),
        (lambda path: (path.mkdir(), (path / "key").symlink_to("/etc/passwd")), "is a link or a device"),
        (lambda path: (path.mkdir(), (path / "all").symlink_to("/etc")), "is a link or a device"),
    ],
)
def test_what_is_no_package_is_refused_before_anything_is_sent(tmp_path, make, says):
    make(tmp_path / "it")
    with pytest.raises(NoPackage, match=says):
        package_files(tmp_path / "it")
    done = bioscope("http://127.0.0.1:1", "add", str(tmp_path / "it"))
    assert done.exit_code == 2


# ---- the client ------------------------------------------------------------------------------------------------------------------------
def test_the_upload_tells_how_much_was_sent(package):
    sent = []
    with client_of(answers()) as client, package.open("rb") as file:
        assert client.add_model("cells.zip", file, sent=sent.append) == CHECK
    assert sum(sent) == package.stat().st_size


def test_an_upload_is_sent_again_from_its_start_after_a_new_token(package):
    """The token ends between the first question and the upload."""
    tokens = {"access_token": "new", "refresh_token": "next"}
    expiring = answers() | {
        "/api/models?filename=cells.zip": [(401, {"detail": "Invalid token"}), (202, PENDING)],
        "/api/auth/refresh": [(200, tokens)],
    }
    sent = []
    with server_of(expiring) as url, Client(Credentials(url, "old", "refresh")) as client, package.open("rb") as file:
        assert client.add_model("cells.zip", file, sent=sent.append) == CHECK
    assert sum(sent) == 2 * package.stat().st_size


def test_a_check_that_queries_never_show_is_named():
    never = {f"/api/model-checks/{CHECK}": [(404, {"detail": "Check not found"})]}
    with client_of(never, visible_timeout_seconds=0.0) as client, pytest.raises(CheckNotVisible, match=CHECK):
        client.checked(CHECK)


def test_another_refusal_ends_the_wait():
    with client_of({f"/api/model-checks/{CHECK}": [(403, {"detail": "No"})]}) as client, pytest.raises(RequestRefused, match="No"):
        client.checked(CHECK)


# ---- the commands ----------------------------------------------------------------------------------------------------------------------
def test_a_package_that_passed_is_shown_with_the_next_steps(package):
    with server_of(answers()) as url:
        done = bioscope(url, "add", str(package))
    assert done.exit_code == 0, done.output
    lines = dict(line.split("  ", 1) for line in done.stdout.splitlines())
    assert {name.strip(): text.strip() for name, text in lines.items()} == {
        "model": "cells",
        "version": "2 (new)",
        "test outputs": "largest difference 2e-06; 0.001 is allowed",
        "time per image": "12.3 ms",
        "run it": "bioscope classify FOLDER --model cells@2",
        "promote it": "bioscope models promote cells 2 --reason TEXT",
    }


def test_other_labels_than_those_in_production_are_noted(package):
    first, second = MODEL["versions"]
    other = MODEL | {"versions": [first, second | {"labels": ["red", "blue"]}]}
    with server_of(answers(model=other)) as url:
        done = bioscope(url, "add", str(package))
        assert json.loads(bioscope(url, "add", str(package), "--json").stdout)["differences"]
    assert "note: labels differ from those of version 1 in production: " in done.stderr


def test_what_is_worth_a_second_look_is_noted(package):
    noted = PASSED | {"report": REPORT | {"notes": ["The network gets numbers as images store them"]}}
    with server_of(answers(noted)) as url:
        done = bioscope(url, "add", str(package))
        assert json.loads(bioscope(url, "add", str(package), "--json").stdout)["notes"] == noted["report"]["notes"]
    assert (done.exit_code, "note: The network gets numbers as images store them" in done.stderr) == (0, True)


def test_a_known_version_is_shown_as_such(package):
    known = MODEL | {"versions": [one | {"added_at": "2026-01-01T00:00:00Z"} for one in MODEL["versions"]]}
    with server_of(answers(model=known)) as url:
        assert "2 (known)" in bioscope(url, "add", str(package)).stdout


def test_a_refusal_is_shown_with_its_place_and_ends_with_1(package):
    with server_of(answers(REFUSED)) as url:
        done = bioscope(url, "add", str(package))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "refused: rdf.yaml, inputs[0].axes[2].size: must be a number (manifest_field)" in done.stderr


@pytest.mark.parametrize(("check", "code"), [(PASSED, 0), (REFUSED, 1)])
def test_programs_get_the_answer_as_json(package, check, code):
    with server_of(answers(check)) as url:
        done = bioscope(url, "add", str(package), "--json")
    answer = json.loads(done.stdout)
    assert done.exit_code == code
    assert (answer["passed"], answer["version"], answer["code"]) == (code == 0, check["number"], check["code"])


@pytest.mark.parametrize(("reference", "number"), [("cells", 1), ("cells@candidate", 2), ("cells@2", 2), ("cells@production", 1)])
def test_a_version_is_tested_by_its_number_or_alias(reference, number):
    tested = PASSED | {"number": number}
    only = {path: given for path, given in answers(tested).items() if "/checks" not in path or f"/{number}/" in path}
    with server_of(only) as url:
        done = bioscope(url, "test", reference)
    assert done.exit_code == 0, done.output
    assert f"{number} (" in done.stdout


def output_of_a_test(model, number):
    only = {
        path: given for path, given in answers(PASSED | {"number": number}, model).items() if "/checks" not in path or f"/{number}/" in path
    }
    with server_of(only) as url:
        done = bioscope(url, "test", "cells")
    assert done.exit_code == 0, done.output
    assert f"Version {number} of the model cells is being tested." in done.stderr
    return done.stdout


def test_the_version_in_production_is_tested_by_default_and_not_offered_for_promotion():
    assert "promote" not in output_of_a_test(MODEL, 1)


def test_without_a_version_in_production_the_newest_is_tested():
    assert "promote it" in output_of_a_test(MODEL | {"production": None, "aliases": {"candidate": 1}}, 2)


def test_an_interrupted_check_is_shown_later(package, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "checked", interrupted)
    with server_of(answers()) as url:
        done = bioscope(url, "add", str(package))
    assert f"The check {CHECK} continues on the server. See its answer with: bioscope models checks {CHECK}" in done.stderr


def test_checks_are_listed_with_their_answers():
    asked = {"filename": "cells.zip", "answered_at": None}
    of_a_version = PASSED | {"filename": None, "answered_at": "2026-03-02T09:21:00Z"}
    given = {"/api/model-checks": [(200, [PENDING | asked, REFUSED | asked, of_a_version])]}
    with server_of(given) as url:
        shown = bioscope(url, "checks").stdout
        printed = bioscope(url, "checks", "--json").stdout
    assert_shape(shapes()["bioscope models checks"], printed)
    last = json.loads(printed)[-1]
    refused = "refused: rdf.yaml, inputs[0].axes[2].size: must be a number (manifest_field)"
    assert [" ".join(line.split()[3:]) for line in shown.splitlines()[1:]] == [
        "cells.zip pending",
        f"cells.zip {refused}",
        "cells version 2 passed",
    ]
    assert (last["id"], last["status"], last["number"]) == (CHECK, "passed", 2)


def test_one_check_is_shown_by_its_id():
    with server_of({f"/api/model-checks/{CHECK}": [(200, REFUSED | {"filename": "cells.zip", "answered_at": None})]}) as url:
        assert "must be a number (manifest_field)" in bioscope(url, "checks", CHECK).stdout


@pytest.mark.parametrize("wanted", ["3", "best", "²", "9" * 30])
def test_a_version_that_does_not_exist_is_named_with_those_that_do(wanted):
    with server_of(answers()) as url:
        done = bioscope(url, "test", f"cells@{wanted}")
    assert done.exit_code == 2
    assert "it has the versions 1, 2 and the aliases candidate (2), production (1)" in done.stderr


def test_who_is_not_signed_in_is_told_so(package, tmp_path):
    done = CliRunner().invoke(main, ["models", "add", str(package)], env={"XDG_CONFIG_HOME": str(tmp_path), "BIOSCOPE_TOKEN": ""})
    assert done.exit_code == 2
    assert "bioscope login" in done.stderr
