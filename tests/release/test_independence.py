"""The whole system in a hostile environment under strace: no connections elsewhere, no writes outside its data folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.release import system_calls

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

PICTURES = Path(__file__).parents[2] / "examples" / "micrographs"
BIOSCOPE = Path(sys.executable).with_name("bioscope")
NOWHERE = "/proc"  # a folder in which nobody can create a file, root included
HOSTILE = {
    "PATH": os.defpath,
    "HOME": f"{NOWHERE}/none",
    "TMPDIR": NOWHERE,
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "ALL_PROXY": "socks5://127.0.0.1:9",
    "PGSERVICE": "nowhere",
    "PGHOST": "/nowhere",
    "PGPASSFILE": "/nowhere",
    "OMP_NUM_THREADS": "99",
    "LC_ALL": "tlh_KX.ISO-8859-15",
}
MEMORY = ("/dev/shm/", "/dev/null", "/proc/")  # no files: memory shared by processes, and the kernel's own
INSTALLED_FOR_ROOT = "/var/lib/bioscope-"  # Postgres' programs, where root starts them from a folder closed to other users


@pytest.fixture(scope="module")
def folder():
    """A private folder with a short path."""
    place = Path(tempfile.mkdtemp(prefix="b-")).resolve()
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def trace(folder):
    """Everything that `bioscope up` and its processes did from its start until its end, an image classified in between."""
    log = folder / "strace.log"
    with started(folder / "data", log) as url:
        classify_one(folder, url)
    return log


@contextmanager
def started(data, log):
    command = system_calls.command(log, str(BIOSCOPE), "up", "--data", str(data), "--port", "0")
    with subprocess.Popen(command, env=HOSTILE, cwd=NOWHERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        try:
            yield address_of(running.stdout)
        finally:
            os.kill(int((data / "lock").read_text()), signal.SIGTERM)
            running.wait(60)


def address_of(output):
    """What follows `ready:`, once it is printed."""
    printed = []
    for line in output:
        if line.startswith("ready: "):
            return line.removeprefix("ready: ").strip()
        printed.append(line)
    raise AssertionError("".join(printed))


def classify_one(folder, url):
    pictures = folder / "pictures"
    pictures.mkdir()
    shutil.copy(next(PICTURES.rglob("*.jpg")), pictures)
    secrets = {"BIOSCOPE_ADMIN_PASSWORD": "correct horse battery 9", "BIOSCOPE_PASSWORD": "correct horse battery 9"}
    bioscope(folder, "users", "create-admin", "ada@example.org", "--data", str(folder / "data"), **secrets)
    bioscope(folder, "login", "--url", url, "--email", "ada@example.org", **secrets)
    report = json.loads(bioscope(folder, "classify", str(pictures), "--json"))
    assert report["status"] == "completed", report


def bioscope(folder, *arguments, **variables):
    environment = HOSTILE | {"XDG_CONFIG_HOME": str(folder / "config")} | variables
    done = subprocess.run([BIOSCOPE, *arguments], env=environment, cwd=NOWHERE, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nobody_outside_this_machine_is_asked_for_anything(trace):
    contacted = system_calls.contacted(trace)
    assert any(address == "127.0.0.1" for address, _ in contacted), "the broker and the API are asked, so that strace sees requests"
    assert {(address, port) for address, port in contacted if system_calls.is_foreign(address) or port == 53} == set()


def test_no_file_is_created_outside_the_data_folder(trace, folder):
    created = system_calls.created_files(trace)
    assert folder / "data" / "running.json" in created, "strace sees files"
    outside = [path for path in created if not path.is_relative_to(folder / "data") and not may_be_written(path)]
    assert outside == []


def test_no_library_keeps_a_cache_or_an_identifier(trace, folder):
    hidden = {path for path in system_calls.created_files(trace) if path.is_relative_to(folder / "data") and ".cache" in path.parts}
    assert hidden == set()


def may_be_written(path):
    """Python keeps its own byte code beside the installed code, where that can be written to."""
    return "__pycache__" in path.parts or str(path).startswith((*MEMORY, INSTALLED_FOR_ROOT))


def test_a_system_that_is_stopped_leaves_no_socket(trace, folder):
    assert trace.exists()
    assert [path for path in (folder / "data").rglob("*") if path.is_socket()] == []


def test_strace_shows_a_look_up_of_a_name(tmp_path):
    """The check itself: a program that asks for a foreign name is noticed."""
    asking = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'?', ('192.0.2.1', 53))"
    writing = f"open({str(tmp_path / 'made')!r}, 'w').close()"
    log = tmp_path / "strace.log"
    subprocess.run(system_calls.command(log, sys.executable, "-c", f"{writing}\ntry:\n {asking}\nexcept OSError: pass"), check=True)
    assert ("192.0.2.1", 53) in system_calls.contacted(log)
    assert tmp_path / "made" in system_calls.created_files(log)
    assert time.time() - log.stat().st_mtime < 60
