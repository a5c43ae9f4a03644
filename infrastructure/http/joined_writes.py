"""Joins the writes of one event loop iteration. Sending status line and body separately costs a system call and wakes the client twice."""

import asyncio
from typing import Any, Final

SEND_AT_ONCE_BYTES: Final = 16 * 1024  # larger amounts are sent at once


class JoinedWrites:
    """Wraps `transport` and delegates all other attributes to it."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.transport, self._loop = transport, loop
        self._parts: list[bytes] = []
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)
        self._size += len(data)
        if self._size > SEND_AT_ONCE_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._parts:
            parts, self._parts, self._size = self._parts, [], 0
            self.transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def is_closing(self) -> bool:
        return self.transport.is_closing()

    def close(self) -> None:
        self.flush()
        self.transport.close()

    def abort(self) -> None:
        self._parts = []
        self.transport.abort()
