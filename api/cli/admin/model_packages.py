"""Commands of the API's client that let a worker check model packages: add a version, test a version again, list checks."""

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click
import msgspec

from api.cli.commands import argument, command, json_option
from api.cli.common import API_URL
from api.cli.exit_codes import FAILED, WRONG_USE
from api.cli.output import Column, err, fail, print_fields, print_json, print_message, print_table
from api.cli.shapes import CheckedModel, ModelCheck, RegisteredModel

if TYPE_CHECKING:
    from api.cli.client.api_client import Client


@command("add", example="bioscope models add models/pbc8")
@argument("path", type=click.Path(path_type=Path, exists=True), help="A zip archive, a folder, or an .onnx file.")
@json_option(CheckedModel)
@API_URL
def add(path: Path, as_json: bool, url: str | None) -> None:  # noqa: FBT001 - click passes it by name
    """Add a model package as a new version of its model.

    A folder is sent as a zip archive, without hidden files. An .onnx file needs bioscope.yaml and labels.txt beside it. A worker checks
    the package and runs its test tensors; the version is then the candidate of its model. docs/models/format.md describes packages.

    The exit code is 1 if the package is refused.
    """
    from api.cli.client.model_package import NoPackage, open_archive
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        try:
            with open_archive(path) as (filename, file):
                check = _upload(client, filename, file)
        except NoPackage as error:
            fail(str(error), WRONG_USE)
        _report(client, check, as_json=as_json)


@command("test", example="bioscope models test pbc8")
@argument(
    "reference",
    metavar="NAME[@VERSION]",
    help="Name of the model, and the number or alias of a version. [default: that in production, or else the newest]",
)
@json_option(CheckedModel)
@API_URL
def test(reference: str, as_json: bool, url: str | None) -> None:  # noqa: FBT001 - click passes it by name
    """Check the package of a version again.

    This shows whether a version gives its test outputs on the machines that run now. The version stays as it is.

    The exit code is 1 if the check fails.
    """
    from api.cli.client import registry
    from api.cli.client.sign_in import open_client

    name, wanted = registry.split_reference(reference)
    with open_client(url) as client:
        model = registry.read_model(client, name)
        version = registry.find_version(model, wanted) if wanted is not None else registry.shown_version(model)
        print_message(f"Version {version.number} of the model {model.name} is being tested.")
        _report(client, client.test_model(name, version.number), as_json=as_json)


@command("checks", example="bioscope models checks")
@argument("check", required=False, type=click.UUID, help="Id of a check. [default: your newest 100 checks]")
@json_option(list[ModelCheck])
@API_URL
def checks(check: UUID | None, as_json: bool, url: str | None) -> None:  # noqa: FBT001 - click passes it by name
    """Show checks of model packages, and their answers.

    Each upload and each test of a version is a check. Administrators see those of everyone.
    """
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        answered = client.get("/api/model-checks") if check is None else [client.get(f"/api/model-checks/{check}")]
    found = msgspec.convert(answered, list[ModelCheck])
    if as_json:
        print_json(found)
    elif found:
        columns = [Column("check"), Column("requested (UTC)"), Column("package", wraps=True), Column("answer", wraps=True)]
        print_table(columns, [(str(one.id), f"{one.requested_at:%Y-%m-%d %H:%M}", _package(one), _answer(one)) for one in found])
    else:
        print_message("There are no checks.")


def _package(check: ModelCheck) -> str:
    version = f"{check.model_name} version {check.number}" if check.number is not None else ""
    return ", ".join(filter(None, (check.filename, version)))


def _answer(check: ModelCheck) -> str:
    return f"refused: {_refusal(check)}" if check.status == "failed" else check.status


def _refusal(check: ModelCheck | CheckedModel) -> str:
    """The place, the reason and its code."""
    place = ", ".join(filter(None, (check.file, check.field)))
    return f"{place}: {check.detail} ({check.code})" if place else f"{check.detail} ({check.code})"


def _upload(client: "Client", filename: str, file: Any) -> str:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    size = file.seek(0, 2)
    with Progress(TextColumn("upload"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=err, transient=True) as progress:
        bar = progress.add_task("upload", total=size)
        return client.add_model(filename, file, sent=lambda count: progress.advance(bar, count))


def _report(client: "Client", check: str, *, as_json: bool) -> None:
    """Wait for the answer and print it. Ends the process."""
    from api.cli.client import registry
    from api.cli.client.job_progress import after_interruption

    remains = f"The check {check} continues on the server. See its answer with: bioscope models checks {check}"
    with after_interruption(remains, err), err.status("The package is being checked"):
        answered = client.checked(check)
    model = registry.read_model(client, answered["model_name"]) if answered["status"] == "passed" else None
    checked = _checked(answered, model)
    if as_json:
        print_json(checked)
    elif model is not None:
        _print_version(checked, is_in_production=model.production == checked.version)
    if not checked.passed:
        print_message(_refusal(checked), prefix="refused: ")
    sys.exit(0 if checked.passed else FAILED)


def _checked(answered: dict[str, Any], model: RegisteredModel | None) -> CheckedModel:
    """`model` is that of the version, which there is if the check passed."""
    from api.cli.client import registry

    passed = model is not None
    report = answered["report"] or {}
    is_new = False
    differences: tuple[str, ...] = ()
    if model is not None:
        version = registry.find_version(model, str(answered["number"]))
        is_new = version.added_at >= datetime.fromisoformat(answered["requested_at"])
        differences = registry.differences(model, version)
    return msgspec.convert(
        {
            "check": answered["id"],
            "passed": passed,
            "model": answered["model_name"] if passed else None,
            "version": answered["number"] if passed else None,
            "is_new": is_new,
            "differences": differences,
            "notes": report.get("notes", ()),
            "largest_difference": report.get("largest_difference"),
            "tolerance": report.get("tolerance"),
            "seconds": report.get("run_seconds"),
        }
        | {name: answered[name] for name in ("code", "detail", "file", "field")},
        CheckedModel,
    )


def _print_version(checked: CheckedModel, *, is_in_production: bool) -> None:
    tested = "no test tensors"
    if checked.largest_difference is not None and checked.tolerance is not None:
        tested = f"largest difference {checked.largest_difference:.2g}; {checked.tolerance:.2g} is allowed"
    print_fields(
        [
            ("model", f"{checked.model}"),
            ("version", f"{checked.version} ({'new' if checked.is_new else 'known'})"),
            ("test outputs", tested),
            ("time per image", f"{(checked.seconds or 0) * 1000:.1f} ms"),
            ("run it", f"bioscope classify FOLDER --model {checked.model}@{checked.version}"),
            *([] if is_in_production else [("promote it", f"bioscope models promote {checked.model} {checked.version} --reason TEXT")]),
        ]
    )
    for note in (*checked.differences, *checked.notes):
        print_message(note, prefix="note: ")
