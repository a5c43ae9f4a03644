"""Commands for invitations, on the server's machine."""

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID

import click

from api.cli.admin.read_models import CURSOR, MAX_PAGE, newest_page, print_rest
from api.cli.commands import Choice, argument, command, json_option
from api.cli.common import DATA, open_event_log, running_installation
from api.cli.exit_codes import WRONG_USE
from api.cli.operator import operator_command
from api.cli.output import Column, fail, print_json, print_message, print_table
from api.cli.shapes import InvitationListed
from domain.access import Role
from domain.values import is_id, printable

if TYPE_CHECKING:
    from projections.invitations import InvitationRow

ROLES: Final = [role.value for role in Role]


@command("invite", example="bioscope users invite colleague@example.org --role analyst")
@argument("email", help="E-mail address of the person.")
@click.option("--role", type=Choice(ROLES, case_sensitive=False), default=Role.VIEWER.value, show_default=True, help="The role.")
@click.option("--again", is_flag=True, help="Send an open invitation again, with a new link and the role that it has.")
@DATA
def invite(email: str, role: str, data: Path | None, *, again: bool) -> None:
    """Invite a person by mail to create an account.

    The link in the mail works once, within 7 days. Without BIOSCOPE_SMTP_URL, the mail is written to the folder `mail` of the data folder.
    """
    from application import invitations
    from domain.errors import Taken

    settings = running_installation(data)
    if settings.registration_mode == "closed":
        fail("nobody can accept an invitation while BIOSCOPE_REGISTRATION is closed: set it to invite, here and for the API", WRONG_USE)
    with open_event_log(settings) as log:
        by = operator_command(settings, log)
        if again:
            invitations.repeat_to(email, command=by, log=log)
            done = "is invited again"
        else:
            try:
                invitations.invite(email=email, role=Role(role), command=by, log=log)
            except Taken as taken:
                if taken.scope == invitations.SCOPE:
                    raise Taken("this person is invited already: --again sends another link", scope=taken.scope) from None
                raise
            done = f"is invited with the role {role}"
    if settings.smtp_url:
        print_message(f"{printable(email)} {done}: `bioscope mail status` shows whether mails wait.")
    else:
        print_message(f"{printable(email)} {done}: the mail is written to the folder {settings.mail_path}.")


@command("invitations", example="bioscope users invitations")
@click.option("--all", "with_closed", is_flag=True, help="List accepted and withdrawn invitations, too. Their addresses are erased.")
@click.option(
    "--limit", type=click.IntRange(1, MAX_PAGE), metavar="NUMBER", default=50, show_default=True, help="Maximum number of invitations."
)
@CURSOR
@DATA
@json_option(list[InvitationListed])
def list_invitations(limit: int, cursor: str | None, data: Path | None, *, with_closed: bool, as_json: bool) -> None:
    """List open invitations, newest first.

    `bioscope users invite EMAIL --again` sends one again, `bioscope users withdraw-invitation` ends one.
    """
    from projections import invitations
    from projections.invitations import InvitationStatus

    settings = running_installation(data)
    status = None if with_closed else InvitationStatus.OPEN
    with open_event_log(settings) as log:
        query = partial(invitations.listed, status=status, cursor=cursor, size=limit)
        page, lag = asyncio.run(newest_page(settings, query, position=log.head()))
    found = [_view(row) for row in page.items]
    if as_json:
        print_json(found)
    elif found:
        columns = [Column(title) for title in ("e-mail", "role", "status", "sent", "link works until", "id")]
        print_table(columns, [_cells(one) for one in found])
    else:
        click.echo("There is no invitation." if with_closed else "There is no open invitation.")
    print_rest(page, lag, what="invitations")


@command("withdraw-invitation", example="bioscope users withdraw-invitation colleague@example.org")
@argument("invitation", metavar="EMAIL|ID", help="E-mail address or id of the invitation.")
@DATA
def withdraw_invitation(invitation: str, data: Path | None) -> None:
    """End an open invitation.

    Its link no longer works, and the address is erased.
    """
    from application import invitations

    settings = running_installation(data)
    with open_event_log(settings) as log:
        found = UUID(invitation) if is_id(invitation) else invitations.open_invitation(invitation, log)
        invitations.withdraw(found, command=operator_command(settings, log), log=log)
    print_message(f"The invitation {'' if is_id(invitation) else 'of '}{printable(invitation)} is withdrawn.")


def _view(row: "InvitationRow") -> InvitationListed:
    from domain.links import LIFETIMES, LinkPurpose

    return InvitationListed(
        id=row.id,
        email=row.email,
        role=row.role,
        status=row.status.value,
        invited_by=row.invited_by,
        invited_at=row.invited_at,
        sent_at=row.sent_at,
        expires_at=row.sent_at + LIFETIMES[LinkPurpose.ACCEPT_INVITATION],
        user_id=row.user_id,
    )


def _cells(one: InvitationListed) -> tuple[str, ...]:
    return one.email or "-", one.role, one.status, f"{one.sent_at:%Y-%m-%d}", f"{one.expires_at:%Y-%m-%d %H:%M}", str(one.id)
