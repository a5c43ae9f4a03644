"""The chaos tool: its plan, links, state and page."""

import random
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime

import msgspec
import pytest

from tests.chaos.__main__ import State, keep, kept
from tests.chaos.faults import LEGS, ROUND, planned
from tests.chaos.proxy import Link
from tests.chaos.report import summary, written
from tests.chaos.rounds import Struck, Told


def kinds(rounds):
    return [(one.leg, fault.kind) for one in rounds for fault in one.faults]


# ---- the plan ----------------------------------------------------------------------------------------------------------------------
def test_a_seed_always_makes_the_same_plan_and_more_kills_begin_with_those_of_fewer():
    assert kinds(planned(1, 1000)) == kinds(planned(1, 1000))
    assert kinds(planned(1, 5 * ROUND)) == kinds(planned(1, 1000))[: 5 * ROUND]
    assert kinds(planned(1, 1000)) != kinds(planned(2, 1000))
    assert len(kinds(planned(1, 1003))) == 1003


@pytest.mark.parametrize("leg", LEGS)
def test_the_shares_of_a_leg_add_up_to_a_hundred_and_most_of_them_are_seen(leg):
    assert sum(fault.share for fault in LEGS[leg]) == 100
    seen = {kind for where, kind in kinds(planned(1, 4000)) if where == leg}
    assert seen == {fault.kind for fault in LEGS[leg]}


def test_without_a_server_its_faults_are_left_out():
    found = kinds(planned(1, 1000, without={"kafka", "s3"}))
    assert not [kind for leg, kind in found if kind.startswith(("kafka", "s3")) or leg == "kafka"]


# ---- links -------------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def echo():
    """The address of a server that says everything back."""
    server = socket.create_server(("127.0.0.1", 0))

    def answer(one):
        with one, suppress(OSError):
            while said := one.recv(65536):
                one.sendall(said)

    def serve():
        while True:
            try:
                one, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(one,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield f"127.0.0.1:{server.getsockname()[1]}"
    server.close()


@pytest.fixture
def link(echo):
    link = Link("echo", echo, chance=random.Random(1))
    yield link
    link.close()


@pytest.fixture
def client(link):
    """Makes connections through the link."""
    made = []

    def connect(timeout=1.0):
        host, _, port = link.address.rpartition(":")
        made.append(socket.create_connection((host, int(port)), timeout=timeout))
        return made[-1]

    yield connect
    for one in made:
        one.close()


def said_back(one, text=b"hello"):
    one.sendall(text)
    found = b""
    while len(found) < len(text):
        piece = one.recv(65536)
        if not piece:
            break
        found += piece
    return found


def test_a_link_that_is_well_carries_everything(client):
    text = bytes(range(256)) * 4000
    assert said_back(client(5.0), text) == text


def test_delay_makes_it_slow_and_nothing_else(link, client):
    one = client(5.0)
    link.spoil("delay")
    began = time.monotonic()
    assert said_back(one) == b"hello"
    assert time.monotonic() - began > 0.1


def test_drop_holds_everything_until_it_is_over(link, client):
    one = client(5.0)
    assert said_back(one) == b"hello"
    link.spoil("drop")
    one.settimeout(0.5)
    with pytest.raises(TimeoutError):
        said_back(one, b"again")
    link.mend()
    one.settimeout(5.0)
    assert one.recv(100) == b"again"


def test_reset_ends_what_is_open_and_what_comes(link, client):
    one = client()
    assert said_back(one) == b"hello"
    assert link.spoil("reset") == 1
    with pytest.raises(OSError, match=r"reset|Broken pipe"):
        assert said_back(one)
    with pytest.raises(OSError, match=r"reset|Broken pipe"):
        assert said_back(client())
    link.mend()
    assert said_back(client()) == b"hello"


def test_half_open_connections_stay_mute_for_ever_and_new_ones_are_well(link, client):
    one = client(5.0)
    assert said_back(one) == b"hello"
    one.settimeout(0.5)
    link.spoil("half-open")
    link.mend()
    with pytest.raises(TimeoutError):
        said_back(one)
    assert said_back(client()) == b"hello"


def test_throttle_lets_eight_kilobytes_a_second_through(link, client):
    one = client(5.0)
    link.spoil("throttle")
    began = time.monotonic()
    assert said_back(one, bytes(6000)) == bytes(6000)
    assert time.monotonic() - began > 0.5


def test_a_full_server_says_so(link, client):
    link.spoil("full")
    one = client()
    one.sendall(b"PUT /bucket/key HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello")
    assert one.recv(4096).startswith(b"HTTP/1.1 507 ")


# ---- state and page ----------------------------------------------------------------------------------------------------------------
def told(number=0, *, broken=()):
    struck = Struck(kind="api", acknowledged_before=10, under_way=3, lasted=0.0, acknowledged=1.0, visible=1.5, result=2.0)
    return Told(
        number=number,
        leg="embedded",
        began=datetime(2026, 11, 24, tzinfo=UTC),
        seconds=60.0,
        struck=[struck],
        acknowledgements={"dataset": 10},
        cut_off=3,
        statuses={201: 10},
        events=30,
        jobs=1,
        results=1,
        settled=0.2,
        broken=list(broken),
    )


def test_the_state_is_kept_whole_and_belongs_to_one_seed(tmp_path):
    path = tmp_path / "state.json"
    keep(path, State(7, {3: told(3)}))
    assert kept(path, 7) == State(7, {3: told(3)})
    with pytest.raises(SystemExit, match="of seed 7"):
        kept(path, 8)
    assert kept(tmp_path / "none.json", 8) == State(8)


def test_the_page_and_its_figures_say_what_was_measured(tmp_path):
    page, data = tmp_path / "page.md", tmp_path / "page.json"
    written([told()], page=page, data=data, seed=7, lacking=set())
    assert "| embedded | api | 1 | 1.50 | 1.50 | 2.00 | 2.00 |" in page.read_text()
    assert "**Everything held.**" in page.read_text()
    assert msgspec.json.decode(data.read_bytes())["faults"] == 1
    written([told(broken=["dataset x was acknowledged at 3 and is not there"])], page=page, data=data, seed=7, lacking={"s3"})
    assert "| acknowledgements lost | 1 |" in page.read_text()
    assert "Everything held" not in page.read_text()
    assert "There was no s3" in page.read_text()


def test_the_last_line_says_whether_everything_holds():
    assert summary([told()]).endswith("10 acknowledgements: nothing lost, everything holds")
    assert "1 BROKEN: a thing" in summary([told(broken=["a thing"])])
