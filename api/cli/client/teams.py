"""Teams and shares of datasets as the API knows them: read and changed for the command line, and printed."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from api.cli.client.api_client import Client
from api.cli.client.lookups import dataset_id, id_of, normalized
from api.cli.client.registry import NothingNamed
from api.cli.output import Column, out, print_message, print_table
from api.cli.shapes import DatasetListed, Share, TeamListed, TeamMember
from domain.values import is_id, printable

TEAMS: Final = "/api/teams"
DATASETS: Final = "/api/datasets"


# ---- reading -----------------------------------------------------------------------------------------------------------------------
def read_datasets(client: Client) -> list[DatasetListed]:
    """The newest first. Raises RequestRefused."""
    return msgspec.convert(client.all(DATASETS), list[DatasetListed])


def read_shares(client: Client, dataset: str) -> list[Share]:
    """The grants on a dataset, the owner's first. Raises RequestRefused, NothingNamed."""
    return msgspec.convert(client.get(f"{DATASETS}/{dataset_id(client, dataset)}/shares"), list[Share])


def read_teams(client: Client) -> list[TeamListed]:
    """The newest first. Raises RequestRefused."""
    return msgspec.convert(client.all(TEAMS), list[TeamListed])


def read_members(client: Client, team: str) -> list[TeamMember]:
    """By user name. Raises RequestRefused, NothingNamed."""
    return msgspec.convert(client.get(f"{TEAMS}/{team_id(client, team)}")["members"], list[TeamMember])


def team_id(client: Client, wanted: str) -> str:
    """The id of the team with this name or id. Raises NothingNamed, also if several have the name."""
    return id_of(wanted, client.all(TEAMS), what="team", name="name")


# ---- changing ----------------------------------------------------------------------------------------------------------------------
def share(client: Client, dataset: str, account: str, grant: str) -> None:
    """With an account, by its e-mail address or id. Raises RequestRefused, NothingNamed."""
    path = f"{DATASETS}/{dataset_id(client, dataset)}/shares"
    if is_id(account):
        client.call("PUT", f"{path}/{normalized(account)}", json={"grant": grant})
    else:
        client.call("POST", path, json={"email": _address(account), "grant": grant})


def share_with_team(client: Client, dataset: str, team: str, grant: str) -> None:
    """Raises RequestRefused, NothingNamed."""
    client.call("PUT", f"{DATASETS}/{dataset_id(client, dataset)}/shares/teams/{team_id(client, team)}", json={"grant": grant})


def withdraw(client: Client, dataset: str, holder: str) -> None:
    """From the account or team with this name or id. Raises RequestRefused, NothingNamed."""
    found = _holder(client, dataset, holder)
    path = f"teams/{found.team_id}" if found.team_id else found.user_id
    client.call("DELETE", f"{DATASETS}/{dataset_id(client, dataset)}/shares/{path}")


def transfer(client: Client, dataset: str, account: str) -> None:
    """To an account: an id, or the name of one that has a grant. Raises RequestRefused, NothingNamed."""
    user = normalized(account) if is_id(account) else str(_holder(client, dataset, account).user_id)
    client.call("POST", f"{DATASETS}/{dataset_id(client, dataset)}/transfer", json={"user_id": user})


def _holder(client: Client, dataset: str, wanted: str) -> Share:
    shares, holder_id = read_shares(client, dataset), normalized(wanted)
    found = [one for one in shares if wanted == one.name or holder_id in {str(one.user_id), str(one.team_id)}]
    if len(found) != 1:
        problem = "no grant" if not found else "several grants"
        raise NothingNamed(f"{printable(wanted)!r} has {problem} on the dataset: give a name or id of `bioscope datasets shares`")
    return found[0]


def _address(account: str) -> str:
    """The e-mail address itself. Raises NothingNamed for a text that is none: nobody can search for user names."""
    if "@" not in account:
        raise NothingNamed(f"{printable(account)!r} is no e-mail address: give the e-mail address or the id of the account")
    return account


def create(client: Client, name: str) -> str:
    """The id of the new team. Raises RequestRefused."""
    return str(client.post(TEAMS, {"name": name})["id"])


def delete(client: Client, team: str) -> None:
    """Raises RequestRefused, NothingNamed."""
    client.call("DELETE", f"{TEAMS}/{team_id(client, team)}")


def add_member(client: Client, team: str, account: str) -> None:
    """An account, by its e-mail address or id. Raises RequestRefused, NothingNamed."""
    path = f"{TEAMS}/{team_id(client, team)}/members"
    if is_id(account):
        client.call("PUT", f"{path}/{normalized(account)}")
    else:
        client.call("POST", path, json={"email": _address(account)})


def remove_member(client: Client, team: str, account: str) -> None:
    """The member with this user name or id. Raises RequestRefused, NothingNamed."""
    members: list[dict[str, Any]] = client.get(f"{TEAMS}/{team_id(client, team)}")["members"]
    user = id_of(account, ({"id": one["user_id"], "username": one["username"]} for one in members), what="member", name="username")
    client.call("DELETE", f"{TEAMS}/{team_id(client, team)}/members/{user}")


# ---- printing ----------------------------------------------------------------------------------------------------------------------
def print_datasets(datasets: Sequence[DatasetListed]) -> None:
    if not datasets:
        print_message("There is no dataset that you may see.", console=out)
        return
    columns = [Column("name"), Column("id"), Column("owner"), Column("you may"), Column("created (UTC)")]
    rows = [(one.name, str(one.id), one.owner_username or "-", one.grant.value, f"{one.created_at:%Y-%m-%d %H:%M}") for one in datasets]
    print_table(columns, rows)


def print_shares(shares: Sequence[Share]) -> None:
    columns = [Column("kind"), Column("name"), Column("id"), Column("grant")]
    print_table(columns, [(one.kind, one.name or "-", str(one.team_id or one.user_id), one.grant.value) for one in shares])


def print_teams(teams: Sequence[TeamListed]) -> None:
    if not teams:
        print_message("You are in no team.", console=out)
        return
    columns = [Column("name"), Column("id"), Column("owner"), Column("members")]
    print_table(columns, [(one.name, str(one.id), one.owner_username or "-", str(one.members)) for one in teams])


def print_members(members: Sequence[TeamMember]) -> None:
    if not members:
        print_message("The team has no members.", console=out)
        return
    print_table([Column("user name"), Column("id")], [(one.username or "-", str(one.user_id)) for one in members])
