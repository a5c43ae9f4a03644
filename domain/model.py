"""A model: immutable versions, each named by the sha256 of its weights, and aliases that point to versions."""

from datetime import datetime
from uuid import UUID

import msgspec

from domain.errors import Conflict, NotFound
from domain.events import Event, State, event_meta, next_event
from domain.values import text

PRODUCTION, CANDIDATE = "production", "candidate"


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model: everything that determines a result.

    `sha256` (hexadecimal) and `size` (bytes) are those of the weights. A confidence below `review_below` (0 to 1) needs review.
    `record` is the model's manifest (rdf.yaml) as JSON text.
    """

    number: int
    sha256: str
    size: int
    labels: tuple[str, ...]
    review_below: float
    record: str


class ModelVersionAdded(Event, frozen=True, kw_only=True):
    name: str
    description: str
    version: Version


class ModelAliasMoved(Event, frozen=True, kw_only=True):
    alias: str
    number: int


class ModelRetired(Event, frozen=True, kw_only=True):
    """The model accepts no new jobs; its results stay."""


class Model(State, frozen=True, kw_only=True):
    name: str
    description: str
    versions: tuple[Version, ...]
    aliases: dict[str, int]
    created_at: datetime
    retired: bool = False

    @property
    def production(self) -> Version:
        return self.numbered(self.aliases[PRODUCTION])

    def numbered(self, number: int) -> Version:
        """Version `number`. Raises NotFound."""
        for version in self.versions:
            if version.number == number:
                return version
        raise NotFound(f"Model {self.name} has no version {number}")


def add_version(model: UUID, state: Model | None, *, name: str, description: str, version: Version, by: UUID, at: datetime) -> list[Event]:
    """The first version becomes `production`, a later one `candidate`. No event if a version has the same weights and manifest."""
    if state is not None and any(known.sha256 == version.sha256 and known.record == version.record for known in state.versions):
        return []
    number = len(state.versions) + 1 if state else 1
    stream_version = state.version if state else 0
    added = ModelVersionAdded(
        **event_meta(model, stream_version + 1, by=by, at=at),
        name=text(name, name="name", maximum=100),
        description=description,
        version=msgspec.structs.replace(version, number=number),
    )
    alias = CANDIDATE if state else PRODUCTION
    return [added, ModelAliasMoved(**event_meta(model, stream_version + 2, by=by, at=at), alias=alias, number=number)]


def move_alias(model: Model, *, alias: str, number: int, by: UUID, at: datetime) -> list[ModelAliasMoved]:
    model.numbered(number)
    if model.aliases.get(alias) == number:
        return []
    return [ModelAliasMoved(**next_event(model, by=by, at=at), alias=text(alias, name="alias", maximum=50), number=number)]


def with_alias(aliases: dict[str, int], alias: str, number: int) -> dict[str, int]:
    """`aliases` with `alias` pointing to version `number`. A version that goes into production is no longer the candidate."""
    others = {name: at for name, at in aliases.items() if (alias, name, at) != (PRODUCTION, CANDIDATE, number)}
    return {**others, alias: number}


def retire(model: Model, *, by: UUID, at: datetime) -> ModelRetired:
    if model.retired:
        raise Conflict(f"Model {model.name} is retired already")
    return ModelRetired(**next_event(model, by=by, at=at))


def evolve(model: Model | None, event: Event) -> Model | None:
    match event:
        case ModelVersionAdded() if model is None:
            return Model(
                id=event.originator_id,
                version=event.originator_version,
                name=event.name,
                description=event.description,
                versions=(event.version,),
                aliases={PRODUCTION: event.version.number},
                created_at=event.at,
            )
        case _ if model is None:
            return None
        case ModelVersionAdded():
            return msgspec.structs.replace(
                model, version=event.originator_version, versions=(*model.versions, event.version), description=event.description
            )
        case ModelAliasMoved():
            return msgspec.structs.replace(
                model, version=event.originator_version, aliases=with_alias(model.aliases, event.alias, event.number)
            )
        case ModelRetired():
            return msgspec.structs.replace(model, version=event.originator_version, retired=True)
        case _:
            return msgspec.structs.replace(model, version=event.originator_version)
