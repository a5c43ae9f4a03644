"""A real S3 server for tests: versitygw on a folder. Without it (and without Go to build it) the tests that need one are skipped."""

import os
import shutil
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.rigs.waiting import wait_until

VERSITYGW = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
KEY, SECRET, BUCKET = "test-key", "test-secret-of-some-length", "bioscope"


def versitygw() -> str:
    """Its path: BIOSCOPE_TEST_VERSITYGW, or on PATH, or among what Go installed, or built now if that is asked for."""
    go_home = Path(os.environ.get("GOPATH", Path.home() / "go")) / "bin" / "versitygw"
    found = os.environ.get("BIOSCOPE_TEST_VERSITYGW") or shutil.which("versitygw") or (str(go_home) if go_home.exists() else None)
    if found is None:
        pytest.skip(f"no S3 server here; for these tests: go install {VERSITYGW}")
    return found


@contextmanager
def s3_server(folder: Path, *options: str, bucket: bool = True):
    """The endpoint's URL; the bucket is there, unless `bucket` is false. `options` are further options of the server."""
    (folder / BUCKET if bucket else folder).mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET}
    address = f"127.0.0.1:{port}"
    argv = [versitygw(), "--port", address, *options, "posix", "--sidecar", str(folder.parent / "sidecar"), str(folder)]
    (folder.parent / "sidecar").mkdir(exist_ok=True)
    server = subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await(port, server)
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait(10)


def _await(port, server):
    def is_connected():
        socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
        return True

    wait_until(is_connected, within=20, ignoring=[OSError], explain=lambda: f"the S3 server does not start (exit code {server.poll()})")
