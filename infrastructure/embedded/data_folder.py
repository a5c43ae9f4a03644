"""The data folder, which one process at a time owns, and a folder with a short path for sockets if its path is too long."""

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from infrastructure.child_environment import TEMPORARY
from infrastructure.configuration.paths import run_folder
from infrastructure.process_lifecycle import CannotStart

LOCK = "lock"
KEYS = "keys"  # may contain the root key of a backup before the first start
MAX_SOCKET_PATH = 107  # bytes of sun_path without the final NUL, see unix(7)
LONGEST_SOCKET = "/postgres/.s.PGSQL.5432.lock"


class AlreadyRunning(Exception):
    """Another process uses the data folder. The message says which one, and what to do."""


@contextmanager
def locked(data: Path) -> Iterator[None]:
    """Create the data folder, private to this user, and lock it. Raises AlreadyRunning or CannotStart."""
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
        shutil.rmtree(data / TEMPORARY, ignore_errors=True)
        make_private(data / TEMPORARY)
        make_private(run_folder(data))
        yield
    finally:
        os.close(lock)


def holder(data: Path) -> int | None:
    """The pid of the process that has locked the data folder; None if it is not locked."""
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
    """Create the folder. Raises CannotStart for a folder of another user or with other content."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = data.stat()
        if status.st_uid != os.geteuid():
            raise CannotStart(f"{data} belongs to another user (uid {status.st_uid}): choose another folder with --data")
        if not (data / LOCK).exists() and any(path.name != KEYS for path in data.iterdir()):
            raise CannotStart(f"{data} contains other files: choose an empty or a new folder with --data")
        data.chmod(0o700)
        if not os.access(data, os.W_OK | os.X_OK):
            raise CannotStart(f"{data} cannot be written to: choose another folder with --data")
    except OSError as error:
        raise CannotStart(f"{data} cannot be the data folder: {error.strerror}") from None


def mark(data: Path) -> str:
    """A name that identifies processes and sockets of this data folder."""
    return "bioscope-" + sha256(os.fsencode(data.resolve())).hexdigest()[:12]


def socket_folder(data: Path, *, temporary_folders: Sequence[Path] | None = None) -> Path:
    """`run_folder`, or a private folder with a short path if that is too long for sockets. Raises CannotStart."""
    folder = run_folder(data.resolve())
    if fits_sockets(folder):
        return folder
    return _temporary_socket_folder(data, _temporary_folders() if temporary_folders is None else temporary_folders)


def fits_sockets(folder: Path) -> bool:
    return len(os.fsencode(folder)) + len(LONGEST_SOCKET) <= MAX_SOCKET_PATH


def make_private(folder: Path, mode: int = 0o700) -> None:
    """Create `folder` if it is missing, and make it private. Raises CannotStart if it belongs to another user, and OSError."""
    folder.mkdir(mode=mode, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise CannotStart(f"{folder} belongs to another user: remove it, or set TMPDIR")
    folder.chmod(mode)


def make_socket_folder(folder: Path) -> None:
    """Create the folder for sockets. As root it allows passage, since Postgres runs as another user. Raises CannotStart."""
    try:
        make_private(folder, 0o711 if os.geteuid() == 0 else 0o700)
    except OSError as error:
        raise CannotStart(f"no folder for sockets at {folder}: {error.strerror}; set TMPDIR") from None


def _temporary_socket_folder(data: Path, parents: Sequence[Path]) -> Path:
    name = mark(data).replace("-", f"-{os.geteuid()}-")
    for parent in parents:
        with suppress(CannotStart):
            if fits_sockets(parent / name) and (os.geteuid() != 0 or passable(parent)):
                make_socket_folder(parent / name)
                return parent / name
    raise CannotStart(
        f"the path of {data} is too long for sockets (at most {MAX_SOCKET_PATH} bytes), and no temporary folder can be used instead:"
        " choose a shorter path with --data, or set TMPDIR to a folder with a short path that you can write to"
    )


def _temporary_folders() -> list[Path]:
    named = [Path(os.environ[name]) for name in ("TMPDIR", "XDG_RUNTIME_DIR") if os.environ.get(name)]
    return [folder for folder in (*named, Path("/tmp"), Path("/var/tmp"), Path("/dev/shm")) if folder.is_dir()]  # noqa: S108 - made private


def passable(folder: Path) -> bool:
    """Whether every user may traverse `folder` and all its parents."""
    return all(step.stat().st_mode & stat.S_IXOTH for step in (folder.resolve(), *folder.resolve().parents))
