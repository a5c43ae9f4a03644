"""Model packages, checked in child processes: good ones, refused ones, and those that break their child."""

import asyncio
import io
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from types import SimpleNamespace

import msgspec
import pytest

from application import model_checks, models
from application.jobs.tasks import Kind, Task
from domain import model, user
from domain.access import Role
from domain.errors import Unavailable
from domain.model import CANDIDATE, ModelAliasMoved, ModelVersionAdded, OutputKind
from domain.model_check import Environment, ModelCheckFailed, ModelCheckPassed
from domain.values import model_id
from infrastructure.blobs.store import open_blobs
from infrastructure.configuration.settings import Settings
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.inference.children.process_pool import ForkServer, ProcessPool
from infrastructure.inference.model_checker import CHECK_MODEL, ModelChecker
from infrastructure.inference.models.bundled import models as shipped_models
from infrastructure.inference.models.bundled import package_archive, register_bundled
from infrastructure.inference.package_answers import CheckedPackage, RefusedPackage, check_answer
from infrastructure.inference.packages.package_files import FileLimits
from infrastructure.retry import Retry
from infrastructure.security.keys import RootKey
from tests.given import NOW, actor, command, register
from tests.infrastructure.inference.checking_child_functions import BUGGY, DEADLY, GREEDY, LYING, STUCK
from tests.infrastructure.inference.packages.making import entry, files, zipped
from tests.rigs.scenario import REPORT
from tests.twins.blobs import MemoryBlobs
from tests.twins.event_store import MemoryRecorder

pytestmark = pytest.mark.anyio

ROOT = RootKey(bytes(32))
CHECKING = "tests.infrastructure.inference.checking_child_functions"
CPU = "x86_64 avx2"
LARGEST_PACKAGE = FileLimits().total_bytes
GOOD = CheckedPackage(
    model="cells",
    description="Round and flat cells",
    release="1.2",
    record='{"name": "Cells"}',
    sha256="ab" * 32,
    size=1000,
    digest="cd" * 32,
    kind=OutputKind.SOFTMAX,
    labels=("round", "flat"),
    label_texts={"flat": "flat cell"},
    review_below=0.6,
    largest_difference=1e-6,
    tolerance=1e-3,
    load_seconds=0.2,
    run_seconds=0.01,
    memory_bytes=10_000_000,
    nodes=40,
    opset=17,
    files=5,
    package_size=2000,
    runtime="onnxruntime 1.30",
    provider="CPUExecutionProvider",
)
ENVIRONMENT = Environment(cpu=CPU, runtime=GOOD.runtime, provider=GOOD.provider)


def another(**changed):
    return msgspec.structs.replace(GOOD, **changed)


class ModelCheckerRig:
    def __init__(self, log, blobs, pool, threads, delays, function):
        self.log, self.blobs, self.ada = log, blobs, register(actor(Role.RESEARCHER), log=log)
        retry = Retry(threads, delays_seconds=delays)
        self.checker = ModelChecker(log=log, blobs=blobs, pool=pool, retry=retry, cpu=CPU, function=function)

    def uploaded(self, answer):
        """A package that makes the child give this answer, or break; or a real package."""
        data = answer if isinstance(answer, bytes) else msgspec.json.encode(answer)
        writer = self.blobs.begin(max_bytes=len(data))
        writer.write(data)
        sha256, _ = writer.commit()
        return model_checks.upload(filename="cells.zip", sha256=sha256, size=len(data), command=command(self.ada), log=self.log).id

    def again(self, number, name="cells"):
        return model_checks.request_test(name=name, number=number, command=command(self.ada), log=self.log).id

    async def check(self, *checks):
        for one in checks:
            await self.checker.check(Task(kind=Kind.CHECK, check_id=one))

    async def checked(self, answer):
        check = self.uploaded(answer)
        await self.check(check)
        return self.answer(check)

    def answer(self, check):
        _, answer = map(self.log.decode, self.log.history(check))
        return answer

    def model(self, name="cells"):
        return self.log.load(model_id(name), model.evolve)


