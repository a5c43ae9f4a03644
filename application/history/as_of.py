"""Convert the parameter `as_of` to a position of the log.

Only a position identifies a state that existed. Each process has its own clock, so the times in events may differ from the log order.
"""

from datetime import datetime
from typing import Final

from application.ports import EventStore
from domain.errors import Invalid, NotFound

POSITION_DIGITS: Final = 18
ACCEPTED_FORMS: Final = "must be a time with a time zone like 2026-03-01T12:00:00Z, or a position like 4711"


def position_of(as_of: str | None, *, log: EventStore) -> int:
    """The position of `as_of`: a position or a time; None means now. Raises Invalid, and NotFound if nothing was recorded by then."""
    if as_of is None:
        return log.head()
    if as_of.isascii() and as_of.isdecimal():
        return _checked_position(as_of, log.head())
    position = _position_at(_parse_time(as_of), log)
    if position == 0:
        raise NotFound(f"Nothing had been recorded at {as_of}")
    return position


def _checked_position(digits: str, head: int) -> int:
    position = int(digits) if len(digits) <= POSITION_DIGITS else head + 1
    if position == 0:
        raise _invalid("must be a position from 1 on")
    if position > head:
        raise _invalid(f"is beyond the end of the log, which is at position {head}")
    return position


def _parse_time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise _invalid(ACCEPTED_FORMS + ('; write "+" as %2B in a URL' if " " in text else "")) from None
    if time.tzinfo is None:
        raise _invalid(f"has no time zone: it {ACCEPTED_FORMS}")
    return time


def _position_at(moment: datetime, log: EventStore) -> int:
    try:
        return log.position_at(moment)
    except Invalid as error:
        raise _invalid(error.detail[:1].lower() + error.detail[1:], "as_of: ") from None


def _invalid(message: str, prefix: str = "as_of ") -> Invalid:
    return Invalid(prefix + message, errors=[{"loc": ["query", "as_of"], "msg": message}])
