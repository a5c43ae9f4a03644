"""The wheel at work: installed without the checkout, started by another user in a folder that cannot be written to."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from infrastructure.embedded.child import CannotStart
from infrastructure.embedded.installation import with_free_port
from infrastructure.metrics_server import is_healthy
from infrastructure.settings import Settings
from infrastructure.supervisor import PROCESSES
from tests.other_user import NOBODY
from tests.release.installing import ROOT, another_user, outside_environment, run, version

NEUTROPHIL = ROOT / "examples" / "micrographs" / "neutrophil" / "SNE_209892.jpg"
EMAIL, PASSWORD = "ada@example.org", "correct horse battery 9"
READY_TIMEOUT_SECONDS = 120
STOP_TIMEOUT_SECONDS = 30


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
    """Folders of a user who owns its data and its home, and nothing else."""

    def __init__(self, bioscope, folder):
        self.bioscope = bioscope
        self.working, self.data, self.home, self.images = (folder / name for name in ("working", "data", "home", "images"))
        for owned in (self.data, self.home):
            owned.mkdir(mode=0o700)
            if os.geteuid() == 0:
                os.chown(owned, NOBODY, NOBODY)
        self.working.mkdir(mode=0o555)
        self.images.mkdir(mode=0o755)
        shutil.copy(NEUTROPHIL, self.images)
        self.first_metrics_port = free_ports(len(PROCESSES))

    def argv(self, *arguments):
        return [*another_user(), str(self.bioscope), *map(str, arguments)]

    def environment(self, **given):
        return outside_environment() | {"HOME": str(self.home), "BIOSCOPE_DATA": str(self.data), **given}

    def bioscope_run(self, *arguments, **given):
        return run(self.argv(*arguments), cwd=self.working, env=self.environment(**given))


@pytest.fixture(scope="module")
def installation(installed, public_folder):
    folder = public_folder / "user"
    folder.mkdir(mode=0o755)
    made = Installation(installed, folder)
    yield made
    made.working.chmod(0o755)


@pytest.fixture(scope="module")
def address(installation, tmp_path_factory):
    """Of the running system, which has to stop on SIGTERM without a complaint."""
    output = tmp_path_factory.mktemp("output") / "up.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            installation.argv("up", "--port", "0"),
            cwd=installation.working,
            env=installation.environment(BIOSCOPE_METRICS_PORT=str(installation.first_metrics_port)),
            stdout=file,
            stderr=file,
        )
    try:
        yield ready_address(process, output)
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(STOP_TIMEOUT_SECONDS)
    assert code == 0, output.read_text()


def ready_address(process, output):
    give_up_at = time.monotonic() + READY_TIMEOUT_SECONDS
    while time.monotonic() < give_up_at and process.poll() is None:
        for line in output.read_text().splitlines():
            if line.startswith("ready: "):
                return line.removeprefix("ready: ")
        time.sleep(0.2)
    raise AssertionError(f"the system is not ready (exit code {process.poll()}):\n{output.read_text()}")


def test_the_installed_code_is_that_of_the_wheel(installation):
    where = run(
        [
            installation.bioscope.with_name("python"),
            "-c",
            "import infrastructure.shipped as s; print(s.__file__, s.models(), s.micrographs())",
        ],
        cwd="/",
    )
    for path in map(Path, where.split()):
        assert path.is_relative_to(installation.bioscope.parents[1])
        assert path.exists()
    assert version() in installation.bioscope_run("--version")


def test_its_user_cannot_write_where_it_works(installation):
    tried = subprocess.run([*another_user(), "touch", "file"], cwd=installation.working, capture_output=True, check=False)
    assert tried.returncode != 0


def test_every_process_is_healthy_and_shows_its_metrics(installation, address):
    port = address.rpartition(":")[2]
    for metrics_port, process in enumerate(PROCESSES, installation.first_metrics_port):
        output = installation.bioscope_run("health", process.name, BIOSCOPE_PORT=port, BIOSCOPE_METRICS_PORT=str(metrics_port))
        assert output == f"the process {process.name} is healthy\n"
        assert is_healthy("127.0.0.1", metrics_port, "/health")
        assert is_healthy("127.0.0.1", metrics_port, "/metrics")


def test_an_administrator_classifies_an_image_and_verifies_the_record(installation, address):
    installation.bioscope_run("users", "create-admin", EMAIL, BIOSCOPE_ADMIN_PASSWORD=PASSWORD)
    installation.bioscope_run("login", "--url", address, "--email", EMAIL, BIOSCOPE_PASSWORD=PASSWORD)
    report = json.loads(installation.bioscope_run("classify", installation.images, "--json"))
    assert [(line["file"], line["label"]) for line in report["lines"]] == [(NEUTROPHIL.name, "neutrophil")]
    assert "intact" in installation.bioscope_run("audit", "verify")
    assert list(installation.working.iterdir()) == []
