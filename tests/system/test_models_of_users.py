"""The walk of docs/models/add.md in a whole system: packages are added, tested, run, promoted, retired, exported and added elsewhere."""

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from hashlib import sha256
from itertools import count
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml
from bioimageio.spec import ValidationContext, load_description

from api.cli.client.api_client import Client, RequestRefused
from tests.archives import zip_of
from tests.chaos.workload import PICTURES
from tests.rigs.waiting import wait_until
from tests.system.conftest import PASSWORD, email, made_account

EXAMPLES = Path(__file__).parents[2] / "examples" / "models"
IMAGES = EXAMPLES / "images"
KINDS = {"nuclei-marker": "softmax", "granules": "multi_label", "vesicles": "softmax", "cell-count": "regression"}
REASON = "Agrees with 200 fields that two people labelled"
WITHIN = 60.0  # seconds
numbers = count(1)


def command_line(client, *words):
    """Run `bioscope WORDS` as the person of a client."""
    given = {"BIOSCOPE_URL": client.credentials.url, "BIOSCOPE_TOKEN": client.credentials.access_token, "COLUMNS": "200"}
    command = [Path(sys.executable).with_name("bioscope"), *words]
    return subprocess.run(command, env=os.environ | given, capture_output=True, text=True, check=False, timeout=120)


def succeeded(client, *words):
    """What the command printed, on both streams."""
    done = command_line(client, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def upload(client, data, filename):
    """The check of a package that is uploaded over HTTP."""
    answer = httpx.post(
        f"{client.credentials.url}/api/models",
        params={"filename": filename},
        content=data,
        headers={"Authorization": f"Bearer {client.credentials.access_token}", "Content-Type": "application/zip"},
        timeout=WITHIN,
    )
    assert answer.status_code == 202, answer.text
    check = answer.json()
    assert answer.headers["location"] == f"/api/model-checks/{check['id']}"
    return answered(client, check["id"])


def answered(client, check):
    def answer():
        found = client.get(f"/api/model-checks/{check}")
        return None if found["status"] == "pending" else found

    return wait_until(answer, within=WITHIN)


def newest_check(client):
    return client.get("/api/model-checks")[0]


def repacked(data, **files):
    """A package with other files; `__` stands for the dot of a name."""
    changed = {name.replace("__", "."): content for name, content in files.items()}
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, changed.get(name, old.read(name)))
    return out.getvalue()


def zoo_package(change=lambda _: None, **files):
    """The package of the zoo with a changed manifest and other files, whose digests the manifest states."""
    manifest = yaml.safe_load((EXAMPLES / "nuclei-marker" / "rdf.yaml").read_text())
    change(manifest)
    for tensor in (*manifest["inputs"], *manifest["outputs"]):
        content = files.get(tensor["test_tensor"]["source"].replace(".", "__"))
        if content is not None:
            tensor["test_tensor"]["sha256"] = sha256(content).hexdigest()
    return repacked(zip_of(EXAMPLES / "nuclei-marker"), rdf__yaml=yaml.safe_dump(manifest).encode(), **files)


