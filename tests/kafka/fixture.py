"""Apache Kafka for tests: one KRaft node on loopback, from the jars of Maven Central, on the machine's Java."""

import base64
import os
import re
import shutil
import socket
import subprocess
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from infrastructure.embedded.child import Child, log_end
from tests.rigs.waiting import wait_until

HERE = Path(__file__).parent
COPY_JARS = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
OLDEST_JAVA = 17
READY_WITHIN = 90
NODE = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    "controller.listener.names": "CONTROLLER",
    "num.partitions": 1,
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": 0,
    "log.cleaner.dedupe.buffer.size": 16 * 1024**2,
    "log.segment.bytes": 64 * 1024**2,
    **dict.fromkeys(("num.network.threads", "num.io.threads", "background.threads"), 2),
    **{
        f"{topic}.{setting}": value
        for topic in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")
        for setting, value in {"replication.factor": 1, "min.isr": 1, "num.partitions": 2}.items()
        if (topic, setting) != ("offsets.topic", "min.isr")
    },
}


@pytest.fixture(scope="session")
def kafka_url(tmp_path_factory):
    """host:port of a real Kafka: the one named by BIOSCOPE_KAFKA_URL, else one started here. Without Java and Maven: skipped."""
    if given := os.environ.get("BIOSCOPE_KAFKA_URL"):
        yield given
        return
    if (lacking := what_is_lacking()) is not None:
        pytest.skip(f"no real Kafka: {lacking}, and BIOSCOPE_KAFKA_URL is not set")
    with kafka_node(tmp_path_factory.mktemp("kafka")) as url:
        yield url


def what_is_lacking() -> str | None:
    if shutil.which("mvn") is None:
        return "there is no mvn"
    if shutil.which("java") is None:
        return "there is no java"
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True).stderr
    found = re.search(r'version "(\d+)', said)
    return None if found and int(found[1]) >= OLDEST_JAVA else f"java is older than {OLDEST_JAVA}"


class KafkaNode:
    """One node, its data in `home`, on `port` or a free one. A node that was killed is started again with the same address and log."""

    def __init__(self, home: Path, *, port: int = 0):
        home.mkdir(exist_ok=True)
        self.home, self.port = home, port or free_port()
        self._settings = written_settings(home, self.port, free_port())
        self._java = java_command(jars())
        self._child = None

    @property
    def url(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        if not (self.home / "data" / "meta.properties").exists():
            cluster = base64.urlsafe_b64encode(uuid4().bytes).decode().rstrip("=").replace("-", "_")
            command = [*self._java, "kafka.tools.StorageTool", "format", "--cluster-id", cluster, "--config", str(self._settings)]
            subprocess.run(command, check=True, capture_output=True)
        log = self.home / "kafka.log"
        self._child = Child([*self._java, "kafka.Kafka", str(self._settings)], log=log, environment=dict(os.environ))
        wait_until(
            lambda: listening(self.port) or not self._child.alive(),
            within=READY_WITHIN,
            explain=lambda: f"Kafka does not answer:\n{log_end(log, lines=30)}",
        )
        assert self._child.alive(), f"Kafka ended:\n{log_end(log, lines=30)}"

    def kill(self):
        self._child.kill()

    def stop(self):
        self._child.ask_to_stop()
        self._child.ended(within=10)
        self._child.kill()


@contextmanager
def kafka_node(home: Path, *, port: int = 0):
    """Its data in `home`; on `port`, or a free one. A second start on the same home and port finds the same log."""
    node = KafkaNode(home, port=port)
    node.start()
    try:
        yield node.url
    finally:
        node.stop()


def jars() -> Path:
    """The folder of the node's jars, brought by Maven the first time; BIOSCOPE_TEST_JARS names another place for it."""
    version = re.search(r"<kafka>(.+)</kafka>", (HERE / "pom.xml").read_text())[1]
    room = Path(os.environ.get("BIOSCOPE_TEST_JARS") or Path.home() / ".cache" / "bioscope")
    place = room / f"kafka-{version}"
    if not place.is_dir():
        part = room / f"kafka-{version}.{os.getpid()}.part"
        maven = ["mvn", "-q", "-B", "-f", str(HERE / "pom.xml"), COPY_JARS, "-DincludeScope=runtime", f"-DoutputDirectory={part}"]
        done = subprocess.run(maven, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"Maven brought no jars:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        try:
            part.rename(place)
        except OSError:  # another run was quicker
            shutil.rmtree(part)
    return place


def java_command(libraries: Path) -> list[str]:
    return [
        "java",
        *("-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true"),
        f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}",
        *("-cp", f"{libraries}/*"),
    ]


def written_settings(home: Path, port: int, controller: int, *, advertised: int = 0) -> Path:
    """`advertised`: the port that clients are told to use, where something stands between."""
    here, there = f"PLAINTEXT://127.0.0.1:{port}", f"CONTROLLER://127.0.0.1:{controller}"
    places = {
        "listeners": f"{here},{there}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{advertised or port}",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "log.dirs": home / "data",
    }
    path = home / "server.properties"
    path.write_text("".join(f"{name}={value}\n" for name, value in {**NODE, **places}.items()))
    return path


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return server.getsockname()[1]


def listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return False
    return True
