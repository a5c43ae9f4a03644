"""Commands for accounts, on the server's machine."""

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from api.cli.admin import accounts, invitations
from api.cli.commands import Choice, argument, group
from api.cli.common import DATA, open_event_log, running_installation
from api.cli.operator import operator_command
from api.cli.output import fail, print_message
from api.cli.prompts import ask_password
from domain.access import Role
from domain.errors import Taken
from domain.values import printable
from infrastructure.configuration.settings import Settings


@group()
def users() -> None:
    """Create, list and change accounts.

    The commands run on the server's machine. The log records them under the administrator who is signed in there (`bioscope login`),
    otherwise as "root on HOST".
    """


for command in (
    accounts.list_accounts,
    accounts.show_account,
    accounts.reset_password,
    accounts.disable_account,
    accounts.enable_account,
    accounts.account_sessions,
    invitations.invite,
    invitations.list_invitations,
    invitations.withdraw_invitation,
):
    users.add_command(command)


@users.command(
    "create-admin",
    example="bioscope users create-admin you@example.org",
    variables={"BIOSCOPE_ADMIN_PASSWORD": "The password; without it, the command asks for one."},
)
@argument("email", help="E-mail address of the new account.")
@click.option("--username", metavar="NAME", help="User name, 3 to 50 characters. [default: the part of EMAIL before the @]")
@DATA
def create_admin(email: str, username: str | None, data: Path | None) -> None:
    """Create an account with the role admin.

    The password needs 15 characters or more.
    """
    settings = running_installation(data)
    password = os.environ.get("BIOSCOPE_ADMIN_PASSWORD") or ask_password(
        "Password", otherwise="set BIOSCOPE_ADMIN_PASSWORD", confirmation_prompt=True
    )
    chosen = username or _username_of(email)
    with open_event_log(settings) as log:
        try:
            first_admin(settings, log, email, password, username=chosen)
        except Taken:
            fail(_remedy(email, chosen, has_account=log.claimed("email", email) is not None))
    print_message(f"{printable(email)} is an administrator.")


@users.command("set-role", example="bioscope users set-role you@example.org admin")
@accounts.ACCOUNT
@argument("role", metavar="ROLE", type=Choice([role.value for role in Role], case_sensitive=False), help="The new role.")
@DATA
def set_role(account: str, role: str, data: Path | None) -> None:
    """Change the role of an account.

    \b
      viewer      reads what is shared with it
      analyst     also creates datasets, uploads images and runs models
      researcher  also shares, deletes, and adds and tests models
      admin       sees and does everything
    """
    from application.accounts import change_role

    settings = running_installation(data)
    with open_event_log(settings) as log:
        change_role(accounts.account_id(log, account), Role(role), command=operator_command(settings, log), log=log)
    print_message(f"{printable(account)} is {role}.")


@users.command(example="bioscope users delete colleague@example.org --yes")
@accounts.ACCOUNT
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@DATA
def delete(account: str, data: Path | None, *, yes: bool) -> None:
    """Close an account and end all its sessions.

    Its history stays readable, and its address and user name can be used again. This cannot be undone. `bioscope users erase` also makes
    the personal data unreadable.
    """
    from application.accounts import delete as delete_user
    from infrastructure.container import refresh_tokens

    settings = running_installation(data)
    with open_event_log(settings) as log, closing(refresh_tokens(settings)) as tokens:
        user_id = accounts.account_id(log, account)
        if not yes:
            click.confirm(f"Delete {printable(account)}?", abort=True, err=True)
        delete_user(user_id, command=operator_command(settings, log), log=log, tokens=tokens)
    print_message(f"{printable(account)} was deleted. `bioscope users erase {user_id}` also makes the personal data unreadable.")


@users.command(example="bioscope users erase you@example.org --yes")
@accounts.ACCOUNT
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@DATA
def erase(account: str, data: Path | None, *, yes: bool) -> None:
    """Delete an account and destroy its data key, so that nobody can read its personal data again.

    The log can still be verified. This cannot be undone.
    """
    from application.accounts import erase as erase_user
    from infrastructure.container import refresh_tokens

    settings = running_installation(data)
    with open_event_log(settings) as log, closing(refresh_tokens(settings)) as tokens:
        user_id = accounts.account_id(log, account)
        if not yes:
            click.confirm(f"Erase {printable(account)} for ever?", abort=True, err=True)
        erase_user(user_id, command=operator_command(settings, log), log=log, tokens=tokens)
    print_message(f"{user_id} was erased.")


def first_admin(settings: Settings, log: Any, email: str, password: str, *, username: str | None = None) -> None:
    from application.accounts import register
    from infrastructure.container import passwords

    register(
        email=email,
        username=username or _username_of(email),
        first_name=_name_of(email) or "Admin",
        last_name="Administrator",
        password=password,
        role=Role.ADMIN,
        command=operator_command(settings, log),
        log=log,
        passwords=passwords(settings),
    )


def _username_of(email: str) -> str:
    name = _name_of(email)
    return name if len(name) >= 3 else f"{name}-admin"


def _name_of(email: str) -> str:
    return email.partition("@")[0][:50]


def _remedy(email: str, username: str, *, has_account: bool) -> str:
    """Both may be in use; another user name does not help then."""
    if has_account:
        return f"{printable(email)} has an account: `bioscope users set-role {printable(email)} admin` makes it an administrator"
    return f"the user name {printable(username)} is in use: choose another one with --username"
