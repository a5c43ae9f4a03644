"""A new user's day with the command line: every example of the help works as it stands, and every JSON has its documented shape."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from scripts.commands import commands, shapes
from tests.api.examples import words_of

ROOT = Path(__file__).parents[2]
PASSWORD = "correct horse battery 9"
EXAMPLES = {name: command.example for name, command in commands()}
DAY = [
    "bioscope users create-admin",
    "bioscope login",
    "bioscope classify",
    "bioscope jobs list",
    "bioscope jobs show",
    "bioscope jobs watch",
    "bioscope results list",
    "bioscope results show",
    "bioscope results export",
    "bioscope stats",
    "bioscope password",
    "bioscope sessions list",
    "bioscope sessions end",
    "bioscope audit verify",
    "bioscope audit trail",
    "bioscope audit state",
    "bioscope audit log",
    "bioscope audit who",
    "bioscope users list",
    "bioscope users show",
    "bioscope users set-role",
    "bioscope users sessions",
    "bioscope users invite",
    "bioscope users invitations",
    "bioscope users withdraw-invitation",
    "bioscope tokens create",
    "bioscope tokens list",
    "bioscope tokens revoke",
    "bioscope models list",
    "bioscope models show",
    "bioscope models add",
    "bioscope models add-external",
    "bioscope models test",
    "bioscope models checks",
    "bioscope models promote",
    "bioscope models export",
    "bioscope models history",
    "bioscope policies preview",
    "bioscope policies set",
    "bioscope policies list",
    "bioscope policies show",
    "bioscope policies withdraw",
    "bioscope policies history",
    "bioscope images recheck",
    "bioscope status",
    "bioscope doctor",
    "bioscope config show",
    "bioscope mail test",
    "bioscope mail status",
    "bioscope keys list",
    "bioscope keys export",
    "bioscope health",
    "bioscope backup",
    "bioscope rebuild",
    "bioscope dead-letters list",
    "bioscope dead-letters retry",
    "bioscope openapi export",
    "bioscope asyncapi export",
    "bioscope completion",
    "bioscope models retire",
    "bioscope users reset-password",
    "bioscope users disable",
    "bioscope users enable",
    "bioscope users erase",
    "bioscope restore",
]
ELSEWHERE = {
    "bioscope demo": "before the day",
    "bioscope up": "during the day",
    "bioscope api": "started by `bioscope up`",
    "bioscope relay": "started by `bioscope up`",
    "bioscope projector": "started by `bioscope up`",
    "bioscope inference": "started by `bioscope up`",
    "bioscope inference-bridge": "started by `bioscope up`",
    "bioscope tokens rotate": "tests/api/test_token_commands.py, since it needs the id of a key",
    "bioscope api-keys create": "tests/api/test_token_commands.py, since it is tested with the other commands for keys",
    "bioscope api-keys list": "tests/api/test_token_commands.py, since it is tested with the other commands for keys",
    "bioscope api-keys rotate": "tests/api/test_token_commands.py, since it needs a key",
    "bioscope api-keys revoke": "tests/api/test_token_commands.py, since it needs a key",
    "bioscope upload": "tests/api/test_token_commands.py, since it needs a dataset",
    "bioscope migrate": "tests/infrastructure/test_model_commands.py, since it needs a database of its own",
    "bioscope jobs run": "tests/system/test_analysis_page.py, since two datasets of the day have the name",
    "bioscope jobs cancel": "tests/api/test_job_commands.py, since it needs a running job",
    "bioscope jobs retry": "tests/api/test_job_commands.py, since it needs a job with failures",
    "bioscope datasets create": "tests/api/test_team_commands.py, since it needs another account",
    "bioscope datasets list": "tests/api/test_team_commands.py, since it needs another account",
    "bioscope datasets shares": "tests/api/test_team_commands.py, since it needs another account",
    "bioscope teams list": "tests/api/test_team_commands.py, since it needs another account",
    "bioscope teams members": "tests/api/test_team_commands.py, since it needs another account",
    "bioscope datasets share": "tests/api/test_team_commands.py, since it needs another account",
    "bioscope datasets unshare": "tests/api/test_team_commands.py, since it needs another account",
    "bioscope datasets transfer": "tests/api/test_team_commands.py, since it needs another account",
    "bioscope teams create": "tests/api/test_team_commands.py, since it needs another account",
    "bioscope teams delete": "tests/api/test_team_commands.py, since it needs another account",
    "bioscope teams add": "tests/api/test_team_commands.py, since it needs another account",
    "bioscope teams remove": "tests/api/test_team_commands.py, since it needs another account",
    "bioscope users delete": "tests/api/test_users_command.py, since the day has one account",
    "bioscope dead-letters discard": "tests/api/test_record_commands.py, since it needs a dead letter",
}
ONCE = {"bioscope restore", "bioscope users erase", "bioscope users invite"}
pytestmark = pytest.mark.long


class Machine:
    """A user's machine: a checkout, and a shell in it."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "examples").symlink_to(ROOT / "examples")
        (folder / "models").symlink_to(ROOT / "models")
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = str(server.getsockname()[1])
        self.variables = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "COLUMNS": "80",
            "BIOSCOPE_PORT": port,
            "BIOSCOPE_URL": f"http://127.0.0.1:{port}",
            "BIOSCOPE_ADMIN_PASSWORD": PASSWORD,
        }

    def shell(self, line, **more):
        return self.ended(["bash", "-c", line], more)

    def bioscope(self, *words, **more):
        return self.ended(["bioscope", *words], more)

    def ended(self, command, more):
        return subprocess.run(command, cwd=self.folder, env=self.variables | more, capture_output=True, text=True, check=False, timeout=300)

    def variables_of(self, name):
        return {
            "bioscope login": {"BIOSCOPE_PASSWORD": PASSWORD},
            "bioscope password": {"BIOSCOPE_PASSWORD": PASSWORD, "BIOSCOPE_NEW_PASSWORD": f"{PASSWORD} again"},
        }.get(name, {})


