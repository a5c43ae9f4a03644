"""Commands for the own password and sessions, through the API."""

import os
from uuid import UUID

import click

from api.cli.commands import Id, argument, command, group, json_option
from api.cli.common import API_URL
from api.cli.exit_codes import WRONG_USE
from api.cli.output import fail, print_json, print_message
from api.cli.prompts import ask_password
from api.cli.shapes import Session


@command(
    example="bioscope password",
    variables={
        "BIOSCOPE_PASSWORD": "The current password; without it, the command asks for it.",
        "BIOSCOPE_NEW_PASSWORD": "The new password; without it, the command asks for one.",
    },
)
@API_URL
def password(url: str | None) -> None:
    """Change your password.

    It needs 15 characters or more: four or five unrelated words are good. Your other sessions end.
    """
    from api.cli.client.sessions import change_password
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        current = os.environ.get("BIOSCOPE_PASSWORD") or ask_password("Current password", otherwise="set BIOSCOPE_PASSWORD")
        new = os.environ.get("BIOSCOPE_NEW_PASSWORD") or ask_password(
            "New password", otherwise="set BIOSCOPE_NEW_PASSWORD", confirmation_prompt=True
        )
        change_password(client, current=current, new=new)
    print_message("The password is changed. Your other sessions have ended.")


@group()
def sessions() -> None:
    """List and end your sessions: the places where you are signed in."""


@sessions.command("list", example="bioscope sessions list")
@json_option(list[Session])
@API_URL
def list_sessions(url: str | None, *, as_json: bool) -> None:
    """List your open sessions, the last used one first."""
    from api.cli.client.sessions import print_sessions, read_sessions
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        found = read_sessions(client)
    if as_json:
        print_json(found)
    else:
        print_sessions(found)


@sessions.command(example="bioscope sessions end --all")
@argument("session", metavar="[ID]", type=Id(), required=False, help="Id of the session, as `bioscope sessions list` prints it.")
@click.option("--all", "all_others", is_flag=True, help="End all sessions but the one of this command.")
@API_URL
def end(session: UUID | None, url: str | None, *, all_others: bool) -> None:
    """End one session, or all others.

    The device is signed out within 10 seconds.
    """
    from api.cli.client.sessions import end_other_sessions, end_session
    from api.cli.client.sign_in import open_client

    if (session is None) is not all_others:
        fail("give the id of one session, or --all", WRONG_USE)
    with open_client(url) as client:
        if session is None:
            end_other_sessions(client)
        else:
            end_session(client, session)
    print_message("Your other sessions have ended." if session is None else "The session has ended.")
