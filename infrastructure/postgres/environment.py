"""Removal of libpq's environment variables: PGHOST, PGSERVICE, PGOPTIONS and others would supply what a URL omits."""

from collections.abc import MutableMapping
from typing import Final

LIBPQ_PREFIX: Final = "PG"


def remove_libpq_variables(environment: MutableMapping[str, str]) -> None:
    """Remove libpq's variables before the first connection, so that only the settings name a database."""
    for name in [name for name in environment if name.startswith(LIBPQ_PREFIX)]:
        del environment[name]
