"""The process pool: a child that crashes, hangs or takes too much memory ends alone; none outlives its parent."""

import asyncio
import hashlib
import io
import os
import re
import resource
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from domain.errors import Unavailable
from infrastructure.inference.children.child_process import MAX_BORROWS, ChildFailed, ChildHung, ChildLost, InvalidAnswer, PoolClosed
from infrastructure.inference.children.process_pool import ForkServer, ProcessPool
from tests.rigs.waiting import wait_until_async

pytestmark = pytest.mark.anyio

CALLS = "tests.infrastructure.inference.pool_calls"
ROOMY = 512 * 1024**2


@asynccontextmanager
async def a_pool(size=2, *, nice=0, memory_bytes=ROOMY, hang_seconds=20.0, single_use=False):
    fork_server = ForkServer(CALLS)
    limits = {"nice": nice, "memory_bytes": memory_bytes, "hang_seconds": hang_seconds}
    pool = ProcessPool(fork_server, size=size, single_use=single_use, **limits)
    try:
        yield pool
    finally:
        pool.close()
        fork_server.close()


def runs(pid):
    """Whether it is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def a_hanging_call(pool):
    """A call that never ends, once a child works on it."""
    begun = asyncio.Event()

    async def lender():
        begun.set()
        return b""

    call = asyncio.create_task(pool.run(f"{CALLS}:hang_after_borrowing", "key", into=int, lend={"key": lender}))
    await asyncio.wait_for(begun.wait(), 20)
    return call


async def until_lost(pool):
    """Until the loop has seen that the idle children are gone."""
    await wait_until_async(lambda: not any(child and child.alive for child in pool._idle._queue))


async def test_a_child_that_runs_models_leaves_nothing_in_the_home_folder(tmp_path, monkeypatch):
    """onnxruntime would keep an identifier of the machine there, and send it to its vendor."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    fork_server = ForkServer("infrastructure.inference.children.child_functions", CALLS)
    pool = ProcessPool(fork_server, size=1, nice=0, memory_bytes=ROOMY, hang_seconds=20.0)
    try:
        assert await pool.run(f"{CALLS}:home", into=str) == str(tmp_path)
    finally:
        pool.close()
        fork_server.close()
    assert list(tmp_path.iterdir()) == []


async def test_a_call_is_answered():
    async with a_pool() as pool:
        assert await pool.run(f"{CALLS}:add", 2, 3, into=int) == 5


async def test_many_bytes_go_both_ways():
    data = os.urandom(1024) * 8192
    async with a_pool() as pool:
        assert await pool.run(f"{CALLS}:echo", data, into=bytes) == data


async def test_a_quiet_pool_keeps_one_child():
    async with a_pool(4) as pool:
        assert len({await pool.run(f"{CALLS}:pid", into=int) for _ in range(10)}) == 1


async def test_each_child_runs_a_call_at_the_same_time():
    waiting, all_wait = [], asyncio.Event()

    async def once_all_wait():
        waiting.append("a call")
        if len(waiting) == 3:
            all_wait.set()
        await asyncio.wait_for(all_wait.wait(), 20)
        return b"lent"

    async with a_pool(3) as pool:
        lend = {"key": once_all_wait}
        assert await asyncio.gather(*(pool.run(f"{CALLS}:lent", "key", into=bytes, lend=lend) for _ in range(3))) == [b"lent"] * 3


async def test_children_are_limited_and_know_no_secrets(monkeypatch):
    monkeypatch.setenv("BIOSCOPE_BLOBS_SECRET", "not for children")
    async with a_pool(nice=10, memory_bytes=ROOMY) as pool:
        child = Path(f"/proc/{await pool.run(f'{CALLS}:pid', into=int)}")
        limits = dict(re.findall(r"^(Max [a-z ]+?)  +(\d+) ", (child / "limits").read_text(), re.MULTILINE))
        assert os.getpriority(os.PRIO_PROCESS, int(child.name)) >= 10
        assert ROOMY < int(limits["Max address space"]) < 2 * ROOMY
        assert {limits[f"Max {what}"] for what in ("core file size", "file size", "processes", "open files")} == {"0"}
        assert (child / "oom_score_adj").read_text() == "500\n"
        assert sorted(link.readlink().name.partition(":")[0] for link in (child / "fd").iterdir()) == ["null", "null", "null", "socket"]
        assert await pool.run(f"{CALLS}:secrets", into=int) == 0


