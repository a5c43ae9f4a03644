"""Dead letters: parked events, retries, and discards, which the log records and every rebuild repeats."""

import random

import psycopg
import pytest

from application import images
from application.history import audit
from domain.access import Grant, Role
from domain.dead_letter import DeadLetterDiscarded
from domain.errors import Invalid, NotFound
from infrastructure.audit.side_tables import TableAudit
from projections.engine import postgres_store
from projections.engine.batches import ParkedEvents
from projections.engine.checkpoints import FoldsDiffer
from projections.engine.dead_letters import TouchedIds, WaitingEvents, count_parked
from projections.engine.postgres_store import PostgresReadModels
from projections.engine.projector import Projector
from projections.policy_application import PolicyApplication
from projections.process.audit_positions import positions_about
from projections.process.composition import LogDecoder, projector_over
from projections.process.dead_letters import dead_letters_of, discard_with, record_discard, retry_with
from projections.rebuild import rebuilding
from projections.rebuild.digests import digests
from projections.rebuild.rebuilding import AlreadyRebuilding
from tests.given import actor, command
from tests.projections.test_projector import damage
from tests.rigs.scenario import record_full_history

ADMIN = actor()


@pytest.fixture
def give_up(projector, connection, log):
    def discarded(position, reason="the disk was torn"):
        return discard_with(projector, connection, log, position, reason=reason, command=command(ADMIN))

    return discarded


@pytest.fixture
def sick(scenario, log, owner_url):
    """An image whose upload cannot be applied, and a job over it and a healthy one that was judged: its first position, and its topic."""
    ada = scenario.user()
    scenario.model()
    cells = scenario.dataset(ada)
    one, well = scenario.image(ada, cells), scenario.image(ada, cells)
    position = log.history(one)[0].position
    job = scenario.job(ada, dataset=cells)
    scenario.plan(job, [one, well])
    scenario.judge(job, 0, [one, well])
    scenario.accept(one)
    topic = damage(owner_url, position)
    scenario.follow()
    damage(owner_url, position, topic)
    return one, position


def counted(connection, table):
    return connection.execute(f"select count(*) from {table}").fetchone()[0]


def rebuilt(owner_url, log, scenario, connection, *, batch=500):
    """Whether read models made from the log alone are the live ones."""
    with psycopg.connect(owner_url, autocommit=True, options="-c timezone=UTC") as owner:
        owner.execute("drop schema if exists anew cascade")
        owner.execute("call ops.create_read_models('anew')")
        projector = projector_over(owner_url, log, schema="anew")
        scenario.follow(projector=projector, batch=batch)
        projector.close()
        owner.execute("set search_path to anew")
        for read_models in (owner, connection):
            PolicyApplication(read_models).run()
        return digests(owner, schema="anew") == digests(connection)


# ---- what waits --------------------------------------------------------------------------------------------------------------------
def test_all_that_waits_behind_a_letter_is_counted_not_only_its_own_stream(sick, log, connection):
    (letter,) = dead_letters_of(connection, log)
    of_its_stream = counted(connection, f"parked where stream = '{letter.stream}'")
    assert letter.parked == counted(connection, "parked") == 2 > of_its_stream == 1


def test_what_waits_for_what_waits_is_counted_and_what_waits_for_two_is_counted_twice():
    a, b, c, d = (actor().id for _ in range(4))
    behind = ParkedEvents(dead_letters={1: a, 4: d}, parked={2: b, 3: c, 5: d, 6: c})
    changed = {1: (a,), 2: (b, a), 3: (c, b), 4: (d,), 5: (d,), 6: (c, d)}
    touched = {position: TouchedIds(stream, {stream, *others}) for position, (stream, *others) in changed.items()}
    assert count_parked(behind, lambda positions: {one: touched[one] for one in positions}) == {1: 3, 4: 2}


def test_an_event_waits_for_what_changes_or_reads_its_rows_but_not_for_another_that_changes_the_same_row():
    """Two chunks of a job both change its row, in any order."""
    job, image, policy, chunk, other = (actor().id for _ in range(5))
    waiting = WaitingEvents()
    assert not waiting
    waiting.add(TouchedIds(chunk, {chunk, job, image}, {policy}))
    assert waiting
    assert waiting.hold(TouchedIds(chunk, {chunk}))
    assert waiting.hold(TouchedIds(image, {image})), "it changes what the chunk changes later"
    assert waiting.hold(TouchedIds(other, {other}, {chunk})), "it reads a row that is not final"
    assert not waiting.hold(TouchedIds(other, {other, job, image}))
    assert not waiting.hold(TouchedIds(policy, {policy})), "results follow a policy at any time"


