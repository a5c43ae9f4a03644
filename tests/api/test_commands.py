"""The command line explains itself: help with an example at any width, defaults, suggestions, completion, JSON that keeps its shape."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner

from api.cli import main
from api.cli.commands import Argument, Command, JsonOption, SettingOption, summary
from domain.values import model_id
from infrastructure.embedded.installation import with_free_port
from scripts.commands import commands, shapes
from tests.api.examples import words_of
from tests.api.test_users_command import bioscope

__all__ = ["bioscope"]

COMMANDS = dict(commands())
GROUPS = {"bioscope": main} | {f"bioscope {name}": one for name, one in main.commands.items() if isinstance(one, click.Group)}
WITHOUT_DATA = {
    "bioscope login",
    "bioscope api",
    "bioscope relay",
    "bioscope projector",
    "bioscope inference",
    "bioscope inference-bridge",
    "bioscope completion",
    "bioscope keys export",
    "bioscope jobs cancel",
    "bioscope results export",
    "bioscope models promote",
    "bioscope models retire",
    "bioscope models export",
    "bioscope policies set",
    "bioscope policies withdraw",
    "bioscope tokens revoke",
    "bioscope api-keys revoke",
    "bioscope upload",
    "bioscope datasets create",
    "bioscope datasets share",
    "bioscope datasets unshare",
    "bioscope datasets transfer",
    "bioscope teams create",
    "bioscope teams delete",
    "bioscope teams add",
    "bioscope teams remove",
    "bioscope mail test",
    "bioscope users create-admin",
    "bioscope users invite",
    "bioscope users withdraw-invitation",
    "bioscope users set-role",
    "bioscope users disable",
    "bioscope users enable",
    "bioscope users delete",
    "bioscope users erase",
    "bioscope password",
    "bioscope sessions end",
}
"""They print messages only, or a script for a shell."""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("BIOSCOPE_")]:
        monkeypatch.delenv(name)


def run(*arguments, **variables):
    return CliRunner().invoke(main, arguments, prog_name="bioscope", env={"COLUMNS": "80"} | variables)


def help_of(name, **variables):
    done = run(*name.split()[1:], "--help", **variables)
    assert done.exit_code == 0
    return done.stdout


def in_one_line(text):
    return " ".join(text.split())


# ---- help --------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [*COMMANDS, *GROUPS])
def test_help_fits_80_columns_and_leaves_nothing_out(name):
    shown = help_of(name)
    assert max(map(len, shown.splitlines())) <= 80
    assert "..." not in re.sub(r"\[(ARGS|IMAGES)\]\.\.\.", "", shown)
    command = COMMANDS.get(name) or GROUPS[name]
    assert summary(command) in in_one_line(shown)
    for option in command.params:
        assert all(re.search(rf"(?<![\w-]){re.escape(one)}(?![\w-])", shown) for one in option.opts if one.startswith("-"))


@pytest.mark.parametrize("name", GROUPS)
def test_the_help_of_a_group_shows_the_whole_summary_of_each_command(name):
    shown = in_one_line(help_of(name))
    for inner in GROUPS[name].commands.values():
        assert f" {inner.name} {summary(inner)}" in shown


def test_commands_are_grouped():
    shown = help_of("bioscope")
    titles = ["Everyday commands:", "Administration:", "Processes:", "Interfaces:"]
    assert [line for line in shown.splitlines() if line in titles] == titles
    assert sorted(name for names in main.sections.values() for name in names) == sorted(main.commands)
    assert main.sections["Processes"] == ["api", "relay", "projector", "inference", "inference-bridge", "health"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_parameter_is_explained(name):
    shown = in_one_line(help_of(name))
    for one in COMMANDS[name].params:
        assert isinstance(one, Argument | click.Option)
        assert one.help
        assert in_one_line(one.explanation if isinstance(one, Argument) else one.help) in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_parses(name, tmp_path, monkeypatch):
    command = COMMANDS[name]
    assert command.example in help_of(name)
    for needed in ("backup", "examples/micrographs", "models/pbc8", ".bioscope/keys"):
        (tmp_path / needed).mkdir(parents=True)
    (tmp_path / ".bioscope/keys/root.key").touch()
    monkeypatch.chdir(tmp_path)
    words = words_of(command.example)
    own = name.split()[1:]
    assert words[: len(own)] == own
    with click.Context(main) as root:
        command.make_context(name, words[len(own) :], parent=root)


def test_a_default_and_a_range_are_shown():
    shown = in_one_line(help_of("bioscope tokens create"))
    assert "--days NUMBER Lifetime in days. [default: 90; 1<=x<=366]" in shown


def settings_options():
    return [(name, one) for name, command in COMMANDS.items() for one in command.params if isinstance(one, SettingOption)]


def test_options_for_settings_show_the_variable_and_the_default():
    assert {one.variable for _, one in settings_options()} == {"BIOSCOPE_DATA", "BIOSCOPE_PORT", "BIOSCOPE_URL"}
    for name, one in settings_options():
        assert f"[env: {one.variable}, not set; default: {one.fallback}]" in in_one_line(help_of(name))


def test_options_for_settings_show_the_current_value():
    shown = in_one_line(help_of("bioscope up", BIOSCOPE_DATA="/srv/bioscope", BIOSCOPE_PORT="8123"))
    assert "[env: BIOSCOPE_DATA, now /srv/bioscope; default: .bioscope in the current folder]" in shown
    assert "[env: BIOSCOPE_PORT, now 8123; default: 8000]" in shown


def test_help_shows_no_secret():
    given = {"BIOSCOPE_URL": "https://ada:canary@example.org", "BIOSCOPE_PASSWORD": "canary", "BIOSCOPE_TOKEN": "canary"}
    for name in ("bioscope login", "bioscope classify", "bioscope users reset-password"):
        shown = help_of(name, **given)
        assert "canary" not in shown
        assert " [set]" in shown
    assert "now https://example.org" in in_one_line(help_of("bioscope login", **given))


# ---- --data before the command -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("arguments", [["--data", "/x", "config", "show", "--json"], ["config", "show", "--json", "--data", "/x"]])
def test_the_data_folder_may_be_given_before_the_command(arguments):
    assert json.loads(run(*arguments).stdout)["BIOSCOPE_DATA"] == {"value": "/x", "source": "command line"}


def test_an_option_after_the_command_wins():
    shown = run("--data", "/x", "config", "show", "--json", "--data", "/y", BIOSCOPE_DATA="/z").stdout
    assert json.loads(shown)["BIOSCOPE_DATA"]["value"] == "/y"


def test_a_command_without_a_data_folder_refuses_it():
    done = run("--data", "/x", "openapi", "export")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "bioscope openapi export does not take --data" in done.stderr


# ---- suggestions -------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (["clasify"], "No such command 'clasify'. Did you mean 'classify'?"),
        (["users", "lst"], "No such command 'lst'. Did you mean 'list'?"),
        (["user"], "No such command 'user'. Did you mean 'users'?"),
        (["verfy"], "No such command 'verfy'. Did you mean 'audit verify'?"),
        (["discard"], "No such command 'discard'. Did you mean 'dead-letters discard'?"),
        (["list"], "No such command 'list'. Did you mean 'sessions list', 'jobs list' or 'results list'?"),
        (["users", "list", "--jsn"], "No such option: --jsn. Did you mean '--json'?"),
        (["--dta", "x", "up"], "No such option: --dta. Did you mean '--data'?"),
        (["xyzzy"], "No such command 'xyzzy'."),
        (["up", "--xyzzy"], "No such option: --xyzzy."),
        (
            ["users", "set-role", "x", "reviewer"],
            "Invalid value for 'ROLE': 'reviewer' is not one of 'viewer', 'analyst', 'researcher', 'admin'. Did you mean 'viewer'?",
        ),
    ],
)
def test_a_misspelled_name_is_answered_with_the_nearest(arguments, suggestion):
    done = run(*arguments)
    assert done.exit_code == 2
    assert in_one_line(done.stderr).endswith(f"Error: {suggestion}")
    assert max(map(len, done.stderr.splitlines())) <= 80


def test_a_group_without_a_command_shows_its_help():
    done = run("users")
    assert done.exit_code == 2
    assert "reset-password" in done.output


# ---- completion --------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_for_the_program(shell):
    script = run("completion", shell).stdout
    assert f"_BIOSCOPE_COMPLETE={shell}_complete" in script
    if program := shutil.which(shell):
        checked = subprocess.run([program, "-n"], input=script, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr


COMPLETED = [
    (["cl"], ["classify"]),
    (["users", "re"], ["reset-password"]),
    (["users", "list", "--st"], ["--status"]),
    (["users", "list", "--role", "a"], ["analyst", "admin"]),
    (["dead-letters", ""], ["list", "retry", "discard"]),
]


@pytest.mark.parametrize(("words", "completed"), COMPLETED)
def test_bash_completes_commands_options_and_choices(words, completed):
    program = Path(sys.executable).with_name("bioscope")
    script = f"""
        eval "$({program} completion bash)"
        COMP_WORDS=(bioscope {shlex.join(words)}) COMP_CWORD={len(words)}
        _bioscope_completion {program}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == completed, done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_the_same_completions(shell):
    given = {"_BIOSCOPE_COMPLETE": f"{shell}_complete", "COMP_WORDS": "bioscope users re", "COMP_CWORD": "re" if shell == "fish" else "2"}
    program = Path(sys.executable).with_name("bioscope")
    done = subprocess.run([program], env=os.environ | given, capture_output=True, text=True, check=True)
    assert "reset-password" in done.stdout
    assert "list" not in done.stdout.split()