async def test_an_exception_comes_back_and_the_child_goes_on():
    async with a_pool(1) as pool:
        before = await pool.run(f"{CALLS}:pid", into=int)
        with pytest.raises(ChildFailed, match="KeyError: 'what'") as raised:
            await pool.run(f"{CALLS}:fail", "what", into=int)
        assert raised.value.kind == "KeyError"
        assert await pool.run(f"{CALLS}:pid", into=int) == before


async def test_wrong_arguments_and_unknown_functions_are_failures_of_the_call():
    async with a_pool(1) as pool:
        for function, arguments, kind in (
            ("add", ("x", 1), "ValidationError"),
            ("add", (1,), "ValidationError"),
            ("nothing", (), "AttributeError"),
        ):
            with pytest.raises(ChildFailed) as raised:
                await pool.run(f"{CALLS}:{function}", *arguments, into=int)
            assert raised.value.kind == kind


@pytest.mark.parametrize("function", ["die", "leave"])
async def test_a_child_that_dies_is_replaced_and_its_call_is_lost(function):
    async with a_pool(1) as pool:
        before = await pool.run(f"{CALLS}:pid", into=int)
        with pytest.raises(ChildLost):
            await pool.run(f"{CALLS}:{function}", into=int)
        assert await pool.run(f"{CALLS}:pid", into=int) != before


async def test_a_result_that_is_nested_too_deeply_to_be_checked_is_refused():
    def deeper(_):
        return deeper(_)

    async with a_pool(1) as pool:
        with pytest.raises(InvalidAnswer, match="not plausible"):
            await pool.run(f"{CALLS}:add", 1, 1, into=int, check=deeper)
        assert await pool.run(f"{CALLS}:add", 1, 1, into=int) == 2


async def test_a_child_that_hangs_is_killed_while_other_calls_go_on():
    async with a_pool(2, hang_seconds=2.0) as pool:
        hanging = await a_hanging_call(pool)
        for _ in range(5):
            assert await pool.run(f"{CALLS}:add", 1, 1, into=int) == 2
        assert not hanging.done()
        with pytest.raises(ChildHung, match="within 2 s"):
            await hanging
        assert len(await asyncio.gather(*(pool.run(f"{CALLS}:work", 0.1, into=int) for _ in range(2)))) == 2


async def test_a_child_that_wants_too_much_memory_ends_with_its_call():
    async with a_pool(1, memory_bytes=100 * 1024**2) as pool:
        before = await pool.run(f"{CALLS}:pid", into=int)
        assert await pool.run(f"{CALLS}:eat", 50 * 1024**2, into=int) == 50 * 1024**2
        with pytest.raises(ChildFailed, match="MemoryError"):
            await pool.run(f"{CALLS}:eat", 200 * 1024**2, into=int)
        assert await pool.run(f"{CALLS}:pid", into=int) != before
        await wait_until_async(lambda: not runs(before))


async def test_a_child_that_was_killed_while_idle_is_replaced_unnoticed():
    async with a_pool(1) as pool:
        before = await pool.run(f"{CALLS}:pid", into=int)
        os.kill(before, signal.SIGKILL)
        await until_lost(pool)
        assert not runs(before)
        assert await pool.run(f"{CALLS}:pid", into=int) != before


async def test_a_call_that_is_cancelled_leaves_no_child_at_work():
    async with a_pool(1) as pool:
        before = await pool.run(f"{CALLS}:pid", into=int)
        call = await a_hanging_call(pool)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await wait_until_async(lambda: not runs(before))
        assert await pool.run(f"{CALLS}:add", 1, 1, into=int) == 2


