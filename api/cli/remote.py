"""Commands of the API's client: sign in, classify a folder."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from api.cli.commands import SettingOption, argument, command, json_option
from api.cli.common import API_URL
from api.cli.exit_codes import FAILED, WRONG_USE
from api.cli.job_options import job_options, require_model
from api.cli.output import fail, print_json, print_message
from api.cli.prompts import ask, ask_password
from infrastructure.configuration.urls import shown_origin

DEFAULT_URL: Final = "http://127.0.0.1:8000"


@command(
    example="bioscope login --email you@example.org",
    variables={
        "BIOSCOPE_PASSWORD": "The password; without it, the command asks for one.",
        "BIOSCOPE_KEY": "The API key, with --key; without it, the command asks for one.",
    },
)
@click.option("--url", cls=SettingOption, variable="BIOSCOPE_URL", fallback=DEFAULT_URL, metavar="URL", help="Address of the API.")
@click.option("--email", metavar="ADDRESS", help="E-mail address of your account; without it, the command asks for one.")
@click.option("--key", "with_key", is_flag=True, help="Use an API key instead of an account.")
def login(url: str | None, email: str | None, *, with_key: bool) -> None:
    """Sign in to the API.

    The token or key is stored in a file that only you can read. Scripts can set BIOSCOPE_KEY and BIOSCOPE_URL instead.
    """
    if with_key:
        _store_key(url or os.environ.get("BIOSCOPE_URL") or DEFAULT_URL)
        return
    import httpx

    from api.cli.client.api_client import Client, RequestRefused
    from api.cli.client.credentials import store_credentials, token_file

    address = email or ask("E-mail", otherwise="give the e-mail address with --email")
    password = os.environ.get("BIOSCOPE_PASSWORD") or ask_password("Password", otherwise="set BIOSCOPE_PASSWORD")
    server = url or os.environ.get("BIOSCOPE_URL") or DEFAULT_URL
    try:
        Client.sign_in(server, address, password, store=store_credentials)
    except RequestRefused as refused:
        if refused.status != httpx.codes.UNAUTHORIZED:
            raise
        fail(f"the e-mail address or password is wrong at {shown_origin(server)} (another server: --url)")
    print_message(f"Signed in. The token is in {token_file()}.")


def _store_key(url: str) -> None:
    from api.cli.client.credentials import Credentials, store_credentials, token_file
    from application.key_text import read_key

    key = (os.environ.get("BIOSCOPE_KEY") or ask_password("Key", otherwise="set BIOSCOPE_KEY")).strip()
    if read_key(key) is None:
        fail("this is not a complete API key: copy all of it, from bsk_ on", WRONG_USE)
    store_credentials(Credentials(url, key))
    print_message(f"The key is in {token_file()}. The server checks it with the next command.")


@command(
    example="bioscope upload examples/micrographs --dataset cells",
    variables={"BIOSCOPE_KEY": "An API key, used instead of the sign-in that `bioscope login` stored."},
)
@argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder with images.")
@click.option("--dataset", required=True, metavar="NAME|ID", help="Dataset that gets the images. A name needs the right to list datasets.")
@API_URL
def upload(folder: Path, dataset: str, url: str | None) -> None:
    """Upload a folder of images into a dataset.

    JPEG, PNG and TIFF files are uploaded, those of subfolders too. Hidden files are ignored. The ids of the images are printed on stdout.

    The exit code is 1 if an image was refused.
    """
    from api.cli.client.image_folder import scan, shown, skipped_files
    from api.cli.client.lookups import dataset_id
    from api.cli.client.sign_in import open_client

    contents = scan(folder)
    if skipped := skipped_files(contents.skipped):
        print_message(skipped)
    if not contents.images:
        fail(f"{shown(folder)} contains no .jpg, .jpeg, .png, .tif or .tiff file: give the folder of your images", WRONG_USE)
    refused = 0
    with open_client(url) as client:
        into = dataset_id(client, dataset)
        for result in client.upload_all(into, contents.images):
            if result.refused:
                refused += 1
                print_message(f"{shown(result.image.path)}: {result.refused}")
            else:
                click.echo(result.id)
    print_message(f"{len(contents.images) - refused} of {len(contents.images)} images are uploaded.")
    sys.exit(FAILED if refused else 0)


@command(
    example="bioscope classify examples/micrographs",
    variables={
        "BIOSCOPE_TOKEN": "An access token, used instead of the one that `bioscope login` stored.",
    },
)
@argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder with images.")
@job_options
@click.option("--dataset", metavar="NAME", help="Name of the new dataset. [default: the name of the folder]")
@click.option("--csv", "output_format", flag_value="csv", help="Print the results as CSV.")
@json_option("api.cli.client.terminal:RunReport", name="output_format", flag_value="json")
@API_URL
def classify(folder: Path, choices: Mapping[str, Any], dataset: str | None, output_format: str | None, url: str | None) -> None:
    """Upload a folder of images, run a model, print the results.

    The images become a new dataset. JPEG, PNG and TIFF files are uploaded, those of subfolders too. Hidden files are ignored; the number
    of other files that were skipped is printed on stderr. The labels in a manifest.csv with the columns file and label are shown beside
    the results.

    An API key cannot create the dataset: with a key, use `bioscope upload` and `bioscope jobs run`.

    The exit code is 1 if an image has no result.
    """
    from api.cli.client import terminal
    from api.cli.client.image_folder import folder_name, scan, shown, skipped_files
    from api.cli.client.manifest import read_manifest
    from api.cli.client.sign_in import open_client
    from api.cli.output import err

    client = open_client(url)
    if client.credentials.is_key:
        fail(
            "an API key cannot create the dataset: use `bioscope upload FOLDER --dataset ID` and `bioscope jobs run --dataset ID --watch`,"
            " or sign in with `bioscope login`",
            WRONG_USE,
        )
    contents = scan(folder)
    manifest = read_manifest(folder, [image.name for image in contents.images])
    for notice in filter(None, (skipped_files(contents.skipped), manifest.warning)):
        print_message(notice)
    if not contents.images:
        fail(f"{shown(folder)} contains no .jpg, .jpeg, .png, .tif or .tiff file: give the folder of your images", WRONG_USE)
    with client:
        require_model(client, choices)
        client.require_choices(choices)
        report = terminal.classify(
            client,
            contents.images,
            dataset_name=dataset or folder_name(folder),
            choices=choices,
            truth=manifest.labels,
            console=err,
        )
    match output_format:
        case "csv":
            click.echo(terminal.as_csv(report), nl=False)
        case "json":
            print_json(report)
        case _:
            terminal.print_results(report)
    print_message(terminal.summary(report))
    if report.job_id:
        print_message(f"Results: bioscope results list --job {report.job_id}")
    sys.exit(FAILED if report.failures or report.status != "completed" else 0)
