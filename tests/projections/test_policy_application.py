"""Stored results follow a policy that was changed, in the background, and a rebuild gives the same."""

import base64
from typing import NamedTuple
from uuid import UUID

import pytest

from application import policies
from domain import model
from domain.access import Actor, Role
from domain.policy import PolicyRules, PolicyScope
from domain.values import model_id
from infrastructure.postgres.profiles import POLICIES
from projections.engine import postgres_store
from projections.policy_application import UNTIL, PolicyApplication
from projections.process.rebuilds import rebuild
from projections.rebuild.digests import digests

JOB, DATASET, MODEL = PolicyScope.JOB, PolicyScope.DATASET, PolicyScope.MODEL
STRICT = PolicyRules(review_below=0.99)
FLAT = PolicyRules(label_at={"flat": 0.1}, review_below=0.1)
SHAPES = model_id("shapes")
ROUND, REVIEW, FLAT_NOW = ("round", 0.75, "clear"), ("round", 0.75, "needs_review"), ("flat", 0.25, "clear")


class TwoDatasets(NamedTuple):
    """Two datasets with one job each, whose results are all round with 0.75."""

    ada: Actor
    admin: Actor
    cells: UUID
    job: UUID
    images: list[UUID]
    other_job: UUID


@pytest.fixture
def lab(scenario):
    scenario.model()
    ada, admin = scenario.user(name="ada"), scenario.user(Role.ADMIN, name="root")
    cells, others = scenario.dataset(ada, "cells"), scenario.dataset(ada, "others")
    job, images = judged(scenario, ada, cells, 20)
    other_job, _ = judged(scenario, ada, others, 5)
    scenario.follow()
    return TwoDatasets(ada, admin, cells, job, images, other_job)


