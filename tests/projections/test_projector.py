"""The projector on Postgres: each event once, in order, in any batches; poison events are set aside and retried."""

import psycopg
import pytest

from application import images
from domain.access import Role
from infrastructure.postgres.profiles import READ_MODELS
from infrastructure.security.keys import WrongRootKey
from projections.engine import postgres_store
from projections.engine.checkpoints import Checkpoint, CheckpointConflict
from projections.engine.postgres_store import PostgresReadModels
from projections.engine.projector import Projector
from projections.process.composition import LogDecoder
from projections.process.dead_letters import dead_letters_of, retry_with
from projections.rebuild.digests import digests
from tests.rigs.scenario import record_full_history

PROJECTOR = READ_MODELS.arguments["application_name"]


def damage(owner_url, position, topic="ModelVersionAdded"):
    """What a bad disk would leave in the log: an event whose bytes are not of its type."""
    with psycopg.connect(owner_url) as owner:
        owner.execute("set session_replication_role = replica")
        (was,) = owner.execute("select topic from es.events where notification_id = %s", (position,)).fetchone()
        owner.execute("update es.events set topic = %s where notification_id = %s", (topic, position))
    return was


def made_apart(owner_url, log, scenario, schema, batch):
    """The digests of read models built beside the live ones, `batch` events a transaction."""
    with psycopg.connect(owner_url, autocommit=True, options="-c timezone=UTC") as owner:
        owner.execute("call ops.create_read_models(%s)", (schema,))
        projector = Projector(lambda: PostgresReadModels(postgres_store.connect(owner_url, schema=schema)), LogDecoder(log))
        scenario.follow(batch=batch, projector=projector)
        projector.close()
        return digests(owner, schema=schema)


def test_however_the_log_is_cut_into_batches_the_read_models_are_the_same(scenario, log, owner_url, connection):
    record_full_history(scenario)
    scenario.follow()
    live = digests(connection)
    for batch in (1, 2, 7, 31):
        assert made_apart(owner_url, log, scenario, f"by_{batch}", batch) == live
    assert all(digest.rows for digest in live.values())


def test_an_event_is_applied_once_however_often_it_comes(scenario, log, projector, connection):
    record_full_history(scenario)
    scenario.follow()
    before = digests(connection)
    for after in (0, 10, 30):
        with pytest.raises(CheckpointConflict):
            projector.apply(log.read(after, 5), Checkpoint(after + 5))
        assert projector.checkpoint().position == log.head()
    assert digests(connection) == before


def test_of_two_projectors_one_wins_and_the_other_reads_on_from_there(scenario, log, projector, app_url, connection):
    scenario.user()
    scenario.user()
    zombie = Projector(lambda: PostgresReadModels(postgres_store.connect(app_url)), LogDecoder(log))
    assert zombie.checkpoint().position == projector.checkpoint().position == 0
    projector.apply(log.read(0, 1), Checkpoint(1))
    with pytest.raises(CheckpointConflict):
        zombie.apply(log.read(0, 2), Checkpoint(2))
    assert zombie.checkpoint().position == 1
    zombie.apply(log.read(1, 1), Checkpoint(2))
    zombie.close()
    assert connection.execute("select count(*) from users").fetchone() == (2,)


def test_the_checkpoint_keeps_where_to_read_on_in_kafka(scenario, log, projector):
    scenario.user()
    scenario.user()
    projector.apply(log.read(0, 1), Checkpoint(1, "cluster", 17))
    projector.apply(log.read(1, 1), Checkpoint(2))
    assert projector.checkpoint() == Checkpoint(2, "cluster", 17, log.read(1, 1)[0].hash)


