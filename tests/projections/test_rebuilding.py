"""Rebuilds of read models: beside the live ones, compared, and swapped."""

import base64
import threading
from functools import partial
from uuid import UUID

import psycopg
import pytest

from api.cli.stack import bring_read_models
from domain.access import Role
from domain.errors import UpgradeNeeded
from infrastructure.postgres.advisory_locks import AdvisoryLock
from projections.engine import postgres_store
from projections.engine.batches import FOLD_VERSIONS
from projections.engine.checkpoints import Checkpoint, CheckpointConflict, FoldsDiffer
from projections.engine.postgres_store import PostgresReadModels
from projections.engine.projector import Projector
from projections.policy_application import PolicyApplication
from projections.process.composition import LogDecoder
from projections.process.housekeeping import sweep
from projections.process.rebuilds import rebuild, rebuild_if_folds_differ
from projections.rebuild import bulk_schema, rebuilding
from projections.rebuild.digests import digests
from projections.rebuild.rebuilding import AlreadyRebuilding, RebuildLimits
from tests.older_release import without
from tests.rigs.scenario import record_full_history


@pytest.fixture
def made_again(settings, root):
    settings.root_key_path.parent.mkdir(parents=True, exist_ok=True)
    settings.root_key_path.write_text(base64.b64encode(root._root).decode())

    def made_again(*, check=True, **keywords):
        return rebuild(settings, check=check, **keywords)

    return made_again


def follow_patiently(scenario):
    """As the process does: after Outrun it reads on from where the checkpoint is."""
    while True:
        try:
            return scenario.follow(batch=3)
        except CheckpointConflict:
            continue


def test_following_while_it_happens_gives_what_a_rebuild_gives(scenario, log, connection, made_again):
    append = log.append

    def append_and_follow(*arguments, **keywords):
        done = append(*arguments, **keywords)
        scenario.follow()
        return done

    log.append = append_and_follow
    record_full_history(scenario)
    assert made_again().differing == ()
    assert connection.execute("select count(*) from activity").fetchone() == (log.head(),)


def test_a_check_names_the_tables_that_differ_and_changes_nothing(scenario, connection, made_again):
    record_full_history(scenario)
    scenario.follow()
    PolicyApplication(connection).run()
    first_wrong = connection.execute("select id from images where analyzed order by id limit 1").fetchone()
    connection.execute("update images set filename = 'wrong' where analyzed")
    missing = connection.execute(
        "delete from results where id = (select min(id::text)::uuid from results where not hidden) returning id"
    ).fetchone()
    wrong = digests(connection)
    found = {one.table: one.key for one in made_again(check=True).differing}
    assert found == {"images": first_wrong, "results": missing, "tallies": found["tallies"], "statistics": found["statistics"]}
    assert digests(connection) == wrong
    assert connection.execute("select to_regnamespace('read_next')").fetchone() == (None,)


def test_a_rebuild_takes_the_place_of_the_live_read_models_and_the_projector_goes_on(scenario, log, projector, connection, made_again):
    history = record_full_history(scenario)
    scenario.follow()
    PolicyApplication(connection).run()
    live = digests(connection)
    connection.execute("delete from results")
    connection.execute("update checkpoint set cluster = 'k', next_offset = 5")
    steps = []
    assert made_again(check=False, progress=lambda *step: steps.append(step)).differing == ()
    assert digests(connection) == live
    assert steps[-1] == ("events", log.head())
    scenario.image(history.ada, history.cells, "after.png")
    with pytest.raises(CheckpointConflict):
        projector.apply(log.read(log.head() - 1, 1), Checkpoint(log.head()))
    assert projector.checkpoint()[:3] == (log.head() - 1, "k", 5)
    scenario.follow()
    assert made_again().differing == ()


def test_read_models_may_change_all_the_while(scenario, log, connection, made_again):
    """Somebody works and the projector follows, while the read models are rebuilt again and again."""
    stop = threading.Event()
    failed = []

    def work():
        try:
            ada = scenario.user(Role.RESEARCHER)
            cells = scenario.dataset(ada)
            while not stop.is_set():
                scenario.image(ada, cells)
                follow_patiently(scenario)
        except Exception as error:
            failed.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    rebuilt = [made_again(check=number % 2 == 1) for number in range(6)]
    stop.set()
    worker.join(10)
    assert failed == []
    assert [one.differing for one in rebuilt] == [()] * 6
    follow_patiently(scenario)
    assert connection.execute("select count(*) from images").fetchone() == (log.head() - 2,)
    assert made_again().differing == ()