def judged(scenario, owner, dataset, count):
    """A job over `count` new images, in chunks of eight, all answered."""
    images = [scenario.image(owner, dataset, f"{number}.png") for number in range(count)]
    job = scenario.job(owner, dataset=dataset)
    scenario.plan(job, images)
    for number in range(-(-count // 8)):
        scenario.judge(job, number, images[number * 8 : number * 8 + 8], confidence=0.75)
    return job, images


@pytest.fixture
def set_policy(scenario, log, lab):
    def set_policy(scope, target, rules, *, follow=True):
        """None for `rules` withdraws it."""
        given = {"command": scenario.command(lab.admin), "log": log}
        if rules is None:
            policies.withdraw(scope, target, reason="Not needed", **given)
        else:
            policies.set_policy(scope, target, rules=rules, reason="A trial", known_models=["shapes"], **given)
        if follow:
            scenario.follow()

    return set_policy


@pytest.fixture
def apply(connection):
    def apply(**limits):
        return PolicyApplication(connection, **limits).run()

    return apply


@pytest.fixture
def answers(connection):
    def answers(job):
        """The different answers of a job."""
        found = connection.execute("select distinct label, confidence, verdict from results where classification_id = %s", (job,))
        return set(found.fetchall())

    return answers


@pytest.fixture
def same_again(settings, root):
    def same_again():
        settings.root_key_path.parent.mkdir(parents=True, exist_ok=True)
        settings.root_key_path.write_text(base64.b64encode(root._root).decode())
        return rebuild(settings, check=True).differing == ()

    return same_again


def test_results_follow_a_policy_once_it_was_applied(lab, set_policy, apply, answers, connection):
    set_policy(JOB, lab.job, STRICT)
    assert answers(lab.job) == {ROUND}
    assert apply() == 20
    assert answers(lab.job) == {REVIEW}
    assert answers(lab.other_job) == {ROUND}
    assert connection.execute("select count(*) from policy_applications where applied_at is not null").fetchone() == (1,)
    assert apply() == 0


def test_what_the_model_said_is_kept_and_comes_back(lab, set_policy, apply, answers, connection):
    set_policy(JOB, lab.job, FLAT)
    apply()
    assert answers(lab.job) == {FLAT_NOW}
    said = {"label": "round", "confidence": 0.75, "verdict": "clear"}
    assert connection.execute("select distinct original from results where original is not null").fetchall() == [(said,)]
    set_policy(JOB, lab.job, None)
    assert apply() == 20
    assert answers(lab.job) == {ROUND}
    assert connection.execute("select count(*) from results where original is not null").fetchone() == (0,)


def test_a_job_precedes_its_dataset_and_the_dataset_its_model(lab, set_policy, apply, answers):
    for scope, target, rules in ((JOB, lab.job, FLAT), (MODEL, SHAPES, STRICT), (DATASET, lab.cells, PolicyRules(review_below=0.2))):
        set_policy(scope, target, rules)
    assert apply() == 20 + 5
    assert (answers(lab.job), answers(lab.other_job)) == ({FLAT_NOW}, {REVIEW})
    set_policy(JOB, lab.job, None)
    apply()
    assert answers(lab.job) == {ROUND}, "that of the dataset accepts 0.2"
    set_policy(DATASET, lab.cells, None)
    apply()
    assert answers(lab.job) == {REVIEW}


@pytest.mark.parametrize("batch", [1, 3, 500])
def test_results_that_arrive_later_follow_the_policies_from_the_start(scenario, lab, set_policy, apply, answers, batch):
    set_policy(DATASET, lab.cells, STRICT, follow=False)
    later, _ = judged(scenario, lab.ada, lab.cells, 9)
    scenario.follow(batch=batch)
    assert answers(later) == {REVIEW}
    assert apply() == 20
    set_policy(DATASET, lab.cells, None, follow=False)
    last, _ = judged(scenario, lab.ada, lab.cells, 9)
    scenario.follow(batch=batch)
    assert answers(last) == {ROUND}


def test_rules_for_labels_that_apply_together_change_results_of_such_models_only(
    scenario, log, lab, set_policy, apply, connection, same_again
):
    """In the fold and in the background, and for a version that is added while a policy is applied."""
    set_policy(DATASET, lab.cells, STRICT)
    apply()

    def together(number):
        version = model.Version(
            number=number, sha256=f"{number:064}", size=10, labels=("round", "flat"), review_below=0.6, record="{}",
            digest=f"{number:064}", kind=model.OutputKind.MULTI_LABEL,
        )  # fmt: skip
        about = {"name": "marks", "description": "", "version": version, "alias": "production", "by": lab.admin.id, "at": scenario.now}
        known = log.load(model_id("marks"), model.evolve)
        log.append(scenario.command(), *model.add_version(model_id("marks"), known, **about))
        image = scenario.image(lab.ada, lab.cells, f"mark {number}.png")
        job = scenario.job(lab.ada, dataset=lab.cells, model="marks")
        scenario.plan(job, [image])
        scenario.judge(job, 0, [image], confidence=0.75)
        scenario.follow()

    def verdicts(name):
        found = connection.execute("select distinct verdict from results where model_name = %s and dataset_id = %s", (name, lab.cells))
        return {verdict for (verdict,) in found}

    together(1)
    rules, about = PolicyRules(applies_at=0.8), {"reason": "A trial", "known_models": ["shapes", "marks"]}
    policies.set_policy(DATASET, lab.cells, rules=rules, **about, command=scenario.command(lab.admin), log=log)
    scenario.follow()

    class Joined(PolicyApplication):
        versions = 1

        def _changes(self, rows):
            if self.versions == 1:
                self.versions = 2
                together(2)
            return super()._changes(rows)

    Joined(connection, rows_per_batch=4).run()
    assert (verdicts("shapes"), verdicts("marks")) == ({"clear"}, {"needs_review"})
    together(3)
    assert verdicts("marks") == {"needs_review"}
    assert same_again()


def test_hidden_results_follow_too_and_stay_hidden(scenario, lab, set_policy, apply, connection, same_again):
    scenario.delete_image(lab.ada, lab.images[0])
    set_policy(DATASET, lab.cells, FLAT)
    scenario.delete_image(lab.ada, lab.images[1])
    scenario.follow()
    assert apply(rows_per_batch=3) == 20
    assert connection.execute("select count(*) from results where hidden and label = 'flat'").fetchone() == (2,)
    assert same_again()


def test_an_application_goes_on_where_it_was_interrupted(lab, set_policy, connection, answers):
    set_policy(JOB, lab.job, STRICT)
    batches = iter([False, False, False, True, True])
    first = PolicyApplication(connection, rows_per_batch=4, stopped=lambda: next(batches)).run()
    assert 0 < first < 20
    assert answers(lab.job) == {ROUND, REVIEW}
    assert PolicyApplication(connection, rows_per_batch=4).run() == 20 - first
    assert answers(lab.job) == {REVIEW}


def test_the_end_of_a_batch_is_found_without_sorting_all_results(lab, set_policy, app_url):
    """For each scope, by an index in its order."""
    for scope, target in ((JOB, lab.job), (DATASET, lab.cells), (MODEL, SHAPES)):
        set_policy(scope, target, STRICT)
    plans = []

    class Explained(PolicyApplication):
        def _execute(self, query, parameters=(), **clauses):
            if query == UNTIL:
                plans.append(super()._execute("explain " + query, parameters, **clauses).fetchall())
            return super()._execute(query, parameters, **clauses)

    with POLICIES.connect_unmonitored(app_url) as connection:
        Explained(connection, rows_per_batch=4).run()
    assert len(plans) > 10
    assert [plan for plan in plans if "Sort" in str(plan) or "Seq Scan" in str(plan)] == []


def test_a_batch_that_was_not_written_is_done_again(lab, set_policy, connection, answers):
    set_policy(JOB, lab.job, STRICT)

    class Dying(PolicyApplication):
        written = 0

        def _change(self, changes):
            super()._change(changes)
            self.written += 1
            if self.written == 3:
                raise KeyboardInterrupt

    dying = Dying(connection, rows_per_batch=4)
    with pytest.raises(KeyboardInterrupt):
        dying.run()
    assert PolicyApplication(connection, rows_per_batch=4).run() == 20 - 8
    assert answers(lab.job) == {REVIEW}


def test_a_policy_that_changes_during_its_application_is_applied_from_the_start(lab, set_policy, connection, answers, same_again):
    set_policy(JOB, lab.job, STRICT)

    class Overtaken(PolicyApplication):
        changed = False

        def _changes(self, rows):
            found = super()._changes(rows)
            if not self.changed:
                self.changed = True
                set_policy(JOB, lab.job, FLAT)
            return found

    Overtaken(connection, rows_per_batch=4).run()
    assert answers(lab.job) == {FLAT_NOW}
    assert same_again()


def test_two_applications_at_once_leave_what_one_leaves(lab, set_policy, connection, app_url, answers, same_again):
    set_policy(DATASET, lab.cells, STRICT)
    with postgres_store.connect(app_url) as elsewhere:

        class Raced(PolicyApplication):
            def _changes(self, rows):
                found = super()._changes(rows)
                batches = iter([False, False, True, True, True])
                PolicyApplication(elsewhere, rows_per_batch=3, stopped=lambda: next(batches)).run()
                return found

        Raced(connection, rows_per_batch=4).run()
    assert answers(lab.job) == {REVIEW}
    assert same_again()


def test_a_rebuild_gives_the_same_whatever_was_changed_and_deleted_in_between(
    scenario, lab, set_policy, apply, same_again, settings, connection
):
    set_policy(MODEL, SHAPES, STRICT)
    apply()
    scenario.delete_image(lab.ada, lab.images[2])
    set_policy(DATASET, lab.cells, FLAT)
    later, _ = judged(scenario, lab.ada, lab.cells, 9)
    scenario.delete_job(lab.ada, later)
    scenario.follow()
    set_policy(DATASET, lab.cells, None)
    set_policy(JOB, lab.job, FLAT)
    assert same_again(), "the comparison finishes what was not applied yet"
    live = digests(connection)
    connection.execute("delete from results")
    rebuild(settings, check=False)
    assert digests(connection) == live
    assert apply() == 0
    assert connection.execute("select count(*) from policy_applications where applied_at is null").fetchone() == (0,)


def test_other_read_models_do_not_take_over_how_far_the_earlier_ones_were(lab, set_policy, connection, settings, same_again, answers):
    """While a batch is derived, a rebuild that does not know the policy yet takes the place of the read models."""
    set_policy(JOB, lab.job, STRICT)

    class Replaced(PolicyApplication):
        replaced = False

        def _changes(self, rows):
            found = super()._changes(rows)
            if not self.replaced and len(rows) == 4:
                self.replaced = True
                same_again()
                rebuild(settings, check=False)
                connection.execute("delete from policy_applications")
                connection.execute("update results set label = 'round', confidence = 0.75, verdict = 'clear', original = null")
            return found

    Replaced(connection, rows_per_batch=4).run()
    assert answers(lab.job) == {REVIEW}