def assert_whole_lines(text):
    """A longer line is a single word, or a field with one."""
    for line in text.splitlines():
        assert len(line) <= 80 or len(line.split()) <= 2, line


def decoded(name, text):
    option = shapes()[name]
    for part in text.splitlines() if option.lines else [text]:
        again = msgspec.json.encode(msgspec.json.decode(part, type=option.shape))
        assert json.loads(again) == json.loads(part), name
    return None if option.lines else json.loads(text)


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    return Machine(tmp_path_factory.mktemp("machine"))


@pytest.fixture(scope="module")
def after_the_demo(machine):
    done = machine.bioscope("demo", "--json")
    assert done.returncode == 0, done.stderr
    return decoded("bioscope demo", done.stdout)


@pytest.fixture(scope="module")
def running(machine, after_the_demo):
    command = ["bioscope", "up", "--json"]
    with (
        (machine.folder / "up.messages").open("w") as messages,
        subprocess.Popen(command, cwd=machine.folder, env=machine.variables, stdout=subprocess.PIPE, stderr=messages, text=True) as up,
    ):
        lines = []
        for line in up.stdout:
            lines.append(line)
            if line == "}\n":
                break
        yield decoded("bioscope up", "".join(lines))
        up.send_signal(signal.SIGINT)
        assert up.wait(60) == 0


def test_every_example_is_run():
    assert set(DAY) | set(ELSEWHERE) == set(EXAMPLES)


def test_the_demo_tells_programs_what_it_found(after_the_demo):
    assert after_the_demo["succeeded"]
    assert after_the_demo["verification"]["intact"]
    assert len(after_the_demo["run"]["lines"]) > 48


def test_the_running_system_tells_programs_its_address(machine, running):
    assert running == {"url": machine.variables["BIOSCOPE_URL"], "data": str(machine.folder / ".bioscope")}


def test_the_models_of_the_running_system_are_described(machine, running):
    messages = (machine.folder / "up.messages").read_text()
    described = " ".join(messages.split())
    for name in ("bccd3", "pbc8"):
        assert re.search(rf"known: model {name} version 1 \(release \S+, sha256 [0-9a-f]{{12}}\), production", described)
    assert "position=" not in messages
    assert_whole_lines(messages)


@pytest.mark.parametrize("name", DAY)
def test_the_example_works_as_it_stands(machine, running, name):
    done = machine.shell(EXAMPLES[name], **machine.variables_of(name))
    assert done.returncode == 0, done.stdout + done.stderr
    if name not in {"bioscope audit state", "bioscope tokens create"}:
        assert_whole_lines(done.stdout)
    assert_whole_lines(done.stderr)
    if name in shapes() and name not in ONCE:
        done = machine.bioscope(*words_of(EXAMPLES[name]), "--json")
        assert done.returncode == 0, done.stderr
        decoded(name, done.stdout)


def test_restore_tells_programs_what_it_restored(machine, running):
    done = machine.bioscope("restore", "./backup", "--data", "restored-again", "--root-key", ".bioscope/keys/root.key", "--json")
    assert done.returncode == 0, done.stderr
    assert decoded("bioscope restore", done.stdout)["events"] > 100
