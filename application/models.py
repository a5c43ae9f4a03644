"""Models: versions that are added, and never changed."""

import re

from application.commands import CommandResult, execute, load_existing
from application.ports import Command, EventStore
from domain import model
from domain.access import Role, require_role
from domain.events import Event
from domain.model import PRODUCTION, Model, Version
from domain.values import MAX_LABEL, invalid, model_id, text

MAX_LABELS = 300  # the scores of a whole chunk must fit into one event


def add_version(
    *,
    name: str,
    description: str,
    sha256: str,
    size: int,
    labels: tuple[str, ...],
    review_below: float,
    record: str,
    command: Command,
    log: EventStore,
) -> CommandResult:
    """Add a version whose weights are stored already under `sha256`. `record` is its rdf.yaml as JSON text.

    The first version of a model goes into production, a later one becomes the candidate. The same weights with the same record change
    nothing (position 0). Raises Invalid, Forbidden.
    """
    require_role(command.actor, Role.ADMIN)
    _check(sha256, labels, review_below)
    version = Version(number=1, sha256=sha256, size=size, labels=labels, review_below=review_below, record=record)
    stream = model_id(name)

    def decide(state: Model | None) -> list[Event]:
        return model.add_version(stream, state, name=name, description=description, version=version, by=command.actor.id, at=command.at)

    return execute(log, command, lambda: log.load(stream, model.evolve), decide, stream=stream)


def promote(*, name: str, number: int, command: Command, log: EventStore) -> CommandResult:
    """Put a version into production: new jobs use it, results and jobs under way keep theirs.

    A version that is in production already changes nothing (position 0). Raises Forbidden, NotFound.
    """
    require_role(command.actor, Role.ADMIN)
    return execute(
        log,
        command,
        lambda: load_existing(log, model_id(name), model.evolve, what=f"Model {name}", closed=lambda it: it.retired),
        lambda it: model.move_alias(it, alias=PRODUCTION, number=number, by=command.actor.id, at=command.at),
    )


def _check(sha256: str, labels: tuple[str, ...], review_below: float) -> None:
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise invalid("sha256", "must be 64 hexadecimal digits")
    if not 1 <= len(labels) <= MAX_LABELS or len(set(labels)) != len(labels):
        raise invalid("labels", f"must be 1 to {MAX_LABELS} different names")
    if any(text(label, name="labels", maximum=MAX_LABEL) != label for label in labels):
        raise invalid("labels", "must have no blanks at their ends, in Unicode's composed form")
    if not 0 <= review_below <= 1:
        raise invalid("review_below", "must lie between 0 and 1")
