"""The system calls that decoding and inference need; every other one fails with EPERM.

The list was found by tracing (strace -f) the decoders over all test files and the shipped models. No file is opened, no process or
thread is made, and no memory becomes executable.
"""

import ctypes
import errno
import mmap
import os
import platform
import sys
from collections.abc import Iterator
from typing import Final, NamedTuple

from infrastructure.sandbox.kernel import PR_SET_SECCOMP, prctl

MODE_FILTER: Final = 2
ALLOW: Final = 0x7FFF_0000
REFUSE: Final = 0x0005_0000 | errno.EPERM
KILL: Final = 0x8000_0000

LOAD: Final = 0x20
JUMP_IF_EQUAL: Final = 0x15
JUMP_IF_AT_LEAST: Final = 0x35
JUMP_IF_ANY_BIT: Final = 0x45
RETURN: Final = 0x06

NUMBER_OFFSET: Final = 0
ARCHITECTURE_OFFSET: Final = 4
ARGUMENT_OFFSETS: Final = (16, 24, 32, 40, 48, 56)
"""In `struct seccomp_data`: the lower halves of the arguments on a little-endian machine."""

X32_BIT: Final = 0x4000_0000
"""Set in the numbers of x86-64's second table of system calls."""


class Architecture(NamedTuple):
    audit: int
    column: int
    has_x32: bool


ARCHITECTURES: Final = {
    "x86_64": Architecture(0xC000_003E, 0, has_x32=True),
    "aarch64": Architecture(0xC000_00B7, 1, has_x32=False),
}

CALLS_AND_ANSWERS: Final = {"read": (0, 63), "write": (1, 64)}
MEMORY: Final = {"brk": (12, 214), "munmap": (11, 215), "mremap": (25, 216), "madvise": (28, 233)}
LOCKS: Final = {"futex": (202, 98), "sched_yield": (24, 124)}
CLOCKS: Final = {
    "clock_gettime": (228, 113),
    "gettimeofday": (96, 169),
    "clock_nanosleep": (230, 115),
    "restart_syscall": (219, 128),
}
SIGNALS: Final = {"rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139)}
IDENTITY: Final = {"getpid": (39, 172), "gettid": (186, 178)}
RANDOMNESS: Final = {"getrandom": (318, 278)}
END: Final = {"exit_group": (231, 94)}
ALLOWED: Final = MEMORY | CALLS_AND_ANSWERS | LOCKS | CLOCKS | SIGNALS | IDENTITY | RANDOMNESS | END

NOT_EXECUTABLE: Final = {"mmap": (9, 222), "mprotect": (10, 226)}
"""Allowed without PROT_EXEC."""
PROTECTION_ARGUMENT: Final = 2
TO_ITSELF: Final = {"tgkill": (234, 131)}
"""Allowed for signals to this process: abort() sends one."""


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("if_true", ctypes.c_uint8), ("if_false", ctypes.c_uint8), ("value", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def is_supported_architecture() -> bool:
    return platform.machine() in ARCHITECTURES and sys.byteorder == "little"


def restrict() -> None:
    """Allow this process, for ever, only the calls above. Needs no_new_privs and a single thread. Raises OSError."""
    if not is_supported_architecture():
        raise OSError(errno.ENOSYS, f"there is no list of system calls for {platform.machine()}")
    instructions = list(_filter(ARCHITECTURES[platform.machine()], os.getpid()))
    program = _Program(len(instructions), (_Instruction * len(instructions))(*instructions))
    prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(program))


def _filter(architecture: Architecture, process: int) -> Iterator[_Instruction]:
    yield _Instruction(LOAD, 0, 0, ARCHITECTURE_OFFSET)
    yield _Instruction(JUMP_IF_EQUAL, 1, 0, architecture.audit)
    yield _Instruction(RETURN, 0, 0, KILL)
    yield _Instruction(LOAD, 0, 0, NUMBER_OFFSET)
    if architecture.has_x32:
        yield _Instruction(JUMP_IF_AT_LEAST, 0, 1, X32_BIT)
        yield _Instruction(RETURN, 0, 0, KILL)
    for numbers in ALLOWED.values():
        yield _Instruction(JUMP_IF_EQUAL, 0, 1, numbers[architecture.column])
        yield _Instruction(RETURN, 0, 0, ALLOW)
    for numbers in NOT_EXECUTABLE.values():
        yield from _checked(
            numbers[architecture.column], PROTECTION_ARGUMENT, JUMP_IF_ANY_BIT, mmap.PROT_EXEC, if_true=REFUSE, otherwise=ALLOW
        )
    for numbers in TO_ITSELF.values():
        yield from _checked(numbers[architecture.column], 0, JUMP_IF_EQUAL, process, if_true=ALLOW, otherwise=REFUSE)
    yield _Instruction(RETURN, 0, 0, REFUSE)


def _checked(number: int, argument: int, test: int, value: int, *, if_true: int, otherwise: int) -> Iterator[_Instruction]:
    yield _Instruction(JUMP_IF_EQUAL, 0, 4, number)
    yield _Instruction(LOAD, 0, 0, ARGUMENT_OFFSETS[argument])
    yield _Instruction(test, 0, 1, value)
    yield _Instruction(RETURN, 0, 0, if_true)
    yield _Instruction(RETURN, 0, 0, otherwise)
