"""Commands for teams, through the API."""

from api.cli.commands import argument, group, json_option
from api.cli.common import API_URL
from api.cli.output import print_json, print_message
from api.cli.shapes import TeamListed, TeamMember

TEAM = argument("team", metavar="NAME|ID", help="Name or id of the team.")


@group()
def teams() -> None:
    """Manage teams: accounts that share grants on datasets and models."""


@teams.command("list", example="bioscope teams list")
@json_option(list[TeamListed])
@API_URL
def list_teams(url: str | None, *, as_json: bool) -> None:
    """List the teams that you own or are a member of; all teams for administrators."""
    from api.cli.client import teams
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        found = teams.read_teams(client)
    if as_json:
        print_json(found)
    else:
        teams.print_teams(found)


@teams.command(example="bioscope teams members Haematology")
@TEAM
@json_option(list[TeamMember])
@API_URL
def members(team: str, url: str | None, *, as_json: bool) -> None:
    """List the members of a team."""
    from api.cli.client import teams
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        found = teams.read_members(client, team)
    if as_json:
        print_json(found)
    else:
        teams.print_members(found)


@teams.command(example="bioscope teams create Haematology")
@argument("name", help="Name of the team.")
@API_URL
def create(name: str, url: str | None) -> None:
    """Create a team that you own. Needs the role researcher."""
    from api.cli.client import teams
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        made = teams.create(client, name)
    print_message(f"The team has the id {made}.")


@teams.command(example="bioscope teams delete Haematology")
@TEAM
@API_URL
def delete(team: str, url: str | None) -> None:
    """Delete a team. Its members lose what they may do through it."""
    from api.cli.client import teams
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        teams.delete(client, team)
    print_message("The team was deleted.")


@teams.command(example="bioscope teams add Haematology grace@example.org")
@TEAM
@argument("account", metavar="EMAIL|ID", help="E-mail address or id of the account.")
@API_URL
def add(team: str, account: str, url: str | None) -> None:
    """Add an account to a team that you own."""
    from api.cli.client import teams
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        teams.add_member(client, team, account)
    print_message("The account is a member of the team.")


@teams.command(example="bioscope teams remove Haematology grace")
@TEAM
@argument("account", metavar="NAME|ID", help="User name or id of the member. You may remove yourself from any team.")
@API_URL
def remove(team: str, account: str, url: str | None) -> None:
    """Remove a member from a team, or leave it."""
    from api.cli.client import teams
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        teams.remove_member(client, team, account)
    print_message("The account is no member of the team any more.")
