"""Pagination of lists by cursor."""

import base64
import binascii
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, Generic, TypeVar
from uuid import UUID

import msgspec

from application.services import QueryDatabase
from domain.errors import Invalid, NotFound

T = TypeVar("T")
MAX_PAGE: Final = 200


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One page of a list. `next_cursor` is None on the last page. `total` is the length of the list, if counting it is cheap."""

    items: list[T]
    next_cursor: str | None = None
    total: int | None = None


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """The end of a page: the value of the sort column, and the id, which decides between equal values."""

    value: str | None = None
    id: UUID | None = None


_CURSOR: Final = msgspec.json.Decoder(Cursor)


def parse_cursor(cursor: str | None, *, of_time: bool = True) -> Cursor:
    """Parse a cursor. Raises Invalid."""
    if cursor is None:
        return Cursor()
    try:
        decoded = _CURSOR.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if decoded.id is None or decoded.value is None:
            raise ValueError(cursor)
        return Cursor(datetime.fromisoformat(decoded.value).isoformat(), decoded.id) if of_time else decoded
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise Invalid("This cursor is not valid for this list: use the value of X-Next-Cursor") from None


def page_size(size: int) -> int:
    return max(1, min(size, MAX_PAGE))


def like_pattern(text: str) -> str:
    """The `like` pattern that finds a text literally, in NFC."""
    escaped = unicodedata.normalize("NFC", text).replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
    return f"%{escaped}%"


def page_of(found: Sequence[T], size: int, value: Callable[[T], str | datetime], *, total: int | None = None) -> Page[T]:
    """A page of the first `size` rows. `found` has one row more if there is a next page. `value` gives the sort value of a row."""
    items = list(found[:size])
    return Page(items=items, next_cursor=_cursor_at(items[-1], value(items[-1])) if len(found) > size else None, total=total)


def _cursor_at(row: object, value: str | datetime) -> str:
    text = value.isoformat() if isinstance(value, datetime) else value
    return base64.urlsafe_b64encode(msgspec.json.encode(Cursor(text, row.id))).decode().rstrip("=")  # type: ignore[attr-defined]


async def only_row(db: QueryDatabase, query: str, parameters: Mapping[str, object], *, into: type[T], what: str) -> T:
    """The first row of `query`. Raises NotFound if there is none."""
    found = await db.rows(query, parameters, into=into)
    if not found:
        raise NotFound(f"{what} not found")
    return found[0]
