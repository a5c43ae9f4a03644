"""Backup and restore."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from api.cli.common import DATA, TAMPERED, err, fail, load_settings, open_event_log, out, running_installation
from infrastructure.configuration.settings import Settings


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@DATA
def backup(folder: Path, data: Path | None) -> None:
    """Copy the log and the images into FOLDER, while everything runs. Into the same folder again, only what is new is copied.

    The root key is not in it: keep a copy of that file (keys/root.key in the data folder) somewhere else.
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
        err.print(
            f"{len(manifest.missing)} files that the log names are not in the store, or damaged: those of deleted images, or lost ones."
        )
    copied = f"{manifest.position} events and {len(manifest.blobs)} images and models"
    out.print(f"{copied} are in {folder}. Keep {settings.root_key_path} apart from it.")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--root-key", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The copy of the root key file.")
@DATA
def restore(folder: Path, root_key: Path | None, data: Path | None) -> None:
    """Bring a backup into a new data folder (or the empty database that is set), verify the chain, make the read models again."""
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
            f"restored up to position {manifest.position}, but signed heads beside the blobs know of later events, which are lost"
            f" ({lost_events.what}). Keep derived/heads of the blob store as evidence, and move it away: until then `audit verify` says so",
            TAMPERED,
        )
    if result.problem:
        fail(f"restored, but {result.problem}", TAMPERED)
    out.print(f"Restored: {result.events} events, hash {result.hash[:16]}…, read models made again. Start it with `bioscope up`.")


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
