"""Errors of the command line: one sentence that says what to do, and an exit code; never a traceback."""

import json
import os
import socket
import subprocess
import sys
from contextlib import closing

import click
import psycopg
import pytest
from click.testing import CliRunner

from api.cli import main
from api.cli.commands import CommandLine
from infrastructure.embedded.data_folder import locked
from infrastructure.embedded.installation import environment
from infrastructure.postgres.environment import remove_libpq_variables
from infrastructure.postgres.schema import migrations
from infrastructure.security.keys import RootKey
from infrastructure.security.process_keys import write_key_file

FAILED, WRONG_USE, ALREADY_RUNNING, AWAY = 1, 2, 3, 5
NOBODY_THERE = "postgresql://bioscope_app:canary@127.0.0.1:1/bioscope"
PROCESSES = ["api", "relay", "projector", "inference", "inference-bridge"]
ID = "00000000-0000-0000-0000-000000000001"
LIBPQ = {
    "PGSERVICE": "nowhere",
    "PGSERVICEFILE": "/nonexistent",
    "PGHOST": "192.0.2.1",
    "PGHOSTADDR": "192.0.2.1",
    "PGPORT": "1",
    "PGDATABASE": "nothing",
    "PGUSER": "nobody",
    "PGPASSWORD": "wrong",
    "PGPASSFILE": "/nonexistent",
    "PGOPTIONS": "-c search_path=nowhere -c default_transaction_read_only=on",
    "PGSSLMODE": "verify-full",
    "PGSSLROOTCERT": "/nonexistent",
    "PGREQUIREAUTH": "none",
    "PGTARGETSESSIONATTRS": "standby",
    "PGCLIENTENCODING": "LATIN1",
    "PGCONNECT_TIMEOUT": "1",
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("BIOSCOPE_", "PG"))]:
        monkeypatch.delenv(name)


def variables(settings):
    """What a process of this system gets, and the owner's URL beside it."""
    ours = {name: value for name, value in environment(settings, {}).items() if value}
    return ours | {"BIOSCOPE_POSTGRES_OWNER_URL": settings.postgres_owner_url}


def run(*arguments, **given):
    """In this process: (exit code, everything printed in one line)."""
    done = CliRunner().invoke(main, list(map(str, arguments)), env=given)
    return done.exit_code, " ".join(done.output.split())


def run_process(*arguments, stdin="", **given):
    """In a process of its own, as a script does: without a terminal."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "api.cli", *map(str, arguments)],
        env=os.environ | given,
        input=stdin,
        start_new_session=True,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def refused(answer, code, *body):
    """One sentence, and nothing of how the program works."""
    exit_code, output = answer
    assert exit_code == code, output
    assert "Traceback" not in output
    assert output.count("bioscope: ") == 1, output
    for words in body:
        assert words in output


COMMANDS = {
    "migrate": ["migrate"],
    "verify": ["audit", "verify"],
    "trail": ["audit", "trail", ID],
    "state": ["audit", "state", ID],
    "rebuild": ["rebuild"],
    "check": ["rebuild", "--check"],
    "dead letters": ["dead-letters", "list"],
    "retry": ["dead-letters", "retry"],
    "discard": ["dead-letters", "discard", "1", "--reason", "torn"],
    "create-admin": ["users", "create-admin", "a@example.org"],
    "set-role": ["users", "set-role", "a@example.org", "viewer"],
    "erase": ["users", "erase", "a@example.org", "--yes"],
    "backup": ["backup", "copy"],
}


@pytest.fixture(params=COMMANDS.values(), ids=COMMANDS.keys())
def command(request, tmp_path, monkeypatch):
    """Every command that uses the database in this process, where it may write."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BIOSCOPE_ADMIN_PASSWORD", "correct horse battery")
    return request.param


def test_read_models_of_another_release_are_named(settings):
    with psycopg.connect(settings.postgres_owner_url, autocommit=True) as owner:
        owner.execute("insert into read.folds (name, version) values ('users', 999)")
    refused(run(*COMMANDS["discard"], **variables(settings)), FAILED, "users (version 999 there", "upgrade this process")


def test_read_models_of_another_log_are_named(settings):
    with psycopg.connect(settings.postgres_owner_url, autocommit=True) as owner:
        owner.execute("update read.checkpoint set hash = sha256('another log')")
    refused(run(*COMMANDS["discard"], **variables(settings)), FAILED, "of another log", "bioscope audit verify")