def test_a_poison_event_parks_its_stream_while_the_rest_goes_on(scenario, log, projector, owner_url, connection):
    ada = scenario.user()
    cells, worms = scenario.dataset(ada), scenario.dataset(ada)
    sick = scenario.image(ada, cells)
    scenario.accept(sick)
    damage(owner_url, log.head() - 1)
    well = [scenario.image(ada, worms) for _ in range(5)]
    assert scenario.follow() == log.head()
    assert {row[0] for row in connection.execute("select id from images")} == set(well)
    (letter,) = dead_letters_of(connection, log)
    assert (letter.stream, letter.type, letter.parked) == (sick, "ModelVersionAdded", 1)
    assert "missing required field" in letter.reason


def test_what_touches_a_parked_thing_waits_too_and_a_retry_heals_all(scenario, log, projector, owner_url, connection):
    ada = scenario.user()
    scenario.model()
    cells = scenario.dataset(ada)
    sick, well = scenario.image(ada, cells), scenario.image(ada, cells)
    position = log.history(sick)[0].position
    topic = damage(owner_url, position)
    scenario.follow()
    damage(owner_url, position, topic)  # mended for the use cases, which read the log themselves
    job = scenario.job(ada, dataset=cells)
    scenario.plan(job, [sick, well])
    scenario.judge(job, 0, [sick, well])
    scenario.accept(sick)
    scenario.follow()
    assert connection.execute("select count(*) from results").fetchone() == (0,)
    damage(owner_url, position)
    assert retry_with(projector, PostgresReadModels(connection), log).remaining == 1
    damage(owner_url, position, topic)
    healed = retry_with(projector, PostgresReadModels(connection), log)
    assert (healed.applied, healed.remaining) == (3, 0)
    assert connection.execute("select count(*) from results").fetchone() == (2,)
    assert connection.execute("select count(*) from parked").fetchone() == (0,)
    assert retry_with(projector, PostgresReadModels(connection), log).applied == 0
    assert made_apart(owner_url, log, scenario, "healed", 500) == digests(connection)


def test_after_a_retry_elsewhere_the_running_projector_looks_again(scenario, log, projector, owner_url, app_url, connection):
    ada = scenario.user()
    cells = scenario.dataset(ada)
    topic = damage(owner_url, log.head())
    scenario.follow()
    damage(owner_url, log.head(), topic)
    elsewhere = Projector(lambda: PostgresReadModels(postgres_store.connect(app_url)), LogDecoder(log))
    assert retry_with(elsewhere, PostgresReadModels(connection), log).applied == 1
    elsewhere.close()
    image = scenario.image(ada, cells)
    with pytest.raises(CheckpointConflict):
        projector.apply(log.read(log.head() - 1, 1), Checkpoint(log.head()))
    scenario.follow()
    assert connection.execute("select id from images").fetchall() == [(image,)]


def test_what_comes_to_wait_while_a_retry_is_prepared_is_healed_with_it(scenario, log, owner_url, app_url, connection):
    sick = scenario.image(ada := scenario.user(), scenario.dataset(ada))
    topic = damage(owner_url, log.head())
    scenario.follow()
    damage(owner_url, log.head(), topic)

    class Busy:
        """A log that goes on while it is read."""

        decode, busy = log.decode, True

        def read(self, after, limit):
            if self.busy:
                self.busy = False
                scenario.accept(sick)
                scenario.follow()
            return log.read(after, limit)

    elsewhere = Projector(lambda: PostgresReadModels(postgres_store.connect(app_url)), LogDecoder(log))
    assert retry_with(elsewhere, PostgresReadModels(connection), Busy()) == (2, 0)
    elsewhere.close()
    assert connection.execute("select accepted from images").fetchone() == (True,)
    assert connection.execute("select count(*) from parked").fetchone() == (0,)


def test_a_row_that_postgres_refuses_is_a_dead_letter_too(scenario, log, projector, owner_url, connection):
    ada = scenario.user()
    with psycopg.connect(owner_url) as owner:
        owner.execute("alter table read.datasets add check (name <> 'refused')")
    refused = scenario.dataset(ada, "refused")
    taken = scenario.dataset(ada, "taken")
    scenario.follow()
    assert connection.execute("select id from datasets").fetchall() == [(taken,)]
    (letter,) = dead_letters_of(connection, log)
    assert letter.stream == refused
    assert "refused" not in letter.reason.replace("datasets_name_check", "")


