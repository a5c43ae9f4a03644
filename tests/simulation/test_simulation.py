"""Simulated systems in which everything goes wrong: the invariants hold in each."""

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.simulation.invariants import told
from tests.simulation.simulate import StoryOfAdversaries, StoryOfJobs, broken_in, run
from tests.simulation.world import CALM

SEEDS, SEEDS_OF_JOBS, SEEDS_OF_LIES, PIECE = 300, 100, 50, 25


def pieces(seeds, *, short):
    """The first seeds of each piece; those from `short` on are told with the long tests."""
    return [pytest.param(first, marks=[pytest.mark.long] if first >= short else []) for first in range(0, seeds, PIECE)]


@pytest.mark.parametrize("first", pieces(SEEDS, short=50))
def test_everything_holds_whatever_goes_wrong(first):
    broken = broken_in(range(first, first + PIECE))
    assert not broken, f"again: make simulate SEED={next(iter(broken))}"


@pytest.mark.parametrize("first", pieces(SEEDS_OF_LIES, short=PIECE))
def test_everything_holds_whatever_workers_stores_and_clocks_say(first):
    broken = broken_in(range(first, first + PIECE), story=StoryOfAdversaries())
    assert not broken, next(iter(broken.items()))


def test_adversaries_lie_and_no_lie_is_taken():
    counted = sum((run(seed, story=StoryOfAdversaries()).counted for seed in range(5)), Counter())
    assert counted["lies refused"] > 10
    assert counted["files swapped"] > 10
    assert counted["notifications forged"] > 10
    assert counted["lies taken"] == 0


@pytest.mark.parametrize("first", pieces(SEEDS_OF_JOBS, short=PIECE))
def test_everything_holds_while_jobs_repeat_results_and_others_are_cut_short(first):
    broken = broken_in(range(first, first + PIECE), story=StoryOfJobs())
    assert not broken, next(iter(broken.items()))


def test_results_are_repeated_and_jobs_end_at_deadlines():
    counted = sum((run(seed, story=StoryOfJobs()).counted for seed in range(10)), Counter())
    assert counted["repeated results"] > 20
    assert counted["deadlines passed"] > 5
    assert min(counted[f"done {kind}"] for kind in ("run list", "run filter", "retry")) > 0


def test_without_misfortunes_nobody_dies_and_nobody_waits_long():
    world = run(1, plan=CALM)
    assert not world.broken
    assert (world.deaths, world.counted["given up"]) == (0, 0)
    assert world.clock.passed < 15


@pytest.mark.parametrize("seed", [3, 12, 18])
def test_a_seed_repeats_its_run_exactly(seed):
    first, again = run(seed), run(seed)
    assert first.deaths
    assert told(first) == told(again)


def test_a_story_does_not_hang_on_hashes_time_zone_or_locale():
    said = {
        _told_under(PYTHONHASHSEED=seed, TZ=zone, LC_ALL=words) for seed, zone, words in (("1", "UTC", "C"), ("2", "Asia/Tokyo", "C.UTF-8"))
    }
    assert len(said) == 1
    assert said != {""}


def _told_under(**environment):
    told = "from tests.simulation.simulate import run; from tests.simulation.invariants import told; print(told(run(18)))"
    ran = subprocess.run([sys.executable, "-c", told], env=os.environ | environment, capture_output=True, text=True, check=True)
    return ran.stdout
