"""Commands of the audit: verify the log, read it, rebuild the read models, handle dead letters."""

import sys
from pathlib import Path
from uuid import UUID

import click
import msgspec
from rich.markup import escape
from rich.table import Table

from api.cli.common import DATA, FAILED, TAMPERED, WRONG_USE, err, fail, open_event_log, out, running_installation

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

    settings = running_installation(data)
    with open_event_log(settings) as log:
        result = verify_log(settings, log)
    for discrepancy in result.discrepancies[1:MAX_SHOWN]:
        err.print(discrepancy, highlight=False)
    if result.problem:
        fail(result.problem, TAMPERED)
    if result.unchecked:
        err.print(f"The content of {result.unchecked} events was not checked: a newer release wrote them. Verify again with that release.")
    out.print(f"[green]intact[/green]: {result.events} events, {result.heads} signed heads, hash {result.hash[:16]}…")


@audit.command()
@click.argument("about", metavar="ID", type=click.UUID)
@DATA
@click.option("--json", "as_json", is_flag=True, help="All of it, as JSON.")
def trail(about: UUID, data: Path | None, *, as_json: bool) -> None:
    """Everything that happened to a user, dataset, image, model or job, oldest first."""
    from application.history.audit import trail as events_about
    from projections.process.audit_positions import positions_about

    settings = running_installation(data)
    with open_event_log(settings) as log:
        entries = events_about(about, others=positions_about(settings, about), log=log)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(entries), indent=2))
        return
    table = Table("position", "when (UTC)", "type", "what", box=None)
    for entry in entries:
        table.add_row(str(entry.position), f"{entry.at:%Y-%m-%d %H:%M:%S}", entry.type, escape(entry.sentence))
    out.print(table)


@audit.command()
@click.argument("about", metavar="ID", type=click.UUID)
@click.option("--as-of", "as_of", help="A time (2026-03-01T12:00:00Z) or a position (4711) [now].")
@DATA
def state(about: UUID, as_of: str | None, data: Path | None) -> None:
    """How a thing stood at a moment, folded from the record alone."""
    from application.history.as_of import position_of
    from application.history.audit import state_of
    from domain.errors import Invalid

    with open_event_log(running_installation(data)) as log:
        try:
            state = state_of(about, until=position_of(as_of, log=log), log=log)
        except Invalid as error:
            fail(error.detail, WRONG_USE)
    click.echo(msgspec.json.format(msgspec.json.encode(state), indent=2))


@click.command()
@click.option("--check", is_flag=True, help="Only compare: the live read models with those made anew. Exit code 1 when they differ.")
@DATA
def rebuild(data: Path | None, *, check: bool) -> None:
    """Make the read models again from the log, beside the live ones, and change over in one transaction."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from projections.process.rebuilds import rebuild as rebuild_read_models

    settings = running_installation(data)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with open_event_log(settings) as log, Progress(*columns, console=err) as progress:
        bars = {"events": progress.add_task("events", total=log.head())}

        def advance(step: str, completed: int) -> None:
            if step not in bars:
                bars[step] = progress.add_task(step, total=None)
            progress.update(bars[step], completed=completed)

        rebuilt = rebuild_read_models(settings, check=check, progress=advance)
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
    from projections.process.dead_letters import list_dead_letters as find_dead_letters

    letters = find_dead_letters(running_installation(data))
    table = Table("position", "stream", "type", "reason", "parked", "since (UTC)", box=None)
    for column in table.columns[:3]:
        column.no_wrap = True  # the reason is the long one
    for letter in letters:
        at = f"{letter.at:%Y-%m-%d %H:%M:%S}"
        table.add_row(str(letter.position), str(letter.stream), letter.type, letter.reason, str(letter.parked), at)
    out.print(table if letters else "There are none.")


@dead_letters.command()
@click.argument("position", type=int, required=False)
@DATA
def retry(position: int | None, data: Path | None) -> None:
    """Apply a dead letter (or all) again, and what is parked behind it. Harmless to repeat."""
    from projections.process.dead_letters import retry_dead_letters

    applied, remaining = retry_dead_letters(running_installation(data), position)
    out.print(f"{applied} applied, {remaining} left.")
    sys.exit(FAILED if remaining else 0)


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

    settings = running_installation(data)
    with open_event_log(settings) as log:
        command = operator_command(settings, log)
    applied, remaining = discard_dead_letter(settings, position, reason=reason, command=command)
    out.print(f"Discarded; {max(0, applied - 1)} applied that waited for it, {remaining} dead letters left.")