@pytest.mark.parametrize("error", [psycopg.OperationalError("away"), WrongRootKey("another installation's")])
def test_what_is_nobodys_fault_is_raised_and_no_event_is_blamed(scenario, log, app_url, connection, error):
    class Failing(LogDecoder):
        def decode(self, recorded):
            raise error

    scenario.user()
    failing = Projector(lambda: PostgresReadModels(postgres_store.connect(app_url)), Failing(log), fatal=(WrongRootKey,))
    with pytest.raises(type(error)):
        failing.apply(log.read(0, 1), Checkpoint(1))
    assert dead_letters_of(connection, log) == []


def test_a_lost_connection_loses_nothing(scenario, log, projector, owner_url):
    ada = scenario.user()
    scenario.follow()
    scenario.dataset(ada)
    events = log.read(1, 1)
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s",
            (PROJECTOR,),
        )
    with pytest.raises(psycopg.OperationalError):
        projector.apply(events, Checkpoint(2))
    projector.apply(events, Checkpoint(2))
    assert projector.checkpoint().position == 2


def test_an_erased_user_reads_erased_in_the_read_models(scenario, connection):
    ada, bob = scenario.user(name="lovelace"), scenario.user(name="boole")
    scenario.follow()
    assert "lovelace" in str(connection.execute("select * from users where id = %s", (ada.id,)).fetchone())
    scenario.erase(ada)
    scenario.follow()
    row = str(connection.execute("select * from users where id = %s", (ada.id,)).fetchone())
    assert "lovelace" not in row
    assert row.count("[erased]") == 4
    assert "boole" in str(connection.execute("select * from users where id = %s", (bob.id,)).fetchone())


def test_a_batch_says_whom_it_concerns(scenario, log, projector):
    ada = scenario.user()
    cells = scenario.dataset(ada)
    image = scenario.image(ada, cells)
    applied = projector.apply(log.read(0, 10), Checkpoint(3))
    assert (applied.position, applied.datasets, applied.users) == (3, {cells}, {ada.id})
    assert applied.wakes_scheduler
    scenario.accept(image)
    assert projector.apply(log.read(3, 10), Checkpoint(4)).datasets == {cells}
    scenario.user(Role.VIEWER)
    assert not projector.apply(log.read(4, 10), Checkpoint(5)).wakes_scheduler


def test_a_retry_applies_what_it_can_and_stops_at_the_next_that_fails(scenario, log, projector, owner_url, connection):
    ada = scenario.user()
    sick = scenario.image(ada, scenario.dataset(ada))
    scenario.accept(sick)
    images.describe(sick, filename="better.png", command=scenario.command(ada), log=log)
    images.describe(sick, filename="best.png", command=scenario.command(ada), log=log)
    uploaded, accepted, better, _ = (one.position for one in log.history(sick))
    topics = {position: damage(owner_url, position) for position in (uploaded, better)}
    scenario.follow()
    assert [(letter.position, letter.parked) for letter in dead_letters_of(connection, log)] == [(uploaded, 3)]
    damage(owner_url, uploaded, topics[uploaded])
    healed = retry_with(projector, PostgresReadModels(connection), log, uploaded)
    assert (healed.applied, healed.remaining) == (2, 1)
    assert [(letter.position, letter.parked) for letter in dead_letters_of(connection, log)] == [(better, 1)]
    assert connection.execute("select version, accepted, filename from images").fetchone() == (2, True, "cell.png")
    damage(owner_url, better, topics[better])
    assert retry_with(projector, PostgresReadModels(connection), log) == (2, 0)
    assert connection.execute("select version, filename from images").fetchone() == (4, "best.png")
    assert retry_with(projector, PostgresReadModels(connection), log, accepted) == (0, 0)
