"""The keys of the installation, on the machine that has the root key."""

from pathlib import Path
from typing import Final

import click

from api.cli.commands import Choice, argument, group, json_option
from api.cli.common import DATA, load_settings
from api.cli.output import Column, fail, print_json, print_message, print_table
from api.cli.shapes import KeyPurpose

WITH_KEYS: Final = ("api", "relay", "projector")  # the processes that need any


@group()
def keys() -> None:
    """List keys of the installation, and export those of one process.

    They encrypt and sign. API keys, with which programs sign in, are another matter: `bioscope api-keys` and `bioscope tokens`.
    """


@keys.command("export", example="bioscope keys export relay relay.keys")
@argument("process", metavar="PROCESS", type=Choice(WITH_KEYS), help="Process that will hold the keys. Inference needs none.")
@argument("file", type=click.Path(path_type=Path, dir_okay=False), help="File to write; only its owner can read it.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@DATA
def export_keys(process: str, file: Path, data: Path | None, *, force: bool) -> None:
    """Write the keys of one process into a file.

    Set BIOSCOPE_KEY_FILE of that process to the file: then the process does not need the root key.
    """
    from infrastructure.security.keys import RootKey
    from infrastructure.security.process_keys import write_key_file

    root = RootKey.read(load_settings(data=data).root_key_path)
    if file.exists() and not force:
        fail(f"{file} exists: choose another file, or replace it with --force")
    write_key_file(file, root, process)
    print_message(f"The keys of {process} are in {file}.")


@keys.command("list", example="bioscope keys list")
@DATA
@json_option(list[KeyPurpose])
def list_keys(data: Path | None, *, as_json: bool) -> None:
    """List the purposes of keys, the ids of their keys, and the processes that hold them.

    No key is shown.
    """
    from infrastructure.security.key_ring import Purpose
    from infrastructure.security.process_keys import PROCESS_NEEDS, operator_keys

    held = operator_keys(load_settings(data=data))
    purposes = [
        KeyPurpose(
            purpose=purpose.value,
            key_ids=tuple(key.id.hex() for key in held.all(purpose)) if held.holds(purpose) else (),
            held_by=tuple(name for name, needs in PROCESS_NEEDS.items() if purpose in needs.secret),
            verified_by=tuple(name for name, needs in PROCESS_NEEDS.items() if purpose in needs.public),
        )
        for purpose in Purpose
    ]
    if as_json:
        print_json(purposes)
        return
    columns = [Column("purpose"), *(Column(title, wraps=True) for title in ("key ids, newest first", "held by", "verified by"))]
    print_table(
        columns,
        [
            (
                one.purpose,
                ", ".join(one.key_ids) or "not on this machine",
                ", ".join(one.held_by) or "the root key alone",
                ", ".join(one.verified_by),
            )
            for one in purposes
        ],
    )
