"""Accounts and tokens, from the server's own machine."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from api.cli.common import DATA, command, explained, fail, out, running, settings, the_log
from infrastructure.settings import Settings


@click.group()
def users() -> None:
    """Accounts, from the server's own machine."""


@users.command("create-admin")
@click.argument("email")
@DATA
def create_admin(email: str, data: Path | None) -> None:
    """Make an administrator. The password (15 characters or more) is asked for, or taken from BIOSCOPE_ADMIN_PASSWORD."""
    given = running(data)
    password = os.environ.get("BIOSCOPE_ADMIN_PASSWORD") or click.prompt("Password", hide_input=True, confirmation_prompt=True)
    with explained(), the_log(given) as log:
        first_admin(given, log, email, password)
    out.print(f"{email} is an administrator.")


@users.command("set-role")
@click.argument("email")
@click.argument("role", type=click.Choice(["viewer", "analyst", "researcher", "admin"]))
@DATA
def set_role(email: str, role: str, data: Path | None) -> None:
    """Say what somebody may do: viewers read what is shared with them, analysts run, researchers keep datasets, admins do everything."""
    from application.accounts import change_role
    from domain.access import Role

    with explained(), the_log(running(data)) as log:
        change_role(_user_id(log, email), Role(role), command=command("users set-role"), log=log)
    out.print(f"{email} is {role}.")


@users.command()
@click.argument("email")
@click.option("--yes", is_flag=True, help="Do not ask.")
@DATA
def erase(email: str, data: Path | None, *, yes: bool) -> None:
    """Destroy a person's key: nothing private about them can be read any more. The record still verifies. There is no way back."""
    from application.accounts import erase as erase_user
    from infrastructure.container import refresh_tokens

    given = running(data)
    with explained(), the_log(given) as log:
        user_id = _user_id(log, email)
        if not yes:
            click.confirm(f"Erase {email} for ever?", abort=True)
        erase_user(user_id, command=command("users erase"), log=log, tokens=refresh_tokens(given))
    out.print(f"{user_id} was erased.")


@click.group()
def tokens() -> None:
    """Access for programs: a classifier, an archive, a consumer of the event feed."""


@tokens.command("create")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, required=True, type=click.Choice(["images:read", "events:read"]), help="Repeatable.")
@click.option("--days", type=click.IntRange(1, 3650), default=90, show_default=True, help="How long it is taken.")
@DATA
def create_token(name: str, scopes: tuple[str, ...], days: int, data: Path | None) -> None:
    """Print a token for the service NAME, once. It can do what its scopes say, and nothing else.

    \b
      images:read   read any image, its preview and its download
      events:read   read the event feed
    It is not kept anywhere, and ends by itself: a lost one can only be waited for, or the root key changed.
    """
    from infrastructure.access_tokens import SignedAccessTokens
    from infrastructure.keys import RootKey

    given = settings(data=data)
    with explained():
        signing = SignedAccessTokens(RootKey.read(given.root_key_path), ttl=given.access_ttl)
        click.echo(signing.issue_service(name=name, scopes=frozenset(scopes), seconds=days * 86400, at=datetime.now(UTC)))


def _user_id(log: Any, email: str) -> UUID:
    found: UUID | None = log.claimed("email", email)
    if found is None:
        fail(f"there is no account with the address {email}")
    return found


def first_admin(given: Settings, log: Any, email: str, password: str) -> None:
    from application.accounts import register
    from domain.access import Role
    from infrastructure.container import passwords

    name = email.partition("@")[0]
    register(
        email=email,
        username=name if len(name) >= 3 else f"{name}-admin",
        first_name=name[:50] or "Admin",
        last_name="Administrator",
        password=password,
        role=Role.ADMIN,
        command=command("users create-admin"),
        log=log,
        passwords=passwords(given),
    )
