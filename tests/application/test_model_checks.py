"""Checks of model packages: asked for by researchers, answered once by a worker."""

from uuid import uuid4

import msgspec
import pytest

from application import model_checks, models
from application.model_checks import CheckedModel, PackageRefusal
from domain import model, model_check, user
from domain.access import Role
from domain.errors import Conflict, Forbidden, Invalid, NotFound, TooMany
from domain.model import ModelVersionAdded, Version
from domain.model_check import ModelCheckFailed, ModelCheckPassed
from domain.values import model_id
from tests.given import NOW, actor, add_model, command, register
from tests.rigs.scenario import REPORT

ADMIN, RESEARCHER = actor(Role.ADMIN), actor(Role.RESEARCHER)
SYSTEM = actor(None, kind="system")
REFUSAL = PackageRefusal("labels", "A label occurs twice", file="rdf.yaml", field="config.bioscope.labels")
RECORDED = {"size": 10, "labels": ("round", "flat"), "review_below": 0.5, "record": "{}"}


def found(sha256="a" * 64, name="shapes", **changes):
    version = Version(number=1, sha256=sha256, digest=sha256, package="c" * 64, **RECORDED | changes)
    return CheckedModel(name, "Round or flat", version, REPORT)


@pytest.fixture
def upload(log):
    def upload(by=RESEARCHER):
        register(by, log=log)
        return model_checks.upload(filename="shapes.zip", sha256="c" * 64, size=1000, command=command(by), log=log).id

    return upload


@pytest.fixture
def accept(log):
    def accept(check, checked=None):
        return model_checks.record_passed(check, checked or found(), command=command(SYSTEM), log=log)

    return accept


@pytest.fixture
def refuse(log):
    def refuse(check):
        return model_checks.record_failed(check, REFUSAL, REPORT.environment, command=command(SYSTEM), log=log)

    return refuse


def shapes(log):
    return log.load(model_id("shapes"), model.evolve)


def answer(log, check):
    return log.decode(log.history(check)[-1])


def test_a_package_that_passes_becomes_a_candidate_of_the_person_who_uploaded_it(log, upload, accept):
    check = upload()
    assert model_checks.unanswered(check, log=log).requested_by == RESEARCHER.id
    assert accept(check)
    added = log.decode(log.history(model_id("shapes"))[0])
    assert (added.by, added.check_id) == (RESEARCHER.id, check)
    assert shapes(log).aliases == {"candidate": 1}
    passed = answer(log, check)
    assert isinstance(passed, ModelCheckPassed)
    assert (passed.model_id, passed.model_name, passed.number, passed.report) == (model_id("shapes"), "shapes", 1, REPORT)
    assert model_checks.unanswered(check, log=log) is None


CHANGES = {
    "demoted": lambda state: user.change_role(state, Role.ANALYST, by=ADMIN.id, at=NOW),
    "suspended": lambda state: user.change_status(state, user.Status.SUSPENDED, by=ADMIN.id, at=NOW),
    "deactivated": lambda state: user.change_status(state, user.Status.INACTIVE, by=ADMIN.id, at=NOW),
    "deleted": lambda state: user.delete(state, by=ADMIN.id, at=NOW),
}


def change_account(log, which, who=RESEARCHER):
    log.append(command(ADMIN), *CHANGES[which](log.load(who.id, user.evolve)))


@pytest.mark.parametrize("which", CHANGES)
def test_a_person_who_may_add_no_models_any_more_gets_no_version(log, upload, accept, refuse, which):
    check = upload()
    change_account(log, which)
    with pytest.raises(Forbidden, match="may add no models any more"):
        accept(check)
    assert shapes(log) is None
    assert refuse(check)


def test_an_account_that_changes_while_the_answer_is_recorded_is_looked_at_again(upload, accept, log):
    class Overtaken:
        def append(self, given, *events, **how):
            if isinstance(events[0], ModelVersionAdded) and log.load(RESEARCHER.id, user.evolve).role is Role.RESEARCHER:
                change_account(log, "demoted")
            return log.append(given, *events, **how)

        def __getattr__(self, name):
            return getattr(log, name)

    check = upload()
    with pytest.raises(Forbidden):
        model_checks.record_passed(check, found(), command=command(SYSTEM), log=Overtaken())
    assert shapes(log) is None


def test_a_promoted_person_still_gets_a_version(log, upload, accept):
    check = upload()
    log.append(command(ADMIN), *user.change_role(log.load(RESEARCHER.id, user.evolve), Role.ADMIN, by=ADMIN.id, at=NOW))
    assert accept(check)


def test_a_version_is_tested_again_also_if_its_author_may_add_none_any_more(log, upload, accept):
    accept(upload())
    again = model_checks.request_test(name="shapes", number=1, command=command(RESEARCHER), log=log).id
    change_account(log, "demoted")
    assert accept(again)


def test_a_later_package_is_the_next_version_and_the_same_package_is_no_new_version(log, upload, accept):
    first, second, again = upload(), upload(), upload()
    assert accept(first)
    assert accept(second, found("b" * 64))
    assert accept(again)
    assert [answer(log, check).number for check in (first, second, again)] == [1, 2, 1]
    assert [version.sha256[0] for version in shapes(log).versions] == ["a", "b"]
    assert shapes(log).aliases == {"candidate": 2}


def test_a_package_that_fails_adds_no_version(log, upload, refuse):
    check = upload()
    assert refuse(check)
    failed = answer(log, check)
    assert isinstance(failed, ModelCheckFailed)
    assert (failed.code, failed.detail, failed.file, failed.field) == tuple(REFUSAL)
    assert (failed.environment, failed.model_id, failed.number) == (REPORT.environment, None, None)
    assert shapes(log) is None