@pytest.mark.parametrize("restarted", [False, True])
def test_what_changes_an_image_waits_for_a_chunk_that_waits(scenario, log, projector, owner_url, connection, restarted):
    ada = scenario.user()
    scenario.model()
    scope = scenario.device(scenario.user(Role.ADMIN))
    cells = scenario.dataset(ada)
    image = scenario.image(ada, cells)
    images.describe(image, analyzed=True, command=scenario.command(ada), log=log)
    job = scenario.job(ada, image=image)
    scenario.judge(job, 0, [image])
    position = log.history(job)[0].position
    topic = damage(owner_url, position)
    scenario.follow()
    damage(owner_url, position, topic)
    if restarted:
        projector.close()
    images.describe(image, analyzed=False, device_id=scope, command=scenario.command(ada), log=log)
    scenario.follow()
    assert connection.execute("select device_id from images").fetchone() == (None,)
    assert [letter.parked for letter in dead_letters_of(connection, log)] == [3]
    assert retry_with(projector, PostgresReadModels(connection), log) == (4, 0)
    assert connection.execute("select analyzed, device_id from images").fetchone() == (False, scope)
    assert connection.execute("select device_id from results").fetchone() == (None,)
    assert rebuilt(owner_url, log, scenario, connection)


@pytest.mark.parametrize("noun", ["model", "policy"])
def test_results_wait_for_the_model_and_the_policies_that_they_follow(scenario, log, projector, owner_url, connection, noun):
    ada = scenario.user()
    scenario.model()
    model = log.head()
    cells = scenario.dataset(ada)
    image = scenario.image(ada, cells)
    scenario.policy(ada, cells)
    position = {"model": model, "policy": log.head()}[noun]
    scenario.judge(scenario.job(ada, image=image), 0, [image])
    topic = damage(owner_url, position, "UserRegistered")
    scenario.follow()
    damage(owner_url, position, topic)
    assert counted(connection, "results") == 0
    assert retry_with(projector, PostgresReadModels(connection), log).remaining == 0
    assert counted(connection, "results") == 1
    assert rebuilt(owner_url, log, scenario, connection)


# ---- giving one up -----------------------------------------------------------------------------------------------------------------
def test_a_discarded_letter_is_passed_over_and_what_waited_is_applied(sick, scenario, log, owner_url, connection, give_up):
    image, _ = sick
    (letter,) = dead_letters_of(connection, log)
    assert give_up(letter.position) == (3, 0)
    assert (counted(connection, "dead_letters"), counted(connection, "parked")) == (0, 0)
    assert connection.execute("select count(*) from images where id = %s", (image,)).fetchone() == (0,)
    assert counted(connection, "results") == 2
    scenario.follow()
    assert rebuilt(owner_url, log, scenario, connection)


def test_who_discarded_what_and_why_stands_in_the_log_and_in_the_trail(sick, scenario, log, settings, connection, give_up):
    image, position = sick
    (letter,) = dead_letters_of(connection, log)
    give_up(position, "file lost, Dr Byron agrees")
    recorded = log.read(log.head() - 1, 1)[0]
    event = log.decode(recorded)
    assert isinstance(event, DeadLetterDiscarded)
    assert (event.position, event.discarded_stream, event.by) == (position, image, ADMIN.id)
    assert (event.type, event.error) == (letter.type, letter.reason)
    assert b"Byron" not in recorded.data
    scenario.follow()
    others = positions_about(settings, image)
    (told,) = [entry for entry in audit.trail(image, others=others, log=log) if entry.type == "DeadLetterDiscarded"]
    assert "at position" in told.sentence
    assert "file lost, Dr Byron agrees" in told.sentence


def test_that_an_event_of_a_dataset_was_given_up_is_in_its_trail(scenario, log, owner_url, settings, give_up):
    ada, eve = scenario.user(), scenario.user(name="eve")
    cells = scenario.dataset(ada)
    scenario.follow()
    scenario.share(ada, cells, eve, Grant.VIEWER)
    position = log.head()
    topic = damage(owner_url, position)
    scenario.follow()
    damage(owner_url, position, topic)
    give_up(position)
    scenario.follow()
    assert positions_about(settings, cells)[-1] == log.head()


def test_the_positions_about_a_thing_are_found_whoever_may_see_it(scenario, log, settings):
    ada = scenario.user()
    cells = scenario.dataset(ada)
    one, _ = scenario.image(ada, cells), scenario.image(ada, cells)
    scenario.delete_image(ada, one)
    scenario.follow()
    uploaded = log.history(one)[0].position
    assert positions_about(settings, one) == [uploaded, log.head()]
    assert positions_about(settings, cells) == [uploaded - 1, uploaded, uploaded + 1]
    assert positions_about(settings, actor().id) == []


def test_a_rebuild_passes_over_what_was_discarded_though_it_could_be_applied_by_now(sick, scenario, log, owner_url, connection, give_up):
    """The cause was mended after the letter was given up."""
    give_up(sick[1])
    scenario.follow()
    assert rebuilt(owner_url, log, scenario, connection)
    with psycopg.connect(owner_url, autocommit=True) as owner:
        projector = Projector(lambda: PostgresReadModels(postgres_store.connect(owner_url, schema="other")), LogDecoder(log))
        owner.execute("call ops.create_read_models('other')")
        scenario.follow(projector=projector)
        projector.close()
        assert digests(owner, schema="other") != digests(connection), "a projector that asks nobody shows it"


