"""A compromised decoder: its attempts are refused or end only its own child process, and the pool goes on."""

import os
import platform
import socket
from functools import partial
from pathlib import Path

import psycopg
import pytest

from application.result_rules import ResultRules
from domain.classification import ReviewRules
from domain.model import OutputKind
from infrastructure.images.validation import ImageLimits
from infrastructure.inference.children.child_process import ChildFailed, ChildHung, ChildLost, InvalidAnswer, NotSandboxed
from infrastructure.inference.predictions import BatchPrediction, ImageRefusal, InspectedUpload, check_batch, check_inspected
from infrastructure.sandbox import supported
from tests.adversaries.hostile_decoder import LIES
from tests.adversaries.pools import a_pool, child_of, still_works

pytestmark = pytest.mark.anyio

HOSTILE = "tests.adversaries.hostile_decoder"
RULES = ResultRules(kind=OutputKind.SOFTMAX, labels=("a", "b"), review=ReviewRules(below=0.5))


@pytest.fixture
def root_key(settings):
    return settings.root_key_path


def refused(outcomes):
    return {what for what, outcome in outcomes.items() if outcome.startswith("refused")} == set(outcomes)


async def test_it_opens_no_file_and_leaves_none(root_key, tmp_path):
    parent = f"/proc/{os.getpid()}"
    paths = [str(root_key), "/etc/passwd", "keys/root.key", "/proc/self/status", f"{parent}/environ", f"{parent}/mem", f"{parent}/maps"]
    async with a_pool(HOSTILE) as pool:
        outcomes = await pool.run(f"{HOSTILE}:files", paths, str(tmp_path / "new"), into=dict[str, str])
        assert refused(outcomes), outcomes
        assert await still_works(pool)
    assert root_key.exists()
    assert not (tmp_path / "new").exists()


async def test_it_reaches_no_server(app_url):
    with psycopg.connect(app_url) as connection:
        folder, port = connection.info.host, connection.info.port
    with socket.create_server(("127.0.0.1", 0)) as server:
        async with a_pool(HOSTILE) as pool:
            arguments = server.getsockname()[1], f"{folder}/.s.PGSQL.{port}", app_url
            outcomes = await pool.run(f"{HOSTILE}:sockets", *arguments, into=dict[str, str])
            assert refused(outcomes), outcomes
            assert await still_works(pool)


async def test_it_starts_and_touches_no_process():
    async with a_pool(HOSTILE) as pool:
        child = await child_of(pool)
        outcomes = await pool.run(f"{HOSTILE}:processes", os.getpid(), into=dict[str, str])
        assert refused(outcomes), outcomes
        assert Path(f"/proc/{child}/task/{child}/children").read_text() == ""
        assert await child_of(pool) == child


async def test_it_has_no_system_call_but_those_that_the_filter_names():
    async with a_pool(HOSTILE) as pool:
        assert await pool.run(f"{HOSTILE}:system_calls", into=list[int]) == []
        assert await still_works(pool)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the second table of system calls is that of x86-64")
async def test_it_ends_when_it_uses_the_second_table_of_system_calls():
    async with a_pool(HOSTILE) as pool:
        with pytest.raises(ChildLost):
            await pool.run(f"{HOSTILE}:call_of_another_architecture", into=int)
        assert await still_works(pool)


async def test_it_gets_no_more_memory_than_its_limit():
    async with a_pool(HOSTILE) as pool:
        with pytest.raises(ChildFailed, match="MemoryError"):
            await pool.run(f"{HOSTILE}:take_2_gib", into=int)
        assert await still_works(pool)


async def test_it_ends_when_it_loops_for_ever():
    async with a_pool(HOSTILE, hang_seconds=1.0) as pool:
        with pytest.raises(ChildHung):
            await pool.run(f"{HOSTILE}:loop", into=type(None))
        assert await still_works(pool)


async def test_it_gets_no_more_time_by_asking_for_the_model_again_and_again():
    async def weights():
        return bytes(1024)

    async with a_pool(HOSTILE, hang_seconds=1.0) as pool:
        with pytest.raises(ChildHung):
            await pool.run(f"{HOSTILE}:borrow_slowly", into=type(None), lend={"model": weights})
        assert await still_works(pool)


