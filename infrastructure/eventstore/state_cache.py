"""States of streams as this process folded them last, so that loading one again reads only the events since then."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

STATES_MOST: Final = 4096
BYTES_MOST: Final = 4 * 1024**2  # of all states, as JSON
STATE_BYTES_MOST: Final = BYTES_MOST // 16
OWNERS_MOST: Final = 16

Place = tuple[UUID, Callable[..., Any]]
"""A stream, and what it is folded by."""


class Folded(NamedTuple):
    """A state, and its stream's newest event. `owners` are those whose private values were met, `readable` those whose keys were there."""

    state: Any
    version: int
    event_id: UUID
    owners: frozenset[UUID] = frozenset()
    readable: frozenset[UUID] = frozenset()


class FoldedStates:
    """Those used last, bounded in number and size. May be shared by threads: states never change."""

    def __init__(self, *, states_most: int = STATES_MOST, bytes_most: int = BYTES_MOST) -> None:
        self._states_most, self._bytes_most = states_most, bytes_most
        self._known: OrderedDict[Place, tuple[Folded, int]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, place: Place) -> Folded | None:
        with self._lock:
            if place not in self._known:
                return None
            self._known.move_to_end(place)
            return self._known[place][0]

    def keep(self, place: Place, folded: Folded) -> None:
        """Instead of what was kept before."""
        size = len(msgspec.json.encode(folded.state))
        with self._lock:
            self._drop(place)
            if size <= min(STATE_BYTES_MOST, self._bytes_most) and len(folded.owners) <= OWNERS_MOST:
                self._known[place] = folded, size
                self._bytes += size
            while self._bytes > self._bytes_most or len(self._known) > self._states_most:
                self._drop(next(iter(self._known)))

    def drop(self, place: Place) -> None:
        with self._lock:
            self._drop(place)

    def _drop(self, place: Place) -> None:
        if place in self._known:
            _, size = self._known.pop(place)
            self._bytes -= size

    def __len__(self) -> int:
        return len(self._known)

    @property
    def size(self) -> int:
        """Bytes of all states, as JSON."""
        return self._bytes
