"""A compromised inference process in a running embedded system, where all processes have one user: what it can open and do."""

import json
import os
import socket
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest

from api.cli.client.api_client import Client
from api.cli.stack import prepare
from infrastructure.embedded.child import python
from infrastructure.embedded.supervisor import PROCESSES, SupervisedStack
from infrastructure.sandbox import supported
from infrastructure.sandbox.kernel import FILE_CAPABILITIES
from tests.adversaries import hostile_inference
from tests.adversaries.test_keys import environment
from tests.chaos.workload import PICTURES
from tests.process_tree import children
from tests.rigs.waiting import wait_until
from tests.system.conftest import PASSWORD, email, made_account, stack_settings

pytestmark = [
    pytest.mark.skipif(not supported().confines_files, reason="the kernel cannot take files away from a process here"),
    pytest.mark.long,
]

ANSWER_SECONDS = 60.0


class TakenOver:
    """The system, its inference process, and an image that this process has looked at."""

    def __init__(self, stack, settings, server):
        self._stack, self.settings, self.data = stack, settings, settings.data
        self._connection, _ = server.accept()
        self._lines = self._connection.makefile("rw")

    def close(self):
        self._lines.close()
        self._connection.close()

    def pid(self, name):
        return self._stack.pid(name)

    def attempts(self, name, *arguments):
        """How it ended."""
        self._lines.write(json.dumps([name, *map(plain, arguments)]) + "\n")
        self._lines.flush()
        return self._lines.readline().strip()

    def classified(self):
        """One image, uploaded and classified: its results, and its thumbnail's path."""
        address = made_account(self.settings, "researcher", email("worker"))
        with Client.sign_in(self.settings.base_url, address, PASSWORD) as client:
            dataset = client.create_dataset("taken over")
            uploaded = client.upload(dataset, PICTURES[0])
            job = client.run(dataset, None)
            list(client.watch(job))
            return uploaded, client.results(job)

    def originals(self):
        return sorted(path for path in (self.data / "blobs" / "sha256").rglob("*") if path.is_file())


def plain(argument):
    return str(argument) if isinstance(argument, Path) else argument


@pytest.fixture(scope="module")
def taken_over(tmp_path_factory):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(ANSWER_SECONDS)
        hostile = python("tests.adversaries.hostile_inference", str(server.getsockname()[1]))
        processes = [msgspec.structs.replace(one, argv=hostile) if one.name == "inference" else one for one in PROCESSES]
        stack = SupervisedStack(stack_settings(tmp_path_factory.mktemp("confined")), processes=processes, prepare=prepare)
        with stack as settings, closing(TakenOver(stack, settings, server)) as started:
            yield started


# ---- it works --------------------------------------------------------------------------------------------------------------------------
def test_it_classifies_images_and_makes_their_pictures(taken_over):
    _, results = taken_over.classified()
    assert [result["label"] for result in results]
    pictures = [path for path in (taken_over.data / "blobs" / "derived" / "thumbnail").rglob("*") if path.is_file()]
    assert len(pictures) == 1
    assert list((taken_over.data / "blobs" / "pictures").iterdir()) == []


def test_it_reads_originals(taken_over):
    originals = taken_over.originals()
    assert originals
    assert {taken_over.attempts("read", path) for path in originals} == {"succeeded"}


# ---- files -----------------------------------------------------------------------------------------------------------------------------
SECRETS = (
    *("keys/root.key", "keys/postgres.passwords", "run/api.keys", "run/relay.keys", "run/projector.keys", "running.json", "lock"),
    *("postgres/PG_VERSION", "postgres/pg_hba.conf", "postgres/global/pg_control", "logs/api.log", "logs/inference.log"),
)


@pytest.mark.parametrize("name", SECRETS)
def test_it_opens_no_secret_and_nothing_of_the_database(taken_over, name):
    path = taken_over.data / name
    assert hostile_inference.outcome("read", path) == "succeeded", "so that this test can fail"
    assert taken_over.attempts("read", path) == "refused EACCES"
    assert taken_over.attempts("overwrite", path) == "refused EACCES"


@pytest.mark.parametrize("name", ["keys", "run", "postgres", "logs", "blobs/uploads", "tmp", "."])
def test_it_lists_no_folder_of_others(taken_over, name):
    path = taken_over.data / name
    assert hostile_inference.outcome("read_folder", path) == "succeeded"
    assert taken_over.attempts("read_folder", path) == "refused EACCES"
    assert taken_over.attempts("create", path / "new") == "refused EACCES"
    assert not (path / "new").exists()


