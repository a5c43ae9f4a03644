"""Images and results as they stood at an earlier position."""

import pytest

from application.history import lists_as_of
from domain.errors import NotFound
from domain.values import result_id
from tests.rigs.scenario import Scenario


@pytest.fixture
def scenario(log):
    return Scenario(log, None)


@pytest.fixture
def ada(scenario):
    return scenario.user()


@pytest.fixture
def cells(scenario, ada):
    return scenario.dataset(ada)


@pytest.fixture
def pair(scenario, ada, cells):
    """Two accepted images."""
    images = [scenario.image(ada, cells, name) for name in ("a.png", "b.png")]
    for one in images:
        scenario.accept(one)
    return images


@pytest.fixture
def judged(scenario, ada, cells, pair):
    """A job over both images, and the position of its results."""
    scenario.model()
    job = scenario.job(ada, dataset=cells)
    scenario.plan(job, pair)
    scenario.judge(job, 0, pair)
    return job, scenario.log.head()


def results(log, judged, about, until):
    _, position = judged
    return {one.image_id: one.outdated for one in lists_as_of.results([position], about, until=until, log=log)}


def test_images_are_listed_until_they_are_deleted(log, scenario, ada, pair):
    before = log.head()
    scenario.delete_image(ada, pair[1])
    assert [one.filename for one in lists_as_of.images(pair, until=before, log=log)] == ["a.png", "b.png"]
    assert [one.filename for one in lists_as_of.images(pair, until=log.head(), log=log)] == ["a.png"]
    assert lists_as_of.images(pair, until=log.history(pair[0])[0].position, log=log)[0].accepted is False


@pytest.mark.parametrize("value", [None, 0.0, 87.5])
def test_a_result_of_the_past_has_its_number(log, scenario, ada, cells, value):
    cell = scenario.image(ada, cells)
    scenario.model()
    job = scenario.job(ada, image=cell)
    scenario.judge(job, 0, [cell], value=value)
    (found,) = lists_as_of.results([log.head()], job, until=log.head(), log=log)
    assert found.value == value


def test_a_job_and_an_image_have_their_results(log, pair, judged):
    job, position = judged
    assert results(log, judged, job, position) == dict.fromkeys(pair, False)
    assert results(log, judged, pair[0], position) == {pair[0]: False}


def test_a_result_is_outdated_from_the_position_on_at_which_a_newer_reader_found_other_pixels(log, scenario, pair, judged):
    job, position = judged
    scenario.reinspect(pair[0], outdated=[result_id(job, pair[0])])
    assert results(log, judged, job, position) == dict.fromkeys(pair, False)
    assert results(log, judged, job, log.head()) == {pair[0]: True, pair[1]: False}


@pytest.mark.parametrize("what", ["image", "job", "dataset"])
def test_results_end_with_their_image_job_or_dataset(log, scenario, ada, cells, pair, judged, what):
    job, position = judged
    {
        "image": lambda: scenario.delete_image(ada, pair[0]),
        "job": lambda: scenario.delete_job(ada, job),
        "dataset": lambda: scenario.delete_dataset(ada, cells),
    }[what]()
    assert results(log, judged, job, position) == dict.fromkeys(pair, False)
    assert results(log, judged, job, log.head()) == ({pair[1]: False} if what == "image" else {})


def test_a_dataset_is_required_at_that_position(log, scenario, ada, cells):
    created = log.head()
    scenario.delete_dataset(ada, cells)
    lists_as_of.require_dataset(cells, until=created, log=log)
    for until in (created - 1, log.head()):
        with pytest.raises(NotFound):
            lists_as_of.require_dataset(cells, until=until, log=log)


def test_an_image_or_a_job_is_required_at_that_position(log, scenario, ada, cells, pair, judged):
    job, position = judged
    scenario.delete_image(ada, pair[0])
    scenario.delete_job(ada, job)
    for about in (pair[0], job):
        lists_as_of.require_image_or_job(about, until=position, log=log)
        with pytest.raises(NotFound, match="deleted"):
            lists_as_of.require_image_or_job(about, until=log.head(), log=log)
    for about, until in ((pair[1], 1), (cells, log.head())):
        with pytest.raises(NotFound, match="no image or job"):
            lists_as_of.require_image_or_job(about, until=until, log=log)
