"""The embedded stack: starts servers, calls `prepare`, starts processes, restarts what ends, and stops everything."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from infrastructure.configuration.paths import run_folder
from infrastructure.configuration.settings import Settings, variable
from infrastructure.embedded.broker import Broker
from infrastructure.embedded.child import Child, log_end, open_log, shorten_log
from infrastructure.embedded.data_folder import locked, make_private
from infrastructure.embedded.installation import ensure_root_key, environment, publish, with_absolute_paths, with_free_port, withdraw
from infrastructure.embedded.log_tail import LogTail
from infrastructure.embedded.postgres.server import APP_ROLE, Postgres
from infrastructure.embedded.redis import Redis
from infrastructure.embedded.restarting import ProcessDefinition, RestartingProcess
from infrastructure.embedded.server import EmbeddedServer
from infrastructure.observability.crash_counts import CRASHES_OF_A_LOOP, crashes_file, record_crash
from infrastructure.process_lifecycle import READY_FILE, CannotStart
from infrastructure.security.key_ring import RootKey
from infrastructure.security.process_keys import PROCESS_NEEDS, write_key_file

MAX_DEATHS_BEFORE_READY = 3
EMBEDDED_FETCH_WAIT_SECONDS = 0.003  # the embedded broker does not end a waiting fetch when records arrive


class StackLimits(NamedTuple):
    """Check intervals, and timeouts of starts and stops, in seconds."""

    check_seconds: float = 0.25
    start_check_seconds: float = 0.025
    servers_ready_seconds: float = 60.0
    processes_ready_seconds: float = 120.0
    processes_stop_seconds: float = 6.0
    shorten_logs_seconds: float = 60.0


DEFAULT_LIMITS = StackLimits()


class Stopped(Exception):
    """`stop` was called while the stack was starting."""


class EmbeddedStack:
    """Runs servers and processes. `run` returns when everything has ended after `stop`, which any thread or signal handler may call."""

    def __init__(
        self,
        settings: Settings,
        *,
        processes: Sequence[ProcessDefinition],
        prepare: Callable[[Settings], object],
        report: Callable[[str], None],
        verbose: bool = False,
        limits: StackLimits = DEFAULT_LIMITS,
    ) -> None:
        self.settings = with_absolute_paths(settings)
        self._limits = limits
        self._processes = processes
        self._prepare = prepare
        self._report_to_user = report
        self._verbose = verbose
        self._log_tail = LogTail(None)
        self._shorten_logs_at = 0.0
        self._root_key: RootKey | None = None
        self._stopping = threading.Event()
        self._servers: dict[str, EmbeddedServer] = {}
        self._supervised: dict[str, RestartingProcess] = {}

    def stop(self) -> None:
        self._stopping.set()

    def pid(self, name: str) -> int:
        child = self._supervised[name].child
        if child is None:
            raise LookupError(f"{name} is not running at the moment")
        return child.pid

    def run(self, on_ready: Callable[[Settings], None]) -> None:
        """Run until `stop`; call `on_ready` once everything is ready. Raises AlreadyRunning, CannotStart, and what `prepare` raises."""
        with locked(self.settings.data):
            self._log_tail = LogTail(self._logs if self._verbose else None)
            try:
                self._start()
                self._note("ready")
                on_ready(self.settings)
                while not self._stopping.wait(self._limits.check_seconds):
                    self._check_all()
            except Stopped:
                pass
            finally:
                self._stop_all()
                self._log_tail.repeat()

    @property
    def _logs(self) -> Path:
        return self.settings.data / "logs"

    def _report(self, text: str) -> None:
        self._note(text)
        self._report_to_user(text)

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
            self._supervise(process.name, partial(self._spawn, process))
        self._wait_until(self._are_processes_ready, self._limits.processes_ready_seconds, self._unready_processes)
        self._publish()

    def _start_servers(self) -> None:
        """Start all servers concurrently. Postgres comes last, since creating its cluster takes a second."""
        data, settings = self.settings.data, self.settings
        roles = sorted({APP_ROLE, *(process.database_role for process in self._processes)})
        broker, postgres = partial(Broker, port=settings.kafka_port), partial(Postgres, roles=roles)
        embedded = ((broker, settings.kafka_url), (Redis, settings.redis_url), (postgres, settings.postgres_url))
        servers: list[EmbeddedServer] = [start(data) for start, url in embedded if not url]
        self._servers = {server.name: server for server in servers}
        for name, server in self._servers.items():
            self._supervise(name, server.start)
        for server in self._servers.values():
            self._wait_until(server.ready, self._limits.servers_ready_seconds, self._unready_servers)
        self._adopt_addresses()

    def _adopt_addresses(self) -> None:
        addresses: dict[str, str | float | bool] = {}
        for server in self._servers.values():
            match server:
                case Postgres():
                    addresses |= {"postgres_url": server.app_url, "postgres_owner_url": server.owner_url}
                case Broker():
                    addresses |= {"kafka_url": server.url, "kafka_fetch_wait": EMBEDDED_FETCH_WAIT_SECONDS, "kafka_groups": False}
                case Redis():
                    addresses["redis_url"] = server.url
        self.settings = msgspec.structs.replace(self.settings, **addresses)

    def _supervise(self, name: str, start: Callable[[], Child]) -> None:
        if self._stopping.is_set():
            raise Stopped
        self._supervised[name] = RestartingProcess(name, start, self._logs / f"{name}.log")
        self._supervised[name].start()

    def _spawn(self, process: ProcessDefinition) -> Child:
        ready = self._ready_file(process)
        make_private(ready.parent)
        ready.write_bytes(b"")  # the process may write to this file but not create one
        variables = environment(self._settings_of(process), os.environ) | {READY_FILE: str(ready)}
        variables.pop(variable("root_key_file"), None)
        return Child(process.argv, log=self._logs / f"{process.name}.log", environment=variables, folder=self.settings.data)

    def _settings_of(self, process: ProcessDefinition) -> Settings:
        """The settings with the process's own key file and database role. Metrics ports are numbered from the first process."""
        postgres = self._servers.get(Postgres.name)
        return msgspec.structs.replace(
            self.settings,
            metrics_port=self._metrics_ports().get(process.name, 0),
            postgres_url=postgres.url(user=process.database_role) if isinstance(postgres, Postgres) else self.settings.postgres_url,
            key_file=self._write_key_file(process),
        )

    def _metrics_ports(self) -> dict[str, int]:
        """The metrics port of each process; empty if metrics are not served."""
        first = self.settings.metrics_port
        return {process.name: port for port, process in enumerate(self._processes, first)} if first else {}

    def _publish(self) -> None:
        publish(self.settings, metrics_ports=self._metrics_ports())

    def _write_key_file(self, process: ProcessDefinition) -> str:
        """Write the key file of a process; return its path, or an empty text if the process needs no keys."""
        if not PROCESS_NEEDS.get(process.name) or self._root_key is None:
            return ""
        write_key_file(self._key_file(process), self._root_key, process.name)
        return str(self._key_file(process))

    def _key_file(self, process: ProcessDefinition) -> Path:
        return run_folder(self.settings.data) / f"{process.name}.keys"

    def _ready_file(self, process: ProcessDefinition) -> Path:
        return run_folder(self.settings.data) / f"{process.name}.ready"

    def _are_processes_ready(self) -> bool:
        """Whether all processes with a readiness check are ready. Raises CannotStart if one keeps ending before that."""
        self._check_all()
        for process in self._processes:
            if process.ready is not None and self._supervised[process.name].deaths >= MAX_DEATHS_BEFORE_READY:
                raise CannotStart(f"{process.name} keeps ending; the end of its log:\n{log_end(self._logs / f'{process.name}.log')}")
        return not self._unready_processes()

    def _unready_processes(self) -> list[str]:
        return [
            process.name
            for process in self._processes
            if process.ready is not None and not process.ready(self.settings, self._ready_file(process))
        ]

    def _unready_servers(self) -> list[str]:
        return [name for name, server in self._servers.items() if not server.ready()]

    def _wait_until(self, done: Callable[[], bool], seconds: float, unready: Callable[[], list[str]]) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            if self._stopping.wait(self._limits.start_check_seconds):
                raise Stopped
            if time.monotonic() > deadline:
                raise CannotStart(f"not ready after {seconds:.0f} s: {', '.join(unready())}; the logs are in {self._logs}")

    # ---- keep running ------------------------------------------------------------------------------------------------------------
    def _check_all(self) -> None:
        self._log_tail.repeat()
        self._shorten_logs()
        self._stop_unreachable_servers()
        for name in list(self._supervised):
            deaths = self._supervised[name].deaths
            if self._supervised[name].check(self._report) and name == Broker.name:
                self._restart_broker_clients()
            if self._supervised[name].deaths > deaths:
                self._record_crash(name)

    def _record_crash(self, name: str) -> None:
        crashes = record_crash(crashes_file(self.settings.data), name)
        if crashes == CRASHES_OF_A_LOOP:
            log = self._supervised[name].log
            self._report(f"{name} keeps ending: {crashes} times within a minute. The end of {log}:\n{log_end(log)}")

    def _stop_unreachable_servers(self) -> None:
        """Stop servers whose socket was removed, for example by a cleaner of temporary files, so that they are restarted."""
        for server in self._servers.values():
            if server.lost_socket():
                self._report(f"the socket of {server.name} was removed: {server.socket}")
                server.stop()

    def _shorten_logs(self) -> None:
        if time.monotonic() >= self._shorten_logs_at:
            self._shorten_logs_at = time.monotonic() + self._limits.shorten_logs_seconds
            with suppress(OSError):
                for log in self._logs.glob("*.log"):
                    shorten_log(log)

    def _restart_broker_clients(self) -> None:
        """Restart the clients of the broker, which is empty and has another address after a restart."""
        try:
            self._wait_until(self._servers[Broker.name].ready, self._limits.servers_ready_seconds, self._unready_servers)
        except (CannotStart, Stopped):
            return  # checked again soon, or stopping
        self._adopt_addresses()
        with suppress(OSError):
            self._publish()
        clients = [process for process in self._processes if process.follows_broker and process.name in self._supervised]
        self._report(f"the broker is now at {self.settings.kafka_url}; restarting its clients")
        self._stop_processes(clients)
        for process in clients:
            self._supervised[process.name].restart(self._report)

    # ---- end ---------------------------------------------------------------------------------------------------------------------
    def _stop_all(self) -> None:
        """Stop the API first, while it can still answer requests; then the other processes together; then the servers."""
        withdraw(self.settings.data)
        started = [process for process in self._processes if process.name in self._supervised]
        deadline = time.monotonic() + self._limits.processes_stop_seconds
        for stops_first in (True, False):
            self._stop_processes([process for process in started if process.stops_first == stops_first], deadline=deadline)
        crashes_file(self.settings.data).unlink(missing_ok=True)
        for process in started:
            self._ready_file(process).unlink(missing_ok=True)
            self._key_file(process).unlink(missing_ok=True)
        for server in self._servers.values():
            server.stop(within=min(server.stop_timeout_seconds, 2.5))

    def _stop_processes(self, processes: Sequence[ProcessDefinition], *, deadline: float = float("inf")) -> None:
        children = [(child, process.grace) for process in processes if (child := self._supervised[process.name].child) is not None]
        started_at = time.monotonic()
        for child, _ in children:
            child.ask_to_stop()
        for child, grace in children:
            child.ended(within=min(started_at + grace, deadline) - time.monotonic())
            child.kill()
