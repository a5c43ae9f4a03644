"""The first inspection of an uploaded image: it is accepted or rejected, once. Automatic work of the system."""

from collections.abc import Callable, Sequence
from uuid import UUID

from application.commands import execute, load_existing
from application.ports import Command, EventStore
from domain import image
from domain.errors import NotFound
from domain.events import Event
from domain.image import Image, Inspection


def uninspected(image_id: UUID, *, log: EventStore) -> Image | None:
    """None for an image that does not exist, was deleted, or was inspected before. Raises Unavailable."""
    state = log.load(image_id, image.evolve)
    return None if state is None or state.deleted or state.inspected else state


def accept(image_id: UUID, inspection: Inspection, *, command: Command, log: EventStore) -> bool:
    """Whether this was recorded; else the image was inspected before or deleted. Raises Unavailable, ConcurrencyConflict."""
    return _record(image_id, lambda state: image.accept(state, inspection, by=command.actor.id, at=command.at), command=command, log=log)


def reject(image_id: UUID, *, reason: str, detail: str, command: Command, log: EventStore) -> bool:
    """As `accept`."""
    by, at = command.actor.id, command.at
    return _record(image_id, lambda state: image.reject(state, reason=reason, detail=detail, by=by, at=at), command=command, log=log)


def _record(image_id: UUID, decide: Callable[[Image], Sequence[Event]], *, command: Command, log: EventStore) -> bool:
    """Others may describe the image meanwhile: the decision is made again on the newer state."""

    def load() -> Image:
        return load_existing(log, image_id, image.evolve, what="Image", closed=lambda state: state.deleted)

    try:
        return execute(log, command, load, decide).position > 0
    except NotFound:
        return False
