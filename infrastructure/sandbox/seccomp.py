"""Seccomp: limits the system calls of a process. All others fail with EPERM.

Decoders and models have a list of allowed calls; the process that starts them has a list of refused calls. The first list was determined by
tracing (strace -f) the decoders on all test files and the bundled models. It allows no opening of files, no new processes or threads, and
no executable memory.
"""

import ctypes
import errno
import mmap
import os
import platform
import sys
from collections.abc import Iterator, Mapping
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
"""Offsets in `struct seccomp_data` of the lower halves of the arguments, on a little-endian machine."""

X32_BIT: Final = 0x4000_0000
"""Set in the numbers of the x32 system calls of x86-64."""


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
"""Allowed only without PROT_EXEC."""
PROTECTION_ARGUMENT: Final = 2
TO_ITSELF: Final = {"tgkill": (234, 131)}
"""Allowed only for signals to this process, as abort() sends."""

NONE: Final = -1
"""The architecture does not have this call."""
MODES: Final = {"chmod": (90, NONE), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452)}
OWNERS: Final = {"chown": (92, NONE), "fchown": (93, 55), "lchown": (94, NONE), "fchownat": (260, 54)}
TIMES: Final = {"utime": (132, NONE), "utimes": (235, NONE), "futimesat": (261, NONE), "utimensat": (280, 88)}
ATTRIBUTES: Final = {
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
}
PAST_FILTERS: Final = {"io_uring_setup": (425, 425)}
"""It can make other calls that bypass the filter."""
METADATA: Final = MODES | OWNERS | TIMES | ATTRIBUTES | PAST_FILTERS
"""Changes of file metadata, which Landlock does not cover."""


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("if_true", ctypes.c_uint8), ("if_false", ctypes.c_uint8), ("value", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def is_supported_architecture() -> bool:
    return platform.machine() in ARCHITECTURES and sys.byteorder == "little"


def restrict() -> None:
    """Limit this process permanently to the calls listed above. Needs no_new_privs and a single thread. Raises OSError."""
    _install(_computing(_architecture(), os.getpid()))


def refuse_metadata() -> None:
    """Refuse the calls of METADATA permanently. Needs no_new_privs and a single thread. Raises OSError."""
    _install(_without_metadata(_architecture()))


def _architecture() -> Architecture:
    """The architecture of this machine. Raises OSError if it is not supported."""
    if not is_supported_architecture():
        raise OSError(errno.ENOSYS, f"there is no list of system calls for {platform.machine()}")
    return ARCHITECTURES[platform.machine()]


def _install(found: Iterator[_Instruction]) -> None:
    """Install the filter. Raises OSError."""
    instructions = list(found)
    program = _Program(len(instructions), (_Instruction * len(instructions))(*instructions))
    prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(program))


def _computing(architecture: Architecture, process: int) -> Iterator[_Instruction]:
    yield from _number_of(architecture)
    yield from _answered(ALLOWED, architecture, ALLOW)
    for numbers in NOT_EXECUTABLE.values():
        yield from _checked(
            numbers[architecture.column], PROTECTION_ARGUMENT, JUMP_IF_ANY_BIT, mmap.PROT_EXEC, if_true=REFUSE, otherwise=ALLOW
        )
    for numbers in TO_ITSELF.values():
        yield from _checked(numbers[architecture.column], 0, JUMP_IF_EQUAL, process, if_true=ALLOW, otherwise=REFUSE)
    yield _Instruction(RETURN, 0, 0, REFUSE)


def _without_metadata(architecture: Architecture) -> Iterator[_Instruction]:
    yield from _number_of(architecture)
    yield from _answered(METADATA, architecture, REFUSE)
    yield _Instruction(RETURN, 0, 0, ALLOW)


def _number_of(architecture: Architecture) -> Iterator[_Instruction]:
    """Load the number of the call. A call of another architecture kills the process."""
    yield _Instruction(LOAD, 0, 0, ARCHITECTURE_OFFSET)
    yield _Instruction(JUMP_IF_EQUAL, 1, 0, architecture.audit)
    yield _Instruction(RETURN, 0, 0, KILL)
    yield _Instruction(LOAD, 0, 0, NUMBER_OFFSET)
    if architecture.has_x32:
        yield _Instruction(JUMP_IF_AT_LEAST, 0, 1, X32_BIT)
        yield _Instruction(RETURN, 0, 0, KILL)


def _answered(calls: Mapping[str, tuple[int, int]], architecture: Architecture, answer: int) -> Iterator[_Instruction]:
    for numbers in calls.values():
        if (number := numbers[architecture.column]) != NONE:
            yield _Instruction(JUMP_IF_EQUAL, 0, 1, number)
            yield _Instruction(RETURN, 0, 0, answer)


def _checked(number: int, argument: int, test: int, value: int, *, if_true: int, otherwise: int) -> Iterator[_Instruction]:
    yield _Instruction(JUMP_IF_EQUAL, 0, 4, number)
    yield _Instruction(LOAD, 0, 0, ARGUMENT_OFFSETS[argument])
    yield _Instruction(test, 0, 1, value)
    yield _Instruction(RETURN, 0, 0, if_true)
    yield _Instruction(RETURN, 0, 0, otherwise)
