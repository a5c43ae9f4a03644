"""Slots for connections, in total and for each address: the least recently active connection is evicted for a new one."""

from collections.abc import Callable
from ipaddress import IPv4Address, ip_address
from typing import Final

RECOGNISED: Final = "bioscope.recognised"  # ASGI extension that moves a connection to the slots for users
NETWORK_BYTES: Final = 8  # of an IPv6 address, since one customer has a whole /64


def network_of(address: str) -> str:
    """The network that counts as one client: an IPv4 address, or the /64 of an IPv6 address. Any other text is returned unchanged."""
    if ":" not in address:
        return address
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, IPv4Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return f"{ip_address(found.packed[:NETWORK_BYTES].ljust(16, bytes(1)))}/64"


class ConnectionSlot:
    """The slot of one connection. `is_lost` is set by an eviction. `release` may be called more than once."""

    __slots__ = ("_neighbours", "_slots", "address", "evict", "is_lost")

    def __init__(self, slots: "ConnectionSlots", neighbours: "dict[ConnectionSlot, None]", address: str, evict: Callable[[], None]) -> None:
        self._slots, self._neighbours, self.address, self.evict = slots, neighbours, address, evict
        self.is_lost = False

    def touch(self) -> None:
        """Mark the connection as the most recently active one of its address."""
        if self in self._neighbours:
            self._neighbours[self] = self._neighbours.pop(self)

    def release(self) -> None:
        self._slots.free(self, self._neighbours)


class ConnectionSlots:
    """At most `total` connections, and at most `each` per address (0: no limit per address).

    A new connection always gets a slot. If none is free, the least recently active connection is evicted: of the same address if that is
    at its limit, else of the address with the most connections. `acquire` calls `evict` after the slot was freed.
    """

    def __init__(self, *, total: int, each: int) -> None:
        self._total, self._each = total, each
        self._by_address: dict[str, dict[ConnectionSlot, None]] = {}
        self.count = 0

    def acquire(self, address: str, evict: Callable[[], None]) -> ConnectionSlot:
        neighbours = self._by_address.get(address, {})
        if self._each and len(neighbours) >= self._each:
            self._evict_oldest(neighbours)
        elif self.count >= self._total:
            self._evict_oldest(max(self._by_address.values(), key=len))
        neighbours = self._by_address.setdefault(address, neighbours)
        slot = ConnectionSlot(self, neighbours, address, evict)
        neighbours[slot] = None
        self.count += 1
        return slot

    def free(self, slot: ConnectionSlot, neighbours: dict[ConnectionSlot, None]) -> None:
        if slot in neighbours:
            del neighbours[slot]
            self.count -= 1
            if not neighbours:
                self._by_address.pop(slot.address, None)

    def _evict_oldest(self, holders: dict[ConnectionSlot, None]) -> None:
        oldest = next(iter(holders))
        oldest.release()
        oldest.is_lost = True
        oldest.evict()
