"""The layers of the sandbox, kernels without them, and the same pixels inside as outside."""

import asyncio
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from infrastructure.configuration.settings import Settings
from infrastructure.images.validation import ImageLimits
from infrastructure.inference.children.child_functions import examine
from infrastructure.inference.children.process_pool import ForkServer, ProcessPool
from infrastructure.inference.predictions import ImageRefusal, InspectedUpload, check_inspected
from infrastructure.operations.doctor import sandbox_findings
from infrastructure.sandbox import Layers, supported
from infrastructure.sandbox.policy import Unsandboxed, require_sandbox
from tests.images import cell, encodings, written

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path
    for folder in ("images", "formats", "cases")
    for path in (ROOT / "data" / folder).rglob("*")
    if path.suffix in {".tif", ".tiff", ".btf", ".png", ".jpg", ".jpeg"}
)
LIMITS = ImageLimits()
FULL = Layers(no_new_privileges=True, user_namespace=True, network_namespace=True, empty_root=True, landlock=7, seccomp=True)
PRODUCTION = Settings(environment="production")
ATTEMPTS = """
import encodings.idna, json, os, socket, sys
from pathlib import Path
import msgspec
from infrastructure.sandbox import Layers, detection, enter, enter_empty_directory
from infrastructure.sandbox.layers import resource
key, port, layers, user = sys.argv[1:]
if int(user):
    os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
layers = msgspec.json.decode(layers, type=Layers) if layers else detection.detect()
resource.setrlimit = lambda *_: None
enter_empty_directory()
enter(layers)
def outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return type(error).__name__
    return "succeeded"
abstract = chr(0) + "bioscope-" + port
print(json.dumps({
    "read": outcome(lambda: Path(key).read_bytes()),
    "connect": outcome(lambda: socket.socket().connect(("127.0.0.1", int(port)))),
    "abstract": outcome(lambda: socket.socket(socket.AF_UNIX).connect(abstract)),
    "signal": outcome(lambda: os.kill(os.getppid(), 0)),
    "fork": outcome(lambda: os.fork() or os._exit(0)),
    "layers": str(layers),
}))
"""


@pytest.fixture
def outcomes(tmp_path):
    """What a process in some layers of the sandbox can do, without its limits on resources."""
    import socket

    key = tmp_path / "root.key"
    key.write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        port = str(server.getsockname()[1])
        abstract.bind(f"\0bioscope-{port}")
        abstract.listen()

        def run(layers, *, user=0):
            text = msgspec.json.encode(layers).decode() if layers else ""
            done = subprocess.run(
                [sys.executable, "-c", ATTEMPTS, str(key), port, text, str(user)], stdout=subprocess.PIPE, check=True, cwd=ROOT.parent
            )
            return json.loads(done.stdout)

        yield run


def test_without_a_layer_everything_succeeds(outcomes):
    """So that the tests below can fail."""
    assert set(outcomes(Layers()).values()) - {str(Layers())} == {"succeeded"}


@pytest.mark.skipif(not supported().landlock, reason="the kernel has no Landlock")
def test_landlock_alone_keeps_files_sockets_and_processes_away(outcomes):
    found = outcomes(Layers(no_new_privileges=True, landlock=supported().landlock))
    assert found["read"] == "PermissionError"
    assert supported().landlock < 4 or found["connect"] == "PermissionError"
    assert supported().landlock < 6 or (found["abstract"], found["signal"]) == ("PermissionError", "PermissionError")


@pytest.mark.parametrize("abi", range(1, supported().landlock + 1))
def test_older_versions_of_landlock_are_entered_too(outcomes, abi):
    found = outcomes(Layers(no_new_privileges=True, landlock=abi))
    assert found["read"] == "PermissionError"
    assert found["connect"] == ("PermissionError" if abi >= 4 else "succeeded")


WITH_RULES = """
import json, os, sys
from pathlib import Path
from infrastructure.sandbox.kernel import PR_SET_NO_NEW_PRIVS, prctl
from infrastructure.sandbox.landlock import Rights, Rule, restrict_files
folder, abi = Path(sys.argv[1]), int(sys.argv[2])
read = Rights.READ_FILE | Rights.READ_DIR
move = read | Rights.WRITE_FILE | Rights.TRUNCATE | Rights.MAKE_REG | Rights.REMOVE_FILE | Rights.REFER
rules = [Rule(folder / "readable", read), Rule(folder / "from", move), Rule(folder / "to", move), Rule(folder / "missing", read)]
prctl(PR_SET_NO_NEW_PRIVS, 1)
restrict_files(abi, [*rules, Rule(folder / "file", Rights.WRITE_FILE | Rights.MAKE_REG | Rights.TRUNCATE)])
def outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return type(error).__name__
    return "succeeded"
print(json.dumps({
    "read": outcome((folder / "readable" / "file").read_bytes),
    "write": outcome(lambda: (folder / "readable" / "file").write_bytes(b"")),
    "truncate": outcome(lambda: os.truncate(folder / "readable" / "file", 0)),
    "read another": outcome((folder / "other").read_bytes),
    "write a file": outcome(lambda: (folder / "file").write_bytes(b"")),
    "read what is only written": outcome((folder / "file").read_bytes),
    "make": outcome(lambda: (folder / "from" / "new").write_bytes(b"new")),
    "move": outcome(lambda: (folder / "from" / "new").rename(folder / "to" / "new")),
    "move away": outcome(lambda: (folder / "to" / "new").rename(folder / "new")),
    "signal": outcome(lambda: os.kill(os.getppid(), 0)),
}))
"""


