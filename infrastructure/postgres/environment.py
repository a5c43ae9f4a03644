"""Keep libpq's own variables out: it reads PGHOST, PGSERVICE, PGOPTIONS and others for whatever a URL leaves open."""

from collections.abc import MutableMapping
from typing import Final

LIBPQ_PREFIX: Final = "PG"


def remove_libpq_variables(environment: MutableMapping[str, str]) -> None:
    """Take them out of the environment of this process, before its first connection. Only the settings name a database then."""
    for name in [name for name in environment if name.startswith(LIBPQ_PREFIX)]:
        del environment[name]
