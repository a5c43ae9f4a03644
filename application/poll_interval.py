"""How long to wait for a wake-up before looking by oneself, should it have been lost."""

from typing import Final

LONGEST_SECONDS: Final = 5.0


class PollInterval:
    """Seconds from one look to the next: `shortest` after something happened, then ever longer while nothing does."""

    def __init__(self, shortest: float, longest: float = LONGEST_SECONDS) -> None:
        self._shortest, self._longest = shortest, max(shortest, longest)
        self._next = shortest

    def shorten(self) -> None:
        """Something happened, and more may follow."""
        self._next = self._shortest

    def take(self) -> float:
        """The seconds until the next look. The one after it comes later, unless something happens."""
        taken, self._next = self._next, min(2 * self._next, self._longest)
        return taken
