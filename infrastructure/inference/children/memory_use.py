"""The memory of a child: how much it may take, and how much it has allocated. The sandbox forbids reading that from the kernel."""

import ctypes
import resource
from pathlib import Path
from typing import Final

STATM: Final = Path("/proc/self/statm")
UNLIMITED_BYTES: Final = 1024**3
"""What a process may take that has no limit of its own, such as a test."""


class _Mallinfo2(ctypes.Structure):
    """malloc(3) of glibc 2.33. `uordblks` are allocated bytes, `hblkhd` those in mappings of their own."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    )


_mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
if _mallinfo2 is not None:
    _mallinfo2.restype = _Mallinfo2

_allowed_bytes = UNLIMITED_BYTES


def limit_memory(allowed: int) -> None:
    """Refuse more than `allowed` bytes of address space beyond the present size. To be called before the sandbox is entered."""
    global _allowed_bytes
    pages = int(STATM.read_text().split()[0])
    maximum = pages * resource.getpagesize() + allowed
    resource.setrlimit(resource.RLIMIT_AS, (maximum, maximum))
    _allowed_bytes = allowed


def allowed_bytes() -> int:
    """What this process may take beyond its initial size."""
    return _allowed_bytes


def allocated_bytes() -> int:
    """What libraries such as the runtime and NumPy have allocated now; 0 where the C library cannot say."""
    if _mallinfo2 is None:
        return 0
    found = _mallinfo2()
    return int(found.uordblks + found.hblkhd)