@pytest.mark.parametrize("process", ["api", "relay", "projector", "postgres"])
@pytest.mark.parametrize("file", ["environ", "mem", "maps"])
def test_it_reads_neither_environment_nor_memory_of_other_processes(taken_over, process, file):
    path = f"/proc/{taken_over.pid(process)}/{file}"
    assert hostile_inference.outcome("read", path) == "succeeded"
    assert taken_over.attempts("read", path) == "refused EACCES"


def test_it_reaches_no_file_through_another_process(taken_over):
    path = f"/proc/{taken_over.pid('api')}/root{taken_over.data}/keys/root.key"
    assert hostile_inference.outcome("read", path) == "succeeded"
    assert taken_over.attempts("read", path) == "refused EACCES"


@pytest.mark.parametrize("path", ["/etc/shadow", "/root", "/home", "/tmp", "/var/log", "/dev", "/sys/kernel/security"])
def test_it_opens_nothing_of_the_machine_that_it_does_not_need(taken_over, path):
    if not Path(path).exists() or not os.access(path, os.R_OK):
        pytest.skip("this machine has none, or closes it to everybody")
    assert taken_over.attempts("read", path) == "refused EACCES"


CHANGES = ("overwrite", "truncate", "remove", "rename", "replace", "open_to_others", "make_old", "label")


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_succeeds_where_nothing_forbids_it(change, tmp_path, monkeypatch):
    """So that the tests below can fail."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "file").write_bytes(b"content")
    assert hostile_inference.outcome(change, str(tmp_path / "file")) == "succeeded"


def seen(path):
    status = path.stat()
    return path.read_bytes(), status.st_mode, status.st_mtime_ns, status.st_nlink, os.listxattr(path)


@pytest.mark.parametrize("change", CHANGES)
def test_it_changes_no_original(taken_over, change):
    before = {path: seen(path) for path in taken_over.originals()}
    for path in before:
        assert taken_over.attempts(change, path).startswith("refused")
    assert {path: seen(path) for path in taken_over.originals()} == before


def test_it_gives_no_original_another_name_that_it_may_write_to(taken_over):
    for path in taken_over.originals():
        assert taken_over.attempts("link", path, taken_over.data / "blobs" / "pictures" / "alias").startswith("refused")
    assert list((taken_over.data / "blobs" / "pictures").iterdir()) == []


def test_it_adds_no_original_and_no_signed_head(taken_over):
    blobs = taken_over.data / "blobs"
    for path in (blobs / "sha256" / "new", blobs / "derived" / "heads-new", blobs / "derived" / "heads" / "2030-01-01", blobs / "new"):
        assert taken_over.attempts("create", path).startswith("refused")


@pytest.mark.parametrize("change", ["truncate", "remove", "replace", "open_to_others"])
def test_it_changes_neither_keys_nor_the_database(taken_over, change):
    for name in ("keys/root.key", "keys/postgres.passwords", "run/relay.keys", "postgres/PG_VERSION"):
        before = (taken_over.data / name).read_bytes()
        assert taken_over.attempts(change, taken_over.data / name).startswith("refused")
        assert (taken_over.data / name).read_bytes() == before


def test_it_says_of_no_other_process_that_it_is_ready(taken_over):
    assert taken_over.attempts("overwrite", taken_over.data / "run" / "relay.ready") == "refused EACCES"
    assert taken_over.attempts("overwrite", taken_over.data / "run" / "inference.ready") == "succeeded"


def test_it_changes_none_of_our_code_and_no_library(taken_over):
    for path in (Path(hostile_inference.__file__).parents[2] / "infrastructure" / "inference" / "worker.py", Path(msgspec.__file__)):
        assert taken_over.attempts("read", path) == "succeeded"
        assert taken_over.attempts("overwrite", path) == "refused EACCES"


# ---- processes -------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("process", ["api", "relay", "projector", "redis", "broker"])
@pytest.mark.skipif(supported().landlock < 6, reason="Landlock knows no signals before Linux 6.12")
def test_it_sends_no_signal_to_other_processes(taken_over, process):
    for attempt in ("send_signal", "send_signal_by_handle"):
        assert hostile_inference.outcome(attempt, taken_over.pid(process)) == "succeeded"
        assert taken_over.attempts(attempt, taken_over.pid(process)) == "refused EPERM"


@pytest.mark.parametrize("process", ["api", "relay", "postgres"])
def test_it_traces_no_other_process(taken_over, process):
    assert hostile_inference.outcome("read_memory", taken_over.pid(process)) == "refused EFAULT", "so that this test can fail"
    for attempt in ("trace", "read_memory"):
        assert taken_over.attempts(attempt, taken_over.pid(process)) == "refused EPERM"


def test_it_starts_no_other_program_and_no_calls_past_the_filter(taken_over):
    assert hostile_inference.outcome("run_program", "/bin/sh") == "succeeded"
    assert taken_over.attempts("run_program", "/bin/sh") == "refused EACCES"
    assert taken_over.attempts("start_uring") == "refused EPERM"


def status_of(task):
    return dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)


def test_every_thread_of_it_is_confined_and_has_no_privilege_of_root(taken_over):
    tasks = list(Path(f"/proc/{taken_over.pid('inference')}/task").iterdir())
    assert len(tasks) > 1
    for status in map(status_of, tasks):
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert {int(status[f"Cap{which}"], 16) & ~FILE_CAPABILITIES for which in ("Inh", "Prm", "Eff", "Amb")} == {0}


def test_its_children_end_first_when_memory_runs_out(taken_over):
    def score(pid):
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

    pid = taken_over.pid("inference")
    below = [child for fork_server in children(pid) for child in children(fork_server)]
    assert below
    assert min(map(score, below)) > score(pid)


# ---- production ------------------------------------------------------------------------------------------------------------------------
@contextmanager
def production_worker(taken_over, folder):
    """A second inference process, with settings that production takes; once it is ready."""
    ready = folder / "ready"
    ready.touch()
    changes = {
        "ENVIRONMENT": "production",
        "PASSWORD_STRENGTH": "production",
        "PUBLIC_URL": "https://lab.example.org",
        "TRUSTED_PROXIES": "192.0.2.1",
        "DATA": str(folder),
        "CORS_ORIGINS": "",
        "BLOBS_URL": str(taken_over.data / "blobs"),
        "READY_FILE": str(ready),
        "METRICS_PORT": "0",
        "INFERENCE_PROCESSES": "1",
    }
    variables = environment(taken_over.pid("inference")) | {f"BIOSCOPE_{name}": value for name, value in changes.items()}
    with (folder / "log").open("wb") as log:
        worker = subprocess.Popen(python("api.cli", "inference"), env=variables, stdout=log, stderr=log)
    try:
        wait_until(lambda: ready.stat().st_size or worker.poll() is not None, within=ANSWER_SECONDS)
        assert ready.stat().st_size > 0, (folder / "log").read_text()
        yield worker
    finally:
        worker.terminate()
        worker.wait(30)


def test_it_is_confined_in_production_too_where_more_is_looked_at_before(taken_over, tmp_path):
    with production_worker(taken_over, tmp_path) as worker:
        for status in map(status_of, Path(f"/proc/{worker.pid}/task").iterdir()):
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert worker.returncode == 0


# ---- kernels that offer less -----------------------------------------------------------------------------------------------------------
CONFINE = """
import sys
import tests.adversaries.broken_landlock
from pathlib import Path
from infrastructure.inference.confinement import confine_inference
from infrastructure.configuration.settings import Settings
confine_inference(Settings(data=Path(sys.argv[1]), environment=sys.argv[2], accept_unsandboxed=sys.argv[3] == "accepted"))
print("started")
"""


def started_without_landlock(data, environment, accepted=""):
    command = [sys.executable, "-c", CONFINE, str(data), environment, accepted]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_without_landlock_a_development_system_starts_with_a_warning(tmp_path):
    done = started_without_landlock(tmp_path, "development")
    assert "started" in done.stdout
    assert "inference is not sandboxed" in done.stdout


def test_without_landlock_production_starts_only_where_the_risk_was_accepted(tmp_path):
    assert "Unsandboxed: the kernel cannot isolate" in started_without_landlock(tmp_path, "production").stderr
    assert "started" in started_without_landlock(tmp_path, "production", "accepted").stdout
