"""The time to wait for a wake-up before polling, since a wake-up may be lost."""

from typing import Final

LONGEST_SECONDS: Final = 5.0


class PollInterval:
    """Seconds between polls: `shortest` after an event, then doubled with each poll up to `longest`."""

    def __init__(self, shortest: float, longest: float = LONGEST_SECONDS) -> None:
        self._shortest, self._longest = shortest, max(shortest, longest)
        self._next = shortest

    def shorten(self) -> None:
        """Poll soon again, because more events may follow the one that was just found."""
        self._next = self._shortest

    def take(self) -> float:
        """The seconds until the next poll; doubles the following interval."""
        interval, self._next = self._next, min(2 * self._next, self._longest)
        return interval
