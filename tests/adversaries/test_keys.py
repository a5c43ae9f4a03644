"""A compromised process holds the keys that its work needs and no others; another local user knows no database password."""

import base64
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from api.cli.stack import prepare
from infrastructure.audit.chain_verification import SignedHead
from infrastructure.audit.log_verification import verify_log
from infrastructure.configuration.settings import load
from infrastructure.embedded.supervisor import SupervisedStack
from infrastructure.security.keys import DataKeys, MissingKey, Purpose, RootKey
from infrastructure.security.process_keys import PROCESS_NEEDS, process_keys
from tests.given import NOW
from tests.process_tree import descendants
from tests.system.conftest import event_log, stack_settings

pytestmark = pytest.mark.long

NAMES = sorted(PROCESS_NEEDS)
LONGEST_REGION = 512 * 1024**2  # bytes of one region of memory; longer ones are reserved, not used


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    stack = SupervisedStack(stack_settings(tmp_path_factory.mktemp("keys")), prepare=prepare)
    with stack:
        yield Running(stack)


class Running:
    """The system as its neighbours see it."""

    def __init__(self, stack):
        self._stack, self.settings = stack, stack.settings
        self.root = RootKey.read(stack.settings.root_key_path)

    def pids(self, name):
        """Those of a process and of all its descendants."""
        pid = self._stack.pid(name)
        return [pid, *descendants(pid)]

    def keys_of(self, name):
        """Those that the process finds in its own environment and files."""
        return process_keys(load(ours(environment(self.pids(name)[0]))), name)


def command_lines():
    """Of all processes of this machine."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                yield (entry / "cmdline").read_bytes().decode(errors="replace")


def environment(pid):
    variables = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(variable.split("=", 1) for variable in variables if "=" in variable)


def ours(variables):
    return {name: value for name, value in variables.items() if name.startswith("BIOSCOPE_")}


def memory_holds(pid, needles):
    """Which of `needles` lie somewhere in the memory of a process."""
    found = set()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            (begin, end), rights = (int(number, 16) for number in line.split()[0].split("-")), line.split()[1]
            if "r" not in rights or end - begin > LONGEST_REGION:
                continue
            try:
                memory.seek(begin)
                content = memory.read(end - begin)
            except (OSError, OverflowError):
                continue
            found |= {name for name, needle in needles.items() if needle in content}
    return found


# ---- keys ----------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_no_process_knows_where_the_root_key_is(system, name):
    pids = system.pids(name)
    assert pids
    for pid in pids:
        variables = environment(pid)
        assert "BIOSCOPE_ROOT_KEY_FILE" not in variables
        text = base64.b64encode(system.root._root).decode()
        assert text not in str(variables)


def test_the_inference_process_has_no_key_file(system):
    pids = system.pids("inference")
    assert pids
    for pid in pids:
        assert "BIOSCOPE_KEY_FILE" not in environment(pid)
        opened = [link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir() if link.exists()]
        assert not [path for path in opened if "keys" in path.parts or path.suffix in {".keys", ".passwords"}]


@pytest.mark.parametrize("name", NAMES)
def test_the_memory_of_a_process_holds_its_own_keys_at_most(system, name):
    needles = {purpose: system.root.derive(purpose) for purpose in Purpose if purpose not in PROCESS_NEEDS[name].secret}
    needles |= {"root key": system.root._root, "root key as text": base64.b64encode(system.root._root)}
    found = set().union(*(memory_holds(pid, needles) for pid in system.pids(name)))
    assert found == set()


def test_the_search_finds_the_keys_that_a_process_has(system):
    (relay, *_) = system.pids("relay")
    assert memory_holds(relay, {"source": system.root.derive("event source")}) == {"source"}


@pytest.mark.parametrize("name", NAMES)
def test_a_process_has_the_keys_that_its_work_needs_and_no_others(system, name):
    keys = system.keys_of(name)
    for purpose in Purpose:
        if purpose in PROCESS_NEEDS[name].secret:
            assert keys.newest(purpose).secret == system.root.derive(purpose)
        else:
            with pytest.raises(MissingKey):
                keys.all(purpose)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "relay"])
def test_only_the_relay_can_sign_a_head(system, name):
    with pytest.raises(MissingKey):
        system.keys_of(name).signing(Purpose.HEADS)


def test_the_api_verifies_the_heads_that_the_relay_signs(system):
    head = SignedHead(position=1, hash="ab" * 32, signed_at=NOW).sign(system.keys_of("relay").signing(Purpose.HEADS))
    assert head.genuine(system.keys_of("api").public(Purpose.HEADS))


@pytest.mark.parametrize("name", ["relay", "inference"])
def test_neither_relay_nor_inference_can_open_a_data_key(system, name):
    keys = DataKeys(system.keys_of(name), lambda _: {})
    assert keys.withheld
    with pytest.raises(MissingKey):
        keys.get(uuid4())


def test_the_record_is_intact_with_all_processes_on_their_own_keys(system):
    log = event_log(system.settings)
    try:
        assert verify_log(system.settings, log).finding is None
    finally:
        log.close()


# ---- the embedded Postgres -----------------------------------------------------------------------------------------------------------
CONNECT = """
import sys, psycopg
try:
    psycopg.connect(sys.argv[1], connect_timeout=5)
except psycopg.OperationalError as error:
    print(error)
else:
    print("connected")
"""


def connects(url):
    """What another process of this user hears."""
    return subprocess.run([sys.executable, "-c", CONNECT, url], capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("role", ["postgres", "bioscope_app"])
def test_another_process_of_the_same_user_needs_the_password(system, role):
    where = psycopg.conninfo.conninfo_to_dict(system.settings.postgres_url)
    address = f"host={where['host']} dbname=bioscope user={role}"
    assert "no password supplied" in connects(address)
    assert "password authentication failed" in connects(f"{address} password=guessed")


def password_of(url):
    return psycopg.conninfo.conninfo_to_dict(url)["password"]


def test_each_role_has_a_password_of_its_own(system):
    owner_url, app = system.settings.postgres_owner_url, password_of(system.settings.postgres_url)
    assert password_of(owner_url) != app
    assert "connected" in connects(owner_url)
    assert "authentication failed" in connects(psycopg.conninfo.make_conninfo(owner_url, password=app))


def test_passwords_stand_in_no_command_line_log_or_event_and_the_owners_in_no_environment(system):
    owner, app = password_of(system.settings.postgres_owner_url), password_of(system.settings.postgres_url)
    for command_line in command_lines():
        assert owner not in command_line
        assert app not in command_line
    for log in (system.settings.data / "logs").iterdir():
        text = log.read_text(errors="replace")
        assert owner not in text
        assert app not in text
    for name in NAMES:
        assert all(owner not in str(environment(pid)) for pid in system.pids(name))
    with psycopg.connect(system.settings.postgres_owner_url) as connection:
        (kept,) = connection.execute("select string_agg(encode(state, 'escape') || encode(meta, 'escape'), ' ') from es.events").fetchone()
    assert owner not in kept
    assert app not in kept
