"""Commands for the whole system on this machine: start, demonstrate, migrate, check."""

import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from api.cli.admin.users import first_admin
from api.cli.common import DATA, FAILED, PORT, err, load_settings, open_event_log, out, require_settings
from domain.model import CANDIDATE
from infrastructure.configuration.settings import Settings

if TYPE_CHECKING:
    from infrastructure.inference.models.bundled import BundledModel


@click.command()
@DATA
@PORT
@click.option("--verbose", is_flag=True, help="Show the processes' logs too.")
def up(data: Path | None, port: int | None, *, verbose: bool) -> None:
    """Start everything on this machine and keep it running; Ctrl-C stops it.

    Parts whose URL is set (BIOSCOPE_POSTGRES_URL, _KAFKA_URL, _REDIS_URL, _BLOBS_URL) are used as they are; the others are
    embedded. Prints `ready: URL` once it serves.
    """
    from infrastructure.embedded.supervisor import up as supervise

    settings = load_settings(data=data, port=port)
    sys.exit(supervise(settings, prepare=prepare, on_ready=lambda running: click.echo(f"ready: {running.base_url}"), verbose=verbose))


@click.command()
@DATA
@PORT
@click.option("--images", type=click.Path(path_type=Path, exists=True, file_okay=False), help="A folder with a manifest.csv (file,label).")
@click.option("--stay/--no-stay", default=None, help="Stay up when done [only at a terminal].")
def demo(data: Path | None, port: int | None, images: Path | None, *, stay: bool | None) -> None:
    """Start everything, classify real micrographs as a dataset, verify the record, say where to look."""
    from api.cli.client.demo import run_demo
    from infrastructure.container import verify_log
    from infrastructure.embedded.supervisor import SupervisedStack
    from infrastructure.inference.models.bundled import micrographs

    stack = SupervisedStack(load_settings(data=data, port=port), prepare=prepare)
    with stack as running:
        email, password = f"demo-{secrets.token_hex(4)}@example.org", secrets.token_urlsafe(18)
        with open_event_log(running) as log:
            first_admin(running, log, email, password)
            succeeded = run_demo(
                url=running.base_url,
                email=email,
                password=password,
                folder=images or micrographs(),
                verify=lambda: verify_log(running, log),
                console=out,
            )
        if stay if stay is not None else sys.stdout.isatty():
            out.print("[dim]Still running; Ctrl-C stops it.[/dim]")
            stack.wait()
    sys.exit(0 if succeeded else FAILED)


def prepare(settings: Settings) -> "list[BundledModel]":
    """Bring the database and the read models to this version, and register the models that come with it.

    Raises Invalid when there is none.
    """
    from infrastructure.container import blobs
    from infrastructure.eventstore.event_store import open_event_store
    from infrastructure.inference.models.bundled import bundled_manifests, models, register_bundled
    from infrastructure.postgres.schema import migrate as apply
    from infrastructure.security.key_ring import NO_KEYS

    bundled_manifests(models())
    apply(settings.postgres_owner_url or settings.postgres_url)
    with open_event_store(settings, NO_KEYS) as log:
        shipped = register_bundled(blobs(settings), log)
    bring_read_models(settings)
    return shipped


def bring_read_models(settings: Settings) -> None:
    """Make them anew where an older release folded them by other rules; say why, or why that must wait."""
    from domain.errors import UpgradeNeeded
    from projections.engine.checkpoints import FoldsDiffer
    from projections.process.rebuilds import rebuild_if_folds_differ

    def report_start(reason: str) -> None:
        err.print(f"Making the read models anew beside the live ones: {reason}", highlight=False, soft_wrap=True)

    try:
        if rebuild_if_folds_differ(settings, on_start=report_start):
            err.print("The read models are those of this release.")
    except UpgradeNeeded as needed:
        err.print(f"They stay as they are, and the projector of this release pauses: {needed.detail}", highlight=False, soft_wrap=True)
    except FoldsDiffer as difference:
        err.print(
            f"The read models stay as they are, and the projector of this release pauses: {difference.reason}."
            " To go back to this release on purpose, make them anew with `bioscope rebuild`.",
            highlight=False,
            soft_wrap=True,
        )


@click.command()
def migrate() -> None:
    """Bring the database to this version and register the shipped models. Harmless to repeat.

    Read models that an older release folded by other rules are made anew beside the live ones; this needs the keys of the API. Those of a
    newer release stay as they are: to go back on purpose, use `bioscope rebuild`.
    A model that is new here goes into production; a new version of a known one becomes its candidate: `bioscope models promote`.
    """
    from infrastructure.postgres.schema import migrations

    settings = load_settings()
    require_settings(settings, "postgres_url")
    shipped = prepare(settings)
    click.echo(f"The database is at migration {max(migrations())}.")
    for model in shipped:
        click.echo(_describe(model))


def _describe(shipped: "BundledModel") -> str:
    status = "registered" if shipped.is_new else "known"
    description = f"{status}: model {shipped.name} version {shipped.number} (release {shipped.release}, sha256 {shipped.sha256[:12]})"
    if CANDIDATE in shipped.aliases:
        return f"{description}, candidate; use it with `bioscope models promote {shipped.name} {shipped.number}`"
    return f"{description}, {', '.join(shipped.aliases) or 'not in use'}"


@click.command()
@DATA
def doctor(data: Path | None) -> None:
    """Look at the settings and at what they name; say what is wrong and what to do. Fails when something must be mended."""
    from infrastructure.operations.doctor import examine

    table = Table("", "what", "finding", show_header=False, box=None)
    findings = examine(load_settings(data=data))
    for finding in findings:
        mark = {"good": "[green]ok[/green]", "weak": "[yellow]weak[/yellow]", "wrong": "[red]wrong[/red]"}[finding.level]
        table.add_row(mark, finding.subject, finding.message)
    out.print(table)
    sys.exit(FAILED if any(finding.level == "wrong" for finding in findings) else 0)
