"""Commands that read the trail: what happened, what a person did, who looked at something."""

import asyncio
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID

import click

from api.cli.admin.accounts import account_id
from api.cli.admin.audit import ANY_ID, PBC8_ID
from api.cli.admin.read_models import OPERATOR, open_reads
from api.cli.commands import Choice, argument, command, json_option
from api.cli.common import DATA, open_event_log, running_installation
from api.cli.moments import MOMENT_EXAMPLES, Moment
from api.cli.output import Column, print_json, print_message, print_table
from api.cli.shapes import LookAt, TrailLine, shaped
from application.history.access_records import AccessOutcome, TrailKind
from domain.errors import NotFound

if TYPE_CHECKING:
    from application.history.access_trail import TrailItem

PAGE: Final = 200
MAX_LINES: Final = 100_000
KINDS: Final = [kind.value for kind in TrailKind]
OUTCOMES: Final = [outcome.value for outcome in AccessOutcome]
WORDS: Final = {"preview": "looked", "download": "downloaded", "export": "exported", "admin_read": "read as administrator"}


@command("log", example="bioscope audit log --limit 20")
@click.option("--actor", metavar="ACCOUNT", help="Only what this person did: an e-mail address, or the id of an account, service or key.")
@click.option("--object", "about", metavar="ID", type=ANY_ID, help="Only what concerns this thing, or anything in this dataset.")
@click.option("--key", metavar="ID", type=ANY_ID, help="Only what was done with this API key. `bioscope tokens list` shows ids.")
@click.option("--kind", metavar="KIND", type=Choice(KINDS), help=f"Only this kind: {', '.join(KINDS)}.")
@click.option("--outcome", metavar="OUTCOME", type=Choice(OUTCOMES), help=f"Only this outcome: {', '.join(OUTCOMES)}.")
@click.option("--since", metavar="TIME", type=Moment(), help=f"Only what was recorded since then: {MOMENT_EXAMPLES}.")
@click.option("--limit", metavar="NUMBER", type=click.IntRange(1, MAX_LINES), default=100, show_default=True, help="The newest lines.")
@DATA
@json_option(list[TrailLine])
def trail_log(
    actor: str | None,
    about: UUID | None,
    key: UUID | None,
    kind: str | None,
    outcome: str | None,
    since: datetime | None,
    limit: int,
    data: Path | None,
    *,
    as_json: bool,
) -> None:
    """Show who changed, read or was refused what, in sentences, oldest first.

    Changes are the events of the log. All else is the trail of access: refused sign-ins and requests, downloads, uses of keys, and reads
    by administrators.
    """
    from api.access_trail import TrailQuery, read_page
    from application.history.access_trail import TrailCursor

    settings = running_installation(data)
    with open_event_log(settings) as log:
        query = TrailQuery(
            actor=None if actor is None else account_id(log, actor),
            object=about,
            key=key,
            kind=TrailKind(kind) if kind else None,
            outcome=AccessOutcome(outcome) if outcome else None,
            since=since,
        )

        async def read() -> list["TrailItem"]:
            items: list[TrailItem] = []
            cursor: TrailCursor | None = TrailCursor()
            async with open_reads(settings) as reads:
                while cursor is not None and len(items) < limit:
                    page = await read_page(reads, OPERATOR, query, after=cursor, limit=min(PAGE, limit - len(items)), log=log)
                    items += page.items
                    cursor = page.next_cursor
            return items

        items = asyncio.run(read())[::-1]
    if as_json:
        print_json([shaped(item, TrailLine) for item in items])
    elif not items:
        print_message("Nothing was recorded.")
    else:
        columns = [Column("when (UTC)"), Column("address"), Column("what", wraps=True)]
        print_table(columns, [(f"{one.at:%Y-%m-%d %H:%M:%S}", one.address or "", one.sentence) for one in items])


@command("who", example=f"bioscope audit who {PBC8_ID}")
@argument("about", metavar="ID", type=ANY_ID, help="Id of an image or dataset, or of anything else.")
@DATA
@json_option(list[LookAt])
def who(about: UUID, data: Path | None, *, as_json: bool) -> None:
    """Show who looked at an image or a dataset, how often, and when last.

    Several looks of one person within a minute count once. The id in the example is that of the model pbc8.
    """
    from application.history.access_sentences import actor_of
    from application.history.trail_sentences import names_in
    from projections.access_log import LookTotals, looks

    settings = running_installation(data)
    with open_event_log(settings) as log:

        async def read() -> list[LookTotals]:
            async with open_reads(settings) as reads:
                return await looks(reads, OPERATOR, about)

        found = asyncio.run(read())
        if not found and not log.histories((about,)):
            raise NotFound(f"No events found for {about}")
        names = names_in((), {one for look in found for one in (look.actor_id, look.key_id) if one}, log)
    lines = [
        LookAt(
            actor=look.actor_id,
            name=actor_of(look.actor_id, look.actor_kind, names),
            key=look.key_id,
            key_name=names.get(look.key_id) if look.key_id else None,
            kind=look.kind,
            times=look.times,
            first=look.first,
            last=look.last,
        )
        for look in found
    ]
    if as_json:
        print_json(lines)
    elif not lines:
        print_message("Nobody has looked at it, as far as the trail of access goes back.")
    else:
        columns = [Column("who", wraps=True), Column("key"), Column("how"), Column("times", right=True), Column("last (UTC)")]
        print_table(
            columns,
            [(one.name, one.key_name or "", WORDS[one.kind], str(one.times), f"{one.last:%Y-%m-%d %H:%M:%S}") for one in lines],
        )
