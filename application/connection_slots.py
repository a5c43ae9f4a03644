"""Room for so many at once, in total and for each address: the least recently active gives way, so nobody can fill it for others."""

from collections.abc import Callable
from ipaddress import IPv4Address, ip_address
from typing import Final

RECOGNISED: Final = "bioscope.recognised"  # the ASGI extension that moves a connection to the places of users
NETWORK_BYTES: Final = 8  # of an IPv6 address: a customer has a whole /64


def network_of(address: str) -> str:
    """What one customer holds: an IPv4 address, or the /64 of an IPv6 address. Anything else stays as it is."""
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
    """The room of one holder; `is_lost` once it was given to another. `leave` may be called more than once."""

    __slots__ = ("_beside", "_places", "address", "evict", "is_lost")

    def __init__(self, places: "ConnectionSlots", beside: "dict[ConnectionSlot, None]", address: str, evict: Callable[[], None]) -> None:
        self._places, self._beside, self.address, self.evict = places, beside, address, evict
        self.is_lost = False

    def touch(self) -> None:
        """The holder did something: others give way before it."""
        if self in self._beside:
            self._beside[self] = self._beside.pop(self)

    def leave(self) -> None:
        self._places.free(self, self._beside)


class ConnectionSlots:
    """At most `total` holders, and at most `each` of one address; 0 stands for no limit of one address.

    A newcomer always gets a place. Where none is free, the least recently active holder of its own address is evicted if that address
    holds as many as it may, else that of the address that holds most. `evict` is called in `take`, after the place was given away.
    """

    def __init__(self, *, total: int, each: int) -> None:
        self._total, self._each = total, each
        self._held: dict[str, dict[ConnectionSlot, None]] = {}
        self.count = 0

    def take(self, address: str, evict: Callable[[], None]) -> ConnectionSlot:
        beside = self._held.get(address, {})
        if self._each and len(beside) >= self._each:
            self._give_way(beside)
        elif self.count >= self._total:
            self._give_way(max(self._held.values(), key=len))
        beside = self._held.setdefault(address, beside)
        place = ConnectionSlot(self, beside, address, evict)
        beside[place] = None
        self.count += 1
        return place

    def free(self, place: ConnectionSlot, beside: dict[ConnectionSlot, None]) -> None:
        if place in beside:
            del beside[place]
            self.count -= 1
            if not beside:
                self._held.pop(place.address, None)

    def _give_way(self, holders: dict[ConnectionSlot, None]) -> None:
        oldest = next(iter(holders))
        oldest.leave()
        oldest.is_lost = True
        oldest.evict()
