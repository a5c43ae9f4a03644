"""Use cases of models: add a version, move an alias, retire, and who may do so."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from application.commands import CommandResult, execute, load_existing
from application.grants import is_member, team_guard
from application.ports import Command, EventStore, StreamPrecondition
from domain import model, team, user
from domain.access import Actor, Role, require_role
from domain.declaration import declare
from domain.errors import Conflict, NotFound
from domain.events import Event
from domain.model import (
    CANDIDATE,
    MAX_LABELS,
    Model,
    ModelAliasMoved,
    ModelPromoterAdded,
    ModelPromoterRemoved,
    ModelPromoterTeamAdded,
    ModelPromoterTeamRemoved,
    ModelRetired,
    ModelVersionAdded,
    Version,
    require_promoter,
)
from domain.values import MAX_LABEL, invalid, model_id, named, text

MAX_CHANGES = 200
MAX_VERSION_BYTES = 200 * 1024  # with its manifest, as JSON: an event has at most 256 KiB


class ModelChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a model, as its history shows it. `type` is that of the event; fields that the event does not have are None."""

    position: int
    at: datetime
    by: UUID
    type: str
    number: int | None = None
    alias: str | None = None
    user_id: UUID | None = None
    team_id: UUID | None = None
    reason: str | None = None


def add_version(*, name: str, description: str, version: Version, command: Command, log: EventStore) -> CommandResult:
    """Add a version that came with a release. Its files are stored already; `version.number` is replaced.

    The first version of a model becomes `production`, a later one `candidate`. The same weights and manifest again change nothing
    (position 0). Raises Invalid, Forbidden.
    """
    require_role(command.actor, Role.ADMIN)
    check_version(version)
    stream = model_id(name)

    def decide(state: Model | None) -> list[Event]:
        return model.add_version(stream, state, name=name, description=description, version=version, by=command.actor.id, at=command.at)

    return execute(log, command, lambda: log.load(stream, model.evolve), decide, stream=stream)


def add_external(
    *,
    name: str,
    description: str,
    labels: Sequence[str],
    label_texts: Mapping[str, str],
    review_below: float,
    command: Command,
    log: EventStore,
) -> CommandResult:
    """Add the declaration of an external classifier as a version, which is the candidate of its model from now on.

    The same declaration again changes nothing (position 0). Raises Invalid, Forbidden, Conflict for a retired model
    and for one with versions of another kind.
    """
    require_role(command.actor, Role.RESEARCHER)
    declared = declare(name=name, description=description, labels=labels, label_texts=label_texts, review_below=review_below)
    version = declared.version
    check_version(version)
    stream = model_id(declared.name)

    def decide(state: Model | None) -> list[Event]:
        if state is not None and state.retired:
            raise Conflict(f"Model {declared.name} is retired: choose another name")
        return model.add_version(
            stream,
            state,
            name=declared.name,
            description=declared.description,
            version=version,
            alias=CANDIDATE,
            by=command.actor.id,
            at=command.at,
        )

    return execute(log, command, lambda: log.load(stream, model.evolve), decide, stream=stream)


def move_alias(
    *, name: str, alias: str, number: int, reason: str | None = None, expected: int | None = None, command: Command, log: EventStore
) -> CommandResult:
    """Move `alias` to version `number`. New jobs use it; running jobs and existing results keep their version.

    Nothing changes (position 0) if it points there already. Raises Forbidden, Invalid, NotFound, Conflict.
    """
    return _change(
        name,
        lambda it: model.move_alias(it, alias=alias, number=number, reason=reason, by=command.actor.id, at=command.at),
        expected=expected,
        command=command,
        log=log,
    )


def retire(*, name: str, reason: str | None, expected: int | None = None, command: Command, log: EventStore) -> CommandResult:
    """Accept no new jobs for the model. Raises Forbidden, NotFound, Conflict."""
    return _change(
        name,
        lambda it: [model.retire(it, reason=reason, by=command.actor.id, at=command.at)],
        expected=expected,
        command=command,
        log=log,
    )


def add_promoter(*, name: str, user_id: UUID, expected: int | None = None, command: Command, log: EventStore) -> CommandResult:
    """Let a user move the aliases of the model and retire it. Raises Forbidden, NotFound (also for an unknown user), Conflict."""
    require_role(command.actor, Role.ADMIN)
    load_existing(log, user_id, user.evolve, what="User", closed=lambda it: it.deleted)
    return _change(
        name,
        lambda it: model.add_promoter(it, user=user_id, by=command.actor.id, at=command.at),
        guards=(StreamPrecondition(stream=user_id, closed_by=user.CLOSING),),
        expected=expected,
        command=command,
        log=log,
    )


