"""Landlock: limits the files that a process may open, and the sockets and processes that it may reach.

Constants are from include/uapi/linux/landlock.h. Open descriptors stay usable, and connecting to a socket in a folder needs no right.
The limits apply to the calling thread and its children, so they must be set while there is no other thread.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from contextlib import suppress
from enum import IntFlag
from pathlib import Path
from typing import Final, NamedTuple

from infrastructure.sandbox.kernel import system_call

CREATE_RULESET: Final = 444
ADD_RULE: Final = 445
RESTRICT_SELF: Final = 446
"""System call numbers. Numbers assigned since 2019 are the same on every architecture."""
CREATE_RULESET_VERSION: Final = 1
PATH_BENEATH: Final = 1

FILE_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 5: 16}
"""Number of file rights (one bit each) since an ABI version."""
NETWORK_RIGHTS: Final = {4: 0b11}
SCOPES: Final = {6: 0b11}


class Rights(IntFlag):
    """Rights on a file, or on a folder and everything below it. REFER allows moves between folders that both have it."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


OF_FILES: Final = Rights.EXECUTE | Rights.WRITE_FILE | Rights.READ_FILE | Rights.TRUNCATE | Rights.IOCTL_DEV
"""Rights that apply to files; the others apply to folders."""


class Rule(NamedTuple):
    """The rights that remain at a path, and below it if it is a folder."""

    path: Path
    rights: Rights


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


def abi_version() -> int:
    """The version of Landlock's ABI; 0 if the kernel lacks it or has it disabled."""
    try:
        return system_call(CREATE_RULESET, 0, 0, CREATE_RULESET_VERSION)
    except OSError:
        return 0


def restrict(abi: int) -> None:
    """Remove permanently every right that ABI version `abi` knows. Needs no_new_privs. Raises OSError."""
    _restrict(_Ruleset(_file_rights(abi), _supported_by(NETWORK_RIGHTS, abi), _supported_by(SCOPES, abi)), ())


def restrict_files(abi: int, rules: Iterable[Rule]) -> None:
    """Remove permanently all rights on files except `rules`, and abstract sockets and signals to other processes.

    The memory and environment of other processes can no longer be read. TCP is not limited. A rule for a missing path has no effect.
    Needs no_new_privs. Raises OSError.
    """
    _restrict(_Ruleset(_file_rights(abi), 0, _supported_by(SCOPES, abi)), rules)


def _restrict(ruleset: _Ruleset, rules: Iterable[Rule]) -> None:
    descriptor = system_call(CREATE_RULESET, ctypes.byref(ruleset), ctypes.sizeof(ruleset), 0)
    try:
        for rule in rules:
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                _add(descriptor, rule, handled=ruleset.files)
        system_call(RESTRICT_SELF, descriptor, 0)
    finally:
        os.close(descriptor)


def _add(descriptor: int, rule: Rule, *, handled: int) -> None:
    opened = os.open(rule.path, os.O_PATH | os.O_CLOEXEC)
    try:
        rights = rule.rights & handled
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            rights &= OF_FILES
        if rights:
            system_call(ADD_RULE, descriptor, PATH_BENEATH, struct.pack("=Qi", rights, opened), 0)
    finally:
        os.close(opened)


def _file_rights(abi: int) -> int:
    return (1 << _supported_by(FILE_RIGHTS, abi)) - 1


def _supported_by(by_abi: dict[int, int], abi: int) -> int:
    return max((value for since, value in by_abi.items() if since <= abi), default=0)
