"""Starts `bioscope up` as a process, and clients that use it. Every process and server of it can be found, killed and waited for."""

import os
import random
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import msgspec

from api.cli.client.api_client import Client
from infrastructure.configuration.settings import load
from infrastructure.embedded.child import Child, log_end, python
from infrastructure.embedded.installation import environment
from infrastructure.embedded.supervisor import NotRunning, running_settings
from tests.chaos.proxy import Link
from tests.chaos.servers import Servers
from tests.chaos.workload import PICTURES, Journal, Technician
from tests.kafka.fixture import free_port
from tests.system.conftest import PASSWORD, made_account

TECHNICIANS = 4
STARTS_WITHIN = 120.0
RETURNS_WITHIN = 60.0
GIVEN = {
    "access_ttl": 8 * 3600,
    "logins_per_minute_account": 1000,
    "logins_per_minute_address": 10_000,
    "inference_processes": 2,
    "chunk_lease_seconds": 20.0,
}
PROGRAMS = {
    "api": "api.cli\0api",
    "relay": "api.cli\0relay",
    "projector": "api.cli\0projector",
    "inference": "api.cli\0inference\0",
    "broker": "infrastructure.embedded.broker",
    "redis": "valkey-server",
    "postgres": "bin/postgres\0-D",
}


class NotBack(Exception):
    """A part does not come back."""


class BioscopeUp:
    """A context manager. `servers`: with separate Postgres, Redis and S3 servers behind links; `kafka`: with Apache Kafka as well."""

    def __init__(self, home: Path, *, seed, servers=False, kafka=False):
        self._home, self._port = home, free_port()
        self.chance = random.Random(seed)
        self.servers = Servers(home / "servers", kafka=kafka, chance=self.chance) if servers else None
        self.link = Link("http", f"127.0.0.1:{self._port}", chance=self.chance)
        self.links = {"http": self.link} | (self.servers.links if self.servers else {})
        self.journal, self._stop = Journal(), threading.Event()
        self.data = home / "data"
        self._seed, self._technicians = seed, []
        self._beside = {}
        self._log = home / "up.log"

    def __enter__(self):
        try:
            self._opened()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _opened(self):
        self._serving()
        made_account(self.settings, "researcher", "technician@example.org")
        with Client.sign_in(self.url, "technician@example.org", PASSWORD) as client:
            self.token = client.credentials.access_token
            self.cells = client.create_dataset("probes")
            self.image = client.upload(self.cells, PICTURES[0]).id

    def __exit__(self, *_):
        self.stop_work()
        for name in list(self._beside):
            self.leave(name)
        self._up.ask_to_stop()
        self._up.ended(within=20)
        self._up.kill()
        self.link.close()
        if self.servers:
            self.servers.close()

    @property
    def url(self):
        return f"http://{self.link.address}"

    @property
    def settings(self):
        """As they are now: the embedded broker's address changes when it dies. Of servers, the links' addresses."""
        given = msgspec.structs.replace(load(self._variables()), data=self.data.absolute(), **GIVEN)
        return running_settings(given)

    @property
    def files(self):
        """The folder in which the stored files lie: ours, or that of the S3 server's bucket."""
        return (self.servers.files if self.servers else None) or self.data / "blobs"

    # ---- clients ----
    def work(self):
        for number in range(TECHNICIANS):
            technician = Technician(self.url, self.token, self.journal, seed=self._seed * 100 + number, stop=self._stop, timeout=5)
            self._technicians.append(technician)
            technician.start()

    def stop_work(self):
        self._stop.set()
        for technician in self._technicians:
            technician.join(60)

    @property
    def failures(self):
        return [f"{one.name} ended: {one.failure}" for one in self._technicians if one.failure is not None]

    # ---- processes ----
    def pid(self, name):
        """Raises NotBack."""
        if name == "supervisor":
            return self._up.pid
        for pid, words in children(self._up.pid):
            if PROGRAMS[name] in words:
                return pid
        raise NotBack(f"{name} does not run")

    def child_of(self, name):
        """One of the processes that `name` started itself."""
        found = [pid for pid, _ in children(self.pid(name))]
        if not found:
            raise NotBack(f"{name} has no children")
        return self.chance.choice(found)

    def kill_supervisor(self):
        """Everything dies with it; then it is started again on the same data folder."""
        os.kill(self._up.pid, signal.SIGKILL)
        self._up.kill()
        self._serving()

    def wait_until_running(self, name, *, other_than=None):
        """Started again by the supervisor: its new pid."""
        until = time.monotonic() + RETURNS_WITHIN
        while time.monotonic() < until:
            with suppress(NotBack):
                if (pid := self.pid(name)) != other_than:
                    return pid
            time.sleep(0.05)
        raise NotBack(f"{name} was not started again within {RETURNS_WITHIN} s")

    # ---- second members ----
    def join(self, name):
        """A second process of that kind, started by hand beside the supervisor's."""
        self._beside[name] = Child(
            python("api.cli", name), log=self._home / f"second-{name}.log", environment=environment(self.settings, os.environ)
        )

    def leave(self, name, *, killed=False):
        child = self._beside.pop(name)
        if not killed:
            child.ask_to_stop()
            child.ended(within=10)
        child.kill()

    def said(self):
        logs = sorted((self.data / "logs").glob("*.log"))
        return "\n".join(f"== {log.name}\n{log_end(log, lines=15)}" for log in [self._log, *logs])

    def _serving(self):
        argv = python("api.cli", "up", "--data", str(self.data), "--port", str(self._port))
        self._up = Child(argv, log=self._log, environment=self._variables(dict(os.environ)))
        until = time.monotonic() + STARTS_WITHIN
        while not self._answers():
            if not self._up.alive() or time.monotonic() > until:
                raise NotBack(f"`bioscope up` does not serve:\n{self.said()}")
            time.sleep(0.05)

    def _answers(self):
        with suppress(httpx.TransportError, NotRunning):
            return httpx.get(f"http://127.0.0.1:{self._port}/health/live", timeout=2).status_code == 200 and bool(self.settings)
        return False

    def _variables(self, inherited=None):
        ours = {f"BIOSCOPE_{name.upper()}": str(value) for name, value in GIVEN.items()}
        kept = {name: value for name, value in (inherited or {}).items() if not name.startswith("BIOSCOPE_")}
        return kept | ours | (self.servers.variables if self.servers else {})


def children(pid):
    """(pid, command line) of each process that `pid` started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == pid:
                    found.append((int(entry.name), (entry / "cmdline").read_text()))
    return found