def test_results_that_are_hidden_ahead_of_their_event_are_no_difference(scenario, log, connection, made_again):
    """As those of a large job are, in transactions of their own, before the event that says so is applied."""
    history = record_full_history(scenario)
    scenario.follow()
    scenario.delete_job(history.ada, history.whole)
    connection.execute("update results set hidden = true where classification_id = %s", (history.whole,))
    follower = threading.Timer(1.0, scenario.follow)
    follower.start()
    assert made_again().differing == ()
    follower.join()
    assert log.head() == connection.execute("select position from checkpoint").fetchone()[0]


def test_a_difference_counts_though_the_projector_stands_still_behind_the_log(scenario, connection, made_again):
    ada = scenario.user()
    scenario.follow()
    scenario.user()
    connection.execute("update users set role = 'admin'")
    assert made_again(limits=RebuildLimits(compare_again_seconds=0.01)).differing == (("users", (ada.id,)),)


def test_ranges_are_compared_one_by_one(scenario, connection, made_again):
    record_full_history(scenario)
    scenario.follow()
    wrong = connection.execute("select id from images order by id offset 7 limit 1").fetchone()
    connection.execute("update images set size = 0 where id = %s", wrong)
    steps = []
    found = made_again(progress=lambda *step: steps.append(step), limits=RebuildLimits(rows_per_range=5))
    assert found.differing == (("images", wrong),)
    assert [step for step in steps if step[0] in {"images", "devices"}] == [("images", 5), ("devices", 1)]
    (everything,) = connection.execute("select count(*) from activity").fetchone()
    assert [done for name, done in steps if name == "activity"] == [*range(5, everything, 5), everything]


def test_rows_that_no_event_explains_are_found_wherever_they_lie(scenario, connection, made_again):
    for _ in range(3):
        scenario.user()
    scenario.follow()
    last = UUID(int=2**128 - 1)
    connection.execute("insert into outdated_results values (%s, %s, 1)", (last, last))
    connection.execute("insert into dataset_access values (%s, %s, 'owner')", (last, last))
    found = made_again(limits=RebuildLimits(rows_per_range=2))
    assert found.differing == (
        ("dataset_access", (last, last)),
        ("outdated_results", (last,)),
        ("effective_access", (last, last)),
    )


def test_without_check_nothing_is_compared(scenario, connection, made_again):
    scenario.user()
    scenario.follow()
    connection.execute("update users set role = 'admin'")
    steps = []
    assert made_again(check=False, progress=lambda *step: steps.append(step)) == (1, ())
    assert {what for what, _ in steps} == {"events"}


def test_indexes_are_made_when_all_of_the_log_is_there_also_where_nothing_was_shown_before(scenario, log, made_again, monkeypatch):
    """As after a restore."""
    record_full_history(scenario)
    applied = []
    finish = bulk_schema.finish
    monkeypatch.setattr(bulk_schema, "finish", lambda *given: (applied.append(list(steps)), finish(*given)))
    steps = []
    made_again(check=False, progress=lambda *step: steps.append(step))
    assert applied == [[("events", log.head())]]


def test_readers_are_not_disturbed_by_a_change_over(scenario, app_url, made_again):
    record_full_history(scenario)
    scenario.follow()
    with psycopg.connect(app_url, autocommit=True, options="-c search_path=read", prepare_threshold=0) as reader:
        counts = [reader.execute("select count(*) from visible v join images i on i.dataset_id = v.dataset").fetchone()]
        made_again(check=False)
        counts.append(reader.execute("select count(*) from visible v join images i on i.dataset_id = v.dataset").fetchone())
    assert counts[0] == counts[1] != (0,)


