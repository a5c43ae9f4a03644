"""Landlock without any rule: no file can be opened, no TCP port used, no abstract socket or process outside reached.

Constants from include/uapi/linux/landlock.h. Descriptors that are open stay usable.
"""

import ctypes
import os
from typing import Final

from infrastructure.sandbox.kernel import system_call

CREATE_RULESET: Final = 444
RESTRICT_SELF: Final = 446
"""System call numbers; those since 2019 are the same on every architecture."""
CREATE_RULESET_VERSION: Final = 1

FILE_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 5: 16}
"""By the ABI that brought the last of them: how many rights on files there are, one bit each."""
NETWORK_RIGHTS: Final = {4: 0b11}
SCOPES: Final = {6: 0b11}


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


def abi_version() -> int:
    """0 where the kernel has no Landlock, or has it turned off."""
    try:
        return system_call(CREATE_RULESET, 0, 0, CREATE_RULESET_VERSION)
    except OSError:
        return 0


def restrict(abi: int) -> None:
    """Take away, for ever, every right that ABI version `abi` knows. Needs no_new_privs. Raises OSError."""
    files = max((count for since, count in FILE_RIGHTS.items() if since <= abi), default=0)
    network = max((bits for since, bits in NETWORK_RIGHTS.items() if since <= abi), default=0)
    scopes = max((bits for since, bits in SCOPES.items() if since <= abi), default=0)
    ruleset = _Ruleset((1 << files) - 1, network, scopes)
    descriptor = system_call(CREATE_RULESET, ctypes.byref(ruleset), ctypes.sizeof(ruleset), 0)
    try:
        system_call(RESTRICT_SELF, descriptor, 0)
    finally:
        os.close(descriptor)
