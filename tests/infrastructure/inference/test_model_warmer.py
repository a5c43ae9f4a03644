"""Versions in production are run once before a job needs them."""

import pytest

from application import models
from domain import model
from domain.access import Role
from domain.errors import CorruptBlob, Unavailable
from domain.values import model_id
from infrastructure.inference.children.child_process import ChildLost
from infrastructure.inference.model_warmer import FIRST_DELAY_SECONDS, MAX_DELAY_SECONDS, ModelWarmer
from tests.given import actor, add_model, command

pytestmark = pytest.mark.anyio

SHAPES = model_id("shapes")


class Rig:
    """A model with two versions, and a child that raises `errors`, one for each call."""

    def __init__(self, log):
        for sha256 in ("a" * 64, "b" * 64):
            about = {"size": 10, "labels": ("round", "flat"), "review_below": 0.5, "record": "{}", "sha256": sha256}
            add_model(name="shapes", **about, command=command(actor(Role.ADMIN)), log=log)
        self.now, self.ran, self.errors = 0.0, [], []
        self.warmer = ModelWarmer(log, self._warm, clock=lambda: self.now)

    async def _warm(self, version):
        self.ran.append(version.number)
        if self.errors:
            raise self.errors.pop(0)

    async def due(self, *, after=0.0):
        """The versions that are run now."""
        self.now += after
        before = len(self.ran)
        await self.warmer.run_due()
        return self.ran[before:]


@pytest.fixture
def rig(log):
    return Rig(log)


async def test_a_version_in_production_is_run_once_and_its_successor_once_it_is_promoted(rig):
    assert await rig.due() == []
    assert not rig.warmer.ready.is_set()
    rig.warmer.set_in_production({SHAPES: 1})
    assert [await rig.due(), await rig.due(after=1e6)] == [[1], []]
    assert rig.warmer.ready.is_set()
    rig.warmer.set_in_production({SHAPES: 2})
    assert [await rig.due(), await rig.due(after=1e6)] == [[2], []]
    assert rig.warmer.attempted == {SHAPES: 2}


@pytest.mark.parametrize("error", [ChildLost("It hung"), Unavailable("The blob store is unavailable"), OSError("No process")])
async def test_a_version_that_hangs_is_tried_again_with_growing_delays(rig, error):
    rig.warmer.set_in_production({SHAPES: 1})
    rig.errors = [error] * 12
    assert await rig.due() == [1]
    for failures in range(11):
        delay = min(FIRST_DELAY_SECONDS * 2**failures, MAX_DELAY_SECONDS)
        assert await rig.due(after=delay * 0.99) == []
        assert await rig.due(after=delay * 0.01 + 1e-6) == [1]
    assert not rig.warmer.ready.is_set()
    assert await rig.due(after=MAX_DELAY_SECONDS) == [1]
    assert rig.warmer.ready.is_set()


async def test_a_version_whose_file_is_damaged_is_not_tried_again(rig):
    rig.warmer.set_in_production({SHAPES: 1})
    rig.errors = [CorruptBlob("It is damaged")]
    assert [await rig.due(), await rig.due(after=1e6)] == [[1], []]
    assert not rig.warmer.ready.is_set()


async def test_a_version_that_hangs_keeps_no_other_model_from_running(rig, log):
    about = {"size": 10, "labels": ("a", "b"), "review_below": 0.5, "record": "{}", "sha256": "c" * 64}
    add_model(name="cells", **about, command=command(actor(Role.ADMIN)), log=log)
    rig.warmer.set_in_production({SHAPES: 2, model_id("cells"): 1})
    rig.errors = [ChildLost("It hung")]
    assert await rig.due() == [2, 1]
    assert rig.warmer.ready.is_set()


async def test_the_version_that_the_heartbeat_names_is_run_although_production_has_moved(rig, log):
    rig.warmer.set_in_production({SHAPES: 1})
    models.move_alias(name="shapes", alias="production", number=2, command=command(actor(Role.ADMIN)), log=log)
    assert log.load(SHAPES, model.evolve).production.number == 2
    assert await rig.due() == [1]
