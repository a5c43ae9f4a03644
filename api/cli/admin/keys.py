"""The keys of the installation, from the machine that has the root key."""

from pathlib import Path

import click
from rich.table import Table

from api.cli.common import DATA, FAILED, fail, load_settings, out

WITH_KEYS = ("api", "relay", "projector")  # the processes that need any


@click.group()
def keys() -> None:
    """The keys that each process holds: fewer than the root key gives."""


@keys.command("export")
@click.argument("process", type=click.Choice(WITH_KEYS))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--force", is_flag=True, help="Replace FILE.")
@DATA
def export_keys(process: str, file: Path, data: Path | None, *, force: bool) -> None:
    """Write the keys of PROCESS into FILE, readable by its owner alone. BIOSCOPE_KEY_FILE of that process names it.

    The root key is not needed by a process that has such a file. Inference needs none.
    """
    from infrastructure.security.keys import RootKey
    from infrastructure.security.process_keys import write_key_file

    root = RootKey.read(load_settings(data=data).root_key_path)
    if file.exists() and not force:
        fail(f"{file} exists: name another file, or replace it with --force", FAILED)
    write_key_file(file, root, process)
    out.print(f"The keys of {process} are in {file}.", markup=False, highlight=False, soft_wrap=True)


@keys.command("list")
@DATA
def list_keys(data: Path | None) -> None:
    """Show each purpose with the ids of its keys and the processes that hold them. No key is shown."""
    from infrastructure.security.key_ring import Purpose
    from infrastructure.security.process_keys import PROCESS_NEEDS, operator_keys

    held = operator_keys(load_settings(data=data))
    table = Table("purpose", "key ids, newest first", "held by", "verified by", box=None)
    for purpose in Purpose:
        ids = ", ".join(key.id.hex() for key in held.all(purpose)) if held.holds(purpose) else "not here"
        holders = ", ".join(name for name, needs in PROCESS_NEEDS.items() if purpose in needs.secret) or "the root key alone"
        table.add_row(purpose.value, ids, holders, ", ".join(name for name, needs in PROCESS_NEEDS.items() if purpose in needs.public))
    out.print(table)
