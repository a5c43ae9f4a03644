"""The demonstration: classifies real micrographs, then verifies the log."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel

from api.cli.client import terminal
from api.cli.client.api_client import Client
from api.cli.client.image_folder import scan
from api.cli.client.manifest import read_manifest


def run_demo(*, url: str, email: str, password: str, folder: Path, verify: Callable[[], Any], console: Console) -> bool:
    """Classify the pictures of `folder`, show the results, verify the record. Whether all went well."""
    images = scan(folder).images
    manifest = read_manifest(folder, [image.name for image in images])
    if manifest.warning:
        console.print(manifest.warning, markup=False, highlight=False, soft_wrap=True)
    with Client.sign_in(url, email, password) as client:
        report = terminal.classify(
            client,
            images,
            dataset_name=f"Demonstration {time.strftime('%Y-%m-%d %H:%M:%S')}",
            model=None,
            truth=manifest.labels,
            console=console,
        )
    console.print(terminal.table(report))
    verification = verify()
    console.print(
        Panel(
            f"API and its documentation  {url}/docs   {url}/redoc\n"
            f"sign in as                 {email}\n"
            f"password (this run's)      {password}\n"
            f"what happened to the job   bioscope audit trail {report.job_id}",
            title="Where to look",
            title_align="left",
        )
    )
    accuracy = "unknown" if report.accuracy is None else f"{report.accuracy:.1%}"
    chain = verification.problem or f"verified to position {verification.events}"
    console.print(
        f"demo: {len(report.lines)} images, accuracy {accuracy}, {report.failures} failures, audit {chain}", highlight=False, soft_wrap=True
    )
    return not report.failures and report.status == "completed" and verification.problem is None
