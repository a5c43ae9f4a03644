"""What somebody does over HTTP: sign in, have a folder classified."""

import os
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from api.cli.common import FAILED, URL, WRONG_USE, err, fail, out


@click.command()
@URL
@click.option("--email", help="Asked for when missing.")
def login(url: str | None, email: str | None) -> None:
    """Sign in; the token is kept in a file that only you can read. In scripts, set BIOSCOPE_TOKEN (and BIOSCOPE_URL) instead."""
    from api.cli.client.api_client import TOKEN_FILE, Client, keep_credentials

    address = email or click.prompt("E-mail")
    password = os.environ.get("BIOSCOPE_PASSWORD") or click.prompt("Password", hide_input=True)
    Client.sign_in(url or os.environ.get("BIOSCOPE_URL") or "http://127.0.0.1:8000", address, password, keep=keep_credentials)
    out.print(f"Signed in; the token is in {TOKEN_FILE}.")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--model", help="Name of a model [the installation's own choice].")
@click.option("--dataset", help="Name of the dataset that is made [the folder's name].")
@click.option("--csv", "how", flag_value="csv", help="The results as CSV.")
@click.option("--json", "how", flag_value="json", help="The results as JSON.")
@URL
def classify(folder: Path, model: str | None, dataset: str | None, how: str | None, url: str | None) -> None:
    """Upload the images of FOLDER (JPEG, PNG, TIFF; sub-folders too) as a dataset, run a model over it, show the results.

    A manifest.csv in the folder, with the columns file and label, is taken as the truth. Hidden files are ignored; how many others were
    skipped is printed to stderr. Exit code 1 when an image has no result.
    """
    from api.cli.client import terminal
    from api.cli.client.api_client import Client, keep_credentials, kept_credentials
    from api.cli.client.image_folder import folder_name, scan, shown, skipped_files
    from api.cli.client.manifest import read_manifest

    credentials = kept_credentials()
    if credentials is None:
        fail("sign in first: bioscope login", WRONG_USE)
    found = scan(folder)
    manifest = read_manifest(folder, [image.name for image in found.images])
    for note in filter(None, (skipped_files(found.skipped), manifest.warning)):
        err.print(note, markup=False, highlight=False, soft_wrap=True)
    if not found.images:
        fail(f"{shown(folder)} holds no .jpg, .jpeg, .png, .tif or .tiff file", WRONG_USE)
    credentials = msgspec.structs.replace(credentials, url=url or credentials.url)
    with Client(credentials, keep=keep_credentials) as client:
        _check_model(client, model)
        report = terminal.classify(
            client, found.images, dataset_name=dataset or folder_name(folder), model=model, truth=manifest.labels, console=err
        )
    match how:
        case "csv":
            click.echo(terminal.as_csv(report), nl=False)
        case "json":
            click.echo(terminal.as_json(report))
        case _:
            out.print(terminal.table(report))
    err.print(terminal.summary(report), highlight=False)
    sys.exit(FAILED if report.failures or report.status != "completed" else 0)


def _check_model(client: Any, wanted: str | None) -> None:
    """Before anything is uploaded."""
    known = [model["name"] for model in client.get("/api/models")] if wanted else []
    if wanted and wanted not in known:
        fail(f"there is no model {wanted!r}; there are: {', '.join(known) or 'none'}", WRONG_USE)
