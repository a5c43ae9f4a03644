"""The registry of event types. A type that is not listed can be neither written nor read; a newer release may know it."""

from types import ModuleType

from domain import (
    api_key,
    classification,
    dataset,
    dead_letter,
    device,
    image,
    invitation,
    model,
    model_check,
    policy,
    registration,
    service_account,
    session,
    team,
    user,
)
from domain.events import Event

NOUNS: dict[str, ModuleType] = {
    "user": user,
    "registration": registration,
    "invitation": invitation,
    "session": session,
    "service_account": service_account,
    "api_key": api_key,
    "team": team,
    "dataset": dataset,
    "image": image,
    "device": device,
    "model": model,
    "model_check": model_check,
    "classification": classification,
    "policy": policy,
    "dead_letter": dead_letter,
}


def _events_of(noun: ModuleType) -> list[type[Event]]:
    """In the order of their definition. A noun is a module, or a package of several."""
    return [event for event in Event.__subclasses__() if f"{event.__module__}.".startswith(f"{noun.__name__}.")]


EVENTS: dict[str, type[Event]] = {event.__name__: event for noun in NOUNS.values() for event in _events_of(noun)}
NOUN_OF: dict[str, str] = {event.__name__: name for name, noun in NOUNS.items() for event in _events_of(noun)}

ERASING: tuple[type[Event], ...] = (user.UserErased, *registration.CLOSING, *invitation.CLOSING)
"""Events with which the data key of their stream is destroyed."""


def is_known(type_name: str, schema_version: int) -> bool:
    """Whether this release understands stored events of this type and schema version."""
    kind = EVENTS.get(type_name)
    return kind is not None and schema_version <= kind.schema_version
