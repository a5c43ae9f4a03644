"""Backup and restore."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from api.cli.commands import argument, command, json_option
from api.cli.common import DATA, load_settings, open_event_log, running_installation
from api.cli.exit_codes import TAMPERED
from api.cli.output import err, fail, out, print_json, print_message
from api.cli.shapes import BackupReport, RestoreReport
from infrastructure.configuration.settings import Settings


@command(example="bioscope backup ./backup")
@argument("folder", type=click.Path(path_type=Path, file_okay=False), help="Folder of the backup, new or of an earlier backup.")
@DATA
@json_option(BackupReport)
def backup(folder: Path, data: Path | None, *, as_json: bool) -> None:
    """Copy the log, the images and the models into a folder.

    Everything keeps running meanwhile. A second backup into the same folder copies only what is new.

    The root key is not in the backup: keep a copy of that file (keys/root.key in the data folder) somewhere else.
    """
    from infrastructure.container import blobs
    from infrastructure.eventstore.capabilities import require_understood
    from infrastructure.operations.backup import backup as copy
    from infrastructure.security.process_keys import operator_keys

    settings = running_installation(data)
    with open_event_log(settings) as log:
        require_understood(log)
    with _progress_bars() as progress:
        owner = settings.postgres_owner_url or settings.postgres_url
        manifest = copy(owner, blobs(settings), folder, root=operator_keys(settings), progress=progress)
    if manifest.missing:
        print_message(
            f"{len(manifest.missing)} files that the log names are missing or damaged in the blob store;"
            " the files of deleted images are among them."
        )
    if as_json:
        events, files = manifest.position, len(manifest.blobs)
        print_json(BackupReport(folder=str(folder), events=events, files=files, missing=tuple(map(str, manifest.missing))))
        return
    copied = f"{manifest.position} events and {len(manifest.blobs)} images and models"
    print_message(f"{copied} are in {folder}. Keep {settings.root_key_path} apart from it.", console=out)


@command(example="bioscope restore ./backup --data restored --root-key .bioscope/keys/root.key")
@argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder of the backup.")
@click.option(
    "--root-key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Your copy of the root key file. [default: keys/root.key in the data folder]",
)
@DATA
@json_option(RestoreReport)
def restore(folder: Path, root_key: Path | None, data: Path | None, *, as_json: bool) -> None:
    """Restore a backup into a new data folder or an empty database.

    The settings name the empty database; without them, the data folder gets a new one. Then the command verifies the log and rebuilds the
    read models. It writes nothing if a file of the backup is damaged.

    The exit code is 4 if the log is not as it was written.
    """
    from infrastructure.container import verify_log
    from infrastructure.embedded.supervisor import SupervisedStack, root_key_of, take_root_key
    from infrastructure.operations.backup import checked
    from infrastructure.security.keys import RootKey
    from projections.process.rebuilds import rebuild as rebuild_read_models

    settings = load_settings(data=data, port=0)  # nothing is served
    with _progress_bars() as progress:
        manifest = checked(folder, RootKey.read(root_key_of(settings, root_key)), progress=progress)
        take_root_key(settings, root_key)
        with (
            SupervisedStack(settings, processes=(), prepare=lambda target: _restore_into(target, folder, manifest, progress)) as target,
            open_event_log(target) as log,
        ):
            result = verify_log(target, log)
            lost_events = result.finding if result.finding and result.finding.position > manifest.position else None
            if result.finding is None or lost_events:
                rebuild_read_models(target, check=False)
    if lost_events:
        fail(
            f"restored up to position {manifest.position}, but signed heads in the blob store prove that there were later events, which are"
            f" lost ({lost_events.what}). Move derived/heads out of the blob store and keep it as evidence: until then"
            " `bioscope audit verify` reports it",
            TAMPERED,
        )
    if result.problem:
        fail(f"restored, but {result.problem}", TAMPERED)
    if as_json:
        print_json(RestoreReport(events=result.events, hash=result.hash))
        return
    restored = f"Restored: {result.events} events, hash {result.hash[:16]}…; the read models were rebuilt."
    print_message(restored, console=out)
    print_message(f"Start it with `bioscope up --data {shlex.quote(str(settings.data))}`.", console=out)


def _restore_into(target: Settings, folder: Path, manifest: Any, progress: Any) -> None:
    from infrastructure.container import blobs
    from infrastructure.operations.backup import restore as restore_backup
    from infrastructure.postgres.schema import migrate as apply

    owner = target.postgres_owner_url or target.postgres_url
    apply(owner)
    restore_backup(owner, blobs(target), folder, manifest, progress=progress)


@contextmanager
def _progress_bars() -> Iterator[Any]:
    """A progress bar for each kind of thing that is copied."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=err) as progress:
        bars: dict[str, Any] = {}

        def advance(step: str, done: int, total: int) -> None:
            if step not in bars:
                bars[step] = progress.add_task(step, total=total)
            progress.update(bars[step], completed=done + 1, total=total)

        yield advance
