"""States of streams as this process folded them last, so that loading one again reads only the events since then."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

MAX_STATES: Final = 4096
MAX_BYTES: Final = 4 * 1024**2  # of all states, as JSON
MAX_STATE_BYTES: Final = MAX_BYTES // 16
MAX_OWNERS: Final = 16

CacheKey = tuple[UUID, Callable[..., Any]]
"""A stream, and what it is folded by."""


class CachedState(NamedTuple):
    """A state, and its stream's newest event. `owners` are those whose private values were met, `readable` those whose keys were there."""

    state: Any
    version: int
    event_id: UUID
    owners: frozenset[UUID] = frozenset()
    readable: frozenset[UUID] = frozenset()


class StateCache:
    """Those used last, bounded in number and size. May be shared by threads: states never change."""

    def __init__(self, *, states_most: int = MAX_STATES, bytes_most: int = MAX_BYTES) -> None:
        self._states_most, self._bytes_most = states_most, bytes_most
        self._known: OrderedDict[CacheKey, tuple[CachedState, int]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, place: CacheKey) -> CachedState | None:
        with self._lock:
            if place not in self._known:
                return None
            self._known.move_to_end(place)
            return self._known[place][0]

    def keep(self, place: CacheKey, folded: CachedState) -> None:
        """Instead of what was kept before."""
        size = len(msgspec.json.encode(folded.state))
        with self._lock:
            self._drop(place)
            if size <= min(MAX_STATE_BYTES, self._bytes_most) and len(folded.owners) <= MAX_OWNERS:
                self._known[place] = folded, size
                self._bytes += size
            while self._bytes > self._bytes_most or len(self._known) > self._states_most:
                self._drop(next(iter(self._known)))

    def drop(self, place: CacheKey) -> None:
        with self._lock:
            self._drop(place)

    def _drop(self, place: CacheKey) -> None:
        if place in self._known:
            _, size = self._known.pop(place)
            self._bytes -= size

    def __len__(self) -> int:
        return len(self._known)

    @property
    def size(self) -> int:
        """Bytes of all states, as JSON."""
        return self._bytes
