"""The moment at which a fault hit."""

from typing import NamedTuple


class Hit(NamedTuple):
    """`since`: when recovery begins to count, on the monotonic clock: the fault itself, or its end where it lasts."""

    since: float
    lasted: float = 0.0
