"""Landlock: which files a process may still open, and which sockets and processes it still reaches.

Constants from include/uapi/linux/landlock.h. Descriptors that are open stay usable, and connecting to a socket in a folder needs no right.
It holds for the calling thread and all that it starts: call it while there is no other.
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
"""System call numbers; those since 2019 are the same on every architecture."""
CREATE_RULESET_VERSION: Final = 1
PATH_BENEATH: Final = 1

FILE_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 5: 16}
"""By the ABI that brought the last of them: how many rights on files there are, one bit each."""
NETWORK_RIGHTS: Final = {4: 0b11}
SCOPES: Final = {6: 0b11}


class Rights(IntFlag):
    """On a file, or on a folder and all below it. REFER: to move files between folders that both have it."""

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
"""Those that a file can have; the others are of folders."""


class Rule(NamedTuple):
    """What stays allowed at a path, and below it where it is a folder."""

    path: Path
    rights: Rights


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
    _restrict(_Ruleset(_file_rights(abi), _known(NETWORK_RIGHTS, abi), _known(SCOPES, abi)), ())


def restrict_files(abi: int, rules: Iterable[Rule]) -> None:
    """Take away, for ever, every right on files but those of `rules`, and abstract sockets and signals to processes outside.

    Memory and environment of processes outside cannot be read any more. TCP stays. A rule for a path that is not there has no effect.
    Needs no_new_privs. Raises OSError.
    """
    _restrict(_Ruleset(_file_rights(abi), 0, _known(SCOPES, abi)), rules)


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
    return (1 << _known(FILE_RIGHTS, abi)) - 1


def _known(by_abi: dict[int, int], abi: int) -> int:
    return max((value for since, value in by_abi.items() if since <= abi), default=0)
