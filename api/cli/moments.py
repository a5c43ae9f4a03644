"""Times on the command line."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

MOMENT_EXAMPLES: Final = "2026-03-01 or 2026-03-01T12:00:00Z"
DURATION: Final = re.compile(r"([1-9][0-9]{0,4})([mhd])")
UNITS: Final = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


class Moment(click.ParamType):
    """A day or a time; without an offset in UTC."""

    name = "time"
    examples = MOMENT_EXAMPLES

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time. Give for example {self.examples}.", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class Deadline(Moment):
    """A moment, or how long after now."""

    examples = f"2h, 30m, {MOMENT_EXAMPLES}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, str) and (match := DURATION.fullmatch(value)):
            return datetime.now(UTC).replace(microsecond=0) + int(match[1]) * UNITS[match[2]]
        return super().convert(value, param, ctx)


def short_moment(moment: datetime, *, now: datetime) -> str:
    """Such as `Mar 01 12:00`, or `2025-03-01` in another year than `now`."""
    return f"{moment:%b %d %H:%M}" if moment.year == now.year else f"{moment:%Y-%m-%d}"


def duration(seconds: float) -> str:
    """In words, such as `45 s`, `3 min` or `1 h 20 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
