"""Commands of the API's client that let a worker check model packages: add a version, test a version again."""

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from api.cli.commands import argument, command, json_option
from api.cli.common import API_URL
from api.cli.exit_codes import FAILED, WRONG_USE
from api.cli.output import err, fail, print_fields, print_json, print_message
from api.cli.shapes import CheckedModel, RegisteredModel

if TYPE_CHECKING:
    from api.cli.client.api_client import Client

PREFERRED: Final = ("production", "candidate")


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
@argument("reference", metavar="NAME[@VERSION]", help="Name of the model, and the number or alias of a version. [default: production]")
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
        version = registry.find_version(model, wanted if wanted is not None else _preferred(model))
        _report(client, client.test_model(name, version.number), as_json=as_json)


def _upload(client: "Client", filename: str, file: Any) -> str:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    size = file.seek(0, 2)
    with Progress(TextColumn("upload"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=err, transient=True) as progress:
        bar = progress.add_task("upload", total=size)
        return client.add_model(filename, file, sent=lambda count: progress.advance(bar, count))


def _report(client: "Client", check: str, *, as_json: bool) -> None:
    """Wait for the answer and print it. Ends the process."""
    from api.cli.client.terminal import after_interruption

    with after_interruption(f"The check {check} continues on the server.", err), err.status("The package is being checked"):
        answered = client.checked(check)
    checked = _checked(client, answered)
    if as_json:
        print_json(checked)
    elif checked.passed:
        _print_version(checked)
    if not checked.passed:
        place = ", ".join(filter(None, (checked.file, checked.field)))
        print_message(f"{place}: {checked.detail} ({checked.code})" if place else f"{checked.detail} ({checked.code})", prefix="refused: ")
    sys.exit(0 if checked.passed else FAILED)


def _checked(client: "Client", answered: dict[str, Any]) -> CheckedModel:
    from api.cli.client import registry

    passed = answered["status"] == "passed"
    report = answered["report"] or {}
    is_new = False
    differences: tuple[str, ...] = ()
    if passed:
        model = registry.read_model(client, answered["model_name"])
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
            "largest_difference": report.get("largest_difference"),
            "tolerance": report.get("tolerance"),
            "seconds": report.get("run_seconds"),
        }
        | {name: answered[name] for name in ("code", "detail", "file", "field")},
        CheckedModel,
    )


def _print_version(checked: CheckedModel) -> None:
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
            ("promote it", f"bioscope models promote {checked.model} {checked.version} --reason TEXT"),
        ]
    )
    for difference in checked.differences:
        print_message(difference, prefix="note: ")


def _preferred(model: RegisteredModel) -> str:
    """The version in production, or else the candidate, or else the newest one."""
    return next((alias for alias in PREFERRED if alias in model.aliases), str(model.versions[-1].number))
