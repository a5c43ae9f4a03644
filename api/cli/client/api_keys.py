"""A person's own API keys: read and changed through the API for the command line, and printed."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from api.cli.client.api_client import Client
from api.cli.client.lookups import dataset_id, id_of
from api.cli.output import Column, out, print_message, print_table
from api.cli.shapes import OwnKey, ServiceToken
from domain.values import is_id, printable

KEYS: Final = "/api/keys"
WORKING: Final = "working"


# ---- reading -----------------------------------------------------------------------------------------------------------------------
def read_keys(client: Client) -> list[OwnKey]:
    """The newest first, also those that no longer work. Raises RequestRefused."""
    return msgspec.convert(client.all(KEYS), list[OwnKey])


def _working_key(client: Client, wanted: str) -> OwnKey:
    """The key with this id, or the working one with this name. Raises NothingNamed and RequestRefused."""
    keys = read_keys(client)
    candidates = ({"id": str(key.id), "name": key.name} for key in keys if key.status == WORKING or is_id(wanted))
    found = id_of(wanted, candidates, what="key", name="name")
    return next(key for key in keys if str(key.id) == found)


# ---- changing ----------------------------------------------------------------------------------------------------------------------
def issue(client: Client, *, name: str, scopes: Collection[str], datasets: Collection[str], days: int) -> ServiceToken:
    """A new key. `datasets` are names or ids; none means all. Raises RequestRefused, NothingNamed."""
    limits = {"dataset_ids": [dataset_id(client, one) for one in datasets]} if datasets else {}
    chosen = sorted(set(scopes))
    return _shown(client.post(KEYS, {"name": name, "scopes": chosen, "days": days} | limits), name, chosen)


def rotate(client: Client, key: str, *, days: int | None, overlap_hours: int) -> ServiceToken:
    """The key with a new secret; without `days`, its lifetime is that of the present one. Raises RequestRefused, NothingNamed."""
    found = _working_key(client, key)
    lifetime = {} if days is None else {"days": days}
    return _shown(client.post(f"{KEYS}/{found.id}/rotate", lifetime | {"overlap_hours": overlap_hours}), found.name, found.scopes)


def revoke(client: Client, key: str) -> str:
    """The id of the revoked key. Raises RequestRefused, NothingNamed."""
    found = _working_key(client, key)
    client.call("DELETE", f"{KEYS}/{found.id}")
    return str(found.id)


def _shown(issued: Mapping[str, Any], name: str, scopes: Sequence[str]) -> ServiceToken:
    about = {"id": issued["id"], "token": issued["key"], "expires_at": issued["expires_at"]}
    return msgspec.convert(about | {"name": name, "scopes": scopes}, ServiceToken)


# ---- printing ----------------------------------------------------------------------------------------------------------------------
def print_keys(keys: Sequence[OwnKey]) -> None:
    if not keys:
        print_message("You have no API key that works.", console=out)
        return
    columns = [Column("name", wraps=True), Column("scopes", wraps=True), *map(Column, ("status", "expires", "last use", "id"))]
    print_table(
        columns,
        [
            (printable(key.name), " ".join(key.scopes), key.status, f"{key.expires_at:%Y-%m-%d}", _last_use(key), str(key.id))
            for key in keys
        ],
    )


def _last_use(key: OwnKey) -> str:
    return "never" if key.last_used_at is None else f"{key.last_used_at:%Y-%m-%d %H:%M} from {key.last_used_from}"
