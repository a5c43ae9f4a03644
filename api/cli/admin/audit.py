"""Commands of the audit: verify the log, read it, rebuild the read models, handle dead letters."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import click

from api.cli.commands import Id, argument, command, group, json_option
from api.cli.common import DATA, open_event_log, running_installation
from api.cli.exit_codes import FAILED, TAMPERED, WRONG_USE
from api.cli.output import Column, err, fail, out, print_json, print_message, print_table
from api.cli.shapes import DeadLetter, RebuildReport, RetryReport, TrailEntry, Verification, shaped
from domain.values import model_id

MAX_SHOWN: Final = 50  # discrepancies
PBC8_ID: Final = model_id("pbc8")
ANY_ID: Final = Id(hint="`bioscope classify --csv` (or --json) prints the ids of images.")


@group()
def audit() -> None:
    """Verify the log, show what happened, and show earlier states."""


@audit.command(example="bioscope audit verify")
@DATA
@json_option(Verification)
def verify(data: Path | None, *, as_json: bool) -> None:
    """Verify that the log and the trail of access are as they were written.

    The command reads the whole log. It names the first position at which an event was changed, deleted, moved, inserted or cut off, or
    breaks a rule. Then it compares commands, claims, passwords and data keys with the log, and reads the whole trail of access.

    The exit code is 4 if something is not as it was written.
    """
    from infrastructure.container import verify_access_trail, verify_log

    settings = running_installation(data)
    with open_event_log(settings) as log:
        result = verification_of(verify_log(settings, log), verify_access_trail(settings, log))
    if as_json:
        print_json(result)
    else:
        for discrepancy in result.discrepancies[1:MAX_SHOWN]:
            print_message(discrepancy)
    if result.problem:
        fail(result.problem, TAMPERED)
    if result.unchecked:
        print_message(
            f"The content of {result.unchecked} events was not checked, since a newer release wrote them. Verify again with that release."
        )
    if not as_json:
        summary = f"{result.events} events, {result.heads} signed heads, hash {result.hash[:16]}…"
        print_message(summary, prefix="intact: ", style="green", console=out)
        since = f" since {result.accesses_since:%Y-%m-%d}" if result.accesses_since else ""
        print_message(f"{result.accesses} records of access{since}", prefix="intact: ", style="green", console=out)


def verification_of(result: Any, access: Any) -> Verification:
    problem = result.problem or access.problem
    return Verification(
        intact=problem is None,
        events=result.events,
        heads=result.heads,
        hash=result.hash,
        unchecked=result.unchecked,
        problem=problem,
        discrepancies=result.discrepancies,
        accesses=access.records,
        accesses_since=access.since,
    )


@audit.command(example=f"bioscope audit trail {PBC8_ID}")
@argument("about", metavar="ID", type=ANY_ID, help="Id of a user, dataset, image, model or job.")
@DATA
@json_option(list[TrailEntry])
def trail(about: UUID, data: Path | None, *, as_json: bool) -> None:
    """Show all that happened to a user, dataset, image, model or job, oldest first.

    The id in the example is that of the model pbc8.
    """
    from application.history.audit import trail as events_about
    from projections.process.audit_positions import positions_about

    settings = running_installation(data)
    with open_event_log(settings) as log:
        entries = events_about(about, others=positions_about(settings, about), log=log)
    if as_json:
        print_json([shaped(entry, TrailEntry) for entry in entries])
        return
    columns = [Column("position", right=True), Column("when (UTC)"), Column("type"), Column("what", wraps=True)]
    print_table(columns, [(str(one.position), f"{one.at:%Y-%m-%d %H:%M:%S}", one.type, one.sentence) for one in entries])


@audit.command(example=f"bioscope audit state {PBC8_ID}")
@argument("about", metavar="ID", type=ANY_ID, help="Id of a user, session, dataset, image, device, model or job.")
@click.option("--as-of", "as_of", metavar="MOMENT", help="A time (2026-03-01T12:00:00Z) or a position (4711). [default: now]")
@DATA
@json_option(dict[str, Any])
def state(about: UUID, as_of: str | None, data: Path | None, *, as_json: bool) -> None:  # noqa: ARG001 - its only format
    """Show the state of something now or at an earlier moment, from the log alone.

    The output is always JSON; --json changes nothing. The id in the example is that of the model pbc8.
    """
    from application.history.as_of import position_of
    from application.history.audit import state_of
    from domain.errors import Invalid

    with open_event_log(running_installation(data)) as log:
        try:
            state = state_of(about, until=position_of(as_of, log=log), log=log)
        except Invalid as error:
            fail(error.detail, WRONG_USE)
    print_json(state)


@command(example="bioscope rebuild --check")
@click.option("--check", is_flag=True, help="Only compare the live read models with rebuilt ones; change nothing.")
@DATA
@json_option(RebuildReport)
def rebuild(data: Path | None, *, check: bool, as_json: bool) -> None:
    """Rebuild the read models from the log.

    They are rebuilt beside the live ones, and swapped in one transaction.

    With --check, the exit code is 1 if live and rebuilt read models differ.
    """
    from projections.process.rebuilds import rebuild as rebuild_read_models

    settings = running_installation(data)
    with open_event_log(settings) as log, _progress_bars(log.head()) as progress:
        rebuilt = rebuild_read_models(settings, check=check, progress=progress)
    for difference in rebuilt.differing:
        print_message(str(difference), prefix="differs: ", style="red")
    if as_json:
        print_json(RebuildReport(events=rebuilt.events, swapped=not check, differences=tuple(map(str, rebuilt.differing))))
    else:
        same = "live and rebuilt read models differ" if rebuilt.differing else "live and rebuilt read models are the same"
        click.echo(f"{rebuilt.events} events; {same if check else 'the read models were rebuilt'}")
    sys.exit(FAILED if rebuilt.differing else 0)


@contextmanager
def _progress_bars(events: int) -> Iterator[Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=err) as progress:
        bars = {"events": progress.add_task("events", total=events)}

        def advance(step: str, completed: int) -> None:
            if step not in bars:
                bars[step] = progress.add_task(step, total=None)
            progress.update(bars[step], completed=completed)

        yield advance


@group("dead-letters")
def dead_letters() -> None:
    """List, retry and discard events that could not be applied."""


@dead_letters.command("list", example="bioscope dead-letters list")
@DATA
@json_option(list[DeadLetter])
def list_dead_letters(data: Path | None, *, as_json: bool) -> None:
    """List dead letters with their reasons, and how many later events are parked behind each."""
    from projections.process.dead_letters import list_dead_letters as find_dead_letters

    letters = [shaped(letter, DeadLetter) for letter in find_dead_letters(running_installation(data))]
    if as_json:
        print_json(letters)
    elif not letters:
        click.echo("There are none.")
    else:
        columns = [Column("position", right=True), *map(Column, ("stream", "type"))]
        columns += [Column("reason", wraps=True), Column("parked", right=True), Column("since (UTC)")]
        print_table(
            columns,
            [(str(one.position), str(one.stream), one.type, one.reason, str(one.parked), f"{one.at:%Y-%m-%d %H:%M:%S}") for one in letters],
        )


@dead_letters.command(example="bioscope dead-letters retry")
@argument("position", type=int, required=False, help="Position of the dead letter; without it, all are retried.")
@DATA
@json_option(RetryReport)
def retry(position: int | None, data: Path | None, *, as_json: bool) -> None:
    """Apply dead letters again, and the events that are parked behind them.

    Repeating it is harmless. The exit code is 1 if dead letters remain.
    """
    from projections.process.dead_letters import retry_dead_letters

    result = retry_dead_letters(running_installation(data), position)
    if as_json:
        print_json(RetryReport(applied=result.applied, remaining=result.remaining))
    else:
        click.echo(f"{result.applied} events applied, {result.remaining} dead letters left.")
    sys.exit(FAILED if result.remaining else 0)


@dead_letters.command(example='bioscope dead-letters discard 4711 --reason "the file is lost"')
@argument("position", type=int, help="Position of the dead letter: see `bioscope dead-letters list`.")
@click.option("--reason", metavar="TEXT", required=True, help="Why it is discarded; recorded encrypted in the log.")
@DATA
@json_option(RetryReport)
def discard(position: int, reason: str, data: Path | None, *, as_json: bool) -> None:
    """Discard a dead letter for good, and apply the events that are parked behind it.

    The command records who discarded it and why. The event stays in the log, but no read model shows it, now or after a rebuild.
    Repeating it is harmless.
    """
    from api.cli.operator import operator_command
    from projections.process.dead_letters import discard_dead_letter

    settings = running_installation(data)
    with open_event_log(settings) as log:
        by = operator_command(settings, log)
    result = discard_dead_letter(settings, position, reason=reason, command=by)
    if as_json:
        print_json(RetryReport(applied=result.applied, remaining=result.remaining))
    else:
        parked = max(0, result.applied - 1)
        click.echo(f"Discarded; {parked} applied that waited for it, {result.remaining} dead letters left.")
