"""Commands that list and manage accounts, on the server's machine."""

import asyncio
import re
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID

import click
import msgspec

from api.cli.admin.new_password import Origin, new_password
from api.cli.admin.read_models import CURSOR, MAX_PAGE, newest_page, print_rest
from api.cli.commands import Choice, argument, command, json_option
from api.cli.common import DATA, open_event_log, running_installation
from api.cli.operator import operator_command
from api.cli.output import Column, print_fields, print_json, print_message, print_table
from api.cli.shapes import Account, NewPassword, Session, shaped
from domain.access import Role
from domain.errors import NotFound
from domain.user import Status
from domain.values import printable

if TYPE_CHECKING:
    from infrastructure.eventstore.event_store import RecorderEventStore
    from projections.users import User

ACCOUNT: Final = argument("account", metavar="ACCOUNT", help="E-mail address, user name or id of the account.")
UUID_FORM: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@command("list", example="bioscope users list --role admin")
@click.option("--role", type=Choice([role.value for role in Role], case_sensitive=False), help="Only accounts with this role.")
@click.option("--status", type=Choice([status.value for status in Status], case_sensitive=False), help="Only accounts with this status.")
@click.option("--deleted", is_flag=True, help="Only deleted accounts, with their ids.")
@click.option("--search", metavar="TEXT", help="Only accounts whose e-mail address, user name or name contains TEXT, ignoring case.")
@click.option(
    "--limit", type=click.IntRange(1, MAX_PAGE), metavar="NUMBER", default=50, show_default=True, help="Maximum number of accounts."
)
@CURSOR
@json_option(list[Account])
@DATA
def list_accounts(
    role: str | None,
    status: str | None,
    search: str | None,
    limit: int,
    cursor: str | None,
    data: Path | None,
    *,
    deleted: bool,
    as_json: bool,
) -> None:
    """List accounts, oldest first.

    Deleted accounts are listed with --deleted only.
    """
    from projections import users
    from projections.users import Filter

    settings = running_installation(data)
    filters = Filter(
        role=Role(role) if role else None,
        status=Status(status) if status else None,
        q=printable(search) if search else None,
        deleted=deleted,
    )
    with open_event_log(settings) as log:
        query = partial(users.listed, where=filters, cursor=cursor, size=limit)
        page, lag = asyncio.run(newest_page(settings, query, position=log.head()))
    if as_json:
        print_json([shaped(row, Account) for row in page.items])
    elif page.items:
        _print_accounts(page.items, with_ids=deleted)
    else:
        click.echo("No account matches.")
    print_rest(page, lag, what="accounts")


@command("show", example="bioscope users show you@example.org")
@ACCOUNT
@json_option(Account)
@DATA
def show_account(account: str, data: Path | None, *, as_json: bool) -> None:
    """Show one account, as it is in the log.

    A deleted account is found by its id only.
    """
    from domain import user

    with open_event_log(running_installation(data)) as log:
        user_state = log.load(account_id(log, account), user.evolve)
        if user_state is None:
            raise _unknown(account)
    view = shaped(user_state, Account)
    if as_json:
        print_json(view)
        return
    print_fields([(name, "" if value is None else str(value)) for name, value in msgspec.to_builtins(view).items()])


@command(
    "reset-password",
    example="bioscope users reset-password you@example.org",
    variables={"BIOSCOPE_PASSWORD": "The new password, if --prompt is not given."},
)
@ACCOUNT
@click.option("--prompt", is_flag=True, help="Ask for the new password instead of making a random one.")
@DATA
@json_option(NewPassword)
def reset_password(account: str, data: Path | None, *, prompt: bool, as_json: bool) -> None:
    """Set a new password and end all sessions of an account.

    A random password is printed once and stored nowhere.
    """
    from application import accounts
    from infrastructure.container import passwords, refresh_tokens

    settings = running_installation(data)
    with open_event_log(settings) as log, closing(refresh_tokens(settings)) as tokens:
        user_id = account_id(log, account)
        password, origin = new_password(prompt=prompt)
        accounts.reset_password(
            user_id, password, command=operator_command(settings, log), log=log, passwords=passwords(settings), tokens=tokens
        )
    shown = password if origin is Origin.RANDOM else None
    if as_json:
        print_json(NewPassword(account=user_id, password=shown))
    elif shown is not None:
        click.echo(shown)
    print_message(f"{printable(account)} has {origin}; all its sessions have ended.")