def remove_promoter(*, name: str, user_id: UUID, expected: int | None = None, command: Command, log: EventStore) -> CommandResult:
    """Raises Forbidden, NotFound, Conflict."""
    require_role(command.actor, Role.ADMIN)
    return _change(
        name,
        lambda it: model.remove_promoter(it, user=user_id, by=command.actor.id, at=command.at),
        expected=expected,
        command=command,
        log=log,
    )


def add_promoter_team(*, name: str, team_id: UUID, expected: int | None = None, command: Command, log: EventStore) -> CommandResult:
    """Let the members of a team move the aliases of the model and retire it. Raises Forbidden, NotFound (also for the team), Conflict."""
    require_role(command.actor, Role.ADMIN)
    load_existing(log, team_id, team.evolve, what="Team", closed=lambda it: it.deleted)
    return _change(
        name,
        lambda it: model.add_promoter_team(it, team=team_id, by=command.actor.id, at=command.at),
        guards=(team_guard(team_id),),
        expected=expected,
        command=command,
        log=log,
    )


def remove_promoter_team(*, name: str, team_id: UUID, expected: int | None = None, command: Command, log: EventStore) -> CommandResult:
    """Raises Forbidden, NotFound, Conflict."""
    require_role(command.actor, Role.ADMIN)
    return _change(
        name,
        lambda it: model.remove_promoter_team(it, team=team_id, by=command.actor.id, at=command.at),
        expected=expected,
        command=command,
        log=log,
    )


def load_model(name: str, *, log: EventStore) -> Model:
    """The model, also a retired one. Raises NotFound."""
    return load_existing(log, model_id(name), model.evolve, what="Model", closed=lambda _: False, named=named("Model", name))


def history(name: str, *, after: int = 0, maximum: int = MAX_CHANGES, actor: Actor, log: EventStore) -> list[ModelChange]:
    """The first `maximum` changes of a model after position `after`, oldest first. Raises NotFound, Forbidden."""
    require_role(actor, Role.VIEWER)
    stream = model_id(name)
    recorded = log.touching(stream, (), after=after, maximum=maximum)
    if not recorded and log.event(stream, 1) is None:
        raise NotFound(f"{named('Model', name)} not found")
    log.prefetch(recorded)
    return [_change_of(one.position, log.decode(one)) for one in recorded]


def check_version(version: Version) -> None:
    """Raises Invalid for a version that no results could be recorded of."""
    if not re.fullmatch("[0-9a-f]{64}", version.sha256):
        raise invalid("sha256", "must be 64 hexadecimal digits")
    if not 1 <= len(version.labels) <= MAX_LABELS or len(set(version.labels)) != len(version.labels):
        raise invalid("labels", f"must be 1 to {MAX_LABELS} different names")
    if any(text(label, name="labels", maximum=MAX_LABEL) != label for label in version.labels):
        raise invalid("labels", "must be in Unicode NFC form, without spaces at either end")
    if not 0 <= version.review_below <= 1:
        raise invalid("review_below", "must lie between 0 and 1")
    if len(msgspec.json.encode(version)) > MAX_VERSION_BYTES:
        raise invalid("record", f"and labels must have at most {MAX_VERSION_BYTES:,} bytes as JSON")


def _change(
    name: str,
    decide: Callable[[Model], Sequence[Event]],
    *,
    guards: Sequence[StreamPrecondition] = (),
    expected: int | None,
    command: Command,
    log: EventStore,
) -> CommandResult:
    def load() -> Model:
        found = load_model(name, log=log)
        require_promoter(found, command.actor, lambda team_id: is_member(command.actor.id, team_id, log))
        return found

    return execute(log, command, load, decide, expected=expected, guards=lambda *_: guards)


def _change_of(position: int, event: Event) -> ModelChange:
    change = ModelChange(position=position, at=event.at, by=event.by, type=type(event).__name__)
    match event:
        case ModelVersionAdded():
            return msgspec.structs.replace(change, number=event.version.number)
        case ModelAliasMoved():
            return msgspec.structs.replace(change, number=event.number, alias=event.alias, reason=event.reason)
        case ModelRetired():
            return msgspec.structs.replace(change, reason=event.reason)
        case ModelPromoterAdded() | ModelPromoterRemoved():
            return msgspec.structs.replace(change, user_id=event.user_id)
        case ModelPromoterTeamAdded() | ModelPromoterTeamRemoved():
            return msgspec.structs.replace(change, team_id=event.team_id)
        case _:
            return change