def test_a_check_has_one_answer(log, upload, accept, refuse):
    passed, failed = upload(), upload()
    assert [accept(passed), accept(passed), refuse(passed)] == [True, False, False]
    assert [refuse(failed), refuse(failed), accept(failed)] == [True, False, False]
    assert [len(log.history(check)) for check in (passed, failed)] == [2, 2]


def test_a_check_is_found_before_and_after_its_answer(log, upload, refuse):
    check = upload()
    assert not model_checks.requested(check, log=log).answered
    refuse(check)
    assert model_checks.requested(check, log=log).answered
    with pytest.raises(NotFound):
        model_checks.requested(uuid4(), log=log)


def test_a_version_whose_manifest_fits_into_no_event_is_not_added(log, upload, accept):
    with pytest.raises(Invalid, match="at most 204,800 bytes"):
        accept(upload(), found(record='"' + "x" * models.MAX_VERSION_BYTES + '"'))


def test_there_is_no_answer_to_a_check_that_nobody_asked_for(log, accept, refuse):
    unknown = uuid4()
    assert not accept(unknown)
    assert not refuse(unknown)
    assert model_checks.unanswered(unknown, log=log) is None
    assert shapes(log) is None


def test_a_version_that_no_results_could_be_recorded_of_is_not_added(log, upload, accept):
    check = upload()
    with pytest.raises(Invalid):
        accept(check, found(labels=("round", "round")))
    assert shapes(log) is None
    assert model_checks.unanswered(check, log=log)


def test_a_retired_model_gets_no_further_version(log, upload, accept):
    accept(upload())
    models.retire(name="shapes", reason="Replaced", command=command(ADMIN), log=log)
    with pytest.raises(Conflict, match="retired"):
        accept(upload(), found("b" * 64))
    with pytest.raises(Conflict, match="Model shapes is retired"):
        model_checks.request_test(name="shapes", number=1, command=command(RESEARCHER), log=log)
    assert len(shapes(log).versions) == 1


def test_a_version_is_added_after_a_change_of_its_model_at_the_same_time(log, upload, accept):
    first, second = upload(), upload()
    append, others = log.append, [first]

    def another_before(given, *events, **beside):
        if others:
            accept(others.pop(), found("b" * 64))
        return append(given, *events, **beside)

    log.append = another_before
    assert accept(second)
    assert [version.sha256[0] for version in shapes(log).versions] == ["b", "a"]
    assert [answer(log, check).number for check in (first, second)] == [1, 2]


def test_a_version_is_tested_again_and_nothing_is_added(log, upload, accept):
    accept(upload())
    check = model_checks.request_test(name="shapes", number=1, command=command(RESEARCHER), log=log).id
    assert log.load(check, model_check.evolve).retested == (model_id("shapes"), 1)
    before = shapes(log)
    assert accept(check)
    assert answer(log, check).number == 1
    assert shapes(log) == before


def test_a_test_that_fails_names_the_version(log, upload, accept, refuse):
    accept(upload())
    check = model_checks.request_test(name="shapes", number=1, command=command(RESEARCHER), log=log).id
    assert refuse(check)
    assert (answer(log, check).model_id, answer(log, check).number) == (model_id("shapes"), 1)


def test_an_answer_to_a_test_is_about_the_version_that_was_tested(log, upload, accept):
    accept(upload())
    check = model_checks.request_test(name="shapes", number=1, command=command(RESEARCHER), log=log).id
    assert not accept(check, found(name="others"))
    assert model_checks.unanswered(check, log=log)


def test_only_a_version_of_a_package_can_be_tested(log, upload, accept):
    add_model(name="shipped", sha256="d" * 64, **RECORDED, command=command(ADMIN), log=log)
    accept(upload())
    for name, number, refused in (("shipped", 1, Conflict), ("shapes", 2, NotFound), ("unknown", 1, NotFound)):
        with pytest.raises(refused):
            model_checks.request_test(name=name, number=number, command=command(RESEARCHER), log=log)


def test_analysts_neither_upload_nor_test(log, upload, accept):
    accept(upload())
    analyst = actor(Role.ANALYST)
    with pytest.raises(Forbidden):
        model_checks.may_upload(command(analyst))
    with pytest.raises(Forbidden):
        upload(analyst)
    with pytest.raises(Forbidden):
        model_checks.request_test(name="shapes", number=1, command=command(analyst), log=log)


def test_a_person_has_few_checks_without_an_answer():
    model_checks.require_free_slot(model_checks.MAX_PENDING - 1)
    with pytest.raises(TooMany, match="have no answer yet"):
        model_checks.require_free_slot(model_checks.MAX_PENDING)


def test_a_repeated_upload_is_one_check(log):
    once = command(RESEARCHER)
    asked = [model_checks.upload(filename="shapes.zip", sha256="c" * 64, size=1000, command=once, log=log) for _ in range(2)]
    assert asked[0].id == asked[1].id
    assert len(log.history(asked[0].id)) == 1


def test_only_a_command_with_a_key_is_known_to_be_a_repeat(log):
    keyed = msgspec.structs.replace(command(RESEARCHER), digest=b"digest")
    assert not model_checks.is_repeated(keyed, log=log)
    model_checks.upload(filename="shapes.zip", sha256="c" * 64, size=1000, command=keyed, log=log)
    assert model_checks.is_repeated(keyed, log=log)
    assert not model_checks.is_repeated(msgspec.structs.replace(keyed, digest=None), log=log)


def test_a_check_is_read_before_and_after_its_answer(log, upload, accept):
    check = upload()
    assert not model_checks.requested(check, log=log).answered
    accept(check)
    assert model_checks.requested(check, log=log).answered
    with pytest.raises(NotFound, match="Check not found"):
        model_checks.requested(uuid4(), log=log)