@command("disable", example="bioscope users disable you@example.org")
@ACCOUNT
@DATA
def disable_account(account: str, data: Path | None) -> None:
    """Suspend an account and end all its sessions.

    Nothing is deleted.
    """
    changed = _set_status(account, Status.SUSPENDED, data)
    when = "is suspended now" if changed else "was suspended already"
    print_message(f"{printable(account)} {when}: it cannot sign in, and all its sessions have ended.")


@command("enable", example="bioscope users enable you@example.org")
@ACCOUNT
@DATA
def enable_account(account: str, data: Path | None) -> None:
    """Let a suspended account sign in again.

    Its earlier sessions remain ended.
    """
    changed = _set_status(account, Status.ACTIVE, data)
    result = "is active again: it has to sign in anew." if changed else "was active already; nothing has changed."
    print_message(f"{printable(account)} {result}")


@command("sessions", example="bioscope users sessions you@example.org")
@ACCOUNT
@click.option("--end", is_flag=True, help="End all of them.")
@json_option(list[Session])
@DATA
def account_sessions(account: str, data: Path | None, *, end: bool, as_json: bool) -> None:
    """List the open sessions of an account, and end them with --end.

    The last used one is first. With --end, those are listed that were open.
    """
    from api.cli.client.sessions import print_sessions
    from application import open_sessions
    from infrastructure.container import refresh_tokens

    settings = running_installation(data)
    with open_event_log(settings) as log, closing(refresh_tokens(settings)) as tokens:
        user_id, by = account_id(log, account), operator_command(settings, log)
        found = [shaped(each, Session) for each in open_sessions.listed(user_id, actor=by.actor, at=by.at, log=log, tokens=tokens)]
        if end:
            open_sessions.end_all(user_id, command=by, log=log, tokens=tokens)
    if as_json:
        print_json(found)
    elif found:
        print_sessions(found)
    else:
        click.echo(f"{printable(account)} has no open session.")
    if end and found:
        print_message(f"All sessions of {printable(account)} have ended.")


def account_id(log: "RecorderEventStore", account: str) -> UUID:
    """The account with an e-mail address, a user name or an id. Raises NotFound.

    A user name that looks like an e-mail address or an id is not searched for, since it could name another account.
    """
    if UUID_FORM.fullmatch(account):
        return UUID(account)
    user_id = log.claimed("email" if "@" in account else "username", account) if account.isprintable() else None
    if user_id is None:
        raise _unknown(account)
    return user_id


def _unknown(account: str) -> NotFound:
    return NotFound(
        f"there is no account {printable(account)}: `bioscope users list` shows all accounts; give the id of a deleted one, which "
        "`bioscope users list --deleted` shows"
    )


def _set_status(account: str, status: Status, data: Path | None) -> bool:
    """Whether that changed anything."""
    from application import accounts
    from infrastructure.container import passwords, refresh_tokens

    settings = running_installation(data)
    with open_event_log(settings) as log, closing(refresh_tokens(settings)) as tokens:
        result = accounts.update(
            account_id(log, account),
            profile={},
            status=status,
            command=operator_command(settings, log),
            log=log,
            passwords=passwords(settings),
            tokens=tokens,
        )
    return result.position > 0


def _print_accounts(rows: "list[User]", *, with_ids: bool) -> None:
    titles = ("e-mail", "user name", "name", "role", "status", "registered", *(["id"] if with_ids else []))
    print_table([Column(title, wraps=title == "name") for title in titles], [_cells(row, with_id=with_ids) for row in rows])


def _cells(row: "User", *, with_id: bool) -> tuple[str, ...]:
    cells = (row.email, row.username, f"{row.first_name} {row.last_name}", row.role, row.status, f"{row.registered_at:%Y-%m-%d}")
    return (*cells, str(row.id)) if with_id else cells