async def test_a_child_borrows_what_its_call_lends_and_nothing_else():
    async def model():
        return b"weights"

    async def away():
        raise ConnectionError("the store is away")

    async with a_pool(1) as pool:
        assert await pool.run(f"{CALLS}:lent", "model", into=bytes, lend={"model": model}) == b"weights"
        with pytest.raises(ChildFailed, match="NotLent: other"):
            await pool.run(f"{CALLS}:lent", "other", into=bytes, lend={"model": model})
        with pytest.raises(ConnectionError, match="away"):
            await pool.run(f"{CALLS}:lent", "model", into=bytes, lend={"model": away})
        assert await pool.run(f"{CALLS}:lent", "model", into=bytes, lend={"model": model}) == b"weights"


@pytest.mark.parametrize("size", [0, 1, 3 * 1024**2 + 7])
async def test_a_child_borrows_an_open_file_more_than_once(tmp_path, size):
    path = tmp_path / "lent"
    path.write_bytes(os.urandom(size))
    async with a_pool(1) as pool:
        with path.open("rb") as file:
            for _ in range(2):
                assert await pool.run(f"{CALLS}:lent", "package", into=bytes, lend={"package": file}) == path.read_bytes()


async def test_a_file_is_opened_once_in_a_call_however_often_its_child_borrows_it(tmp_path):
    path, opened = tmp_path / "lent", []
    path.write_bytes(b"weights")

    async def file():
        opened.append(path.open("rb"))
        return opened[-1]

    async with a_pool(1) as pool:
        for call in (1, 2):
            assert await pool.run(f"{CALLS}:lent_often", ["model"] * MAX_BORROWS, into=int, lend={"model": file}) == 7 * MAX_BORROWS
            assert [one.closed for one in opened] == [True] * call


async def test_a_provider_that_fails_is_not_asked_again_in_a_call():
    asked = []

    async def away():
        asked.append(len(asked))
        raise ConnectionError("the store is away")

    async with a_pool(1) as pool:
        with pytest.raises(ConnectionError):
            await pool.run(f"{CALLS}:not_lent_often", ["model"] * 2, into=type(None), lend={"model": away})
    assert asked == [0]


@pytest.mark.parametrize("key", ["model", "unknown"])
async def test_a_child_that_borrows_without_end_is_killed(key):
    async def weights():
        return b"weights"

    async with a_pool(1) as pool:
        before = await pool.run(f"{CALLS}:pid", into=int)
        with pytest.raises(InvalidAnswer, match="requests for files"):
            await pool.run(f"{CALLS}:not_lent_often", [key] * (MAX_BORROWS + 1), into=type(None), lend={"model": weights})
        await wait_until_async(lambda: not runs(before))
        assert await pool.run(f"{CALLS}:add", 1, 1, into=int) == 2


async def test_a_large_file_is_lent_without_being_in_memory(tmp_path):
    path, size = tmp_path / "large", 256 * 1024**2
    with path.open("wb") as made:
        made.truncate(size)
    async with a_pool(1, memory_bytes=4 * size) as pool:
        await pool.run(f"{CALLS}:pid", into=int)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with path.open("rb") as file:
            digest = await pool.run(f"{CALLS}:digest_of_lent", "package", into=str, lend={"package": file})
        added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert digest == hashlib.sha256(bytes(size)).hexdigest()
    assert added < size / 8


