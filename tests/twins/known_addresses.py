"""The in-memory twin of known addresses."""

import time


class MemoryKnownAddresses:
    """Behaves like `infrastructure.security.known_addresses.PostgresKnownAddresses`."""

    def __init__(self, *, days=30, clock=time.monotonic):
        self._seconds, self._clock, self._seen = days * 86400, clock, {}

    def knows(self, user, network):
        return (user, network) in self._seen and self._clock() - self._seen[user, network] < self._seconds

    def remember(self, user, network):
        self._seen[user, network] = self._clock()
