"""Hostile model packages: refused with a code, without running anything and without taking much memory."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from domain.model_check import ModelCheckFailed
from infrastructure.inference.model_checker import CHECK_MODEL
from infrastructure.inference.models.refusals import PackageRefused, RefusalCode
from infrastructure.inference.packages.package import open_package
from tests.adversaries.hostile_packages import RUN, STATIC
from tests.infrastructure.inference.packages.making import files, zipped
from tests.infrastructure.inference.test_model_checker import started_rig

QUICK = [name for name, hostile in STATIC.items() if hostile.is_quick]
OTHERS = [name for name in STATIC if name not in QUICK]
MEMORY_BYTES = 1024**3
RUNS_OF_ALL = """
import sys
from pathlib import Path
from infrastructure.inference.packages.package import open_package
from infrastructure.inference.models.refusals import PackageRefused
for path in sorted(Path(sys.argv[1]).glob("*.zip")):
    try:
        open_package(path)
        print(path.name, "opened")
    except PackageRefused as refused:
        print(path.name, refused.code)
"""


def refusal_of(hostile, folder):
    path = folder / "package.zip"
    path.write_bytes(hostile.make())
    with pytest.raises(PackageRefused) as refused:
        open_package(path)
    return refused.value


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.long) for name in OTHERS)])
def test_it_is_refused_with_its_code(name, tmp_path):
    refused = refusal_of(STATIC[name], tmp_path)
    assert refused.code == STATIC[name].code
    assert str(refused).isprintable()
    assert len(str(refused)) < 600


def test_there_are_enough_of_them():
    assert len(QUICK) >= 25
    assert len(STATIC) >= 80
    assert len(RUN) >= 5


def test_each_code_has_a_package():
    """But those of what a test outside this list makes."""
    of_workers = {code for code in RefusalCode if code.startswith(("check_", "package_", "worker_", "too_much_", "model_"))}
    elsewhere = {RefusalCode.FILE_CHANGED, RefusalCode.ONNX_TOO_LARGE, RefusalCode.UPLOADER_NOT_PERMITTED} | of_workers
    assert {hostile.code for hostile in STATIC.values()} | elsewhere == set(RefusalCode)


@pytest.mark.long
@pytest.mark.parametrize("name", RUN)
def test_what_only_the_sandbox_can_refuse_is_opened(name, tmp_path):
    path = tmp_path / "package.zip"
    path.write_bytes(RUN[name].make())
    assert open_package(path).network


@pytest.mark.long
def test_all_are_answered_within_a_gigabyte(tmp_path):
    from tests.adversaries.hostile_packages import write_all

    write_all(tmp_path)
    answers = subprocess.run(
        [sys.executable, "-c", RUNS_OF_ALL, str(tmp_path)],
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES)),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    expected = [hostile.code for hostile in STATIC.values()] + ["opened"] * len(RUN)
    assert [answer.split()[1] for answer in answers] == expected


# ---- in a worker -------------------------------------------------------------------------------------------------------------------
LEFT_TO_THE_SANDBOX = {
    "a loop of 2^62 rounds": {"check_timeout"},
    "a tree that is its own child": {"check_timeout", "model_refused"},
    "a constant of 16 gigabytes": {"too_much_memory", "model_refused"},
    "a constant of 2^60 numbers": {"too_much_memory", "model_refused"},
    "scores that are NaN": {"model_refused"},
    "another test output": {"model_refused"},
    "an operator that does not exist": {"model_refused"},
    "a graph without its inputs": {"model_refused"},
    "a bomb in an archive in it": {None},
}
"""The codes with which a worker refuses what it must run; None for a package that passes."""


async def code_of(rig, package):
    """How the worker answers in the log; None if the package passes."""
    answer = await rig.checked(package)
    return answer.code if isinstance(answer, ModelCheckFailed) else None


@pytest.mark.anyio
@pytest.mark.parametrize("name", RUN)
async def test_a_worker_answers_what_only_the_sandbox_can_refuse(name):
    """And checks the next package, which is a good one."""
    async with started_rig(hang_seconds=3.0, function=CHECK_MODEL) as rig:
        assert await code_of(rig, RUN[name].make()) in LEFT_TO_THE_SANDBOX[name]
        assert await code_of(rig, zipped(files())) is None


@pytest.mark.anyio
async def test_a_worker_refuses_hostile_files_with_their_codes():
    async with started_rig(function=CHECK_MODEL) as rig:
        answers = {name: await code_of(rig, STATIC[name].make()) for name in QUICK}
    assert answers == {name: STATIC[name].code for name in QUICK}


@pytest.mark.long
@pytest.mark.anyio
async def test_a_worker_refuses_all_hostile_files_with_their_codes():
    async with started_rig(function=CHECK_MODEL) as rig:
        answers = {name: await code_of(rig, STATIC[name].make()) for name in OTHERS}
    assert answers == {name: STATIC[name].code for name in OTHERS}


# ---- folders -----------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def folder(tmp_path):
    for name, data in files().items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def folder_refusal(folder):
    with pytest.raises(PackageRefused) as refused:
        open_package(folder)
    return refused.value.code


def test_a_link_in_a_folder_is_refused(folder):
    (folder / "key").symlink_to("/etc/passwd")
    assert folder_refusal(folder) == "entry_kind"


def test_a_link_to_a_folder_is_refused(folder):
    (folder / "all").symlink_to("/")
    assert folder_refusal(folder) == "entry_kind"


def test_a_pipe_in_a_folder_is_refused(folder):
    """Without being opened, which would wait for a writer."""
    os.mkfifo(folder / "pipe")
    assert folder_refusal(folder) == "entry_kind"


def test_a_folder_of_many_files_is_refused(folder):
    for number in range(1000):
        (folder / f"{number}").touch()
    assert folder_refusal(folder) == "too_many_entries"


def test_a_deep_folder_is_refused(folder):
    (folder / "/".join("abcdefghij")).mkdir(parents=True)
    assert folder_refusal(folder) == "entry_name"


def test_a_sparse_file_of_a_terabyte_is_refused(folder):
    with (folder / "large").open("wb") as file:
        file.truncate(2**40)
    assert folder_refusal(folder) == "too_large"


def test_a_file_that_changes_after_opening_is_refused(folder):
    package = open_package(folder)
    weights = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(weights[:-1] + b"!")
    with pytest.raises(PackageRefused) as refused:
        package.read("model.onnx")
    assert refused.value.code == "file_changed"


def test_an_archive_that_changes_after_opening_is_refused(tmp_path):
    path = tmp_path / "package.zip"
    path.write_bytes(zipped(files()))
    package = open_package(path)
    path.write_bytes(zipped(dict(reversed(files().items()))))
    with pytest.raises(PackageRefused) as refused:
        package.read("model.onnx")
    assert refused.value.code in {"file_changed", "entry_corrupted"}  # other bytes lie where the file was


def test_codes_are_plain_words():
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in RefusalCode)
