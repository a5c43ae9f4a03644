"""Record the first inspection of an uploaded image, which accepts or rejects it once. Done by the system, not by a user."""

from collections.abc import Callable, Sequence
from uuid import UUID

from application.commands import execute, load_existing
from application.ports import Command, EventStore
from domain import image
from domain.errors import NotFound
from domain.events import Event
from domain.image import Image, Inspection


def uninspected(image_id: UUID, *, log: EventStore) -> Image | None:
    """The image, or None if it does not exist, was deleted, or was inspected before. Raises Unavailable."""
    state = log.load(image_id, image.evolve)
    return None if state is None or state.deleted or state.inspected else state


def accept(image_id: UUID, inspection: Inspection, *, command: Command, log: EventStore) -> bool:
    """Accept the image. False if it was inspected before or deleted. Raises Unavailable, ConcurrencyConflict."""
    return _record(image_id, lambda state: image.accept(state, inspection, by=command.actor.id, at=command.at), command=command, log=log)


def reject(image_id: UUID, *, reason: str, detail: str, command: Command, log: EventStore) -> bool:
    """Reject the image, with a stable `reason` and a sentence for the user. Otherwise as `accept`."""
    by, at = command.actor.id, command.at
    return _record(image_id, lambda state: image.reject(state, reason=reason, detail=detail, by=by, at=at), command=command, log=log)


def _record(image_id: UUID, decide: Callable[[Image], Sequence[Event]], *, command: Command, log: EventStore) -> bool:
    """A concurrent change of the image leads to a new decision on the newer state."""

    def load() -> Image:
        return load_existing(log, image_id, image.evolve, what="Image", closed=lambda state: state.deleted)

    try:
        return execute(log, command, load, decide).position > 0
    except NotFound:
        return False
