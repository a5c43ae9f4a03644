"""System calls that Python does not wrap. Each raises OSError."""

import ctypes
import os
from typing import Final

LIBC: Final = ctypes.CDLL(None, use_errno=True)

PR_CAPBSET_DROP: Final = 24
PR_SET_SECCOMP: Final = 22
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
CLONE_NEWUSER: Final = 0x1000_0000
CLONE_NEWNET: Final = 0x4000_0000
CAPABILITY_VERSION: Final = 0x2008_0522
MAX_CAPABILITIES: Final = 64
NO_CAPABILITIES: Final = 0
FILE_CAPABILITIES: Final = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: open files regardless of their modes."""


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilitySets(ctypes.Structure):
    """The lower 32 capabilities, then the higher ones, which are never kept."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
        ("higher", ctypes.c_uint32 * 3),
    )


def prctl(option: int, argument: int = 0, pointer: object = None) -> None:
    """`pointer` is the third argument, by reference; None stands for 0."""
    third = pointer if pointer is not None else ctypes.c_ulong(0)
    checked(LIBC.prctl(option, ctypes.c_ulong(argument), third, ctypes.c_ulong(0), ctypes.c_ulong(0)))


def system_call(number: int, *arguments: int | None | object) -> int:
    """Integers are passed as longs, other arguments as ctypes passes them."""
    return checked(LIBC.syscall(ctypes.c_long(number), *(ctypes.c_long(one) if isinstance(one, int) else one for one in arguments)))


def unshare(flags: int) -> None:
    checked(LIBC.unshare(ctypes.c_int(flags)))


def drop_capabilities(*, keep: int = NO_CAPABILITIES) -> None:
    """Drop all capabilities from every set, except those in the bit mask `keep` that the process has.

    The bounding set keeps capabilities that the caller may not drop. Without new privileges they have no effect.
    """
    for capability in range(MAX_CAPABILITIES):
        if not keep >> capability & 1:
            LIBC.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
    if not keep:
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header, sets = _CapabilityHeader(CAPABILITY_VERSION, 0), _CapabilitySets()
    checked(LIBC.capget(ctypes.byref(header), ctypes.byref(sets)))
    kept = sets.permitted & keep
    remaining = _CapabilitySets(kept, kept, sets.inheritable & keep)  # the ambient set loses all others too
    checked(LIBC.capset(ctypes.byref(header), ctypes.byref(remaining)))


def checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