@asynccontextmanager
async def started_rig(log=None, *, hang_seconds=15.0, blobs=None, delays=(0.01,), function=f"{CHECKING}:check_model"):
    fork_server = ForkServer(function.partition(":")[0])
    pool = ProcessPool(fork_server, size=1, nice=0, memory_bytes=1024**3, hang_seconds=hang_seconds, single_use=True)
    with ThreadPoolExecutor(4) as threads:
        try:
            log = log or RecorderEventStore(MemoryRecorder(ROOT), ROOT)
            yield ModelCheckerRig(log, blobs or MemoryBlobs(), pool, threads, delays, function)
        finally:
            pool.close()
            fork_server.close()


async def test_a_package_that_passes_becomes_a_candidate_of_its_uploader():
    async with started_rig() as rig:
        check = rig.uploaded(GOOD)
        await rig.check(check)
        passed, added = rig.answer(check), rig.log.decode(rig.log.history(model_id("cells"))[0])
    assert (passed.model_id, passed.model_name, passed.number) == (model_id("cells"), "cells", 1)
    assert (passed.report.environment, passed.report.largest_difference, passed.report.size) == (ENVIRONMENT, 1e-6, 2000)
    assert isinstance(added, ModelVersionAdded)
    assert (added.by, added.check_id) == (rig.ada.id, check)
    assert (added.version.package, added.version.sha256) == (rig.log.load(check, model_checks.model_check.evolve).sha256, GOOD.sha256)
    assert (added.version.kind, added.version.label_texts, added.version.release) == (GOOD.kind, GOOD.label_texts, GOOD.release)
    assert rig.model().aliases == {CANDIDATE: 1}


async def test_the_next_package_of_a_model_is_its_next_version():
    async with started_rig() as rig:
        await rig.checked(GOOD)
        second = await rig.checked(another(sha256="ef" * 32))
    assert second.number == 2
    assert rig.model().aliases == {CANDIDATE: 2}


async def test_a_known_digest_is_no_new_version():
    async with started_rig() as rig:
        await rig.checked(GOOD)
        await rig.checked(another(sha256="ef" * 32))
        again = await rig.checked(another(package_size=2001))
    assert isinstance(again, ModelCheckPassed)
    assert again.number == 1
    assert len(rig.model().versions) == 2


async def test_a_refusal_is_recorded_with_its_place():
    refusal = RefusedPackage(code="manifest_field", detail="must be a number", file="rdf.yaml", field="inputs[0].axes[2].size")
    async with started_rig() as rig:
        answer = await rig.checked(refusal)
    assert isinstance(answer, ModelCheckFailed)
    assert (answer.code, answer.detail, answer.file, answer.field) == (refusal.code, refusal.detail, refusal.file, refusal.field)
    assert (answer.environment, answer.model_id, rig.model()) == (None, None, None)


async def test_a_network_that_ran_and_was_refused_names_where_it_ran():
    refusal = RefusedPackage(code="model_refused", detail="differs by 0.2", runtime=GOOD.runtime, provider=GOOD.provider)
    async with started_rig() as rig:
        assert (await rig.checked(refusal)).environment == ENVIRONMENT


@pytest.mark.parametrize(
    ("package", "code"),
    [
        (DEADLY, "check_crashed"),
        (STUCK, "check_timeout"),
        (BUGGY, "check_crashed"),
        (GREEDY, "too_much_memory"),
        (LYING, "check_crashed"),
        (another(largest_difference=0.5), "check_crashed"),
        (another(labels=tuple(map(str, range(301))), label_texts={}), "labels"),
        (another(labels=("round", "round"), label_texts={}), "labels"),
        (another(record='{"name": "' + "é" * 110_000 + '"}'), "too_large"),
    ],
    ids=["deadly", "stuck", "buggy", "greedy", "lying", "implausible", "too many labels", "equal labels", "large manifest"],
)
async def test_a_package_that_breaks_its_check_is_refused_with_a_sentence(package, code):
    async with started_rig(hang_seconds=1.0) as rig:
        refused, passed = await rig.checked(package), await rig.checked(GOOD)
    assert (type(refused), refused.code) == (ModelCheckFailed, code)
    assert len(refused.detail) > 20
    assert isinstance(passed, ModelCheckPassed), "the next package is checked all the same"


async def test_a_package_that_is_gone_or_was_changed_is_refused():
    async with started_rig() as rig:
        gone, changed = rig.uploaded(GOOD), rig.uploaded(another(nodes=3))
        packages = [rig.log.load(one, model_checks.model_check.evolve).sha256 for one in (gone, changed)]
        del rig.blobs.kept[packages[0]]
        rig.blobs.kept[packages[1]] = b"something else"
        await rig.check(gone, changed)
        assert [rig.answer(one).code for one in (gone, changed)] == ["package_missing", "package_corrupted"]


