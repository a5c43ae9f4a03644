"""The supervisor: it starts, restarts and stops processes and servers."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
import psycopg
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from infrastructure.configuration.paths import run_folder
from infrastructure.configuration.settings import Settings, load
from infrastructure.embedded.data_folder import holder, mark
from infrastructure.embedded.installation import environment, running_metrics_ports
from infrastructure.embedded.restarting import MAX_DELAY_SECONDS, STABLE_AFTER_SECONDS, next_restart_delay
from infrastructure.embedded.stack import StackLimits
from infrastructure.embedded.supervisor import (
    PROCESSES,
    AlreadyRunning,
    CannotStart,
    NotRunning,
    ProcessDefinition,
    SupervisedStack,
    ensure_root_key,
    running_settings,
    serves,
)
from infrastructure.observability.crash_counts import crash_loops, crashes_file
from infrastructure.security.keys import RootKey
from infrastructure.security.process_keys import process_keys
from tests.infrastructure.embedded.small_system import FOLLOWER, STEADY, STEADY_API, environment_of, nothing, process
from tests.infrastructure.embedded.test_servers import as_somebody_else, gone
from tests.other_user import NOBODY
from tests.process_tree import descendants
from tests.rigs.waiting import wait_until

ROOT = Path(__file__).parents[3]
ENDS_WITHIN = 20.0
ELSEWHERE = {"postgres_url": "postgresql://elsewhere", "kafka_url": "elsewhere:9092", "redis_url": "redis://elsewhere"}


@pytest.fixture
def data(tmp_path):
    yield tmp_path / "data"
    shutil.rmtree(run_folder(tmp_path / "data"), ignore_errors=True)


@pytest.fixture
def alone(data):
    """Settings that need no server of ours."""
    return Settings(data=data, port=0, **ELSEWHERE)


@contextmanager
def small_system(data, *options, prefix=(), environment=None):
    """`up` in a process of its own, ready."""
    command = [*prefix, sys.executable, "-m", "tests.infrastructure.embedded.small_system", str(data), *options]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout.readline() == "ready\n", running.stderr.read()
            yield running
        finally:
            running.kill()


def of_each(pids, look):
    """What `look` finds of each of them that has not ended meanwhile."""
    found = set()
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            found.add(look(Path(f"/proc/{pid}")))
    return found


def programs(pids):
    return of_each(pids, lambda process: (process / "comm").read_text().strip())


# ---- the end -------------------------------------------------------------------------------------------------------------------------
def test_nothing_is_left_of_a_supervisor_that_was_killed(used):
    with small_system(used) as running:
        begun = descendants(running.pid)
        assert {"postgres", "valkey-server"} <= programs(begun)
        assert len(begun) >= 12, "three servers, Postgres' own processes, four processes and one's child"
        running.kill()
        running.wait()
        assert gone(begun) == []


def test_after_a_kill_the_next_start_has_the_same_data_folder_at_once(used):
    for _ in range(3):
        with small_system(used) as running:
            assert holder(used) == running.pid


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_everything_and_leaves_nothing(used, sign):
    with small_system(used) as running:
        begun = descendants(running.pid)
        running.send_signal(sign)
        assert running.wait(ENDS_WITHIN) == 0
        assert gone(begun, within=0) == []
    assert not run_folder(used).exists() or not any(run_folder(used).iterdir())
    assert not (used / "postgres" / "postmaster.pid").exists(), "Postgres closed its cluster properly"


def test_it_ends_though_every_process_ignores_the_signal_to_stop(used):
    with small_system(used, "--stubborn") as running:
        begun = descendants(running.pid)
        assert len(begun) > 4
        running.terminate()
        assert running.wait(ENDS_WITHIN) == 0
        assert gone(begun, within=0) == []


def test_a_process_that_stops_first_ends_before_the_others(alone):
    order = alone.data / "order"
    script = STEADY.replace("(print(", "(open(os.environ['BIOSCOPE_DATA'] + '/order', 'a').write(sys.argv[1] + '\\n'), print(")
    with SupervisedStack(alone, processes=[process("api", script, stops_first=True), process("projector", script)], prepare=nothing):
        pass
    assert order.read_text().split() == ["api", "projector"]


def test_an_ordinary_user_can_run_it_in_a_folder_of_its_own():
    prefix = as_somebody_else()
    home = Path(tempfile.mkdtemp(prefix="bioscope-test-"))
    if os.geteuid() == 0:
        os.chown(home, NOBODY, NOBODY)
    sockets = Path(tempfile.gettempdir(), mark(home / "data").replace("-", f"-{home.stat().st_uid}-"))
    try:
        with small_system(home / "data", prefix=prefix) as running:
            begun = descendants(running.pid)
            assert of_each(begun, lambda process: process.stat().st_uid) == {home.stat().st_uid}
            running.kill()
            running.wait()
            assert gone(begun) == []
    finally:
        shutil.rmtree(home)
        shutil.rmtree(sockets, ignore_errors=True)


# ---- one owner -----------------------------------------------------------------------------------------------------------------------
def test_a_second_one_on_the_same_folder_is_refused_and_names_the_first(alone):
    with SupervisedStack(alone, processes=[], prepare=nothing):
        with pytest.raises(AlreadyRunning, match=rf"in use by process {os.getpid()}: stop that one first, .* --data"), second(alone):
            pass
        assert holder(alone.data) == os.getpid()
    assert holder(alone.data) is None


def second(settings):
    return SupervisedStack(settings, processes=[], prepare=nothing)


def test_a_folder_that_holds_other_things_is_left_alone(data, alone):
    data.mkdir(mode=0o755)
    (data / "thesis.txt").write_text("mine")
    with pytest.raises(CannotStart, match="contains other files"), second(alone):
        pass
    assert stat.S_IMODE(data.stat().st_mode) == 0o755
    assert [path.name for path in data.iterdir()] == ["thesis.txt"]


def test_a_file_in_place_of_the_folder_is_a_clear_error(data, alone):
    data.write_text("")
    with pytest.raises(CannotStart, match="cannot be the data folder: File exists"), second(alone):
        pass


def test_a_place_that_cannot_be_written_is_a_clear_error(alone):
    with pytest.raises(CannotStart, match="/proc/bioscope cannot be the data folder"), second(elsewhere(alone, "/proc/bioscope")):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder for another user")
def test_a_folder_of_another_user_is_refused(data, alone):
    data.mkdir()
    os.chown(data, 65534, 65534)
    with pytest.raises(CannotStart, match="belongs to another user"), second(alone):
        pass


def elsewhere(settings, path):
    return msgspec.structs.replace(settings, data=Path(path))


def test_the_folder_is_closed_to_others_and_the_root_key_made_once(data, alone):
    keys = []
    for _ in range(2):
        with second(alone) as running:
            RootKey.read(running.root_key_path)
            keys.append(running.root_key_path.read_text())
    assert keys[0] == keys[1]
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert stat.S_IMODE((data / "keys" / "root.key").stat().st_mode) == 0o600


def test_a_root_key_that_is_gone_is_not_made_anew_over_data_that_needs_it(data):
    (data / "postgres").mkdir(parents=True)
    with pytest.raises(CannotStart, match="restore it from your copy"):
        ensure_root_key(Settings(data=data))
    assert not (data / "keys").exists()


def test_a_root_key_kept_elsewhere_is_never_made(data, tmp_path):
    ensure_root_key(Settings(data=data, root_key_file=tmp_path / "mine.key"))
    assert not (tmp_path / "mine.key").exists()


# ---- start ---------------------------------------------------------------------------------------------------------------------------
def test_the_whole_system_starts_in_a_new_folder_and_again_in_a_used_one(data):
    for kept in ([], [(1,)]):
        stack = SupervisedStack(Settings(data=data, port=0), processes=[STEADY_API], prepare=nothing)
        with stack as running:
            with psycopg.connect(running.postgres_owner_url) as connection:
                connection.execute("create table if not exists kept (n int)")
                assert connection.execute("select n from kept").fetchall() == kept
                connection.execute("insert into kept values (1)")
            assert answers_ping(running.redis_url)
            assert environment_of(data, "api")["BIOSCOPE_KAFKA_URL"] == running.kafka_url
            begun = [stack.pid(name) for name in ("postgres", "broker", "redis", "api")]
        assert gone(begun, within=0) == []


def test_servers_whose_address_is_set_are_not_started(alone):
    with SupervisedStack(alone, processes=[STEADY_API], prepare=nothing) as running:
        assert running.postgres_url == alone.postgres_url
        assert environment_of(alone.data, "api")["BIOSCOPE_KAFKA_URL"] == "elsewhere:9092"
        assert environment_of(alone.data, "api")["BIOSCOPE_KAFKA_FETCH_WAIT"] == str(Settings().kafka_fetch_wait)
        assert not (alone.data / "postgres").exists()
        assert not (alone.data / "logs" / "redis.log").exists()


def test_processes_get_the_addresses_but_no_password_and_no_owners_url(used, monkeypatch):
    for name in ("BIOSCOPE_ADMIN_PASSWORD", "BIOSCOPE_TOKEN", "PGPASSWORD", "PGPORT"):
        monkeypatch.setenv(name, "canary-91")
    with SupervisedStack(Settings(data=used, port=0), processes=[STEADY_API], prepare=nothing) as running:
        variables = environment_of(used, "api")
        assert load(variables) == msgspec.structs.replace(running, postgres_owner_url="", key_file=str(used / "run" / "api.keys"))
        assert variables["BIOSCOPE_KAFKA_FETCH_WAIT"] == "0.003"
        assert "canary-91" not in variables.values()
        environments = of_each(descendants(os.getpid()), lambda process: (process / "environ").read_bytes())
        assert environments
        assert not any(b"canary-91" in variables for variables in environments)


def test_each_process_gets_its_own_keys_and_database_role_and_not_the_root_key(used):
    relay, inference = process("relay", STEADY, database_role="bioscope_relay"), process("inference", STEADY)
    with SupervisedStack(Settings(data=used, port=0), processes=[relay, inference, STEADY_API], prepare=nothing):
        variables = {name: environment_of(used, name) for name in ("relay", "inference", "api")}
        for name in ("relay", "api"):
            file = used / "run" / f"{name}.keys"
            assert variables[name]["BIOSCOPE_KEY_FILE"] == str(file)
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            process_keys(load(variables[name]), name)
        assert "BIOSCOPE_KEY_FILE" not in variables["inference"]
        assert not any("BIOSCOPE_ROOT_KEY_FILE" in given for given in variables.values())
        for name, role in (("relay", "bioscope_relay"), ("inference", "bioscope_app"), ("api", "bioscope_app")):
            with psycopg.connect(variables[name]["BIOSCOPE_POSTGRES_URL"]) as connection:
                assert connection.execute("select current_user").fetchone() == (role,)
    assert not list(used.rglob("*.keys"))


text = st.text(st.characters(codec="ascii", exclude_characters=", \0", categories=["L", "N", "P"]), min_size=1)
FOREIGN = {
    "http_proxy": "http://127.0.0.1:9",
    "ALL_PROXY": "socks5://127.0.0.1:9",
    "PGSERVICE": "nowhere",
    "PGHOST": "/nowhere",
    "PYTHONPATH": "/nowhere",
    "PYTHONHASHSEED": "7",
    "OMP_NUM_THREADS": "99",
    "LC_ALL": "tlh_KX.ISO-8859-15",
    "TZ": "Antarctica/Troll",
    "EDITOR": "ed",
}


def test_processes_inherit_no_variable_by_accident(used):
    with small_system(used, environment=os.environ | FOREIGN) as running:
        variables = environment_of(used, "api")
        environments = of_each(descendants(running.pid), lambda process: (process / "environ").read_bytes())
    ours = {name: value for name, value in variables.items() if not name.startswith("BIOSCOPE_")}
    assert set(ours) - {"LD_LIBRARY_PATH", "PYTHONUSERBASE"} == {"PATH", "LANG", "LC_ALL", "TZ", "HOME", "TMPDIR", "ORT_DISABLE_TELEMETRY"}
    assert (ours["LC_ALL"], ours["TZ"], ours["ORT_DISABLE_TELEMETRY"]) == ("C.UTF-8", "UTC", "1")
    assert (ours["HOME"], ours["TMPDIR"]) == (str(used), str(used / "tmp"))
    assert environments
    for name, value in FOREIGN.items():
        assert not any(f"{name}={value}\0".encode() in variables for variables in environments)


@given(inherited=st.dictionaries(st.sampled_from([*FOREIGN, "BIOSCOPE_TOKEN", "AWS_PROFILE", "SSL_CERT_FILE", "LD_LIBRARY_PATH"]), text))
def test_credentials_and_certificates_of_s3_are_handed_on_only_where_files_are_stored_there(inherited):
    wanted = Settings(data=Path("/data"))
    kept = {name for name in inherited if environment(wanted, inherited).get(name) == inherited[name]}
    assert kept - {"LC_ALL", "TZ"} <= {"LD_LIBRARY_PATH"}
    on_s3 = environment(msgspec.structs.replace(wanted, blobs_url="s3://bucket"), inherited)
    assert {name for name in ("AWS_PROFILE", "SSL_CERT_FILE") if name in inherited} <= set(on_s3)


def test_relative_paths_mean_the_same_in_every_working_directory(alone, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = msgspec.structs.replace(alone, data=Path("data"), blobs_url="blobs")
    with SupervisedStack(given, processes=[STEADY_API], prepare=nothing):
        assert environment_of(alone.data, "api")["BIOSCOPE_BLOBS_URL"] == str(tmp_path / "blobs")
        assert environment_of(alone.data, "api")["BIOSCOPE_DATA"] == str(tmp_path / "data")


@given(names=st.lists(text).map(tuple), port=st.integers(0, 65535), json_logs=st.booleans(), seconds=st.floats(0.001, 1e6))
def test_settings_survive_the_way_through_the_environment(names, port, json_logs, seconds):
    wanted = Settings(cors_origins=names, port=port, log_json=json_logs, inference_hang_seconds=seconds, data=Path("/a b"))
    assert load(environment(wanted, {})) == wanted


def test_a_port_that_is_taken_is_a_clear_error(alone):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = msgspec.structs.replace(alone, port=taken.getsockname()[1])
        with pytest.raises(CannotStart, match=r"cannot be bound .* --port"), second(wanted):
            pass


def test_a_process_that_keeps_dying_ends_the_start_with_what_it_said(alone):
    broken = process("api", "raise SystemExit('no such model')")
    with pytest.raises(CannotStart, match="api keeps ending; the end of its log:\nno such model"):
        SupervisedStack(alone, processes=[broken], prepare=nothing).__enter__()
    assert holder(alone.data) is None


def test_a_process_that_is_never_ready_ends_the_start_and_is_named(alone):
    sleeping = process("inference", "import time; time.sleep(1000)")
    impatient = StackLimits(processes_ready_seconds=1.0)
    with pytest.raises(CannotStart, match=r"not ready after 1 s: (api, )?inference; the logs are in"):
        SupervisedStack(alone, processes=[STEADY_API, sleeping], prepare=nothing, limits=impatient).__enter__()


def test_what_prepare_raises_reaches_the_caller_and_nothing_is_left(used):
    before = set(descendants(os.getpid()))

    def fails(settings):
        assert settings.postgres_owner_url
        raise LookupError("no migrations")

    with pytest.raises(LookupError, match="no migrations"):
        SupervisedStack(Settings(data=used, port=0), processes=[STEADY_API], prepare=fails).__enter__()
    assert gone(set(descendants(os.getpid())) - before) == []
    assert not (used / "api.env").exists()


# ---- keep running --------------------------------------------------------------------------------------------------------------------
def test_a_process_that_dies_is_started_again(alone):
    stack = SupervisedStack(alone, processes=[STEADY_API], prepare=nothing)
    with stack:
        first = stack.pid("api")
        os.kill(first, signal.SIGKILL)
        second = wait_until(lambda: (pid := stack.pid("api")) != first and pid)
        wait_until(lambda: (alone.data / "logs" / "api.log").read_text().count("steady") == 2)
        assert Path(f"/proc/{second}").exists()
    assert "api ended (exit code -9); restarting it in 0.1 s" in (alone.data / "logs" / "supervisor.log").read_text()


def test_a_dead_broker_comes_back_elsewhere_and_only_its_clients_are_started_again(used):
    stack = SupervisedStack(Settings(data=used, port=0), processes=[FOLLOWER, STEADY_API], prepare=nothing)
    with stack as before:
        follower, api = stack.pid("follower"), stack.pid("api")
        os.kill(stack.pid("broker"), signal.SIGKILL)
        wait_until(lambda: stack.settings.kafka_url != before.kafka_url and stack.pid("follower") != follower)
        wait_until(lambda: environment_of(used, "follower")["BIOSCOPE_KAFKA_URL"] == stack.settings.kafka_url)
        assert running_settings(Settings(data=used)).kafka_url == stack.settings.kafka_url
        assert stack.pid("api") == api
        host, port = stack.settings.kafka_url.split(":")
        socket.create_connection((host, int(port)), 1).close()


@pytest.mark.parametrize("name", ["postgres", "redis"])
def test_postgres_and_redis_come_back_at_the_same_address(used, name):
    stack = SupervisedStack(Settings(data=used, port=0), processes=[STEADY_API], prepare=nothing)
    with stack as before:
        with psycopg.connect(before.postgres_owner_url) as connection:
            connection.execute("create table kept as select 7 as n")
        killed, api = stack.pid(name), stack.pid("api")
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: stack.pid(name) != killed)
        assert wait_until(lambda: kept(before.postgres_owner_url)) == [(7,)]
        assert stack.settings == before
        assert stack.pid("api") == api


def kept(url):
    try:
        with psycopg.connect(url) as connection:
            return connection.execute("select n from kept").fetchall()
    except psycopg.OperationalError:
        return None


@pytest.mark.parametrize("name", ["postgres", "redis"])
def test_a_server_whose_socket_was_removed_is_started_again_at_the_same_address(used, name):
    stack = SupervisedStack(Settings(data=used, port=0), processes=[STEADY_API], prepare=nothing)
    with stack as before:
        unreachable = stack.pid(name)
        socket_of(before, name).unlink()
        wait_until(lambda: stack.pid(name) != unreachable)
        wait_until(lambda: connects(before.postgres_owner_url) and answers_ping(before.redis_url))
        assert stack.settings == before
    assert f"the socket of {name} was removed" in (used / "logs" / "supervisor.log").read_text()


def test_a_removed_folder_of_sockets_is_made_again(data, tmp_path):
    long = tmp_path / ("long " * 20)
    stack = SupervisedStack(Settings(data=long, port=0), processes=[STEADY_API], prepare=nothing)
    with stack as before:
        folder = socket_of(before, "redis").parent
        assert not folder.is_relative_to(long)
        shutil.rmtree(folder)
        wait_until(lambda: connects(before.postgres_owner_url) and answers_ping(before.redis_url), within=20)
        assert stat.S_IMODE(folder.stat().st_mode) & 0o066 == 0
    assert not folder.exists()


def socket_of(settings, name):
    if name == "redis":
        return Path(settings.redis_url.removeprefix("unix://"))
    return Path(parse_qs(urlsplit(settings.postgres_owner_url).query)["host"][0], ".s.PGSQL.5432")


def answers_ping(url):
    with suppress(redis.exceptions.ConnectionError), redis.Redis.from_url(url) as client:
        return client.ping()
    return False


def test_a_process_that_keeps_ending_is_reported_with_its_last_words(alone):
    told = []
    stack = SupervisedStack(alone, processes=[STEADY_API, LOOPING], prepare=nothing, report=told.append)
    with stack:
        wait_until(lambda: "looping" in crash_loops(crashes_file(alone.data)))
        report = wait_until(lambda: next((said for said in told if "keeps ending" in said), None))
    assert report.startswith("looping keeps ending: 3 times within a minute. The end of ")
    assert report.endswith("no such model")
    assert not crashes_file(alone.data).exists()


LOOPING = ProcessDefinition(name="looping", argv=(sys.executable, "-c", "raise SystemExit('no such model')"))


@pytest.mark.parametrize("host", ["::1", "::"])
def test_a_start_on_ipv6_is_served_and_found(alone, host):
    served = ProcessDefinition(name="api", argv=(sys.executable, "-c", IPV6_API), ready=serves("/health/live"))
    with SupervisedStack(msgspec.structs.replace(alone, host=host), processes=[served], prepare=nothing) as running:
        assert httpx.get(f"http://[::1]:{running.port}/health/live").status_code == 200


IPV6_API = """
import os, socket
from http.server import HTTPServer, SimpleHTTPRequestHandler
class Server(HTTPServer):
    address_family = socket.AF_INET6
class Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
Server((os.environ["BIOSCOPE_HOST"], int(os.environ["BIOSCOPE_PORT"])), Handler).serve_forever()
"""


def test_a_server_that_cannot_come_back_is_tried_again_until_it_can(used):
    stack = SupervisedStack(Settings(data=used, port=0), processes=[STEADY_API], prepare=nothing)
    with stack as running:
        version = used / "postgres" / "PG_VERSION"
        right = version.read_text()
        version.write_text("9\n")
        killed = stack.pid("postgres")
        os.kill(killed, signal.SIGKILL)
        log = used / "logs" / "supervisor.log"
        wait_until(lambda: "the data needs Postgres 9" in log.read_text())
        version.write_text(right)
        wait_until(lambda: connects(running.postgres_owner_url))


def connects(url):
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


@given(lives=st.lists(st.floats(0, STABLE_AFTER_SECONDS - 1), min_size=1, max_size=20))
def test_who_dies_young_waits_ever_longer_up_to_a_bound(lives):
    pauses = [0.0]
    for lived in lives:
        pauses.append(next_restart_delay(pauses[-1], lived=lived))
    assert pauses[1] == 0.1
    assert all(later == min(2 * earlier, MAX_DELAY_SECONDS) for earlier, later in pairwise(pauses[1:]))


def test_who_lived_long_is_started_again_at_once():
    assert next_restart_delay(MAX_DELAY_SECONDS, lived=STABLE_AFTER_SECONDS) == 0.1


# ---- beside it -----------------------------------------------------------------------------------------------------------------------
def test_a_command_beside_a_running_system_finds_it_by_its_data_folder(used):
    asking = Settings(data=used)
    with pytest.raises(NotRunning, match="start it with `bioscope up`"):
        running_settings(asking)
    with small_system(used) as running:
        found = running_settings(asking)
        assert connects(found.postgres_owner_url)
        assert found.port != asking.port
        assert stat.S_IMODE((used / "running.json").stat().st_mode) == 0o600
        running.kill()
        running.wait()
        with pytest.raises(NotRunning):
            running_settings(asking)


def test_the_metrics_port_of_each_process_is_published(alone):
    given = msgspec.structs.replace(alone, metrics_port=9123)
    processes = [process("relay", STEADY), process("projector", STEADY), STEADY_API]
    with SupervisedStack(given, processes=processes, prepare=nothing):
        assert running_metrics_ports(alone.data) == {"relay": 9123, "projector": 9124, "api": 9125}
        assert environment_of(alone.data, "projector")["BIOSCOPE_METRICS_PORT"] == "9124"
    assert running_metrics_ports(alone.data) == {}


def test_a_command_with_an_address_of_its_own_needs_no_running_system(data):
    given = Settings(data=data, postgres_url="postgresql://elsewhere")
    assert running_settings(given) == given


def test_when_asked_the_processes_logs_are_shown_by_name(used):
    with small_system(used, "--verbose") as running:
        wait_until(lambda: "steady" in (used / "logs" / "api.log").read_text())
        running.terminate()
        said = running.communicate(timeout=ENDS_WITHIN)[1]
    assert "       api | steady" in said
    assert "       api | api told to stop" in said
    assert "redis |" in said


def test_the_applications_processes_are_the_four_of_production():
    assert [one.name for one in PROCESSES] == ["relay", "projector", "inference", "api", "inference-bridge"]
    assert json.dumps([one.argv[1:] for one in PROCESSES]).count('"api.cli"') == 5
