"""Commands of the API's client: sign in, classify a folder."""

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
    from api.cli.client.api_client import Client
    from api.cli.client.credentials import store_credentials, token_file

    address = email or click.prompt("E-mail")
    password = os.environ.get("BIOSCOPE_PASSWORD") or click.prompt("Password", hide_input=True)
    Client.sign_in(url or os.environ.get("BIOSCOPE_URL") or "http://127.0.0.1:8000", address, password, store=store_credentials)
    out.print(f"Signed in; the token is in {token_file()}.")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--model", help="Name of a model [the installation's own choice].")
@click.option("--dataset", help="Name of the dataset that is made [the folder's name].")
@click.option("--csv", "output_format", flag_value="csv", help="The results as CSV.")
@click.option("--json", "output_format", flag_value="json", help="The results as JSON.")
@URL
def classify(folder: Path, model: str | None, dataset: str | None, output_format: str | None, url: str | None) -> None:
    """Upload the images of FOLDER (JPEG, PNG, TIFF; sub-folders too) as a dataset, run a model over it, show the results.

    A manifest.csv in the folder, with the columns file and label, is taken as the truth. Hidden files are ignored; how many others were
    skipped is printed to stderr. Exit code 1 when an image has no result.
    """
    from api.cli.client import terminal
    from api.cli.client.api_client import Client
    from api.cli.client.credentials import store_credentials, stored_credentials
    from api.cli.client.image_folder import folder_name, scan, shown, skipped_files
    from api.cli.client.manifest import read_manifest

    credentials = stored_credentials()
    if credentials is None:
        fail("sign in first: bioscope login", WRONG_USE)
    contents = scan(folder)
    manifest = read_manifest(folder, [image.name for image in contents.images])
    for notice in filter(None, (skipped_files(contents.skipped), manifest.warning)):
        err.print(notice, markup=False, highlight=False, soft_wrap=True)
    if not contents.images:
        fail(f"{shown(folder)} holds no .jpg, .jpeg, .png, .tif or .tiff file", WRONG_USE)
    credentials = msgspec.structs.replace(credentials, url=url or credentials.url)
    with Client(credentials, store=store_credentials) as client:
        _require_model(client, model)
        report = terminal.classify(
            client, contents.images, dataset_name=dataset or folder_name(folder), model=model, truth=manifest.labels, console=err
        )
    match output_format:
        case "csv":
            click.echo(terminal.as_csv(report), nl=False)
        case "json":
            click.echo(terminal.as_json(report))
        case _:
            out.print(terminal.table(report))
    err.print(terminal.summary(report), highlight=False)
    sys.exit(FAILED if report.failures or report.status != "completed" else 0)


def _require_model(client: Any, name: str | None) -> None:
    """Before anything is uploaded."""
    names = [model["name"] for model in client.get("/api/models")] if name else []
    if name and name not in names:
        fail(f"there is no model {name!r}; there are: {', '.join(names) or 'none'}", WRONG_USE)
