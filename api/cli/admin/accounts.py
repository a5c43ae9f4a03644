"""Accounts: looked at and managed on the server's own machine."""

import asyncio
import re
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from api.cli.admin.new_password import Origin, new_password
from api.cli.common import DATA, err, open_event_log, out, running_installation
from api.cli.operator import operator_command
from domain.access import Actor, Role
from domain.errors import NotFound
from domain.user import Status
from domain.values import printable, system_actor
from infrastructure.configuration.settings import Settings

if TYPE_CHECKING:
    from infrastructure.eventstore.event_store import RecorderEventStore
    from projections.pagination import Page
    from projections.users import Filter, User

ACCOUNT = click.argument("account", metavar="ACCOUNT")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="All fields, as JSON.")
UUID_FORM = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
MAX_PAGE = 200
PROJECTION_TIMEOUT_SECONDS = 2.0


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it."""

    id: UUID
    email: str
    username: str
    first_name: str
    last_name: str
    role: Role
    status: Status
    institution: str | None
    department: str | None
    phone: str | None
    registered_at: datetime
    deleted: bool
    erased: bool


@click.command("list")
@click.option("--role", type=click.Choice([role.value for role in Role], case_sensitive=False), help="Only accounts with this role.")
@click.option(
    "--status", type=click.Choice([status.value for status in Status], case_sensitive=False), help="Only accounts in this status."
)
@click.option("--search", metavar="TEXT", help="Only accounts whose e-mail address, user name or name contains TEXT, in any case.")
@click.option("--limit", type=click.IntRange(1, MAX_PAGE), default=50, show_default=True, help="At most so many.")
@click.option("--cursor", help="Go on where the previous page ended; that page says how.")
@AS_JSON
@DATA
def list_accounts(
    role: str | None, status: str | None, search: str | None, limit: int, cursor: str | None, data: Path | None, *, as_json: bool
) -> None:
    """List accounts, oldest first. Deleted ones are not listed."""
    from projections.users import Filter

    settings = running_installation(data)
    filters = Filter(role=Role(role) if role else None, status=Status(status) if status else None, q=printable(search) if search else None)
    with open_event_log(settings) as log:
        page, lag = asyncio.run(_list(settings, filters, cursor, limit, position=log.head()))
    if as_json:
        click.echo(_json([_view(row) for row in page.items]))
    else:
        out.print(_table(page.items) if page.items else "No account matches.")
    if lag:
        _print(f"The list may be out of date: {lag} events are not in the read models yet. Is the projector running?", console=err)
    if page.next_cursor:
        _print(f"There are more: repeat the command with --cursor {page.next_cursor}", console=err)


@click.command("show")
@ACCOUNT
@AS_JSON
@DATA
def show_account(account: str, data: Path | None, *, as_json: bool) -> None:
    """Show one account, as the log has it.

    ACCOUNT is an e-mail address, a user name or an id; a deleted account has only its id.
    """
    from domain import user

    with open_event_log(running_installation(data)) as log:
        user_state = log.load(account_id(log, account), user.evolve)
        if user_state is None:
            raise _unknown(account)
    view = _view(user_state)
    if as_json:
        click.echo(_json(view))
        return
    table = Table(show_header=False, box=None)
    for name, value in msgspec.to_builtins(view).items():
        table.add_row(name, Text(printable(str(value))) if value is not None else "")
    out.print(table)


@click.command("reset-password")
@ACCOUNT
@click.option("--prompt", is_flag=True, help="Ask for the new password instead of making one up.")
@DATA
def reset_password(account: str, data: Path | None, *, prompt: bool) -> None:
    """Set another password and end all sessions.

    ACCOUNT is an e-mail address, a user name or an id. A random password is printed, once; it is kept nowhere. With --prompt the password
    is asked for; in scripts, BIOSCOPE_PASSWORD may hold it.
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
    if origin is Origin.RANDOM:
        click.echo(password)
    _print(f"{account} has {origin}; all its sessions have ended.", console=err)


@click.command("disable")
@ACCOUNT
@DATA
def disable_account(account: str, data: Path | None) -> None:
    """Suspend an account and end all its sessions.

    ACCOUNT is an e-mail address, a user name or an id. Nothing of it is deleted.
    """
    changed = _set_status(account, Status.SUSPENDED, data)
    _print(f"{account} {'is suspended now' if changed else 'was suspended already'}: it cannot sign in, and all its sessions have ended.")


@click.command("enable")
@ACCOUNT
@DATA
def enable_account(account: str, data: Path | None) -> None:
    """Let an account sign in again.

    ACCOUNT is an e-mail address, a user name or an id. Sessions of the time before stay ended.
    """
    changed = _set_status(account, Status.ACTIVE, data)
    _print(f"{account} is active again: it has to sign in anew." if changed else f"{account} was active already; nothing has changed.")


def account_id(log: "RecorderEventStore", account: str) -> UUID:
    """The account with an e-mail address, a user name or an id. Raises NotFound.

    A user name that looks like an e-mail address or an id is not found by it: it could name another account.
    """
    if UUID_FORM.fullmatch(account):
        return UUID(account)
    user_id = log.claimed("email" if "@" in account else "username", account) if account.isprintable() else None
    if user_id is None:
        raise _unknown(account)
    return user_id


def _unknown(account: str) -> NotFound:
    return NotFound(f"there is no account {printable(account)}: `bioscope users list` shows all")


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


async def _list(settings: Settings, filters: "Filter", cursor: str | None, limit: int, *, position: int) -> "tuple[Page[User], int]":
    """A page, and by how many events the read models are behind `position` after a moment's wait."""
    from infrastructure.postgres.query_database import PositionWaiter, PostgresQueryDatabase
    from projections import users

    actor = Actor(id=system_actor("cli users list"), kind="system")
    reads, visible = PostgresQueryDatabase(settings.postgres_url), PositionWaiter(settings.postgres_url)
    await reads.open()
    await visible.start()
    try:
        await visible.wait(position, PROJECTION_TIMEOUT_SECONDS)
        return await users.listed(reads, actor, where=filters, cursor=cursor, size=limit), max(0, position - visible.position)
    finally:
        await visible.stop()
        await reads.close()


def _table(rows: "list[User]") -> Table:
    table = Table(box=None)
    for title in ("e-mail", "user name", "name"):
        table.add_column(title, overflow="fold")
    for title in ("role", "status", "registered"):
        table.add_column(title, no_wrap=True)
    for row in rows:
        name = f"{row.first_name} {row.last_name}"
        texts = (row.email, row.username, name, row.role, row.status, f"{row.registered_at:%Y-%m-%d}")
        table.add_row(*(Text(printable(text)) for text in texts))
    return table


def _view(row: object) -> Account:
    return msgspec.convert(row, Account, from_attributes=True)


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _print(sentence: str, *, console: Console = out) -> None:
    console.print(printable(sentence), markup=False, highlight=False, soft_wrap=True, emoji=False)
