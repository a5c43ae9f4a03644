"""Actors, times and commands for tests, and the state after given events."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from application import models
from application.ports import Command, EventStore
from domain import user
from domain.access import Actor, Role
from domain.classification import Provenance
from domain.events import Event
from domain.model import Version

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)


def actor(role: Role | None = Role.RESEARCHER, *, id: UUID | None = None, kind: str = "user") -> Actor:  # noqa: A002
    return Actor(id=id or uuid4(), role=role, kind=kind)


def command(by: Actor | None = None, *, id: UUID | None = None, at: datetime = NOW, digest: bytes | None = None) -> Command:  # noqa: A002
    return Command(id=id or uuid4(), actor=by or actor(), at=at, digest=digest)


def register(who: Actor, *, log: EventStore) -> Actor:
    """The account of a person, with the role of the actor. Twice is once."""
    if log.load(who.id, user.evolve) is None:
        names = {"email": f"{who.id}@example.org", "username": "somebody", "first_name": "Some", "last_name": "Body"}
        assert who.role is not None
        log.append(command(who), user.register(who.id, **names, role=who.role, by=who.id, at=NOW))
    return who


def state_after(evolve: Callable[[Any, Event], Any], events: Iterable[Event], state: Any = None) -> Any:
    for event in events:
        state = evolve(state, event)
    return state


def provenance(model_sha256: str, **about: Any) -> Provenance:
    """What computed results with a model. Everything else about it is empty, but for `about`."""
    unknown = dict.fromkeys(("preprocessing", "runtime", "provider", "decoder", "cpu", "worker"), "")
    return Provenance(**{"model_sha256": model_sha256, "seconds": 0.1} | unknown | about)


def add_model(*, name, description="", command, log, **version):
    """A version of a model with these fields is added by its release."""
    return models.add_version(name=name, description=description, version=Version(number=1, **version), command=command, log=log)