async def test_a_store_that_is_away_gives_no_answer():
    class Away(MemoryBlobs):
        def open_locally(self, sha256):
            raise Unavailable("The blob store is unavailable")

    async with started_rig(blobs=Away()) as rig:
        check = rig.uploaded(GOOD)
        with pytest.raises(Unavailable):
            await rig.check(check)
        assert len(rig.log.history(check)) == 1


async def test_a_store_that_goes_away_while_it_lends_the_package_gives_no_answer():
    class Broken(io.BytesIO):
        def read(self, size=-1):
            raise OSError(5, "Input/output error")

    class Breaking(MemoryBlobs):
        def open_locally(self, sha256):
            return Broken(self.read(sha256))

    async with started_rig(blobs=Breaking()) as rig:
        check = rig.uploaded(GOOD)
        with pytest.raises(Unavailable):
            await rig.check(check)
        assert len(rig.log.history(check)) == 1


async def test_a_retired_model_takes_no_version():
    async with started_rig() as rig:
        await rig.checked(GOOD)
        models.retire(name="cells", reason=None, command=command(actor(Role.ADMIN)), log=rig.log)
        refused = await rig.checked(another(sha256="ef" * 32))
    assert (refused.code, len(rig.model().versions)) == ("model_retired", 1)


async def test_a_package_of_a_person_who_may_add_none_any_more_is_refused_with_the_reason():
    async with started_rig() as rig:
        check = rig.uploaded(GOOD)
        demoted = user.change_role(rig.log.load(rig.ada.id, user.evolve), Role.ANALYST, by=rig.ada.id, at=NOW)
        rig.log.append(command(), *demoted)
        await rig.check(check)
        refused = rig.answer(check)
    assert (refused.code, rig.model()) == ("uploader_not_permitted", None)
    assert "may add no models any more" in refused.detail


async def test_a_model_with_many_versions_takes_no_more(monkeypatch):
    monkeypatch.setattr(model, "MAX_VERSIONS", 1)
    async with started_rig() as rig:
        await rig.checked(GOOD)
        refused = await rig.checked(another(sha256="ef" * 32))
    assert (refused.code, len(rig.model().versions)) == ("model_full", 1)


async def test_a_task_that_comes_again_or_asks_for_nothing_changes_nothing():
    async with started_rig() as rig:
        check = rig.uploaded(GOOD)
        await asyncio.gather(*(rig.check(check) for _ in range(3)))
        await rig.check(check, rig.ada.id)
        assert isinstance(rig.answer(check), ModelCheckPassed)
        assert len(rig.model().versions) == 1


async def test_a_version_that_is_checked_again_stays_as_it_is():
    async with started_rig() as rig:
        await rig.checked(GOOD)
        check = rig.again(1)
        await rig.check(check)
        passed = rig.answer(check)
        assert (type(passed), passed.number) == (ModelCheckPassed, 1)
        assert len(rig.log.history(model_id("cells"))) == 2


async def test_a_version_that_fails_when_it_is_checked_again_keeps_its_aliases():
    """The failure names the version, so that it is shown there."""
    async with started_rig() as rig:
        await rig.checked(GOOD)
        check = rig.again(1)
        del rig.blobs.kept[rig.model().versions[0].package]
        await rig.check(check)
        failed = rig.answer(check)
    assert (failed.code, failed.model_id, failed.number) == ("package_missing", model_id("cells"), 1)
    assert rig.model().aliases == {CANDIDATE: 1}


async def test_a_child_that_answers_for_another_model_is_not_believed():
    """When a version is checked again, its package is known: only a compromised child names another model."""
    async with started_rig() as rig:
        await rig.checked(GOOD)
        check = rig.again(1)
        package = rig.model().versions[0].package
        rig.checker._pool = SimpleNamespace(run=lambda *_, **__: asyncio.sleep(0, another(model="others")))
        await rig.check(check)
        failed = rig.answer(check)
    assert (failed.code, failed.number) == ("check_crashed", 1)
    assert (rig.model("others"), rig.model().versions[0].package) == (None, package)


