"""Verification of file digests before any byte is sent."""

import hashlib
import os
import time
from threading import Lock
from typing import Any, Final, NamedTuple

from cachetools import LRUCache

MAX_FILES: Final = 4096
SETTLED_SECONDS: Final = 2.0
"""Minimum age of a file's last change. Two changes within one tick of the file system's clock look the same."""


class FileIdentity(NamedTuple):
    """Properties that change with the content of a file. The owner cannot reset the time of the last change (ctime)."""

    device: int
    inode: int
    size: int
    changed_ns: int


class VerifiedFiles:
    """Caches which files were verified, so that reading a part does not require reading the whole file again. Thread-safe."""

    def __init__(self, *, max_files: int = MAX_FILES, settled_seconds: float = SETTLED_SECONDS) -> None:
        self._verified: LRUCache[str, FileIdentity] = LRUCache(max_files)
        self._settled_seconds = settled_seconds
        self._lock = Lock()

    def has_digest(self, file: Any, sha256: str) -> bool:
        """Whether an open file has this digest. Blocks. A file that was read is rewound."""
        identity = _identity(file)
        if identity is not None and self._is_verified(sha256, identity):
            return True
        file.seek(0)
        matches = hashlib.file_digest(file, "sha256").hexdigest() == sha256
        file.seek(0)
        if matches and identity is not None and identity == _identity(file) and self._is_settled(identity):
            self._remember(sha256, identity)
        return matches

    def _is_verified(self, sha256: str, identity: FileIdentity) -> bool:
        with self._lock:
            return self._verified.get(sha256) == identity

    def _remember(self, sha256: str, identity: FileIdentity) -> None:
        with self._lock:
            self._verified[sha256] = identity

    def _is_settled(self, identity: FileIdentity) -> bool:
        return time.time() - identity.changed_ns / 1e9 > self._settled_seconds


def _identity(file: Any) -> FileIdentity | None:
    """The identity of a local file. None for other files, which are verified each time."""
    try:
        status = os.fstat(file.fileno())
    except OSError:
        return None
    return FileIdentity(status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns)
