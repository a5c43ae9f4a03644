"""Where the embedded system keeps what it keeps: the data folder, with one owner at a time, and a short private one for sockets."""

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from infrastructure.embedded.child import CannotStart

LOCK = "lock"
KEYS = "keys"  # a root key may lie there before the first start: the one of a backup
SOCKET_PATH_MOST = 107  # bytes of sun_path less its final NUL (unix(7))
LONGEST_SOCKET = "/postgres/.s.PGSQL.5432.lock"


class AlreadyRunning(Exception):
    """Somebody else has the data folder; the text says who, and what to do."""


@contextmanager
def claimed(data: Path) -> Iterator[None]:
    """Have the data folder for ourselves, made and closed to others. Raises AlreadyRunning or CannotStart."""
    _make_private(data)
    lock = os.open(data / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(
                f"{data} is in use by process {holder(data) or '?'}: stop that one first, or choose another folder with --data"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        (data / "logs").mkdir(mode=0o700, exist_ok=True)
        yield
    finally:
        os.close(lock)


def holder(data: Path) -> int | None:
    """The pid that has the data folder, None when nobody has."""
    try:
        lock = os.open(data / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.pread(lock, 32, 0).decode().strip() or 0)
    else:
        return None
    finally:
        os.close(lock)


def _make_private(data: Path) -> None:
    """Raises CannotStart for a folder that is not ours to close, or that holds other things."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = data.stat()
        if found.st_uid != os.geteuid():
            raise CannotStart(f"{data} belongs to another user (uid {found.st_uid}): choose another folder with --data")
        if not (data / LOCK).exists() and any(path.name != KEYS for path in data.iterdir()):
            raise CannotStart(f"{data} holds other things: choose an empty or a new folder with --data")
        data.chmod(0o700)
        if not os.access(data, os.W_OK | os.X_OK):
            raise CannotStart(f"{data} cannot be written to: choose another folder with --data")
    except OSError as error:
        raise CannotStart(f"{data} cannot be the data folder: {error.strerror}") from None


def sync_folder(path: Path) -> None:
    """Make a rename in it outlive a power cut."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def mark(data: Path) -> str:
    """What tells processes and sockets of this data folder from those of others."""
    return "bioscope-" + sha256(os.fsencode(data.resolve())).hexdigest()[:12]


def run_folder(data: Path) -> Path:
    """A short, private folder for the sockets of `data` (they may not have long paths). Raises CannotStart."""
    name = f"{mark(data).replace('-', f'-{os.geteuid()}-')}"
    path = _room(name) / name
    private = 0o711 if os.geteuid() == 0 else 0o700  # as root, Postgres is somebody else and must pass
    try:
        path.mkdir(mode=private, exist_ok=True)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise CannotStart(f"{path} is not ours: remove it, or set TMPDIR")
        path.chmod(private)
    except OSError as error:
        raise CannotStart(f"no folder for sockets at {path}: {error.strerror}; set TMPDIR") from None
    return path


def _room(name: str) -> Path:
    """The first temporary folder that is short enough and, for root, open to other users."""
    for candidate in (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")):  # noqa: S108 - what we make there is private
        short = len(os.fsencode(candidate / name)) + len(LONGEST_SOCKET) <= SOCKET_PATH_MOST
        if short and candidate.is_dir() and os.access(candidate, os.W_OK) and (os.geteuid() != 0 or passable(candidate)):
            return candidate
    raise CannotStart("no temporary folder with a short name is writable: set TMPDIR")


def passable(folder: Path) -> bool:
    """Whether every user may pass through `folder` and all that it lies in."""
    return all(step.stat().st_mode & stat.S_IXOTH for step in (folder.resolve(), *folder.resolve().parents))
