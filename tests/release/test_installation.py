"""The wheel at work, on the oldest and the newest Python of this machine: installed without the checkout, started by another user in a
folder that cannot be written to, without a network and behind dead proxies; and its backup, restored elsewhere."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from infrastructure.configuration.settings import Settings
from infrastructure.embedded.installation import with_free_port
from infrastructure.embedded.supervisor import PROCESSES
from infrastructure.process_lifecycle import CannotStart
from tests.other_user import NOBODY
from tests.release.installing import ROOT, another_user, install, interpreters, outside_environment, run, version
from tests.release.offline import offline
from tests.rigs.waiting import wait_until

MICROGRAPHS = ROOT / "examples" / "micrographs"
CLASSES = ("basophil", "eosinophil", "erythroblast", "ig", "lymphocyte", "monocyte", "neutrophil", "platelet")
EMAIL, PASSWORD = "ada@example.org", "correct horse battery 9"
DEAD = "http://127.0.0.1:9"
PROXIES = {"http_proxy": DEAD, "https_proxy": DEAD, "all_proxy": DEAD}
READY_TIMEOUT_SECONDS = 120
STOP_TIMEOUT_SECONDS = 30
PYTHONS = interpreters()
OLDEST_AND_NEWEST = list(dict.fromkeys([next(iter(PYTHONS)), next(reversed(PYTHONS))]))


def free_ports(count):
    """The first of `count` free ports in a row."""
    while True:
        first = with_free_port(Settings(port=0)).port
        if first + count > 65536:
            continue
        with contextlib.suppress(CannotStart):
            for port in range(first, first + count):
                with_free_port(Settings(port=port))
            return first


class Installation:
    """The folders of a user who owns data, home and backups, and nothing else; `network` is a command prefix."""

    def __init__(self, python, bioscope, folder, network):
        self.bioscope, self.python = bioscope, bioscope.with_name("python")
        self.become = [*network, *another_user(python)]
        self.working, self.images = folder / "working", folder / "images"
        self.data, self.home, self.backup, self.restored = (folder / name for name in ("data", "home", "backup", "restored"))
        for owned in (self.data, self.home, self.backup, self.restored):
            owned.mkdir(mode=0o700)
            if os.geteuid() == 0:
                os.chown(owned, NOBODY, NOBODY)
        self.working.mkdir(mode=0o555)
        self.images.mkdir(mode=0o755)
        for name in CLASSES:
            shutil.copyfile(min((MICROGRAPHS / name).glob("*.jpg")), self.images / f"{name}.jpg")

    def environment(self, **given):
        return outside_environment() | {"HOME": str(self.home), "BIOSCOPE_DATA": str(self.data), **PROXIES, **given}

    def run(self, *arguments, **given):
        return run([*self.become, self.bioscope, *arguments], cwd=self.working, env=self.environment(**given))

    def run_python(self, program, *arguments):
        return run([*self.become, self.python, "-c", program, *arguments], cwd=self.working, env=self.environment())

    @contextmanager
    def up(self, output, **given):
        """The address of the running system, and the first of its metrics ports; it has to stop on SIGTERM without a complaint."""
        first_metrics_port = free_ports(len(PROCESSES))
        with output.open("w") as file:
            process = subprocess.Popen(
                [*self.become, self.bioscope, "up", "--port", "0"],
                cwd=self.working,
                env=self.environment(BIOSCOPE_METRICS_PORT=str(first_metrics_port), **given),
                stdout=file,
                stderr=file,
            )
        try:
            yield ready_address(process, output), first_metrics_port
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(STOP_TIMEOUT_SECONDS)
        assert code == 0, output.read_text()

    def login(self, address):
        self.run("login", "--url", address, "--email", EMAIL, BIOSCOPE_PASSWORD=PASSWORD)

    def classify(self):
        """The label of each file, by its name, and the job."""
        report = json.loads(self.run("classify", self.images, "--json"))
        return {Path(line["file"]).stem: line["label"] for line in report["lines"]}, report["job_id"]


def ready_address(process, output):
    def found():
        assert process.poll() is None, f"the system ended (exit code {process.poll()}):\n{output.read_text()}"
        return next((line.removeprefix("ready: ") for line in output.read_text().splitlines() if line.startswith("ready: ")), None)

    return wait_until(found, within=READY_TIMEOUT_SECONDS, explain=lambda: f"the system is not ready:\n{output.read_text()}")


@pytest.fixture(scope="module")
def network():
    """A command prefix."""
    with offline() as prefix:
        yield prefix


@pytest.fixture(scope="module", params=OLDEST_AND_NEWEST)
def installation(request, wheel, public_folder, network):
    python, folder = PYTHONS[request.param], public_folder / request.param
    folder.mkdir(mode=0o755)
    before = os.umask(0o022)
    try:
        bioscope = install(python, wheel, folder / "environment")
    finally:
        os.umask(before)
    made = Installation(python, bioscope, folder, network or [])
    yield made
    made.working.chmod(0o755)


@pytest.fixture(scope="module")
def running(installation, tmp_path_factory):
    with installation.up(tmp_path_factory.mktemp("output") / "up.txt") as address_and_port:
        yield address_and_port


@pytest.fixture(scope="module")
def job(installation, running):
    """The job of an administrator who classified eight cells."""
    installation.run("users", "create-admin", EMAIL, BIOSCOPE_ADMIN_PASSWORD=PASSWORD)
    address, _ = running
    installation.login(address)
    labels, job = installation.classify()
    assert labels == {name: name for name in CLASSES}
    return job


def test_there_is_no_other_machine(installation, network):
    if network is None:
        pytest.skip("this machine allows no network namespaces")
    connect = "import socket, sys; sys.exit(socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect_ex(('192.0.2.1', 53)))"
    with pytest.raises(AssertionError, match="ended with 101"):  # ENETUNREACH
        installation.run_python(connect)


def test_the_installed_code_is_that_of_the_wheel(installation):
    where = installation.run_python("import infrastructure.inference.models.bundled as s; print(s.__file__, s.models(), s.micrographs())")
    for path in map(Path, where.split()):
        assert path.is_relative_to(installation.bioscope.parents[1])
        assert path.exists()
    assert version() in installation.run("--version")


def test_its_user_cannot_write_where_it_works(installation):
    tried = subprocess.run([*installation.become, "touch", "file"], cwd=installation.working, capture_output=True, check=False)
    assert tried.returncode != 0


def test_every_process_is_healthy_and_shows_its_metrics(installation, running):
    address, first_metrics_port = running
    port = address.rpartition(":")[2]
    ask = (
        "import sys; from infrastructure.observability.metrics_server import ask_health; "
        "print(ask_health('127.0.0.1', int(sys.argv[1]), '/metrics').healthy)"
    )
    for metrics_port, process in enumerate(PROCESSES, first_metrics_port):
        output = installation.run("health", process.name, BIOSCOPE_PORT=port, BIOSCOPE_METRICS_PORT=str(metrics_port))
        assert output == f"the process {process.name} is healthy\n"
        assert installation.run_python(ask, str(metrics_port)) == "True\n"


def test_an_administrator_classifies_eight_images_and_verifies_the_record(installation, job):
    events = json.loads(installation.run("audit", "trail", job, "--json"))
    assert [event["data"]["succeeded"] for event in events if event["type"] == "ClassificationCompleted"] == [len(CLASSES)]
    assert "intact" in installation.run("audit", "verify")
    assert list(installation.working.iterdir()) == []


def test_a_backup_that_is_restored_elsewhere_holds_the_same_record_and_goes_on(installation, job, tmp_path):
    installation.run("backup", installation.backup / "of-today")
    restored = {"BIOSCOPE_DATA": str(installation.restored / "data")}
    installation.run("restore", installation.backup / "of-today", "--root-key", installation.data / "keys" / "root.key", **restored)
    trail = installation.run("audit", "trail", job, "--json")
    with installation.up(tmp_path / "up.txt", **restored) as (address, _):
        assert "intact" in installation.run("audit", "verify", **restored)
        assert installation.run("audit", "trail", job, "--json", **restored) == trail
        installation.login(address)
        labels, another = installation.classify()
    assert labels == {name: name for name in CLASSES}
    assert another != job