async def test_a_version_that_another_worker_adds_meanwhile_gets_its_own_number():
    class Overtaken(RecorderEventStore):
        overtaken = False

        def append(self, given, *events, **how):
            if isinstance(events[0], ModelVersionAdded) and not self.overtaken:
                self.overtaken = True
                other = self.other
                model_checks.record_passed(other.check, other.found, command=command(actor(None, kind="system")), log=self)
            return super().append(given, *events, **how)

    log = Overtaken(MemoryRecorder(ROOT), ROOT)
    async with started_rig(log) as rig:
        found = model_checks.CheckedModel("cells", "", model_version("99" * 32), REPORT)
        log.other = SimpleNamespace(check=rig.uploaded(another(nodes=1)), found=found)
        passed = await rig.checked(GOOD)
    assert passed.number == 2
    assert [type(log.decode(one)) for one in log.history(model_id("cells"))] == [ModelVersionAdded, ModelAliasMoved] * 2


def model_version(sha256):
    return model.Version(number=1, sha256=sha256, size=10, labels=("a",), review_below=0.0, record="{}", digest=sha256, package=sha256)


async def test_the_description_is_stored_as_it_can_be_shown():
    async with started_rig() as rig:
        await rig.checked(another(description="first\x00 line\r\nsecond\u202e line\n"))
        assert rig.model().description == "first line\nsecond line"


# ---- real packages -----------------------------------------------------------------------------------------------------------------
async def test_a_shipped_model_passes_as_a_package_and_is_the_version_of_its_release(tmp_path):
    blobs = open_blobs(Settings(data=tmp_path), ROOT)
    async with started_rig(blobs=blobs, function=CHECK_MODEL) as rig:
        await asyncio.to_thread(register_bundled, blobs, rig.log)
        (shipped,) = rig.model("pbc8").versions
        passed = await rig.checked(package_archive(shipped_models() / "pbc8"))
    assert (type(passed), passed.model_name, passed.number) == (ModelCheckPassed, "pbc8", 1)
    assert passed.report.largest_difference <= passed.report.tolerance
    assert rig.model("pbc8").versions == (shipped,)


@pytest.mark.long
async def test_the_largest_package_is_checked_within_its_limits(tmp_path):
    """512 MiB with a network that fits: in less than 30 seconds, 2 GiB of the child and 64 MiB of the worker."""
    padding = LARGEST_PACKAGE - 64 * 1024
    package = zipped(files(), entry("more.bin", bytes(padding)))
    assert LARGEST_PACKAGE - 128 * 1024 < len(package) <= LARGEST_PACKAGE
    blobs = open_blobs(Settings(data=tmp_path), ROOT)
    async with started_rig(blobs=blobs, function=CHECK_MODEL) as rig:
        check = rig.uploaded(package)
        del package
        await rig.checked(GOOD)  # so that the fork server runs
        before, started = peak_bytes(resource.RUSAGE_SELF), time.monotonic()
        await rig.check(check)
        seconds, of_the_worker = time.monotonic() - started, peak_bytes(resource.RUSAGE_SELF) - before
        assert isinstance(rig.answer(check), ModelCheckPassed), rig.answer(check)
    assert seconds < 30
    assert of_the_worker < 64 * 1024**2


def peak_bytes(whose):
    return resource.getrusage(whose).ru_maxrss * 1024


# ---- what a child may answer -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "changed",
    [
        {"largest_difference": None},
        {"largest_difference": float("nan"), "tolerance": 1.0},
        {"tolerance": 1e-9},
        {"load_seconds": -1.0},
        {"run_seconds": 1e9},
        {"label_texts": {"other": "text"}},
        {"label_texts": {"flat": "fl\x00at"}},
        {"release": "1\n2"},
        {"runtime": "onnx\x1b[31m"},
        {"notes": ("look\x1b[31m",)},
        {"record": "{"},
        pytest.param({"record": '{"other": %s}' % ("[" * 100_000 + "]" * 100_000)}, id="a record that is nested too deeply"),
    ],
)
def test_what_no_honest_check_answers_is_refused(changed):
    check_answer(GOOD)
    with pytest.raises(ValueError, match=r"plausible|JSON"):
        check_answer(another(**changed))


def test_a_refusal_must_be_printable():
    check_answer(RefusedPackage(code="labels", detail="must be different"))
    with pytest.raises(ValueError, match="plausible"):
        check_answer(RefusedPackage(code="labels", detail="must be\ndifferent"))
