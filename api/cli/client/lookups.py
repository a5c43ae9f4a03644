"""Ids of things that are named on the command line. An id is taken as it is, since a key may lack the right to list its kind."""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from api.cli.client import registry
from api.cli.client.api_client import Client
from api.cli.client.registry import NothingNamed
from domain.values import is_id, printable


def dataset_id(client: Client, wanted: str) -> str:
    """The id itself, or that of the dataset with this name. Raises NothingNamed, also if several have the name."""
    return normalized(wanted) if is_id(wanted) else id_of(wanted, client.all("/api/datasets"), what="dataset", name="name")


def device_id(client: Client, wanted: str) -> str:
    """The id itself, or that of the device with this host name. Raises NothingNamed, also if several have the name."""
    return normalized(wanted) if is_id(wanted) else id_of(wanted, client.all("/api/devices"), what="device", name="hostname")


def model_filter(client: Client, reference: str) -> dict[str, Any]:
    """`model_name`, and `model_version` if `NAME@VERSION` names one. Raises NothingNamed and RequestRefused."""
    name, wanted = registry.split_reference(reference)
    model = registry.read_model(client, name)
    number = {} if wanted is None else {"model_version": registry.find_version(model, wanted).number}
    return {"model_name": model.name} | number


def id_of(wanted: str, things: Iterable[Mapping[str, Any]], *, what: str, name: str) -> str:
    """The id of the thing with this name or id. Raises NothingNamed, also if several have the name."""
    found = [str(thing["id"]) for thing in things if normalized(wanted) == thing["id"] or wanted == thing[name]]
    if not found:
        raise NothingNamed(f"there is no {what} {printable(wanted)!r} that you may see")
    if len(found) > 1:
        raise NothingNamed(f"{len(found)} {what}s are named {printable(wanted)!r}: give an id, which is one of {', '.join(found)}")
    return found[0]


def normalized(wanted: str) -> str:
    """An id as the API writes it, even if it is given in capitals; any other text as it is."""
    return str(UUID(wanted)) if is_id(wanted) else wanted
