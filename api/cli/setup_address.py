"""The address at which the first administrator of an installation creates an account."""

import os
import stat
import sys
from typing import TYPE_CHECKING

import click

from infrastructure.configuration.settings import Settings

if TYPE_CHECKING:
    from infrastructure.security.keys import Keys


def print_setup_address(settings: Settings, keys: "Keys") -> None:
    """Print the address on stderr if there was never an administrator. It holds a secret: a log file gets another way instead."""
    address = setup_address(settings, keys)
    if address is None:
        return
    if stat.S_ISREG(os.fstat(sys.stderr.fileno()).st_mode):
        click.echo("There is no administrator yet. Create the first one with `bioscope users create-admin EMAIL`.", err=True)
    else:
        click.echo(f"There is no administrator yet. Create the first one here: {address}", err=True)


def setup_address(settings: Settings, keys: "Keys") -> str | None:
    """The address; None if there was an administrator, or if the database does not answer."""
    from application import bootstrap
    from domain.errors import Unavailable
    from infrastructure.eventstore.event_store import open_event_store
    from infrastructure.security.bootstrap_tokens import KeyedBootstrapTokens

    try:
        with open_event_store(settings, keys) as log:
            is_needed = bootstrap.is_needed(log)
    except Unavailable:
        return None
    return f"{settings.base_url.rstrip('/')}/setup?token={KeyedBootstrapTokens(keys).token()}" if is_needed else None
