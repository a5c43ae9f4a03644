"""Which version of a model may be asked for predictions, by whom, and how often."""

from uuid import uuid4

import pytest

from application import models, predictions
from application.limits.prediction_limit import PredictionLimit
from application.ports import Mismatch
from domain.access import Actor, Role, Scope
from domain.classification import PlaneSelection
from domain.errors import Conflict, Forbidden, InputMismatch, Invalid, NotFound, TooMany
from domain.model import OutputKind
from infrastructure.security.rate_limits import LocalRateLimiter
from tests.given import actor, add_model, command

ADMIN = actor(Role.ADMIN)
ROBOT = Actor(id=uuid4(), kind="service", scopes=frozenset({Scope.MODELS_RUN}))
SHAPES = {"labels": ("round", "flat"), "review_below": 0.5, "record": "{}", "size": 10}


@pytest.fixture
def shapes(log):
    """A model with a version in production, and a candidate."""
    for sha256 in ("a" * 64, "b" * 64):
        add_model(name="shapes", sha256=sha256, **SHAPES, command=command(ADMIN), log=log)


def fits(*_):
    return []


def chosen(log, wanted="production", *, by=ADMIN, planes=None, check=fits, name="shapes"):
    return predictions.version_to_run(name, wanted, planes or PlaneSelection(), actor=by, input_check=check, log=log).number


@pytest.mark.parametrize(("wanted", "number"), [("production", 1), ("candidate", 2), ("1", 1), ("2", 2)])
def test_a_version_is_named_by_its_number_or_an_alias(log, shapes, wanted, number):
    assert predictions.usable_version("shapes", wanted, log=log)[1].number == number
    assert chosen(log, wanted) == number


@pytest.mark.parametrize("wanted", ["3", "stable", "0", "", "production ", "9" * 20])
def test_another_version_is_not_found_and_the_answer_names_those_that_exist(log, shapes, wanted):
    with pytest.raises(NotFound, match="candidate"):
        predictions.usable_version("shapes", wanted, log=log)
    with pytest.raises(NotFound, match="none"):
        predictions.usable_version("none", "production", log=log)


@pytest.mark.parametrize(
    ("by", "allowed"),
    [
        (actor(Role.VIEWER), set()),
        (actor(Role.ANALYST), {"production"}),
        (actor(Role.RESEARCHER), {"production", "candidate"}),
        (ADMIN, {"production", "candidate"}),
        (ROBOT, {"production"}),
        (Actor(id=uuid4(), kind="service", scopes=frozenset({Scope.IMAGES_READ, Scope.EVENTS_READ})), set()),
        (Actor(id=uuid4(), kind="user", scopes=frozenset({Scope.MODELS_RUN})), set()),
    ],
)
def test_who_may_run_which_version(log, shapes, by, allowed):
    for wanted in ("production", "candidate"):
        if wanted in allowed:
            assert chosen(log, wanted, by=by)
        else:
            with pytest.raises(Forbidden):
                chosen(log, wanted, by=by)
    if allowed:
        predictions.may_predict(by)
    else:
        with pytest.raises(Forbidden):
            predictions.may_predict(by)


def test_retired_and_external_models_are_not_run_here(log, shapes):
    models.retire(name="shapes", reason="Old", command=command(ADMIN), log=log)
    add_model(name="others", sha256="c" * 64, **SHAPES, kind=OutputKind.EXTERNAL, command=command(ADMIN), log=log)
    with pytest.raises(Conflict, match="retired"):
        chosen(log)
    with pytest.raises(Conflict, match="external"):
        chosen(log, name="others")


def test_planes_that_do_not_fit_are_refused_before_anything_is_decoded(log, shapes):
    mismatch = Mismatch(field=("planes", "c"), axis="channel", expected="3", found="2", message="The model takes 3 channels")
    with pytest.raises(InputMismatch, match="3 channels"):
        chosen(log, planes=PlaneSelection(c=(0, 1)), check=lambda *_: [mismatch])
    with pytest.raises(Invalid, match="different"):
        chosen(log, planes=PlaneSelection(c=(1, 1)))


def test_an_account_may_ask_so_often_a_minute_and_others_still_may():
    now = [0.0]
    limit = PredictionLimit(limits=LocalRateLimiter(clock=lambda: now[0]), per_minute=3)
    ada, bob = uuid4(), uuid4()
    for _ in range(3):
        limit.count(ada)
    with pytest.raises(TooMany, match="More than 3 requests") as refused:
        limit.count(ada)
    assert 0 < refused.value.retry_after <= 60
    limit.count(bob)
    now[0] = 61.0
    limit.count(ada)