def test_one_rebuild_at_a_time(made_again, owner_url):
    with psycopg.connect(owner_url, autocommit=True) as other:
        other.execute("select pg_advisory_lock(%s)", (AdvisoryLock.REBUILD.value,))
        with pytest.raises(AlreadyRebuilding):
            made_again()
        other.execute("select pg_advisory_unlock_all()")
    assert made_again().differing == ()


# ---- after an upgrade --------------------------------------------------------------------------------------------------------------
@pytest.fixture
def folded_before(scenario, made_again, owner_url):
    """Read models that another release folded: by version 0 of one table, and with a row that it made."""
    record_full_history(scenario)
    scenario.follow()
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("update read.folds set version = 0 where name = 'users'")
        owner.execute("update read.users set username = 'as before'")


def test_read_models_that_other_rules_made_are_made_anew_once(folded_before, settings, connection, made_again, log):
    reasons = []
    assert rebuild_if_folds_differ(settings, on_start=reasons.append)
    assert not rebuild_if_folds_differ(settings, on_start=reasons.append)
    assert len(reasons) == 1
    assert "users (version 0 there, version 1 here)" in reasons[0]
    assert connection.execute("select count(*) from users where username = 'as before'").fetchone() == (0,)
    assert dict(connection.execute("select name, version from folds").fetchall()) == FOLD_VERSIONS
    assert made_again().differing == ()


def test_read_models_stay_as_they_are_where_a_newer_release_wrote_events(folded_before, settings, connection, log):
    with without("ImageDescribed"), pytest.raises(UpgradeNeeded):
        rebuild_if_folds_differ(settings)
    assert connection.execute("select count(*) from users where username <> 'as before'").fetchone() == (0,)
    assert connection.execute("select to_regnamespace('read_next')").fetchone() == (None,)


def test_an_upgrade_says_why_the_read_models_are_made_anew_or_why_they_stay(folded_before, settings, capsys):
    with without("ImageDescribed"):
        bring_read_models(settings)
    assert "The read models stay as they are, and the projector of this release pauses: position" in capsys.readouterr().err
    bring_read_models(settings)
    said = capsys.readouterr().err
    first = said.partition("\n")[0]
    assert first.startswith("Rebuilding the read models beside the live ones: the read models were made by another release")
    assert first.endswith("users (version 0 there, version 1 here)")
    assert said.endswith("The read models are those of this release.\n")
    bring_read_models(settings)
    assert capsys.readouterr().err == ""


def test_read_models_of_a_newer_release_are_made_anew_on_purpose_only(folded_before, settings, owner_url, connection, made_again, capsys):
    """An old release's `migrate` or `up` may merely be started again in the middle of an upgrade."""
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("update read.folds set version = 2 where name = 'images'")
    with pytest.raises(FoldsDiffer):
        rebuild_if_folds_differ(settings)
    bring_read_models(settings)
    said = capsys.readouterr().err
    assert "images (version 2 there, version 1 here)" in said
    assert "`bioscope rebuild`" in said
    assert connection.execute("select count(*) from users where username <> 'as before'").fetchone() == (0,)
    assert made_again(check=False).events
    assert dict(connection.execute("select name, version from folds").fetchall()) == FOLD_VERSIONS


def test_nothing_is_swept_while_the_read_models_are_those_of_another_release(folded_before, settings):
    with pytest.raises(FoldsDiffer):
        sweep(settings)


def test_a_projector_of_before_the_change_over_writes_nothing_afterwards(scenario, log, projector, owner_url):
    scenario.user()
    scenario.follow()

    def newer_projector(schema):
        connect = partial(postgres_store.connect, owner_url, schema=schema)
        return Projector(lambda: PostgresReadModels(connect(), fold_versions=FOLD_VERSIONS | {"users": 2}), LogDecoder(log))

    with psycopg.connect(owner_url, autocommit=True) as owner:
        rebuilding.rebuild(owner, projector_over=newer_projector, log=log, check=False)
    scenario.user()
    with pytest.raises(CheckpointConflict):
        projector.apply(log.read(1, 1), Checkpoint(2))
    with pytest.raises(FoldsDiffer, match="upgrade this process"):
        projector.checkpoint()
    with psycopg.connect(owner_url) as owner:
        assert owner.execute("select count(*) from read.users").fetchone() == (1,)
