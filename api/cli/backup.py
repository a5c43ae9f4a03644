"""Backups, and the way back."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from api.cli.common import DATA, TAMPERED, err, fail, open_log, out, running, settings
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

    given = running(data)
    with open_log(given) as log:
        require_understood(log)
    with _steps() as progress:
        owner = given.postgres_owner_url or given.postgres_url
        manifest = copy(owner, blobs(given), folder, root=operator_keys(given), progress=progress)
    if manifest.missing:
        err.print(
            f"{len(manifest.missing)} files that the log names are not in the store, or damaged: those of deleted images, or lost ones."
        )
    out.print(
        f"{manifest.position} events and {len(manifest.blobs)} images and models are in {folder}. Keep {given.root_key_path} apart from it."
    )


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
    from projections.process.rebuilds import rebuild as made_anew

    given = settings(data=data, port=0)  # nothing is served
    with _steps() as progress:
        manifest = checked(folder, RootKey.read(root_key_of(given, root_key)), progress=progress)
        take_root_key(given, root_key)
        with (
            SupervisedStack(given, processes=(), prepare=lambda there: _restored(there, folder, manifest, progress)) as there,
            open_log(there) as log,
        ):
            found = verify_log(there, log)
            beyond = found.finding if found.finding and found.finding.position > manifest.position else None
            if found.finding is None or beyond:
                made_anew(there, check=False)
    if beyond:
        fail(
            f"restored up to position {manifest.position}, but signed heads beside the blobs know of later events, which are lost"
            f" ({beyond.what}). Keep derived/heads of the blob store as evidence, and move it away: until then `audit verify` says so",
            TAMPERED,
        )
    if found.problem:
        fail(f"restored, but {found.problem}", TAMPERED)
    out.print(f"Restored: {found.events} events, hash {found.hash[:16]}…, read models made again. Start it with `bioscope up`.")


def _restored(there: Settings, folder: Path, manifest: Any, progress: Any) -> None:
    from infrastructure.container import blobs
    from infrastructure.operations.backup import restore as bring
    from infrastructure.postgres.schema import migrate as apply

    owner = there.postgres_owner_url or there.postgres_url
    apply(owner)
    bring(owner, blobs(there), folder, manifest, progress=progress)


@contextmanager
def _steps() -> Iterator[Any]:
    """A progress bar for each kind of thing that is copied."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=err) as progress:
        bars: dict[str, Any] = {}

        def step(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=total)
            progress.update(bars[what], completed=done + 1, total=total)

        yield step
