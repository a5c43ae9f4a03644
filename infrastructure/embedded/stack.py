"""The whole system under one roof: servers, then `prepare`, then the processes; all looked after, all taken down together."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from infrastructure.configuration.settings import Settings, variable
from infrastructure.embedded.broker import Broker
from infrastructure.embedded.child import READY_FILE, CannotStart, Child, last_words, open_log, shorten_log
from infrastructure.embedded.data_folder import claimed, make_private, run_folder
from infrastructure.embedded.installation import ensure_root_key, environment, publish, with_absolute_paths, with_free_port, withdraw
from infrastructure.embedded.log_tail import LogTail
from infrastructure.embedded.postgres.server import APP_ROLE, Postgres
from infrastructure.embedded.redis import Redis
from infrastructure.embedded.restarting import ProcessDefinition, RestartingProcess
from infrastructure.embedded.server import EmbeddedServer
from infrastructure.observability.crash_counts import CRASHES_OF_A_LOOP, crashes_file, record_crash
from infrastructure.security.key_ring import RootKey
from infrastructure.security.process_keys import PROCESS_NEEDS, write_key_file

POLL_INTERVAL_SECONDS = 0.25  # seconds between two looks at what runs; the start looks ten times as often
START_POLL_INTERVAL_SECONDS = 0.025
SERVERS_READY_TIMEOUT_SECONDS = 60.0
PROCESSES_READY_TIMEOUT_SECONDS = 120.0
MAX_DEATHS_BEFORE_READY = 3
PROCESSES_STOP_TIMEOUT_SECONDS = 6.0
SHORTEN_LOGS_INTERVAL_SECONDS = 60.0
EMBEDDED_FETCH_WAIT_SECONDS = 0.003  # the embedded broker does not wake a waiting fetch


class Stopped(Exception):
    """We were told to stop while still starting."""


class EmbeddedStack:
    """`run` returns once `stop` was called, from a signal handler or another thread, and everything has ended."""

    def __init__(
        self,
        settings: Settings,
        *,
        processes: Sequence[ProcessDefinition],
        prepare: Callable[[Settings], object],
        tell: Callable[[str], None],
        verbose: bool = False,
    ) -> None:
        self.settings = with_absolute_paths(settings)
        self._processes = processes
        self._prepare = prepare
        self._tell_user = tell
        self._verbose = verbose
        self._echo = LogTail(None)
        self._logs_due = 0.0
        self._root_key: RootKey | None = None
        self._stopping = threading.Event()
        self._servers: dict[str, EmbeddedServer] = {}
        self._tended: dict[str, RestartingProcess] = {}

    def stop(self) -> None:
        self._stopping.set()

    def pid(self, name: str) -> int:
        child = self._tended[name].child
        if child is None:
            raise LookupError(f"{name} does not run just now")
        return child.pid

    def run(self, on_ready: Callable[[Settings], None]) -> None:
        """Raises AlreadyRunning, CannotStart, and what `prepare` raises."""
        with claimed(self.settings.data):
            self._echo = LogTail(self._logs if self._verbose else None)
            try:
                self._start()
                self._note("ready")
                on_ready(self.settings)
                while not self._stopping.wait(POLL_INTERVAL_SECONDS):
                    self._tend()
            except Stopped:
                pass
            finally:
                self._end()
                self._echo.repeat()

    @property
    def _logs(self) -> Path:
        return self.settings.data / "logs"

    def _tell(self, text: str) -> None:
        self._note(text)
        self._tell_user(text)

    def _note(self, text: str) -> None:
        with suppress(OSError):  # a full disk must not end the system
            log = open_log(self._logs / "supervisor.log")
            os.write(log, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text}\n".encode())
            os.close(log)

    # ---- start -------------------------------------------------------------------------------------------------------------------
    def _start(self) -> None:
        withdraw(self.settings.data)
        crashes_file(self.settings.data).unlink(missing_ok=True)
        self.settings = with_free_port(self.settings)
        ensure_root_key(self.settings)
        if self._processes:
            self._root_key = RootKey.read(self.settings.root_key_path)
        self._start_servers()
        self._prepare(self.settings)
        for process in self._processes:
            self._tend_this(process.name, partial(self._spawned, process))
        self._await(self._serves, PROCESSES_READY_TIMEOUT_SECONDS, self._unready_processes)
        publish(self.settings)

    def _start_servers(self) -> None:
        """All at once; Postgres last, since making its cluster takes a second."""
        data, given = self.settings.data, self.settings
        roles = sorted({APP_ROLE, *(process.database_role for process in self._processes)})
        embedded = ((Broker, given.kafka_url), (Redis, given.redis_url), (partial(Postgres, roles=roles), given.postgres_url))
        servers: list[EmbeddedServer] = [start(data) for start, url in embedded if not url]
        self._servers = {server.name: server for server in servers}
        for name, server in self._servers.items():
            self._tend_this(name, server.start)
        for server in self._servers.values():
            self._await(server.ready, SERVERS_READY_TIMEOUT_SECONDS, self._unready_servers)
        self._take_addresses()

    def _take_addresses(self) -> None:
        taken: dict[str, str | float | bool] = {}
        for server in self._servers.values():
            match server:
                case Postgres():
                    taken |= {"postgres_url": server.app_url, "postgres_owner_url": server.owner_url}
                case Broker():
                    taken |= {"kafka_url": server.url, "kafka_fetch_wait": EMBEDDED_FETCH_WAIT_SECONDS, "kafka_groups": False}
                case Redis():
                    taken["redis_url"] = server.url
        self.settings = msgspec.structs.replace(self.settings, **taken)

    def _tend_this(self, name: str, start: Callable[[], Child]) -> None:
        if self._stopping.is_set():
            raise Stopped
        self._tended[name] = RestartingProcess(name, start, self._logs / f"{name}.log")
        self._tended[name].start()

    def _spawned(self, process: ProcessDefinition) -> Child:
        ready = self._ready_file(process)
        make_private(ready.parent)
        ready.write_bytes(b"")  # for a process that may write to this file, and make none beside it
        variables = environment(self._settings_of(process), os.environ) | {READY_FILE: str(ready)}
        variables.pop(variable("root_key_file"), None)
        return Child(process.argv, log=self._logs / f"{process.name}.log", environment=variables, folder=self.settings.data)

    def _settings_of(self, process: ProcessDefinition) -> Settings:
        """With its own keys and database role. The first process has the metrics port, the next one the next."""
        first, postgres = self.settings.metrics_port, self._servers.get(Postgres.name)
        return msgspec.structs.replace(
            self.settings,
            metrics_port=first + self._processes.index(process) if first else 0,
            postgres_url=postgres.url(user=process.database_role) if isinstance(postgres, Postgres) else self.settings.postgres_url,
            key_file=self._written_key_file(process),
        )

    def _written_key_file(self, process: ProcessDefinition) -> str:
        """The path of the file with its keys; empty for a process that needs none."""
        if not PROCESS_NEEDS.get(process.name) or self._root_key is None:
            return ""
        write_key_file(self._key_file(process), self._root_key, process.name)
        return str(self._key_file(process))

    def _key_file(self, process: ProcessDefinition) -> Path:
        return run_folder(self.settings.data) / f"{process.name}.keys"

    def _ready_file(self, process: ProcessDefinition) -> Path:
        return run_folder(self.settings.data) / f"{process.name}.ready"

    def _serves(self) -> bool:
        """Whether all that say when they are ready are. Raises CannotStart for one that keeps dying before."""
        self._tend()
        for process in self._processes:
            if process.ready is not None and self._tended[process.name].deaths >= MAX_DEATHS_BEFORE_READY:
                raise CannotStart(f"{process.name} keeps ending; the last it said:\n{last_words(self._logs / f'{process.name}.log')}")
        return not self._unready_processes()

    def _unready_processes(self) -> list[str]:
        return [one.name for one in self._processes if one.ready is not None and not one.ready(self.settings, self._ready_file(one))]

    def _unready_servers(self) -> list[str]:
        return [name for name, server in self._servers.items() if not server.ready()]

    def _await(self, done: Callable[[], bool], seconds: float, unready: Callable[[], list[str]]) -> None:
        until = time.monotonic() + seconds
        while not done():
            if self._stopping.wait(START_POLL_INTERVAL_SECONDS):
                raise Stopped
            if time.monotonic() > until:
                raise CannotStart(f"not ready after {seconds:.0f} s: {', '.join(unready())}; the logs are in {self._logs}")

    # ---- keep running ------------------------------------------------------------------------------------------------------------
    def _tend(self) -> None:
        self._echo.repeat()
        self._shorten_logs()
        self._stop_unreachable_servers()
        for name in list(self._tended):
            deaths = self._tended[name].deaths
            if self._tended[name].check(self._tell) and name == Broker.name:
                self._follow_broker()
            if self._tended[name].deaths > deaths:
                self._record_crash(name)

    def _record_crash(self, name: str) -> None:
        crashes = record_crash(crashes_file(self.settings.data), name)
        if crashes == CRASHES_OF_A_LOOP:
            log = self._tended[name].log
            self._tell(f"{name} keeps ending: {crashes} times within a minute. The end of {log}:\n{last_words(log)}")

    def _stop_unreachable_servers(self) -> None:
        """A server whose socket was removed, by a cleaner of temporary files for example, is started again like one that died."""
        for server in self._servers.values():
            if server.lost_socket():
                self._tell(f"the socket of {server.name} was removed: {server.socket}")
                server.stop()

    def _shorten_logs(self) -> None:
        if time.monotonic() >= self._logs_due:
            self._logs_due = time.monotonic() + SHORTEN_LOGS_INTERVAL_SECONDS
            with suppress(OSError):
                for log in self._logs.glob("*.log"):
                    shorten_log(log)

    def _follow_broker(self) -> None:
        """The broker came back elsewhere and empty: tell its clients, by starting them again."""
        try:
            self._await(self._servers[Broker.name].ready, SERVERS_READY_TIMEOUT_SECONDS, self._unready_servers)
        except (CannotStart, Stopped):
            return  # looked after again in a moment, or over
        self._take_addresses()
        with suppress(OSError):
            publish(self.settings)
        followers = [process for process in self._processes if process.follows_broker and process.name in self._tended]
        self._tell(f"the broker is at {self.settings.kafka_url} now; starting its clients again")
        self._end_processes(followers)
        for process in followers:
            self._tended[process.name].restart(self._tell)

    # ---- end ---------------------------------------------------------------------------------------------------------------------
    def _end(self) -> None:
        """The API first, while its answers can still be had; then the other processes together; then the servers."""
        withdraw(self.settings.data)
        started = [process for process in self._processes if process.name in self._tended]
        until = time.monotonic() + PROCESSES_STOP_TIMEOUT_SECONDS
        self._end_processes(started[-1:], until=until)
        self._end_processes(started[:-1], until=until)
        crashes_file(self.settings.data).unlink(missing_ok=True)
        for process in started:
            self._ready_file(process).unlink(missing_ok=True)
            self._key_file(process).unlink(missing_ok=True)
        for server in self._servers.values():
            server.stop(within=min(server.stops_within, 2.5))

    def _end_processes(self, processes: Sequence[ProcessDefinition], *, until: float = float("inf")) -> None:
        children = [(child, process.grace) for process in processes if (child := self._tended[process.name].child) is not None]
        asked = time.monotonic()
        for child, _ in children:
            child.ask_to_stop()
        for child, grace in children:
            child.ended(within=min(asked + grace, until) - time.monotonic())
            child.kill()
