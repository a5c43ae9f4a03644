"""Accounts and tokens, from the server's own machine."""

import os
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from api.cli.admin import accounts
from api.cli.common import DATA, load_settings, open_event_log, out, running_installation
from api.cli.operator import operator_command
from domain.access import Role
from infrastructure.configuration.settings import Settings


@click.group()
def users() -> None:
    """Accounts, from the server's own machine.

    What these commands do is recorded under the administrator who is signed in here (`bioscope login`), otherwise as "root on HOST".
    """


for command in (
    accounts.list_accounts,
    accounts.show_account,
    accounts.reset_password,
    accounts.disable_account,
    accounts.enable_account,
):
    users.add_command(command)


@users.command("create-admin")
@click.argument("email")
@click.option("--username", help="3 to 50 characters [the part of EMAIL before the @].")
@DATA
def create_admin(email: str, username: str | None, data: Path | None) -> None:
    """Make an administrator. The password (15 characters or more) is asked for, or taken from BIOSCOPE_ADMIN_PASSWORD."""
    settings = running_installation(data)
    password = os.environ.get("BIOSCOPE_ADMIN_PASSWORD") or click.prompt("Password", hide_input=True, confirmation_prompt=True)
    with open_event_log(settings) as log:
        first_admin(settings, log, email, password, username=username)
    out.print(f"{email} is an administrator.")


@users.command("set-role")
@accounts.ACCOUNT
@click.argument("role", type=click.Choice([role.value for role in Role], case_sensitive=False))
@DATA
def set_role(account: str, role: str, data: Path | None) -> None:
    """Say what an account may do.

    ACCOUNT is an e-mail address, a user name or an id. Viewers read what is shared with them, analysts run models too, researchers share
    and delete too, admins do everything.
    """
    from application.accounts import change_role

    settings = running_installation(data)
    with open_event_log(settings) as log:
        change_role(accounts.account_id(log, account), Role(role), command=operator_command(settings, log), log=log)
    out.print(f"{account} is {role}.", markup=False, highlight=False, soft_wrap=True)


@users.command()
@accounts.ACCOUNT
@click.option("--yes", is_flag=True, help="Do not ask.")
@DATA
def erase(account: str, data: Path | None, *, yes: bool) -> None:
    """Destroy a person's key: nothing private about them can be read again.

    ACCOUNT is an e-mail address, a user name or an id. The record still verifies. There is no way back.
    """
    from application.accounts import erase as erase_user
    from infrastructure.container import refresh_tokens

    settings = running_installation(data)
    with open_event_log(settings) as log, closing(refresh_tokens(settings)) as tokens:
        user_id = accounts.account_id(log, account)
        if not yes:
            click.confirm(f"Erase {account} for ever?", abort=True)
        erase_user(user_id, command=operator_command(settings, log), log=log, tokens=tokens)
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
    from infrastructure.security.access_tokens import SignedAccessTokens
    from infrastructure.security.process_keys import operator_keys

    settings = load_settings(data=data)
    signing = SignedAccessTokens(operator_keys(settings), ttl=settings.access_ttl)
    click.echo(signing.issue_service(name=name, scopes=frozenset(scopes), seconds=days * 86400, at=datetime.now(UTC)))


def first_admin(settings: Settings, log: Any, email: str, password: str, *, username: str | None = None) -> None:
    from application.accounts import register
    from infrastructure.container import passwords

    name = email.partition("@")[0][:50]
    register(
        email=email,
        username=username or (name if len(name) >= 3 else f"{name}-admin"),
        first_name=name or "Admin",
        last_name="Administrator",
        password=password,
        role=Role.ADMIN,
        command=operator_command(settings, log),
        log=log,
        passwords=passwords(settings),
    )