async def test_it_ends_when_it_asks_for_the_model_without_end():
    async def weights():
        return bytes(1024)

    async with a_pool(HOSTILE) as pool:
        child = await child_of(pool)
        with pytest.raises(InvalidAnswer, match="requests for files"):
            await pool.run(f"{HOSTILE}:borrow_for_ever", into=type(None), lend={"model": weights})
        assert await child_of(pool) != child


@pytest.mark.parametrize("answer", ["announce_an_endless_answer", "answer_rubbish", "answer_a_million_lists", "fail_with_markup"])
async def test_it_ends_when_its_answer_is_none(answer):
    async with a_pool(HOSTILE) as pool:
        child = await child_of(pool)
        with pytest.raises(InvalidAnswer):
            await pool.run(f"{HOSTILE}:{answer}", into=type(None))
        assert await child_of(pool) != child


async def test_an_honest_result_is_believed():
    async with a_pool(HOSTILE) as pool:
        check = partial(check_batch, images=2, rules=RULES)
        assert len((await pool.run(f"{HOSTILE}:honest", 2, into=BatchPrediction, check=check)).answers) == 2


@pytest.mark.parametrize("lie", LIES)
async def test_it_ends_when_its_scores_cannot_be_true(lie):
    async with a_pool(HOSTILE) as pool:
        child = await child_of(pool)
        with pytest.raises(InvalidAnswer):
            await pool.run(f"{HOSTILE}:lying", lie, into=BatchPrediction, check=partial(check_batch, images=1, rules=RULES))
        assert await child_of(pool) != child


@pytest.mark.parametrize("answers", [0, 1, 3])
async def test_it_ends_when_it_answers_for_other_images_than_it_was_given(answers):
    async with a_pool(HOSTILE) as pool:
        with pytest.raises(InvalidAnswer):
            await pool.run(f"{HOSTILE}:honest", answers, into=BatchPrediction, check=partial(check_batch, images=2, rules=RULES))


@pytest.mark.parametrize("detail", ["", "x" * 1001, "two\nlines", "\x1b[31mred", "\u202eback"])
async def test_it_cannot_put_any_text_into_the_log(detail):
    async with a_pool(HOSTILE) as pool:
        with pytest.raises(InvalidAnswer):
            await pool.run(f"{HOSTILE}:failing_with", detail, into=BatchPrediction, check=partial(check_batch, images=1, rules=RULES))


async def test_it_cannot_have_more_stored_than_pictures_are_large():
    limits = ImageLimits()
    async with a_pool(HOSTILE) as pool:
        with pytest.raises(InvalidAnswer, match="thumbnail"):
            await pool.run(
                f"{HOSTILE}:huge_thumbnail", b"", limits, into=InspectedUpload | ImageRefusal, check=partial(check_inspected, limits=limits)
            )


# ---- the sandbox is on -------------------------------------------------------------------------------------------------------------
def status_of(process):
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def test_a_child_that_takes_calls_is_in_its_sandbox():
    async with a_pool(HOSTILE) as pool:
        child = await child_of(pool)
        status = status_of(child)
        assert (status["Seccomp"], status["NoNewPrivs"], status["Threads"]) == ("2", "1", "1")
        assert {int(status[f"Cap{which}"], 16) for which in ("Inh", "Prm", "Eff", "Amb")} == {0}
        assert Path(f"/proc/{child}/cwd").readlink().name.endswith(" (deleted)")


@pytest.mark.skipif(not supported().user_namespace, reason="the kernel allows no user namespaces here")
async def test_a_child_has_a_network_and_a_root_directory_without_anything():
    async with a_pool(HOSTILE) as pool:
        child = Path(f"/proc/{await child_of(pool)}")
        assert int(status_of(child.name)["CapBnd"], 16) == 0
        for namespace in ("user", "net"):
            assert (child / "ns" / namespace).readlink() != Path(f"/proc/self/ns/{namespace}").readlink()
        assert (child / "net" / "dev").read_text().count(":") == 1  # lo, which is down
        assert not any((child / "root").iterdir())


@pytest.mark.skipif(not supported().landlock, reason="the kernel has no Landlock")
async def test_a_child_that_cannot_enter_its_sandbox_takes_no_call():
    async with a_pool("tests.adversaries.broken_landlock") as pool:
        with pytest.raises(NotSandboxed, match="Operation not permitted"):
            await still_works(pool)
