"""Atomic file writes: a file is written completely or not at all."""

import os
from collections.abc import Iterable
from pathlib import Path


def write_atomically(path: Path, pieces: Iterable[bytes], *, user: int | None = None, durable: bool = True) -> None:
    """Replace the file at `path` by `pieces`, readable only by this user (or `user`). A durable file survives a power failure.

    Nothing remains of a write that fails. Raises OSError, and what `pieces` raises.
    """
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            if durable:
                os.fsync(file.fileno())
            if user is not None:
                os.fchown(file.fileno(), user, user)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def write_private(path: Path, text: str, *, user: int | None = None) -> None:
    """Write a durable, private file with `text` in UTF-8. Raises OSError."""
    write_atomically(path, [text.encode()], user=user)


def sync(path: Path | str) -> None:
    """Flush a file, or the directory entries of a folder, to disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