@pytest.mark.parametrize("seed", range(8))
def test_wherever_a_log_is_broken_and_given_up_a_rebuild_is_as_what_is_live(scenario, log, owner_url, connection, give_up, seed):
    record_full_history(scenario)
    first_versions = [one.position for one in log.read(1, log.head()) if one.schema_version == 1]
    chosen = random.Random(seed).sample(first_versions, 6)
    topics = {position: damage(owner_url, position) for position in chosen}
    scenario.follow(batch=9)
    for position in sorted(topics):
        damage(owner_url, position, topics[position])
        if any(letter.position == position for letter in dead_letters_of(connection, log)):
            give_up(position)
    while found := dead_letters_of(connection, log):  # what waited for a discarded event may not be applicable without it
        give_up(found[0].position)
    scenario.follow()
    assert len(log.discarded()) >= 3
    assert rebuilt(owner_url, log, scenario, connection)


def test_results_of_a_discarded_image_are_hidden_however_a_rebuild_cuts_the_log(scenario, log, owner_url, connection, give_up):
    ada = scenario.user()
    scenario.model()
    image = scenario.image(ada, scenario.dataset(ada))
    early, late = scenario.job(ada, image=image), scenario.job(ada, image=image)
    scenario.judge(early, 0, [image])
    scenario.delete_image(ada, image)
    scenario.judge(late, 0, [image])
    position = log.history(image)[0].position
    topic = damage(owner_url, position)
    scenario.follow()
    damage(owner_url, position, topic)
    give_up(position)
    scenario.follow()
    assert connection.execute("select hidden from results").fetchall() == [(True,), (True,)]
    for batch in (1, 500):
        assert rebuilt(owner_url, log, scenario, connection, batch=batch)


def test_giving_up_twice_is_harmless_and_recorded_once(sick, log, connection, give_up):
    position = sick[1]
    give_up(position)
    head = log.head()
    with pytest.raises(NotFound, match="no dead letter at position"):
        give_up(position)
    assert log.head() == head


def test_one_that_died_after_it_was_recorded_is_finished_by_a_repeat(sick, log, projector, connection, give_up):
    position = sick[1]
    record_discard(connection, log, position, reason="torn", command=command(ADMIN))
    head = log.head()
    assert counted(connection, "dead_letters") == 1
    assert give_up(position) == (3, 0)
    assert log.head() == head


def test_a_retry_finishes_it_as_well(sick, log, projector, connection):
    image, position = sick
    record_discard(connection, log, position, reason="torn", command=command(ADMIN))
    assert retry_with(projector, PostgresReadModels(connection), log) == (3, 0)
    assert connection.execute("select count(*) from images where id = %s", (image,)).fetchone() == (0,)


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501, "a\x00b"])
def test_without_a_reason_nothing_is_given_up(sick, log, connection, give_up, reason):
    head = log.head()
    with pytest.raises(Invalid):
        give_up(sick[1], reason)
    assert (log.head(), counted(connection, "dead_letters")) == (head, 1)


@pytest.mark.parametrize("position", [0, -1, 1, 10**6])
def test_what_is_no_dead_letter_cannot_be_given_up(sick, log, connection, give_up, position):
    head = log.head()
    with pytest.raises(NotFound):
        give_up(position)
    assert log.head() == head


def test_nothing_is_given_up_while_a_rebuild_is_under_way(sick, log, owner_url, give_up):
    head = log.head()
    with psycopg.connect(owner_url, autocommit=True) as owner, rebuilding.rebuild_lock(owner), pytest.raises(AlreadyRebuilding):
        give_up(sick[1])
    assert log.head() == head


def test_nothing_is_given_up_over_read_models_of_another_release(sick, log, owner_url, connection, give_up):
    head = log.head()
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("update read.folds set version = 2 where name = 'users'")
    with pytest.raises(FoldsDiffer):
        give_up(sick[1])
    assert (log.head(), counted(connection, "dead_letters")) == (head, 1)


def test_the_projector_that_runs_meanwhile_goes_on(sick, scenario, log, app_url, connection, give_up):
    running = Projector(lambda: PostgresReadModels(postgres_store.connect(app_url)), LogDecoder(log), discarded=log.discarded)
    assert running.checkpoint().position == log.head()
    give_up(sick[1])
    scenario.follow(projector=running)
    running.close()
    assert counted(connection, "parked") == 0
    assert connection.execute("select position from checkpoint").fetchone() == (log.head(),)


def test_giving_a_letter_up_leaves_nothing_beside_the_record_that_it_does_not_explain(sick, log, give_up):
    def discrepancies():
        tables = TableAudit(log)
        tables.take(log.read(0, 1000))
        return list(tables.finish())

    before = discrepancies()
    give_up(sick[1])
    assert discrepancies() == before
