"""Commands for the whole system on this machine: start, demonstrate, migrate, check."""

import secrets
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from api.cli.admin.audit import verification_of
from api.cli.admin.users import first_admin
from api.cli.commands import command, json_option
from api.cli.common import DATA, PORT, load_settings, open_event_log, program, require_settings
from api.cli.exit_codes import FAILED
from api.cli.output import Column, err, out, print_json, print_message, print_table
from api.cli.shapes import Finding, MigratedModel, MigrationReport, Running, shaped
from domain.model import CANDIDATE
from infrastructure.configuration.settings import Settings

if TYPE_CHECKING:
    from infrastructure.inference.models.bundled import BundledModel

MARKS = {"good": ("ok", "green"), "weak": ("weak", "yellow"), "wrong": ("wrong", "red")}


@command(example="bioscope up")
@DATA
@PORT
@click.option("--verbose", is_flag=True, help="Print the logs of the processes, too.")
@json_option(Running)
def up(data: Path | None, port: int | None, *, verbose: bool, as_json: bool) -> None:
    """Start the whole system on this machine; Ctrl-C stops it.

    It prints `ready: URL` on stdout when it serves requests. Until there is an administrator, it also prints the address at which the
    first one creates an account, on stderr.

    Servers whose URL is set (BIOSCOPE_POSTGRES_URL, BIOSCOPE_KAFKA_URL, BIOSCOPE_REDIS_URL, BIOSCOPE_BLOBS_URL) are used; the others are
    embedded and keep their files in the data folder.
    """
    from api.cli.setup_address import print_setup_address
    from infrastructure.embedded.supervisor import up as supervise
    from infrastructure.security.process_keys import operator_keys

    def report_ready(running: Settings) -> None:
        if as_json:
            print_json(Running(url=running.base_url, data=str(running.data)))
        else:
            click.echo(f"ready: {running.base_url}")
        print_setup_address(running, operator_keys(running))

    def prepare_and_describe(target: Settings) -> None:
        _describe_models(prepare(target), console=err)

    sys.exit(supervise(load_settings(data=data, port=port), prepare=prepare_and_describe, on_ready=report_ready, verbose=verbose))


@command(example="bioscope demo")
@DATA
@PORT
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="FOLDER",
    help="Folder with images and a manifest.csv with the columns file and label. [default: the micrographs that come with bioscope]",
)
@click.option("--stay/--no-stay", default=None, help="Keep the system running at the end. [default: only at a terminal]")
@json_option("api.cli.client.demo:DemoResult")
def demo(data: Path | None, port: int | None, images: Path | None, *, stay: bool | None, as_json: bool) -> None:
    """Start the system, classify real micrographs, verify the log.

    At the end it prints where to look next, and with --stay keeps running until Ctrl-C.

    The exit code is 1 if an image has no result or the log is not intact.
    """
    from api.cli.client.demo import print_demo, run_demo
    from infrastructure.container import verify_access_trail, verify_log
    from infrastructure.embedded.supervisor import SupervisedStack
    from infrastructure.inference.models.bundled import micrographs

    stack = SupervisedStack(load_settings(data=data, port=port), prepare=prepare)
    stays = sys.stdout.isatty() if stay is None else stay
    with stack as running:
        email, password = f"demo-{secrets.token_hex(4)}@example.org", secrets.token_urlsafe(18)
        with open_event_log(running) as log:
            first_admin(running, log, email, password)
            result = run_demo(
                url=running.base_url,
                email=email,
                password=password,
                folder=images or micrographs(),
                verify=lambda: verification_of(verify_log(running, log), verify_access_trail(running, log)),
                progress=err,
            )
        if as_json:
            print_json(result)
        else:
            options = "" if data is None else f" --data {shlex.quote(str(data))}"
            print_demo(result, program=program(sys.argv[0]), options=options, stays=stays, console=out)
        if stays:
            print_message("The system is still running; Ctrl-C stops it.")
            stack.wait()
    sys.exit(0 if result.succeeded else FAILED)


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
    """Rebuild them if an older release folded them by other rules; print why, or why that must wait."""
    from domain.errors import UpgradeNeeded
    from projections.engine.checkpoints import FoldsDiffer
    from projections.process.rebuilds import rebuild_if_folds_differ

    def report_start(reason: str) -> None:
        print_message(f"Rebuilding the read models beside the live ones: {reason}")

    try:
        if rebuild_if_folds_differ(settings, on_start=report_start):
            print_message("The read models are those of this release.")
    except UpgradeNeeded as needed:
        print_message(f"The read models stay as they are, and the projector of this release pauses: {needed.detail}")
    except FoldsDiffer as difference:
        print_message(
            f"The read models stay as they are, and the projector of this release pauses: {difference.reason}."
            " To go back to this release on purpose, run `bioscope rebuild`."
        )


@command(example="bioscope migrate")
@json_option(MigrationReport)
def migrate(*, as_json: bool) -> None:
    """Upgrade the database to this release and register its models.

    Run it once after each upgrade, before the processes start; `bioscope up` does it itself. Repeating it is harmless.

    Read models that an older release folded by other rules are rebuilt beside the live ones; this needs the keys of the API. Read models
    of a newer release stay as they are: to go back on purpose, run `bioscope rebuild`.

    A new model goes into production. A new version of a known model becomes its candidate: see `bioscope models promote`.
    """
    from infrastructure.postgres.schema import migrations

    settings = load_settings()
    require_settings(settings, "postgres_url")
    shipped, migration = prepare(settings), max(migrations())
    if as_json:
        print_json(MigrationReport(migration=migration, models=tuple(map(_migrated_model, shipped))))
        return
    click.echo(f"The database is at migration {migration}.")
    _describe_models(shipped, console=out)


def _migrated_model(shipped: "BundledModel") -> MigratedModel:
    return MigratedModel(
        name=shipped.name,
        version=shipped.number,
        release=shipped.release,
        sha256=shipped.sha256,
        aliases=shipped.aliases,
        is_new=shipped.is_new,
    )


def _describe_models(shipped: "list[BundledModel]", *, console: Console) -> None:
    for model in shipped:
        print_message(_describe(model), console=console)


def _describe(shipped: "BundledModel") -> str:
    status = "registered" if shipped.is_new else "known"
    description = f"{status}: model {shipped.name} version {shipped.number} (release {shipped.release}, sha256 {shipped.sha256[:12]})"
    if CANDIDATE in shipped.aliases:
        return f"{description}, candidate; use it with `bioscope models promote {shipped.name} {shipped.number} --reason TEXT`"
    return f"{description}, {', '.join(shipped.aliases) or 'not in use'}"


@command(example="bioscope doctor")
@DATA
@json_option(list[Finding])
def doctor(data: Path | None, *, as_json: bool) -> None:
    """Check the settings and say what to correct.

    It also checks what the settings name: servers, keys, folders. A finding is ok, weak (it works, and should be corrected) or wrong (it
    must be corrected).

    The exit code is 1 if a finding is wrong.
    """
    from infrastructure.operations.doctor import examine

    findings = examine(load_settings(data=data))
    if as_json:
        print_json([shaped(finding, Finding) for finding in findings])
    else:
        columns = [Column("level"), Column("subject"), Column("finding", wraps=True)]
        print_table(columns, [(Text(*MARKS[finding.level]), finding.subject, finding.message) for finding in findings])
    sys.exit(FAILED if any(finding.level == "wrong" for finding in findings) else 0)
