"""The record: proved, read, made visible again."""

import sys
from pathlib import Path
from uuid import UUID

import click
import msgspec
from rich.markup import escape
from rich.table import Table

from api.cli.common import DATA, FAILED, TAMPERED, WRONG_USE, err, fail, open_log, out, running

MAX_SHOWN = 50  # discrepancies


@click.group()
def audit() -> None:
    """Prove that the record is intact; read what happened and how things stood."""


@audit.command()
@DATA
def verify(data: Path | None) -> None:
    """Walk the whole log; name the first position that was edited, deleted, reordered, inserted or cut off, or that breaks a rule of the
    record. Then compare commands, claims, passwords and data keys with it. Exit code 4 where something is not as it was written."""
    from infrastructure.container import verify_log

    given = running(data)
    with open_log(given) as log:
        found = verify_log(given, log)
    for discrepancy in found.discrepancies[1:MAX_SHOWN]:
        err.print(discrepancy, highlight=False)
    if found.problem:
        fail(found.problem, TAMPERED)
    if found.unchecked:
        err.print(f"The content of {found.unchecked} events was not checked: a newer release wrote them. Verify again with that release.")
    out.print(f"[green]intact[/green]: {found.events} events, {found.heads} signed heads, hash {found.hash[:16]}…")


@audit.command()
@click.argument("about", metavar="ID", type=click.UUID)
@DATA
@click.option("--json", "as_json", is_flag=True, help="All of it, as JSON.")
def trail(about: UUID, data: Path | None, *, as_json: bool) -> None:
    """Everything that happened to a user, dataset, image, model or job, oldest first."""
    from application.audit import trail as events_about
    from projections.process.audit_positions import positions_about

    given = running(data)
    with open_log(given) as log:
        entries = events_about(about, others=positions_about(given, about), log=log)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(entries), indent=2))
        return
    shown = Table("position", "when (UTC)", "type", "what", box=None)
    for entry in entries:
        shown.add_row(str(entry.position), f"{entry.at:%Y-%m-%d %H:%M:%S}", entry.type, escape(entry.sentence))
    out.print(shown)


@audit.command()
@click.argument("about", metavar="ID", type=click.UUID)
@click.option("--as-of", "as_of", help="A time (2026-03-01T12:00:00Z) or a position (4711) [now].")
@DATA
def state(about: UUID, as_of: str | None, data: Path | None) -> None:
    """How a thing stood at a moment, folded from the record alone."""
    from application.as_of import position_of
    from application.audit import state_of
    from domain.errors import Invalid

    with open_log(running(data)) as log:
        try:
            found = state_of(about, until=position_of(as_of, log=log), log=log)
        except Invalid as wrong:
            fail(wrong.detail, WRONG_USE)
    click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))


@click.command()
@click.option("--check", is_flag=True, help="Only compare: the live read models with those made anew. Exit code 1 when they differ.")
@DATA
def rebuild(data: Path | None, *, check: bool) -> None:
    """Make the read models again from the log, beside the live ones, and change over in one transaction."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from projections.process.rebuilds import rebuild as made_anew

    given = running(data)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with open_log(given) as log, Progress(*columns, console=err) as progress:
        bars = {"events": progress.add_task("events", total=log.head())}

        def step(what: str, done: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=None)
            progress.update(bars[what], completed=done)

        rebuilt = made_anew(given, check=check, progress=step)
    for difference in rebuilt.differing:
        err.print(f"[red]differs[/red]: {difference}")
    same = "live and rebuilt differ" if rebuilt.differing else "live and rebuilt are the same"
    out.print(f"{rebuilt.events} events; {same if check else 'the read models were made again'}")
    sys.exit(FAILED if rebuilt.differing else 0)


@click.group("dead-letters")
def dead_letters() -> None:
    """Events that could not be applied, and what waits behind them."""


@dead_letters.command("list")
@DATA
def list_dead_letters(data: Path | None) -> None:
    """Show each with its reason, and how many events are parked behind it, of other streams too."""
    from projections.process.dead_letters import list_dead_letters as letters

    found = letters(running(data))
    shown = Table("position", "stream", "type", "reason", "parked", "since (UTC)", box=None)
    for column in shown.columns[:3]:
        column.no_wrap = True  # the reason is the long one
    for one in found:
        shown.add_row(str(one.position), str(one.stream), one.type, one.reason, str(one.parked), f"{one.at:%Y-%m-%d %H:%M:%S}")
    out.print(shown if found else "There are none.")


@dead_letters.command()
@click.argument("position", type=int, required=False)
@DATA
def retry(position: int | None, data: Path | None) -> None:
    """Apply a dead letter (or all) again, and what is parked behind it. Harmless to repeat."""
    from projections.process.dead_letters import retry_dead_letters

    healed, left = retry_dead_letters(running(data), position)
    out.print(f"{healed} applied, {left} left.")
    sys.exit(FAILED if left else 0)


@dead_letters.command()
@click.argument("position", type=int)
@click.option("--reason", required=True, help="Why it is given up; recorded, and sealed as all free text.")
@DATA
def discard(position: int, reason: str, data: Path | None) -> None:
    """Give a dead letter up for good: record who did it and why, pass the event over, and apply what is parked behind it.

    The event stays in the log. Nothing shows it, now or after a rebuild. Harmless to repeat.
    """
    from api.cli.operator import operator_command
    from projections.process.dead_letters import discard_dead_letter

    given = running(data)
    with open_log(given) as log:
        command = operator_command(given, log)
    applied, left = discard_dead_letter(given, position, reason=reason, command=command)
    out.print(f"Discarded; {max(0, applied - 1)} applied that waited for it, {left} dead letters left.")
