"""Commands for your own API keys, through the API."""

import click

from api.cli.commands import argument, group, json_option
from api.cli.common import API_URL
from api.cli.key_options import DATASETS, DAYS, DAYS_OF_NEW_SECRET, OVERLAP, SCOPES
from api.cli.output import print_json, print_message
from api.cli.shapes import OwnKey, ServiceToken

KEY = argument("key", metavar="NAME|ID", help="Name or id of the key.")


@group("api-keys")
def api_keys() -> None:
    """Create, list, rotate and revoke your own API keys (personal access tokens).

    A program with such a key acts as you, within the scopes of the key. The commands work from any machine, with your sign-in
    (`bioscope login`). Administrators manage the keys of programs without a person with `bioscope tokens`.
    """


@api_keys.command("create", example="bioscope api-keys create nightly --scope jobs:run --scope results:read")
@argument("name", help="Name of the key, for you: what uses it.")
@SCOPES
@DATASETS
@DAYS
@json_option(ServiceToken)
@API_URL
def create_key(name: str, scopes: tuple[str, ...], datasets: tuple[str, ...], days: int, url: str | None, *, as_json: bool) -> None:
    """Print a new key.

    \b
      images:read    read images, their previews and downloads
      images:write   upload and change images
      datasets:read  list datasets
      jobs:run       run models as jobs, follow and cancel them
      results:read   read and export results and statistics
      events:read    follow live events
      metrics:read   read /metrics, as an administrator
      models:run     run models in production over images in the request

    It is shown once, only its hash is stored, and it expires. Set BIOSCOPE_KEY to it where the program runs. docs/programs.md lists the
    scopes that each command needs.
    """
    from api.cli.client.api_keys import issue
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        _print_key(issue(client, name=name, scopes=scopes, datasets=datasets, days=days), as_json=as_json)


@api_keys.command("list", example="bioscope api-keys list")
@click.option("--all", "with_ended", is_flag=True, help="List keys that were revoked or have expired, too.")
@json_option(list[OwnKey])
@API_URL
def list_keys(url: str | None, *, with_ended: bool, as_json: bool) -> None:
    """List your keys with their last use, the newest first."""
    from api.cli.client.api_keys import print_keys, read_keys
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        found = [key for key in read_keys(client) if with_ended or key.status == "working"]
    if as_json:
        print_json(found)
    else:
        print_keys(found)


@api_keys.command("rotate", example="bioscope api-keys rotate nightly")
@KEY
@DAYS_OF_NEW_SECRET
@OVERLAP
@json_option(ServiceToken)
@API_URL
def rotate_key(key: str, days: int | None, overlap_hours: int, url: str | None, *, as_json: bool) -> None:
    """Print a new secret for a key.

    It has the same id, scopes and datasets.
    """
    from api.cli.client.api_keys import rotate
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        _print_key(rotate(client, key, days=days, overlap_hours=overlap_hours), as_json=as_json)


@api_keys.command("revoke", example="bioscope api-keys revoke nightly")
@KEY
@API_URL
def revoke_key(key: str, url: str | None) -> None:
    """Revoke a key.

    It is refused within ten seconds.
    """
    from api.cli.client.api_keys import revoke
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        revoked = revoke(client, key)
    print_message(f"The key {revoked} is revoked.")


def _print_key(key: ServiceToken, *, as_json: bool) -> None:
    if as_json:
        print_json(key)
    else:
        click.echo(key.token)