# ---- the database ------------------------------------------------------------------------------------------------------------------
def test_a_database_that_is_away_is_named(command, settings):
    given = variables(settings) | {"BIOSCOPE_POSTGRES_URL": NOBODY_THERE, "BIOSCOPE_POSTGRES_OWNER_URL": NOBODY_THERE}
    refused(run(*command, **given), AWAY, "Connection refused", "BIOSCOPE_POSTGRES_URL")


@pytest.mark.parametrize(
    "url", ["postgresql://a:canary@nowhere.invalid/d", "postgresql://a:canary@/d?host=/nonexistent", "postgresql://a@h/d?x=1"]
)
def test_a_database_that_cannot_be_found_is_named(settings, url):
    exit_code, output = run("audit", "verify", **variables(settings) | {"BIOSCOPE_POSTGRES_URL": url})
    assert exit_code in {WRONG_USE, AWAY}
    refused((exit_code, output), exit_code, "BIOSCOPE_POSTGRES_URL")
    assert "canary" not in output


@pytest.fixture
def locked_url(postgres, database):
    """Of a role whose password this URL gives wrong."""
    with psycopg.connect(postgres.url(user="postgres", database=database), autocommit=True) as connection:
        connection.execute("create role locked login password 'right'")
        yield postgres.url(user="postgres", database=database).replace(f"postgres:{postgres.password('postgres')}@", "locked:canary@")
        connection.execute("drop role locked")


def test_a_wrong_password_is_named_and_not_shown(command, settings, locked_url):
    answer = run(*command, **variables(settings) | {"BIOSCOPE_POSTGRES_URL": locked_url, "BIOSCOPE_POSTGRES_OWNER_URL": locked_url})
    refused(answer, WRONG_USE, 'password authentication failed for user "locked"', "correct the user name and password")
    assert "canary" not in answer[1]


def test_a_missing_password_is_named(settings, locked_url):
    given = variables(settings) | {"BIOSCOPE_POSTGRES_URL": locked_url.replace(":canary", "")}
    refused(run("audit", "verify", **given), WRONG_USE, "no password supplied")


def test_no_process_waits_for_a_database_that_refuses_it(settings, locked_url):
    given = variables(settings) | {"BIOSCOPE_POSTGRES_URL": locked_url}
    refused(run_process("relay", **given), WRONG_USE, "password authentication failed")


def test_migrating_without_the_owners_rights_names_the_setting_that_is_missing(settings, postgres, database):
    with psycopg.connect(postgres.url(user="postgres", database="postgres"), autocommit=True) as server:
        server.execute("create database without_migrations")
    app = postgres.url(user="bioscope_app", database="without_migrations")
    given = variables(settings) | {"BIOSCOPE_POSTGRES_URL": app, "BIOSCOPE_POSTGRES_OWNER_URL": ""}
    refused(run("migrate", **given), WRONG_USE, "permission denied", "set BIOSCOPE_POSTGRES_OWNER_URL")


@pytest.mark.parametrize("name", ["rebuild", "check"])
def test_what_needs_the_owner_says_so(name, settings):
    given = variables(settings) | {"BIOSCOPE_POSTGRES_OWNER_URL": ""}
    refused(run(*COMMANDS[name], **given), WRONG_USE, "permission denied", "set BIOSCOPE_POSTGRES_OWNER_URL")


# ---- the schema --------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def behind(settings, owner_url):
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute("delete from ops.migrations where number = %s", (max(migrations()),))
    return variables(settings)


@pytest.fixture
def ahead(settings, owner_url):
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute("insert into ops.migrations (number, oldest_release) values (9999, '99.0.0')")
    return variables(settings)