@pytest.mark.parametrize("abi", range(2, supported().landlock + 1))
def test_a_process_keeps_the_files_that_rules_name_and_no_others(tmp_path, abi):
    for folder in ("readable", "from", "to"):
        (tmp_path / folder).mkdir()
    for file in ("readable/file", "file", "other"):
        (tmp_path / file).write_bytes(b"content")
    found = json.loads(subprocess.check_output([sys.executable, "-c", WITH_RULES, str(tmp_path), str(abi)], cwd=ROOT.parent))
    assert {what for what, outcome in found.items() if outcome == "succeeded"} - {"truncate", "signal"} == {
        "read",
        "write a file",
        "make",
        "move",
    }
    assert found["truncate"] == ("PermissionError" if abi >= 3 else "succeeded")
    assert found["signal"] == ("PermissionError" if abi >= 6 else "succeeded")


def test_seccomp_alone_keeps_files_sockets_and_processes_away(outcomes):
    found = outcomes(Layers(no_new_privileges=True, seccomp=True))
    assert {found[what] for what in ("read", "connect", "abstract", "signal", "fork")} == {"PermissionError"}


@pytest.mark.skipif(not supported().user_namespace, reason="the kernel allows no user namespaces here")
def test_namespaces_alone_have_no_file_and_no_network(outcomes):
    found = outcomes(Layers(no_new_privileges=True, user_namespace=True, network_namespace=True, empty_root=True))
    assert found["read"] == "FileNotFoundError"
    assert found["connect"] != "succeeded"
    assert found["abstract"] == "ConnectionRefusedError"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_user_gets_the_same_layers(outcomes):
    assert outcomes(None, user=1)["layers"] == str(supported())


# ---- what a kernel without a layer means -------------------------------------------------------------------------------------------
def without(layer):
    return msgspec.structs.replace(FULL, **{layer: type(getattr(FULL, layer))()})


def test_production_starts_with_all_layers():
    require_sandbox(PRODUCTION, FULL)
    assert [finding.level for finding in sandbox_findings(PRODUCTION, FULL)] == ["good"]


def test_production_does_not_start_where_landlock_cannot_restrict_the_inference_process():
    """Its first version keeps every file in its folder."""
    with pytest.raises(Unsandboxed, match=r"missing: Landlock.*Linux 5\.19"):
        require_sandbox(PRODUCTION, msgspec.structs.replace(FULL, landlock=1))


@pytest.mark.parametrize("landlock", [2, 5])
def test_what_an_older_landlock_leaves_to_the_inference_process_is_shown(landlock):
    _, *rest = sandbox_findings(PRODUCTION, msgspec.structs.replace(FULL, landlock=landlock))
    assert [finding.level for finding in rest] == ["weak"]
    assert ("truncate files" in rest[0].message) == (landlock == 2)
    assert "send signals" in rest[0].message


@pytest.mark.parametrize("layer", ["no_new_privileges", "landlock", "seccomp"])
def test_production_does_not_start_without_a_required_layer(layer):
    with pytest.raises(Unsandboxed, match=r"BIOSCOPE_ACCEPT_UNSANDBOXED=1"):
        require_sandbox(PRODUCTION, without(layer))
    assert [finding.level for finding in sandbox_findings(PRODUCTION, without(layer))] == ["wrong"]


@pytest.mark.parametrize("layer", ["user_namespace", "network_namespace", "empty_root"])
def test_namespaces_are_taken_where_they_are_permitted(layer):
    require_sandbox(PRODUCTION, without(layer))
    (finding,) = sandbox_findings(PRODUCTION, without(layer))
    assert finding.level == "good"
    assert "no " in finding.message


def test_an_accepted_risk_is_logged_and_shown():
    accepted = msgspec.structs.replace(PRODUCTION, accept_unsandboxed=True)
    with capture_logs() as logs:
        require_sandbox(accepted, without("landlock"))
    assert [(entry["log_level"], entry["missing"]) for entry in logs] == [("warning", ["Landlock"])]
    assert [finding.level for finding in sandbox_findings(accepted, without("landlock"))] == ["weak", "weak"]
    assert [finding.level for finding in sandbox_findings(accepted, FULL)] == ["good", "weak"]


def test_a_development_system_starts_with_a_warning():
    with capture_logs() as logs:
        require_sandbox(Settings(), without("seccomp"))
    assert [entry["log_level"] for entry in logs] == ["warning"]


# ---- the same pixels inside as outside ---------------------------------------------------------------------------------------------
@pytest.fixture
def examined_in_the_sandbox():
    async def run(files):
        fork_server = ForkServer("infrastructure.inference.children.child_functions")
        pool = ProcessPool(fork_server, size=1, nice=0, memory_bytes=1024**3, hang_seconds=60.0)
        try:
            check = partial(check_inspected, limits=LIMITS)
            return [
                await pool.run(
                    "infrastructure.inference.children.child_functions:examine",
                    data,
                    LIMITS,
                    into=InspectedUpload | ImageRefusal,
                    check=check,
                )
                for data in files
            ]
        finally:
            pool.close()
            fork_server.close()

    return lambda files: asyncio.run(run(files))


def test_every_test_file_is_decoded_inside_as_outside(examined_in_the_sandbox):
    files = [path.read_bytes() for path in FILES]
    assert len(files) > 40
    assert examined_in_the_sandbox(files) == [examine(data, LIMITS) for data in files]


def test_every_encoding_is_decoded_inside_as_outside(examined_in_the_sandbox):
    files = [written(cell(), encoding).data for encoding in encodings(seed=1, count=150)]
    assert examined_in_the_sandbox(files) == [examine(data, LIMITS) for data in files]
