"""What every query shares: whose eyes it sees with, and how a list is read a page at a time."""

import base64
import binascii
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Generic, TypeVar
from uuid import UUID

import msgspec

from application.services import QueryDatabase
from domain.access import Actor
from domain.errors import Invalid, NotFound
from domain.values import system_actor

__all__ = [
    "ADMINISTRATORS",
    "MAX_PAGE",
    "Count",
    "Cursor",
    "Page",
    "QueryDatabase",
    "clamped",
    "containing",
    "cursor_of",
    "only_row",
    "paged",
    "subject_of",
]

T = TypeVar("T")
ADMINISTRATORS = system_actor("administrators")  # the subject under which administrators see every dataset
MAX_PAGE = 200


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Part of a list; `next_cursor` leads to the next part, and is None at the end. `total` counts the whole list where that is cheap."""

    items: list[T]
    next_cursor: str | None = None
    total: int | None = None


class Count(msgspec.Struct, frozen=True):
    count: int


def subject_of(actor: Actor, *, scope: str = "") -> UUID:
    """With whose grants an actor reads. A service reads everything that its scope names, and nothing else."""
    sees_all = actor.is_admin or actor.is_system or (bool(scope) and scope in actor.scopes)
    return ADMINISTRATORS if sees_all else actor.id


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """Where a page ends: the value that the list is sorted by, and the id that decides between equal ones."""

    value: str | None = None
    id: UUID | None = None


def cursor_of(cursor: str | None, *, of_time: bool = True) -> Cursor:
    """Raises Invalid."""
    if cursor is None:
        return Cursor()
    try:
        place = msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=Cursor)
        if place.id is None or place.value is None:
            raise ValueError(cursor)
        return Cursor(datetime.fromisoformat(place.value).isoformat(), place.id) if of_time else place
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise Invalid("This cursor was not made for this list: take it from X-Next-Cursor") from None


def clamped(size: int) -> int:
    return max(1, min(size, MAX_PAGE))


def containing(text: str) -> str:
    """The pattern of `like` that finds a text as it is, in either Unicode form."""
    escaped = unicodedata.normalize("NFC", text).replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
    return f"%{escaped}%"


def paged(found: Sequence[T], size: int, value: Callable[[T], str | datetime], *, total: int | None = None) -> Page[T]:
    """A page out of one row more than fits."""
    kept = list(found[:size])
    return Page(items=kept, next_cursor=_cursor_at(kept[-1], value(kept[-1])) if len(found) > size else None, total=total)


def _cursor_at(row: object, value: str | datetime) -> str:
    text = value.isoformat() if isinstance(value, datetime) else value
    return base64.urlsafe_b64encode(msgspec.json.encode(Cursor(text, row.id))).decode().rstrip("=")  # type: ignore[attr-defined]


async def only_row(db: QueryDatabase, query: str, parameters: Mapping[str, object], *, into: type[T], what: str) -> T:
    """The one row of `query`. Raises NotFound."""
    found = await db.rows(query, parameters, into=into)
    if not found:
        raise NotFound(f"{what} not found")
    return found[0]
