"""Open sessions as the API lists them, and the password of an account: read and changed for the command line, and printed."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import msgspec

from api.cli.client.api_client import Client
from api.cli.moments import short_moment
from api.cli.output import Column, print_table
from api.cli.shapes import Session
from domain.values import printable

SESSIONS: Final = "/api/sessions"
CURRENT: Final = "this one"


def read_sessions(client: Client) -> list[Session]:
    """The last used one first. Raises RequestRefused."""
    return msgspec.convert(client.get(SESSIONS), list[Session])


def end_session(client: Client, session_id: UUID) -> None:
    """Raises RequestRefused."""
    client.call("DELETE", f"{SESSIONS}/{session_id}")


def end_other_sessions(client: Client) -> None:
    """Raises RequestRefused."""
    client.call("DELETE", SESSIONS)


def change_password(client: Client, *, current: str, new: str) -> None:
    """All other sessions of the account end. Raises RequestRefused."""
    user_id = client.get("/api/users/me")["id"]
    client.call("PATCH", f"/api/users/users/{user_id}", json={"current_password": current, "password": new})


def print_sessions(sessions: Sequence[Session]) -> None:
    now = datetime.now(UTC)
    columns = [Column("id"), Column("device", wraps=True), Column("address"), Column("signed in"), Column("last used"), Column("")]
    print_table(
        columns,
        [
            (
                str(each.id),
                printable(each.device),
                printable(each.address),
                short_moment(each.started_at, now=now),
                short_moment(each.last_used_at, now=now),
                CURRENT if each.is_current else "",
            )
            for each in sessions
        ],
    )
