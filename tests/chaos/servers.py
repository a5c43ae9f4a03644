"""Postgres, Redis, S3 and Kafka as separate servers, each behind a link that can be disturbed. Each can be killed."""

import base64
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from uuid import uuid4

from infrastructure.embedded.child import Child
from infrastructure.embedded.postgres.server import DATABASE, Postgres
from infrastructure.embedded.redis import Redis
from tests.chaos.proxy import Link
from tests.contracts.s3 import BUCKET, KEY, SECRET
from tests.kafka.fixture import free_port, jars, java_command, listening, what_is_lacking, written_settings

READY_WITHIN = 90.0


def s3_program():
    """The S3 server's path, None where there is none: then blobs lie in a folder, and its links are not spoiled."""
    go_home = Path(os.environ.get("GOPATH", Path.home() / "go")) / "bin" / "versitygw"
    return os.environ.get("BIOSCOPE_TEST_VERSITYGW") or shutil.which("versitygw") or (str(go_home) if go_home.exists() else None)


class Servers:
    """Postgres, Redis, S3, and Apache Kafka where it is asked for. `variables`: what `bioscope up` is to be given.

    `files`: the folder behind S3; None where there is no S3.
    """

    def __init__(self, home, *, kafka, chance):
        self._running, self.links, self.files = {}, {}, None
        home.mkdir()
        self._postgres = postgres = Postgres(_folder(home / "p"))
        redis = Redis(_folder(home / "r"))
        self._start = {"postgres": postgres.start, "redis": redis.start}
        self._answers = {"postgres": postgres._answers, "redis": redis._answers}
        sockets = {"postgres": str(postgres.socket), "redis": str(redis.socket)}
        for name, path in sockets.items():
            self.links[name] = Link(name, path, chance=chance)
        if s3_program():
            self._add_s3(home / "s3", chance)
        if kafka:
            assert (lacking := what_is_lacking()) is None, lacking
            self._add_kafka(home / "k", chance)
        for name in self._start:
            self._running[name] = self._start[name]()
        for name in self._start:
            self.wait_until_answering(name)

    @property
    def variables(self):
        at = self.links
        given = {
            "POSTGRES_URL": self._postgres_url("bioscope_app"),
            "POSTGRES_OWNER_URL": self._postgres_url("postgres"),
            "REDIS_URL": f"redis://{at['redis'].address}/0",
        }
        if "s3" in at:
            given |= {
                "BLOBS_URL": f"s3://{BUCKET}",
                "BLOBS_ENDPOINT": f"http://{at['s3'].address}",
                "BLOBS_KEY": KEY,
                "BLOBS_SECRET": SECRET,
            }
        if "kafka" in at:
            given |= {"KAFKA_URL": at["kafka"].address, "KAFKA_GROUPS": "true"}
        return {f"BIOSCOPE_{name}": value for name, value in given.items()}

    def _postgres_url(self, role):
        address = self.links["postgres"].address
        return f"postgresql://{role}:{self._postgres.password(role)}@{address}/{DATABASE}?sslmode=disable"

    @property
    def names(self):
        return tuple(self._start)

    def kill(self, name):
        """At once, and start it again: as whoever looks after such servers does."""
        child = self._running[name]
        child.ask_to_stop(signal.SIGQUIT if name == "postgres" else signal.SIGKILL)  # `pg_ctl -m immediate` sends no more than that
        assert child.ended(within=20), f"{name} does not end"
        self._running[name] = self._start[name]()

    def close(self):
        for link in self.links.values():
            link.close()
        for name, child in self._running.items():
            child.ask_to_stop(signal.SIGQUIT if name == "postgres" else signal.SIGTERM)
            child.ended(within=10)
            child.kill()

    def wait_until_answering(self, name):
        until = time.monotonic() + READY_WITHIN
        while not self._answers[name]():
            assert self._running[name].alive(), f"{name} ended"
            assert time.monotonic() < until, f"{name} does not answer"
            time.sleep(0.05)

    def _add_s3(self, home, chance):
        port = free_port()
        self.files = home / "data" / BUCKET
        for folder in (self.files, home / "sidecar"):
            folder.mkdir(parents=True)
        argv = [s3_program(), "--port", f"127.0.0.1:{port}", "posix", "--sidecar", str(home / "sidecar"), str(home / "data")]
        environment = dict(os.environ) | {"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET}
        self._start["s3"] = lambda: Child(argv, log=home / "s3.log", environment=environment)
        self._answers["s3"] = lambda: listening(port)
        self.links["s3"] = Link("s3", f"127.0.0.1:{port}", chance=chance)

    def _add_kafka(self, home, chance):
        """Its advertised address is the link's: clients have no other way to it."""
        home.mkdir()
        port = free_port()
        self.links["kafka"] = Link("kafka", f"127.0.0.1:{port}", chance=chance)
        settings = written_settings(home, port, free_port(), advertised=int(self.links["kafka"].address.rpartition(":")[2]))
        java = java_command(jars())
        cluster = base64.urlsafe_b64encode(uuid4().bytes).decode().rstrip("=").replace("-", "_")
        format_storage = [*java, "kafka.tools.StorageTool", "format", "--cluster-id", cluster, "--config", str(settings)]
        made = subprocess.run(format_storage, capture_output=True, check=False)
        assert made.returncode == 0, made.stderr.decode()[-2000:]
        self._start["kafka"] = lambda: Child([*java, "kafka.Kafka", str(settings)], log=home / "kafka.log", environment=dict(os.environ))
        self._answers["kafka"] = lambda: listening(port)


def _folder(path):
    path.mkdir()
    return path
