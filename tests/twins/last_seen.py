"""The in-memory twin of the times at which devices were last seen."""

from datetime import UTC, datetime


class MemoryLastSeen:
    """Behaves like `infrastructure.postgres.last_seen.PostgresLastSeen`."""

    def __init__(self, *, clock=lambda: datetime.now(UTC)):
        self._clock, self._seen = clock, {}

    def record(self, device):
        self._seen[device] = self._clock()

    def of(self, device):
        return self._seen.get(device)

    def forget(self, device):
        self._seen.pop(device, None)
