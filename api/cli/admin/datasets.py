"""Commands for datasets, through the API: who may use them."""

import click

from api.cli.commands import Choice, argument, group, json_option
from api.cli.common import API_URL
from api.cli.output import print_json, print_message
from api.cli.shapes import DatasetListed, Share
from domain.access import Grant

DATASET = argument("dataset", metavar="NAME|ID", help="Name or id of the dataset.")
GRANTS = [grant.value for grant in Grant if grant is not Grant.OWNER]


@group()
def datasets() -> None:
    """Create and list datasets, and share them with accounts and teams.

    A grant includes those before it: viewer reads, analyst uploads and runs models, editor changes images. docs/teams.md explains shares.
    """


@datasets.command("list", example="bioscope datasets list")
@json_option(list[DatasetListed])
@API_URL
def list_datasets(url: str | None, *, as_json: bool) -> None:
    """List the datasets that you may see, the newest first."""
    from api.cli.client import teams
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        found = teams.read_datasets(client)
    if as_json:
        print_json(found)
    else:
        teams.print_datasets(found)


@datasets.command(example="bioscope datasets create micrographs")
@argument("name", help="Name of the dataset.")
@API_URL
def create(name: str, url: str | None) -> None:
    """Create a dataset that you own, and print its id. Needs the role analyst."""
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        made = client.create_dataset(name)
    print_message(f"The dataset has the id {made}.")


@datasets.command(example="bioscope datasets shares micrographs")
@DATASET
@json_option(list[Share])
@API_URL
def shares(dataset: str, url: str | None, *, as_json: bool) -> None:
    """List the accounts and teams that may use a dataset."""
    from api.cli.client import teams
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        found = teams.read_shares(client, dataset)
    if as_json:
        print_json(found)
    else:
        teams.print_shares(found)


@datasets.command(example="bioscope datasets share micrographs grace@example.org --grant analyst")
@DATASET
@argument("holder", metavar="EMAIL|ID|TEAM", help="E-mail address or id of the account; with --team, name or id of the team.")
@click.option("--grant", type=Choice(GRANTS), default=Grant.VIEWER.value, show_default=True, help="What the account or team may do.")
@click.option("--team", "with_team", is_flag=True, help="Share with a team that you own or are a member of.")
@API_URL
def share(dataset: str, holder: str, grant: str, url: str | None, *, with_team: bool) -> None:
    """Let an account or a team use a dataset, or change what it may do.

    You must own the dataset and have the role researcher, or be an administrator.
    """
    from api.cli.client import teams
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        (teams.share_with_team if with_team else teams.share)(client, dataset, holder, grant)
    print_message("Shared.")


@datasets.command(example="bioscope datasets unshare micrographs grace")
@DATASET
@argument("holder", metavar="NAME|ID", help="Name or id of the account or team, as `bioscope datasets shares` prints it.")
@API_URL
def unshare(dataset: str, holder: str, url: str | None) -> None:
    """End the access of an account or a team to a dataset."""
    from api.cli.client import teams
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        teams.withdraw(client, dataset, holder)
    print_message("The share was withdrawn.")


@datasets.command(example="bioscope datasets transfer micrographs grace")
@DATASET
@argument("account", metavar="NAME|ID", help="Id of the account, or its user name if the dataset is shared with it.")
@API_URL
def transfer(dataset: str, account: str, url: str | None) -> None:
    """Make another account the owner of a dataset. The previous owner may still edit it.

    The account must be active, with the role analyst or higher.
    """
    from api.cli.client import teams
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        teams.transfer(client, dataset, account)
    print_message("The dataset has another owner.")
