"""Use cases of models: add a version, put a version into production."""

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
    """Add a version whose weights are already stored under `sha256` (hexadecimal). `record` is its manifest (rdf.yaml) as JSON text.

    The first version of a model becomes `production`, a later one `candidate`. The same weights and manifest again change nothing
    (position 0). `size` is in bytes, `review_below` from 0 to 1. Raises Invalid, Forbidden.
    """
    require_role(command.actor, Role.ADMIN)
    _check(sha256, labels, review_below)
    version = Version(number=1, sha256=sha256, size=size, labels=labels, review_below=review_below, record=record)
    stream = model_id(name)

    def decide(state: Model | None) -> list[Event]:
        return model.add_version(stream, state, name=name, description=description, version=version, by=command.actor.id, at=command.at)

    return execute(log, command, lambda: log.load(stream, model.evolve), decide, stream=stream)


def promote(*, name: str, number: int, command: Command, log: EventStore) -> CommandResult:
    """Put a version into production. New jobs use it; running jobs and existing results keep their version.

    Nothing changes (position 0) if the version is in production already. Raises Forbidden, NotFound.
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
        raise invalid("labels", "must be in Unicode NFC form, without spaces at either end")
    if not 0 <= review_below <= 1:
        raise invalid("review_below", "must lie between 0 and 1")
