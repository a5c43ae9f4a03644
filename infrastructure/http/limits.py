"""The state and limits that all connections of the HTTP server share."""

import resource
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from application.limits.connection_slots import ConnectionSlot, ConnectionSlots, network_of
from infrastructure.configuration.settings import Settings, networks

SEND_TIMEOUT_SECONDS: Final = 30.0  # within which a client must read some of the waiting data
MAX_DESCRIPTORS: Final = 65_536
RESERVED_DESCRIPTORS: Final = 256  # for other files and sockets of the process


class ConnectionLimits:
    """The connection slots of a server, and whether it is ending.

    A client is anonymous until the application has recognised it. Anonymous clients have separate slots, so that they cannot use up those
    of users.
    """

    def __init__(self, settings: Settings, *, send_timeout_seconds: float = SEND_TIMEOUT_SECONDS) -> None:
        self.settings, self.send_timeout_seconds = settings, send_timeout_seconds
        self.ending = False
        self._proxies: Sequence[IPv4Network | IPv6Network] = networks(settings)
        available = max(64, _descriptors() - RESERVED_DESCRIPTORS)
        anonymous = min(settings.anonymous_connections, available // 3)
        self.anonymous = ConnectionSlots(total=anonymous, each=settings.connections_per_address)
        self.users = ConnectionSlots(total=min(settings.connections, available - anonymous), each=settings.connections_per_address)
        self._proxied = ConnectionSlots(total=available, each=0)

    def enter(self, address: str, evict: Callable[[], None]) -> "HeldSlot":
        if self._proxies and self._is_proxy(address):
            return HeldSlot(self._proxied.acquire(address, evict), None)
        return HeldSlot(self.anonymous.acquire(network_of(address), evict), self.users)

    def _is_proxy(self, address: str) -> bool:
        try:
            return any(ip_address(address) in network for network in self._proxies)
        except ValueError:
            return False


class HeldSlot:
    """The slot of one connection, which is anonymous until the client is recognised."""

    def __init__(self, slot: ConnectionSlot, users: ConnectionSlots | None) -> None:
        self.slot, self._users = slot, users

    def recognised(self) -> None:
        if self._users is not None and not self.slot.is_lost:
            self.slot.release()
            self.slot = self._users.acquire(self.slot.address, self.slot.evict)
            self._users = None


def _descriptors() -> int:
    """Raise the limit of open files as far as permitted, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return max(soft, limit)