# ---- JSON --------------------------------------------------------------------------------------------------------------------------
def test_every_command_that_prints_data_takes_json():
    assert set(COMMANDS) - set(shapes()) == WITHOUT_DATA


HERE = {
    "bioscope audit verify": [],
    "bioscope audit trail": [str(model_id("pbc8"))],
    "bioscope audit state": [str(model_id("pbc8"))],
    "bioscope rebuild": ["--check"],
    "bioscope dead-letters list": [],
    "bioscope dead-letters retry": [],
    "bioscope users list": [],
    "bioscope users show": ["ada@example.org"],
    "bioscope users reset-password": ["ada@example.org"],
    "bioscope users sessions": ["ada@example.org"],
    "bioscope users invitations": [],
    "bioscope tokens create": ["archive", "--scope", "events:read"],
    "bioscope tokens list": ["--all"],
    "bioscope keys list": [],
    "bioscope config show": [],
    "bioscope mail status": [],
    "bioscope doctor": [],
    "bioscope migrate": [],
    "bioscope backup": ["copy"],
    "bioscope health": ["api"],
    "bioscope openapi export": [],
    "bioscope asyncapi export": [],
}
WITH_THE_WHOLE_SYSTEM = {
    "bioscope tokens rotate",
    "bioscope api-keys create",
    "bioscope api-keys list",
    "bioscope api-keys rotate",
    "bioscope models add",
    "bioscope models add-external",
    "bioscope models test",
    "bioscope models checks",
    "bioscope demo",
    "bioscope up",
    "bioscope sessions list",
    "bioscope status",
    "bioscope classify",
    "bioscope restore",
    "bioscope images recheck",
    "bioscope dead-letters discard",
    "bioscope models list",
    "bioscope audit log",
    "bioscope audit who",
    "bioscope models show",
    "bioscope models history",
    "bioscope policies list",
    "bioscope policies show",
    "bioscope policies preview",
    "bioscope policies history",
    "bioscope datasets list",
    "bioscope datasets shares",
    "bioscope teams list",
    "bioscope teams members",
    "bioscope jobs list",
    "bioscope jobs show",
    "bioscope jobs watch",
    "bioscope jobs retry",
    "bioscope jobs run",
    "bioscope results list",
    "bioscope results show",
    "bioscope stats",
}
"""tests/system/test_command_line.py and, in tests/api, test_model_packages.py, test_record_commands.py, test_registry_commands.py,
test_policy_commands.py, test_team_commands.py, test_token_commands.py, test_job_commands.py, test_result_commands.py and
test_statistics.py."""


def test_every_json_is_tested():
    assert set(HERE) | WITH_THE_WHOLE_SYSTEM == set(shapes())


def assert_shape(option: JsonOption, text):
    """What was printed has the documented fields and no other."""
    for part in text.splitlines() if option.lines else [text]:
        again = msgspec.json.encode(msgspec.json.decode(part, type=option.shape))
        assert json.loads(again) == json.loads(part)


@pytest.mark.anyio
async def test_json_has_the_documented_shape(api, bioscope, lab_settings, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BIOSCOPE_POSTGRES_OWNER_URL", lab_settings.postgres_owner_url)
    monkeypatch.setenv("BIOSCOPE_ADMIN_PASSWORD", "correct horse battery 9")
    monkeypatch.setenv("BIOSCOPE_PORT", str(with_free_port(lab_settings).port))
    await bioscope("migrate")
    await bioscope("users", "create-admin", "ada@example.org")
    for name, arguments in HERE.items():
        code = 1 if name == "bioscope health" else 0  # no process serves here
        done = await bioscope(*name.split()[1:], *arguments, "--json", code=code)
        assert_shape(shapes()[name], done.stdout)


def test_commands_are_of_our_class():
    assert all(type(command) is Command for command in COMMANDS.values())