def test_commands_refuse_a_database_of_a_newer_release(command, ahead):
    refused(run(*command, **ahead), FAILED, "needs bioscope 99.0.0 or newer")


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"migrate"}))
def test_commands_refuse_a_database_that_lacks_migrations(name, behind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BIOSCOPE_ADMIN_PASSWORD", "correct horse battery")
    refused(run(*COMMANDS[name], **behind), FAILED, "run `bioscope migrate`")


@pytest.mark.parametrize("process", PROCESSES)
def test_no_process_starts_on_a_database_that_lacks_migrations(process, behind):
    refused(run_process(process, **behind), FAILED, "run `bioscope migrate`")


@pytest.mark.parametrize("process", ["api", "up"])
def test_no_process_starts_on_a_database_of_a_newer_release(process, ahead):
    refused(run_process(process, **ahead), FAILED, "needs bioscope 99.0.0 or newer")


# ---- ports, files and folders ------------------------------------------------------------------------------------------------------
@pytest.fixture
def used_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield str(server.getsockname()[1])


def test_the_api_names_a_port_that_is_in_use(settings, used_port):
    given = variables(settings) | {"BIOSCOPE_PORT": used_port}
    refused(run_process("api", **given), FAILED, f"127.0.0.1:{used_port} cannot be bound (Address already in use)")


def test_a_metrics_port_that_is_in_use_is_named(settings, used_port):
    given = variables(settings) | {"BIOSCOPE_METRICS_PORT": used_port}
    refused(run_process("relay", **given), FAILED, f"127.0.0.1:{used_port} cannot be bound for metrics (Address already in use)")


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid"])
def test_an_address_of_another_machine_is_named(settings, host):
    refused(run_process("up", **variables(settings) | {"BIOSCOPE_HOST": host}), FAILED, f"{host} is not an address of this machine")


@pytest.mark.parametrize("name", ["missing", "folder", "text"])
def test_a_root_key_that_cannot_be_read_is_named(settings, tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("no key")
    given = variables(settings) | {"BIOSCOPE_ROOT_KEY_FILE": str(tmp_path / name)}
    refused(run("tokens", "create", "x", "--scope", "events:read", **given), WRONG_USE, str(tmp_path / name))


@pytest.mark.parametrize("process", [process for process in PROCESSES if not process.startswith("inference")])
def test_no_process_that_needs_keys_starts_without_them(process, settings, tmp_path):
    given = variables(settings) | {"BIOSCOPE_ROOT_KEY_FILE": str(tmp_path)}
    refused(run_process(process, **given), WRONG_USE, f"the root key {tmp_path} cannot be read (Is a directory)")
    refused(run_process(process, **given, BIOSCOPE_KEY_FILE=str(tmp_path)), WRONG_USE, f"the key file {tmp_path} cannot be read")


@pytest.mark.parametrize(("process", "other"), [("api", "relay"), ("relay", "projector"), ("projector", "api")])
def test_no_process_starts_with_the_keys_of_another(process, other, settings, tmp_path):
    write_key_file(tmp_path / "other.keys", RootKey.read(settings.root_key_path), other)
    given = variables(settings) | {"BIOSCOPE_KEY_FILE": str(tmp_path / "other.keys")}
    refused(run_process(process, **given), WRONG_USE, "this process does not hold the key for")


@pytest.mark.parametrize("arguments", [["up"], ["demo", "--no-stay"]], ids=["up", "demo"])
def test_a_data_folder_that_cannot_be_made_is_named(arguments, tmp_path):
    (tmp_path / "file").touch()
    refused(run_process(*arguments, "--data", tmp_path / "file" / "data"), FAILED, "cannot be the data folder: Not a directory")


def test_a_data_folder_in_use_is_named(tmp_path):
    with locked(tmp_path / "data"):
        refused(run_process("up", "--data", tmp_path / "data"), ALREADY_RUNNING, f"is in use by process {os.getpid()}")


def test_a_backup_folder_that_cannot_be_made_is_named(settings, tmp_path):
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "copy"
    refused(run("backup", folder, **variables(settings)), FAILED, f"{folder}: Not a directory", "check the path")


def test_a_blob_folder_that_cannot_be_made_is_named(settings, tmp_path):
    (tmp_path / "file").touch()
    given = variables(settings) | {"BIOSCOPE_BLOBS_URL": str(tmp_path / "file" / "blobs")}
    refused(run("backup", tmp_path / "copy", **given), AWAY, "blob store is unavailable", "Not a directory")


def test_nothing_that_runs_is_named(tmp_path):
    refused(run("audit", "verify", "--data", tmp_path), AWAY, "start it with `bioscope up`")


# ---- settings and wrong use --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "arguments", [["up"], ["migrate"], ["doctor"], ["relay"], ["audit", "verify"], ["tokens", "create", "x", "--scope", "events:read"]]
)
def test_every_command_refuses_an_unknown_variable(arguments):
    refused(run(*arguments, BIOSCOPE_POSTGRS_URL="x"), WRONG_USE, "Did you mean BIOSCOPE_POSTGRES_URL?")


def test_a_refused_blob_url_makes_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(run("doctor", BIOSCOPE_BLOBS_URL="gs://bioscope"), WRONG_USE, "s3://BUCKET or the path of a folder")
    assert list(tmp_path.iterdir()) == []


def test_the_configuration_is_printed_with_sources_and_without_secrets():
    given = {"BIOSCOPE_POSTGRES_URL": "postgresql://a:canary@h/d", "BIOSCOPE_BLOBS_SECRET": "canary", "BIOSCOPE_HOST": "::1"}
    exit_code, output = run("config", "show", "--port", "8123", **given)
    assert exit_code == 0
    assert "BIOSCOPE_POSTGRES_URL environment postgresql://a:(hidden)@h/d" in output
    assert "BIOSCOPE_PORT command line 8123" in output
    assert "BIOSCOPE_LOG_JSON default false" in output
    values = json.loads(run("config", "show", "--json", **given)[1])
    assert values["BIOSCOPE_HOST"] == {"value": "::1", "source": "environment"}
    assert values["BIOSCOPE_BLOBS_SECRET"]["value"] == "(hidden)"
    assert "canary" not in output + str(values)


def test_a_wrong_configuration_is_printed_too():
    exit_code, output = run("config", "show", BIOSCOPE_BLOBS_URL="gs://x", BIOSCOPE_PRT="1")
    assert exit_code == WRONG_USE
    assert "BIOSCOPE_BLOBS_URL environment (refused)" in output
    assert "BIOSCOPE_PRT is not a setting. Did you mean BIOSCOPE_PORT?" in output
    assert "gs:// is not supported" in output


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://[::1", "http://h:port"])
def test_an_address_that_is_none_is_named(url):
    refused(run("login", "--email", "a@example.org", "--url", url, BIOSCOPE_PASSWORD="x"), WRONG_USE, "must be like https://")


@pytest.mark.parametrize("name", ["trail", "state"])
def test_a_name_in_place_of_an_id_gets_a_hint_where_ids_are_printed(name):
    exit_code, output = run("audit", name, "SNE_209892.jpg")
    assert exit_code == WRONG_USE
    assert "'SNE_209892.jpg' is not an id." in output
    assert "`bioscope classify --csv` (or --json) prints the ids of images." in output


def test_an_api_that_is_away_is_named():
    with closing(socket.socket()) as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        refused(run("login", "--email", "a@example.org", "--url", url, BIOSCOPE_PASSWORD="x"), AWAY, "is `bioscope up` running")


def test_an_error_that_nobody_can_mend_keeps_its_traceback():
    @click.group(cls=CommandLine)
    def commands():
        pass

    @commands.command(example="commands fail")
    def fail():
        raise ZeroDivisionError

    assert isinstance(CliRunner().invoke(commands, ["fail"]).exception, ZeroDivisionError)


# ---- questions ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["login"], "give the e-mail address with --email"),
        (["login", "--email", "a@example.org"], "set BIOSCOPE_PASSWORD"),
        (["users", "create-admin", "a@example.org"], "set BIOSCOPE_ADMIN_PASSWORD"),
    ],
    ids=["address", "password", "password of an administrator"],
)
def test_without_a_terminal_a_question_says_how_to_answer_it(settings, arguments, remedy):
    answer = run_process(*arguments, **variables(settings))
    refused(answer, WRONG_USE, f"there is no terminal to ask for an answer: {remedy}")
    assert "GetPassWarning" not in answer[1]