async def test_a_file_that_becomes_shorter_while_it_is_lent_costs_the_call_and_its_child_only(tmp_path):
    class Shortened(io.BytesIO):
        def read(self, size=-1):
            return super().read(size // 2)

    async with a_pool(1) as pool:
        with pytest.raises(Unavailable):
            await pool.run(f"{CALLS}:lent", "package", into=bytes, lend={"package": Shortened(bytes(100))})
        assert await pool.run(f"{CALLS}:add", 1, 1, into=int) == 2


async def test_a_child_for_a_single_call_is_never_used_again():
    async with a_pool(1, single_use=True) as pool:
        pids = [await pool.run(f"{CALLS}:pid", into=int) for _ in range(3)]
        assert len(set(pids)) == 3
        await wait_until_async(lambda: not any(runs(pid) for pid in pids))


async def test_a_fork_server_that_was_killed_takes_its_children_along_and_is_replaced():
    async with a_pool(2) as pool:
        child = await pool.run(f"{CALLS}:pid", into=int)
        os.kill(pool._fork_server._process.pid, signal.SIGKILL)
        await until_lost(pool)
        await wait_until_async(lambda: not runs(child))
        assert await pool.run(f"{CALLS}:add", 1, 1, into=int) == 2


async def test_a_call_whose_first_child_is_not_born_yet_at_the_end_hears_of_the_end():
    async with a_pool(2) as pool:
        asked = asyncio.create_task(pool.run(f"{CALLS}:add", 1, 1, into=int))
        await wait_until_async(lambda: pool._fork_server._process is not None)
    with pytest.raises(PoolClosed):
        await asked


class ForksDead(ForkServer):
    """Its children end before they answer."""

    def _fork(self, terms, child_end):
        dead = subprocess.Popen(["true"])
        handle = os.pidfd_open(dead.pid)
        dead.wait()
        return dead.pid, handle


async def test_a_child_that_dies_before_its_first_answer_is_noticed_at_once():
    """And not when the time for its start is over."""
    fork_server = ForksDead(CALLS)
    pool = ProcessPool(fork_server, size=1, nice=0, memory_bytes=ROOMY, hang_seconds=20.0)
    try:
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(pool.run(f"{CALLS}:pid", into=int), 15)
    finally:
        pool.close()
        fork_server.close()


async def test_closing_leaves_nothing_behind():
    async with a_pool(2) as pool:
        working = asyncio.create_task(pool.run(f"{CALLS}:hang", into=int))
        child, fork_server = await pool.run(f"{CALLS}:pid", into=int), pool._fork_server._process.pid
    with pytest.raises(PoolClosed):
        await working
    await wait_until_async(lambda: not runs(child))
    assert not runs(fork_server)
    with pytest.raises(PoolClosed):
        await pool.run(f"{CALLS}:pid", into=int)


async def test_a_closed_pool_refuses_its_calls_also_while_its_fork_server_lives():
    async with a_pool(2) as pool:
        child = await pool.run(f"{CALLS}:pid", into=int)
        answered = asyncio.create_task(pool.run(f"{CALLS}:work", 0.3, into=int))
        await wait_until_async(lambda: pool._idle.qsize() == 1)
        pool.close()
        with pytest.raises(PoolClosed):
            await asyncio.wait_for(pool.run(f"{CALLS}:pid", into=int), 5)
        assert await answered == child
        await wait_until_async(lambda: not runs(child))


PARENT = """
import asyncio
from infrastructure.inference.children.process_pool import ForkServer, ProcessPool
async def main():
    fork_server = ForkServer("tests.infrastructure.inference.pool_calls")
    pool = ProcessPool(fork_server, size=2, nice=0, memory_bytes=2**29, hang_seconds=100)
    idle, _ = await asyncio.gather(*(pool.run("tests.infrastructure.inference.pool_calls:work", 0.2, into=int) for _ in range(2)))
    busy = asyncio.create_task(pool.run("tests.infrastructure.inference.pool_calls:hang", into=int))
    while len(pids(fork_server._process.pid)) < 2:
        await asyncio.sleep(0.01)
    print(fork_server._process.pid, idle, *(child for child in pids(fork_server._process.pid)), flush=True)
    await asyncio.sleep(1000)
def pids(fork_server):
    return open(f"/proc/{fork_server}/task/{fork_server}/children").read().split()
asyncio.run(main())
"""


async def test_nothing_outlives_a_parent_that_was_killed():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    pids = [int(text) for text in parent.stdout.readline().split()]
    assert len(pids) >= 4
    assert all(runs(pid) for pid in pids)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    await wait_until_async(lambda: not any(runs(pid) for pid in pids))


PRELOADED = """
import sys
from infrastructure.inference.children import fork_server
print(sorted({"asyncio", "ssl", "structlog", "rich", "psycopg", "faust", "litestar"} & set(sys.modules)))
"""


def test_a_fork_server_loads_nothing_that_its_children_do_not_need():
    found = subprocess.run([sys.executable, "-c", PRELOADED], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
