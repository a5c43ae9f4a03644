"""The demonstration: classifies real micrographs, then verifies the log."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
from rich.console import Console

from api.cli.client import terminal
from api.cli.client.api_client import Client
from api.cli.client.image_folder import scan
from api.cli.client.manifest import read_manifest
from api.cli.client.terminal import RunReport
from api.cli.output import print_fields, print_message
from api.cli.shapes import Verification


class DemoResult(msgspec.Struct, frozen=True, kw_only=True):
    """The demonstration."""

    succeeded: Annotated[bool, msgspec.Meta(description="false with exit code 1")]
    url: Annotated[str, msgspec.Meta(description="address of the API")]
    email: Annotated[str, msgspec.Meta(description="address of the demonstration's account")]
    password: Annotated[str, msgspec.Meta(description="its password")]
    run: RunReport
    verification: Verification


def run_demo(*, url: str, email: str, password: str, folder: Path, verify: Callable[[], Verification], progress: Console) -> DemoResult:
    """Classify the images of `folder`, then verify the log."""
    images = scan(folder).images
    manifest = read_manifest(folder, [image.name for image in images])
    if manifest.warning:
        print_message(manifest.warning, console=progress)
    with Client.sign_in(url, email, password) as client:
        report = terminal.classify(
            client,
            images,
            dataset_name=f"Demonstration {time.strftime('%Y-%m-%d %H:%M:%S')}",
            truth=manifest.labels,
            console=progress,
        )
    verification = verify()
    succeeded = not report.failures and report.status == "completed" and verification.intact
    return DemoResult(succeeded=succeeded, url=url, email=email, password=password, run=report, verification=verification)


def print_demo(result: DemoResult, *, program: str, options: str, stays: bool, console: Console) -> None:
    """`options` are those that a command of `program` needs to find this installation. `stays`: the system keeps running."""
    report = result.run
    restart = [] if stays else [("start it again", f"{program} up{options}")]
    terminal.print_results(report, console=console)
    console.print()
    print_fields(
        [
            ("API documentation", f"{result.url}/docs"),
            ("sign in as", result.email),
            ("password", f"{result.password} (a new one for each run)"),
            *restart,
            ("history of the job", f"{program} audit trail {report.job_id}{options}"),
        ],
        console=console,
    )
    console.print()
    log = result.verification.problem or f"verified to position {result.verification.events}"
    print_message(f"demo: {terminal.outcomes(report)}; audit {log}", console=console)