def test_answers_may_come_from_a_pipe(settings):
    given = variables(settings)
    exit_code, output = run_process("users", "create-admin", "a@example.org", stdin="correct horse battery\n" * 2, **given)
    assert exit_code == 0, output
    assert "a@example.org is an administrator." in output
    assert "GetPassWarning" not in output


# ---- libpq's variables -------------------------------------------------------------------------------------------------------------
def test_libpqs_variables_neither_break_nor_redirect_a_connection(settings):
    exit_code, output = run_process("audit", "verify", **variables(settings), **LIBPQ)
    assert exit_code == 0, output
    assert "intact" in output
    exit_code, output = run_process("rebuild", "--check", **variables(settings), **LIBPQ)
    assert exit_code == 0, output


def test_each_of_these_variables_would_break_a_connection_or_redirect_it(settings, monkeypatch):
    """Else the test above would prove nothing."""
    for name in ("PGSERVICE", "PGOPTIONS", "PGTARGETSESSIONATTRS", "PGREQUIREAUTH"):
        monkeypatch.setenv(name, LIBPQ[name])
        with pytest.raises(psycopg.Error), psycopg.connect(settings.postgres_url, autocommit=True) as connection:
            connection.execute("create temporary table x ()")
        monkeypatch.delenv(name)


def test_every_variable_that_libpq_knows_is_removed_and_no_other():
    known = {option.envvar.decode() for option in psycopg.pq.Conninfo.get_defaults() if option.envvar}
    assert len(known) > 20
    given = dict.fromkeys([*known, *LIBPQ, "PATH", "BIOSCOPE_POSTGRES_URL"], "x")
    remove_libpq_variables(given)
    assert set(given) == {"PATH", "BIOSCOPE_POSTGRES_URL"}
