"""A cache of folded states. A later load of the stream reads only newer events."""

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
"""A stream and its `evolve` function."""


class CachedState(NamedTuple):
    """A state and its newest event. `owners` are the subjects of its private values, `readable` those whose keys were available."""

    state: Any
    version: int
    event_id: UUID
    owners: frozenset[UUID] = frozenset()
    readable: frozenset[UUID] = frozenset()


class StateCache:
    """The most recently used states, bounded in number and size. Thread-safe, since states are immutable."""

    def __init__(self, *, max_states: int = MAX_STATES, max_bytes: int = MAX_BYTES) -> None:
        self._max_states, self._max_bytes = max_states, max_bytes
        self._entries: OrderedDict[CacheKey, tuple[CachedState, int]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, key: CacheKey) -> CachedState | None:
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: CacheKey, cached: CachedState) -> None:
        """Store the state under `key`, unless it is too large."""
        size = len(msgspec.json.encode(cached.state))
        with self._lock:
            self._drop(key)
            if size <= min(MAX_STATE_BYTES, self._max_bytes) and len(cached.owners) <= MAX_OWNERS:
                self._entries[key] = cached, size
                self._bytes += size
            while self._bytes > self._max_bytes or len(self._entries) > self._max_states:
                self._drop(next(iter(self._entries)))

    def drop(self, key: CacheKey) -> None:
        with self._lock:
            self._drop(key)

    def _drop(self, key: CacheKey) -> None:
        if key in self._entries:
            _, size = self._entries.pop(key)
            self._bytes -= size

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """The size of all states as JSON, in bytes."""
        return self._bytes
