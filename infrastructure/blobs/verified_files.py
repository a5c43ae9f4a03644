"""Files that are compared with their digest before a byte of them is handed out."""

import hashlib
import os
import time
from collections import OrderedDict
from threading import Lock
from typing import Any, Final, NamedTuple

MAX_REMEMBERED: Final = 4096
SETTLED_SECONDS: Final = 2.0  # since its last change: within one tick of the file system's clock two changes look like one


class FileIdentity(NamedTuple):
    """What of a file changes with its content, and cannot be set back by its owner: the time of its last change."""

    device: int
    inode: int
    size: int
    changed_ns: int


class VerifiedFiles:
    """Remembers which files had the right content, so that a part of a file does not cost a look at all of it. Threads may share it."""

    def __init__(self) -> None:
        self._right: OrderedDict[str, FileIdentity] = OrderedDict()
        self._lock = Lock()

    def has_digest(self, file: Any, sha256: str) -> bool:
        """Whether the content of an open file is what `sha256` names. Blocks; the file stands at its beginning afterwards."""
        identity = _identity(file)
        if identity is not None and self._knows(sha256, identity):
            return True
        file.seek(0)
        right = hashlib.file_digest(file, "sha256").hexdigest() == sha256
        file.seek(0)
        if right and identity is not None and identity == _identity(file) and _is_settled(identity):
            self._remember(sha256, identity)
        return right

    def _knows(self, sha256: str, identity: FileIdentity) -> bool:
        with self._lock:
            return self._right.get(sha256) == identity

    def _remember(self, sha256: str, identity: FileIdentity) -> None:
        with self._lock:
            self._right[sha256] = identity
            self._right.move_to_end(sha256)
            if len(self._right) > MAX_REMEMBERED:
                self._right.popitem(last=False)


def _identity(file: Any) -> FileIdentity | None:
    """None for what is no file of this machine: it is compared each time."""
    try:
        about = os.fstat(file.fileno())
    except OSError:
        return None
    return FileIdentity(about.st_dev, about.st_ino, about.st_size, about.st_ctime_ns)


def _is_settled(identity: FileIdentity) -> bool:
    return time.time() - identity.changed_ns / 1e9 > SETTLED_SECONDS
