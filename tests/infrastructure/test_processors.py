"""How many processors a process may use: its affinity, and the quotas of its cgroups."""

import math
import os

import pytest

from infrastructure.processors import available_processors, cpu_quota


@pytest.fixture
def cgroups(tmp_path):
    folder = tmp_path / "cgroup"
    folder.mkdir()
    return folder


@pytest.fixture
def membership(tmp_path):
    file = tmp_path / "membership"
    file.write_text("1:name=systemd:/elsewhere\n0::/\n")
    return file


@pytest.mark.parametrize(("text", "processors"), [("150000 100000\n", 1.5), ("25000 50000\n", 0.5), ("max 100000\n", math.inf)])
def test_a_quota_is_the_share_of_its_period(cgroups, membership, text, processors):
    (cgroups / "cpu.max").write_text(text)
    assert cpu_quota(cgroups, membership) == processors


def test_the_strictest_quota_on_the_way_to_the_root_counts(cgroups, membership):
    own = cgroups / "system.slice" / "bioscope.service"
    own.mkdir(parents=True)
    membership.write_text("0::/system.slice/bioscope.service\n")
    (own / "cpu.max").write_text("400000 100000\n")
    assert cpu_quota(cgroups, membership) == 4
    (own.parent / "cpu.max").write_text("200000 100000\n")
    assert cpu_quota(cgroups, membership) == 2
    (cgroups / "other.slice").mkdir()
    (cgroups / "other.slice" / "cpu.max").write_text("100000 100000\n")
    assert cpu_quota(cgroups, membership) == 2


def test_in_a_container_that_does_not_see_its_own_path_the_mounted_root_counts(cgroups, membership):
    membership.write_text("0::/../../docker/0123\n")
    (cgroups / "cpu.max").write_text("300000 100000\n")
    assert cpu_quota(cgroups, membership) == 3
    membership.write_text("0::/docker/0123\n")
    assert cpu_quota(cgroups, membership) == 3


def test_without_cgroup_v2_there_is_no_quota(tmp_path, membership):
    assert cpu_quota(tmp_path / "nothing", membership) == math.inf
    assert cpu_quota(tmp_path, tmp_path / "nothing") == math.inf


def test_here_at_least_one_processor_and_no_more_than_the_affinity_is_available():
    assert 1 <= available_processors() <= len(os.sched_getaffinity(0))