def of_release(release):
    """A package that differs from the example in its version alone."""
    return zoo_package(lambda manifest: manifest.update(version=release))


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def classified(client, folder, *options):
    """The report of `bioscope classify`."""
    done = command_line(client, "classify", str(folder), "--dataset", f"models {next(numbers)}", "--json", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def results(client, report):
    """The results of a report over HTTP, by file."""
    files = {line["image_id"]: line["file"] for line in report["lines"]}
    return {files[result["image_id"]]: result for result in client.results(report["job_id"])}


def uploaded_image(client, path):
    """The id of an image that has been inspected."""
    image = client.upload(client.create_dataset(f"models {next(numbers)}"), path).id
    assert wait_until(lambda: client.get(f"/api/images/{image}")["status"] != "pending", within=WITHIN)
    return image


def run(client, **body):
    """The job after its end."""
    job = client.post("/api/classifications/run", body)["id"]
    *_, state = client.watch(job)
    return state


def only_result(client, job):
    (result,) = client.results(job["id"])
    return result


def refusal(client, method, path, **arguments):
    """Status and text of a request that is refused."""
    with pytest.raises(RequestRefused) as refused:
        client.call(method, path, **arguments)
    return refused.value.status, str(refused.value)


def signed_in(settings, role):
    """A new account, with a new token: commands do not refresh one, and it lives for ten minutes."""
    return Client.sign_in(settings.base_url, made_account(settings, role, email(role)), PASSWORD)


@pytest.fixture(scope="module")
def admin(stack):
    with signed_in(stack, "admin") as client:
        yield client


@pytest.fixture(scope="module")
def researcher(stack):
    with signed_in(stack, "researcher") as client:
        yield client


@pytest.fixture(scope="module")
def analyst(stack):
    with signed_in(stack, "analyst") as client:
        yield client


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The package `vesicles` as a zip file."""
    path = tmp_path_factory.mktemp("packages") / "vesicles.zip"
    path.write_bytes(zip_of(EXAMPLES / "vesicles"))
    return path


@pytest.fixture(scope="module")
def added(researcher, archive):
    """What the command line said of a folder, a file and an archive; the fourth package goes over HTTP."""
    said = {
        "nuclei-marker": succeeded(researcher, "models", "add", str(EXAMPLES / "nuclei-marker")),
        "granules": succeeded(researcher, "models", "add", str(EXAMPLES / "granules" / "model.onnx")),
        "vesicles": succeeded(researcher, "models", "add", str(archive)),
    }
    check = upload(researcher, zip_of(EXAMPLES / "cell-count"), "cell-count.zip")
    assert check["status"] == "passed", check
    return said


@pytest.fixture(scope="module")
def in_production(added, admin):
    """All four, promoted by an administrator."""
    for name in KINDS:
        succeeded(admin, "models", "promote", name, "1", "--reason", REASON)
    return tuple(KINDS)


# ---- add and test ---------------------------------------------------------------------------------------------------------------
def test_the_command_line_names_the_new_version(added):
    for name, said in added.items():
        assert name in said
        assert "1" in said


@pytest.mark.parametrize("name", KINDS)
def test_a_new_version_is_known_with_its_kind_its_author_and_its_check(name, added, researcher):
    (version,) = researcher.get(f"/api/models/{name}")["versions"]
    assert (version["number"], version["kind"], version["release"]) == (1, KINDS[name], "1.0.0")
    assert version["added_by"] == researcher.get("/api/users/me")["id"]
    (check,) = version["checks"]
    assert check["report"]["load_seconds"] > 0
    assert (check["report"]["largest_difference"] is None) == (name != "nuclei-marker")


def test_labels_are_told_in_words_and_none_is_one_of_several_labels(added, researcher):
    (version,) = researcher.get("/api/models/granules")["versions"]
    assert version["labels"] == ["granules", "vacuoles", "none"]
    assert version["label_texts"] == {"granules": "dark red granules", "vacuoles": "pale vacuoles"}


def test_the_same_package_again_is_no_new_version(added, researcher):
    check = upload(researcher, zip_of(EXAMPLES / "vesicles"), "again.zip")
    assert (check["status"], check["model_name"], check["number"]) == ("passed", "vesicles", 1)
    assert len(researcher.get("/api/models/vesicles")["versions"]) == 1


def test_a_version_is_tested_again(added, researcher):
    succeeded(researcher, "models", "test", "nuclei-marker@1")
    check = newest_check(researcher)
    assert (check["status"], check["model_name"], check["number"]) == ("passed", "nuclei-marker", 1)
    assert check["report"]["largest_difference"] <= check["report"]["tolerance"]


def test_the_models_are_listed(added, researcher):
    said = succeeded(researcher, "models", "list")
    assert all(name in said for name in (*KINDS, "pbc8"))


# ---- refusals -------------------------------------------------------------------------------------------------------------------
def test_half_of_an_archive_is_refused_with_its_code(researcher, archive, tmp_path):
    broken = tmp_path / "broken.zip"
    broken.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    done = command_line(researcher, "models", "add", str(broken))
    assert done.returncode == 1, done.stdout
    check = newest_check(researcher)
    assert (check["status"], check["code"]) == ("failed", "archive_malformed")
    assert check["detail"] in " ".join((done.stdout + done.stderr).split())


def test_a_package_whose_network_gives_another_output_is_refused(researcher):
    wrong = np.roll(np.load(EXAMPLES / "nuclei-marker" / "test_output.npy"), 1, axis=1)
    check = upload(researcher, zoo_package(test_output__npy=npy(wrong)), "wrong.zip")
    assert (check["status"], check["code"], check["file"]) == ("failed", "model_refused", "model.onnx")
    assert "test output differs" in check["detail"]


def test_a_digest_that_is_wrong_is_refused_with_its_field(researcher, tmp_path):
    folder = shutil.copytree(EXAMPLES / "nuclei-marker", tmp_path / "changed")
    np.save(folder / "test_output.npy", np.zeros((1, 3), np.float32))
    done = command_line(researcher, "models", "add", str(folder))
    assert done.returncode == 1, done.stdout
    for words in ("rdf.yaml", "outputs[0].test_tensor.sha256"):
        assert words in done.stdout + done.stderr
    check = newest_check(researcher)
    assert (check["code"], check["file"], check["field"]) == ("digest_mismatch", "rdf.yaml", "outputs[0].test_tensor.sha256")


def test_a_refused_package_leaves_no_version(added, researcher):
    assert [version["number"] for version in researcher.get("/api/models/nuclei-marker")["versions"]] == [1]


def test_an_analyst_may_not_add_a_model(analyst):
    status, _ = refusal(analyst, "POST", "/api/models", params={"filename": "a.zip"}, content=zip_of(EXAMPLES / "vesicles"))
    assert status == 403


# ---- run ------------------------------------------------------------------------------------------------------------------------
def test_a_version_that_is_not_in_production_is_run_by_its_alias_or_number(added, researcher):
    for which in ("candidate", "1"):
        report = classified(researcher, IMAGES / "nuclei-marker", "--model", f"nuclei-marker@{which}")
        assert (report["model_name"], report["model_version"]) == ("nuclei-marker", 1)
        assert all(line["label"] == line["truth"] and line["verdict"] == "clear" for line in report["lines"])


def test_an_analyst_runs_what_is_in_production_and_nothing_else(in_production, admin, analyst, researcher):
    check = upload(researcher, of_release("1.0.1"), "second.zip")
    image = uploaded_image(analyst, IMAGES / "nuclei-marker" / "field_2.tif")
    body = {"image_id": image, "model_name": "nuclei-marker"}
    assert only_result(analyst, run(analyst, **body))["label"] == "marker_positive"
    status, _ = refusal(analyst, "POST", "/api/classifications/run", json=body | {"model_version": str(check["number"])})
    assert status == 403
    before = analyst.get("/api/datasets")
    done = command_line(analyst, "classify", str(IMAGES / "nuclei-marker"), "--model", f"nuclei-marker@{check['number']}")
    assert (done.returncode, analyst.get("/api/datasets")) == (1, before)
    assert "It needs the role researcher or higher" in done.stderr


def test_one_label_of_several_is_the_most_probable(in_production, researcher):
    report = classified(researcher, IMAGES / "vesicles", "--model", "vesicles")
    assert all(line["label"] == line["truth"] for line in report["lines"])
    for result in results(researcher, report).values():
        assert sum(result["scores"].values()) == pytest.approx(1, abs=1e-4)
        assert result["confidence"] == pytest.approx(result["scores"][result["label"]], abs=1e-6)


def test_several_labels_may_apply_or_none(in_production, researcher):
    report = classified(researcher, IMAGES / "granules", "--model", "granules")
    found = results(researcher, report)
    applying = {file: {label for label, score in result["scores"].items() if score >= 0.5} for file, result in found.items()}
    assert applying == {
        "both.png": {"granules", "vacuoles"},
        "granules.png": {"granules"},
        "vacuoles.png": {"vacuoles"},
        "neither.png": {"none"},
    }
    assert {line["file"]: set(line["labels"]) for line in report["lines"]} == applying
    assert {line["file"]: line["scores"] for line in report["lines"]} == {file: result["scores"] for file, result in found.items()}
    assert found["neither.png"]["label"] == "none"
    others = max(found["neither.png"]["scores"][label] for label in ("granules", "vacuoles"))
    assert found["neither.png"]["confidence"] == pytest.approx(1 - others, abs=1e-6)


def test_a_number_is_counted_and_no_confidence_is_shown(in_production, researcher):
    report = classified(researcher, IMAGES / "cell-count", "--model", "cell-count")
    assert report["unit"] == "cells"
    found = results(researcher, report)
    for file, result in found.items():
        drawn = int(Path(file).stem.removeprefix("cells_"))
        assert abs(result["value"] - drawn) < 1
        assert (result["label"], result["confidence"]) == ("cells", 0)
        assert result["scores"]["cells"] == pytest.approx(result["value"] / 40, abs=1e-6)
        assert result["verdict"] == ("needs_review" if drawn > 12 else "clear")


def test_the_planes_of_a_stack_are_chosen(in_production, researcher):
    plain = classified(researcher, IMAGES / "stacks", "--model", "nuclei-marker")
    highest = classified(researcher, IMAGES / "stacks", "--model", "nuclei-marker", "--plane", "z=max")
    assert [line["label"] for report in (plain, highest) for line in report["lines"]] == ["no_nuclei", "marker_positive"]
    image = uploaded_image(researcher, IMAGES / "stacks" / "stack.tif")
    body = {"image_id": image, "model_name": "nuclei-marker"}
    middle = run(researcher, **body, planes={"z": 1})
    assert only_result(researcher, middle)["label"] == "marker_positive"
    assert {axis: chosen for axis, chosen in middle["planes"].items() if chosen is not None} == {"z": 1}
    swapped = run(researcher, **body, planes={"z": 1, "c": [1, 0]})
    assert only_result(researcher, swapped)["scores"] != only_result(researcher, middle)["scores"]
    before = researcher.get("/api/datasets")
    done = command_line(researcher, "classify", str(IMAGES / "stacks"), "--model", "nuclei-marker", "--plane", "c=0,1,2")
    assert (done.returncode, researcher.get("/api/datasets")) == (1, before)
    assert "The model takes 2 (nuclei, marker) channels, and the choice has 3" in done.stderr
    status, detail = refusal(researcher, "POST", "/api/classifications/run", json=body | {"planes": {"z": 7}})
    assert (status, "3" in detail) == (422, True)


def test_an_image_that_does_not_fit_is_refused_with_what_is_expected(in_production, researcher):
    image = uploaded_image(researcher, PICTURES[0])
    status, detail = refusal(researcher, "POST", "/api/classifications/run", json={"image_id": image, "model_name": "nuclei-marker"})
    assert status == 422
    assert "16" in detail


def test_an_image_that_does_not_fit_fails_within_a_folder(in_production, researcher, tmp_path):
    for path in (PICTURES[0], IMAGES / "nuclei-marker" / "field_2.tif"):
        shutil.copy(path, tmp_path / path.name)
    done = command_line(researcher, "classify", str(tmp_path), "--model", "nuclei-marker", "--json")
    assert done.returncode == 1, done.stderr
    lines = {Path(line["file"]).suffix: line for line in json.loads(done.stdout)["lines"]}
    assert lines[".tif"]["label"] == "marker_positive"
    assert "channel" in lines[".jpg"]["error"]
    (failure,) = researcher.failures(json.loads(done.stdout)["job_id"])
    assert failure["reason"] == "input_mismatch"


# ---- promote, go back, retire ------------------------------------------------------------------------------------------------------
def test_a_researcher_may_promote_only_as_a_promoter_of_the_model(in_production, admin, researcher):
    assert command_line(researcher, "models", "promote", "vesicles", "1", "--alias", "validated", "--reason", REASON).returncode == 1
    me = researcher.get("/api/users/me")["id"]
    admin.call("PUT", f"/api/models/vesicles/promoters/{me}")
    succeeded(researcher, "models", "promote", "vesicles", "1", "--alias", "validated", "--reason", REASON)
    assert researcher.get("/api/models/vesicles")["aliases"] == {"production": 1, "validated": 1}
    admin.call("DELETE", f"/api/models/vesicles/promoters/{me}")
    assert command_line(researcher, "models", "promote", "vesicles", "1", "--alias", "other", "--reason", REASON).returncode == 1


def test_a_new_version_is_promoted_and_the_older_one_comes_back(in_production, admin, researcher):
    second = upload(researcher, of_release("1.1.0"), "second.zip")["number"]
    assert researcher.get("/api/models/nuclei-marker")["aliases"] == {"production": 1, "candidate": second}
    before = datetime.now(UTC)
    admin.call("PUT", "/api/models/nuclei-marker/aliases/production", json={"version": second, "reason": "Fewer mistakes"})
    assert classified(researcher, IMAGES / "nuclei-marker", "--model", "nuclei-marker")["model_version"] == second
    succeeded(admin, "models", "promote", "nuclei-marker", "1", "--reason", "The new one fails on slide 7")
    assert classified(researcher, IMAGES / "nuclei-marker", "--model", "nuclei-marker")["model_version"] == 1

    said = succeeded(researcher, "models", "history", "nuclei-marker")
    assert all(words in said for words in (REASON, "Fewer mistakes", "The new one fails on slide 7"))
    moves = [change for change in researcher.get("/api/models/nuclei-marker/history") if change["alias"] == "production"]
    assert [(move["number"], move["reason"]) for move in moves][-2:] == [(second, "Fewer mistakes"), (1, "The new one fails on slide 7")]
    then = researcher.get("/api/models/nuclei-marker", as_of=before.isoformat())
    assert then["aliases"] == {"production": 1, "candidate": second}


def test_results_name_the_version_that_computed_them(in_production, researcher):
    report = classified(researcher, IMAGES / "vesicles", "--model", "vesicles")
    (version,) = researcher.get("/api/models/vesicles")["versions"]
    job = researcher.get(f"/api/classifications/{report['job_id']}")
    assert (job["model_version"], job["model_sha256"]) == (1, version["sha256"])
    assert {result["model_version"] for result in results(researcher, report).values()} == {1}


def test_a_retired_model_accepts_no_jobs_and_its_results_stay(researcher, admin):
    name = "retired-vesicles"
    manifest = (EXAMPLES / "vesicles" / "bioscope.yaml").read_bytes().replace(b"model: vesicles", f"model: {name}".encode())
    package = repacked(zip_of(EXAMPLES / "vesicles"), bioscope__yaml=manifest)
    assert upload(researcher, package, "retired.zip")["status"] == "passed"
    succeeded(admin, "models", "promote", name, "1", "--reason", REASON)
    report = classified(researcher, IMAGES / "vesicles", "--model", name)
    succeeded(admin, "models", "retire", name, "--reason", "Replaced by vesicles")
    assert name not in [model["name"] for model in researcher.get("/api/models")]
    assert name in [model["name"] for model in researcher.get("/api/models", retired=True)]
    assert len(results(researcher, report)) == len(report["lines"])
    assert command_line(researcher, "classify", str(IMAGES / "vesicles"), "--model", name).returncode != 0
    assert upload(researcher, package, "retired.zip")["status"] == "failed"


# ---- export ---------------------------------------------------------------------------------------------------------------------
def exported(client, which, folder):
    path = folder / "exported.zip"
    path.unlink(missing_ok=True)
    succeeded(client, "models", "export", which, str(path))
    return path


def test_an_export_is_the_package_that_was_added(added, researcher, tmp_path):
    path = exported(researcher, "nuclei-marker@1", tmp_path)
    answer = researcher.call("GET", "/api/models/nuclei-marker/versions/1/package")
    assert answer.headers["content-type"].startswith("application/zip")
    assert answer.content == path.read_bytes()
    assert sha256(answer.content).hexdigest() == researcher.get("/api/models/nuclei-marker")["versions"][0]["package"]


def test_an_export_of_the_simple_form_is_the_same_version_when_it_is_added_again(added, researcher, archive, tmp_path):
    path = exported(researcher, "vesicles@1", tmp_path)
    with zipfile.ZipFile(archive) as before, zipfile.ZipFile(path) as after:
        assert set(after.namelist()) == {*before.namelist(), "rdf.yaml"}
        assert all(after.read(name) == before.read(name) for name in before.namelist())
    check = upload(researcher, path.read_bytes(), "again.zip")
    assert (check["status"], check["model_name"], check["number"]) == ("passed", "vesicles", 1)
    assert len(researcher.get("/api/models/vesicles")["versions"]) == 1


@pytest.mark.parametrize("name", [*KINDS, "pbc8", "bccd3"])
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # the validator's own
def test_an_export_is_valid_by_the_specification(name, added, researcher, tmp_path):
    path = exported(researcher, f"{name}@1", tmp_path)
    with ValidationContext(perform_io_checks=True):
        summary = load_description(path).validation_summary
    assert summary.status == "valid-format", summary.format()


@pytest.mark.long
@pytest.mark.parametrize("name", ["nuclei-marker", "vesicles"])
def test_an_export_gives_the_same_results_in_another_installation(name, in_production, researcher, own_stack, tmp_path):
    here = classified(researcher, IMAGES / name, "--model", f"{name}@1")
    path = exported(researcher, f"{name}@1", tmp_path)
    with own_stack() as settings, signed_in(settings, "researcher") as other:
        succeeded(other, "models", "add", str(path))
        versions = [client.get(f"/api/models/{name}")["versions"][0] for client in (researcher, other)]
        assert versions[0]["digest"] == versions[1]["digest"]
        there = classified(other, IMAGES / name, "--model", f"{name}@candidate")
        scores = [
            {file: result["scores"] for file, result in results(client, report).items()}
            for client, report in ((researcher, here), (other, there))
        ]
    assert scores[0] == scores[1]
