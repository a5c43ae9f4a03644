"""Notes about a request for the trail of access, which its route does not know."""

from typing import Any, Final
from uuid import UUID

import msgspec

from application.history.access_records import AccessKind
from domain.access import Actor
from domain.errors import DomainError, NotFound, UnknownAddress

NOTES: Final = "access_notes"  # in the state of a request


class Notes(msgspec.Struct):
    """What is known of a request besides its route: the object that it read, its owner, and the actor of a request without a token.

    `person` is the account that a refused request names. `code` is that of the error, `missing` the noun and id of what was not found.
    `was_found` is whether a request that was answered 404 found the object of its path, and lacked something else.
    """

    actor: Actor | None = None
    kind: AccessKind | None = None
    noun: str = ""
    object_id: UUID | None = None
    dataset_id: UUID | None = None
    owner_id: UUID | None = None
    person: UUID | None = None
    code: str = ""
    was_found: bool = False
    missing: tuple[str, UUID] | None = None


def notes_of(scope: Any) -> Notes:
    """The notes of a request, which may be changed until its response begins."""
    state = scope.setdefault("state", {})
    if (notes := state.get(NOTES)) is None:
        notes = state[NOTES] = Notes()
    return notes  # type: ignore[no-any-return]


def with_notes(scope: Any, notes: Notes) -> Any:
    """A copy of the scope of a request, with other notes."""
    return {**scope, "state": {**scope["state"], NOTES: notes}}


def note_row(scope: Any, row: object) -> None:
    """Note the dataset and the owner of a row that a request read."""
    dataset = getattr(row, "dataset_id", None)
    owner = getattr(row, "owner_id", None) or getattr(row, "uploaded_by", None) or getattr(row, "created_by", None)
    if isinstance(dataset, UUID) or isinstance(owner, UUID):
        notes = notes_of(scope)
        notes.dataset_id = dataset if isinstance(dataset, UUID) else notes.dataset_id
        notes.owner_id = owner if isinstance(owner, UUID) else notes.owner_id


def note_error(scope: Any, error: DomainError) -> None:
    """Note why a request was refused, and the account or the missing thing that it named."""
    notes = notes_of(scope)
    notes.code, notes.person = error.code, getattr(error, "user_id", None)
    notes.was_found = isinstance(error, UnknownAddress)
    if isinstance(error, NotFound) and error.object_id is not None:
        notes.missing = error.noun, error.object_id
