"""Write-behind of a rebuild: the same rows in the end, whatever fails."""

from contextlib import closing

import psycopg
import pytest

from projections.engine import postgres_store
from projections.engine.batches import Changes
from projections.engine.checkpoints import Checkpoint, CheckpointConflict
from projections.engine.postgres_store import PostgresReadModels
from projections.engine.projector import Projector
from projections.engine.row_cache import RowCache
from projections.process.composition import LogDecoder, projector_over
from projections.rebuild.digests import digests
from projections.rebuild.rebuilding import RebuildLimits, replay
from projections.rebuild.write_behind import WriteBehind
from tests.rigs.scenario import record_full_history


@pytest.fixture
def beside(owner_url):
    """The digests of read models beside the live ones, made by `fill(schema)`."""

    def made(fill, schema="beside"):
        with psycopg.connect(owner_url, autocommit=True, options="-c timezone=UTC") as owner:
            owner.execute("call ops.create_read_models(%s)", (schema,))
            fill(schema)
            letters = owner.execute(f"select position, stream, type, reason from {schema}.dead_letters order by position").fetchall()
            parked = owner.execute(f"select position, stream from {schema}.parked order by position").fetchall()
            return digests(owner, schema=schema), letters, parked

    return made


def test_what_is_written_behind_is_what_is_written_at_once(scenario, log, owner_url, beside, connection):
    record_full_history(scenario)
    scenario.follow()

    def fill(schema):
        with closing(projector_over(owner_url, log, schema, exclusive=True)) as projector:
            replay(projector, log, log.head(), limits=RebuildLimits(events_per_batch=7))

    assert beside(fill)[0] == digests(connection)


@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_an_event_that_cannot_be_written_becomes_the_same_dead_letter(scenario, log, owner_url, beside, place):
    """The database refuses it, which shows a batch later than the event was handed over."""
    record_full_history(scenario)
    described = [event.position for event in log.read(0, 1000) if event.type == "ImageUploaded"]
    refused = {"first": described[0], "middle": described[len(described) // 2], "last": described[-1]}[place]
    name = f"refused {refused}"
    rename(owner_url, log, refused, name)

    def fill(exclusive):
        def filled(schema):
            with psycopg.connect(owner_url, autocommit=True) as owner:
                owner.execute(f"alter table {schema}.images add check (sha256 <> '{name}')")
            with closing(projector_over(owner_url, log, schema, exclusive=exclusive)) as projector:
                replay(projector, log, log.head(), limits=RebuildLimits(events_per_batch=5))

        return filled

    at_once, behind = beside(fill(False), "at_once"), beside(fill(True), "behind")
    assert [position for position, *_ in behind[1]] == [refused]
    assert behind == at_once


def rename(owner_url, log, position, sha256):
    """The event names another sha256 from now on."""
    (event,) = log.read(position - 1, 1)
    was = log.decode(event).sha256
    with psycopg.connect(owner_url) as owner:
        owner.execute("set session_replication_role = replica")
        owner.execute(
            "update es.events set state = convert_to(replace(convert_from(state, 'UTF8'), %s, %s), 'UTF8') where notification_id = %s",
            (was, sha256, position),
        )


def test_a_batch_that_was_not_written_is_outrun_and_the_next_one_waits(scenario, log, app_url):
    models = WriteBehind(PostgresReadModels(postgres_store.connect(app_url)))
    scenario.user()
    token = models.read_checkpoint()
    models.write(token._replace(generation=0), Checkpoint(1), Changes())
    with pytest.raises(CheckpointConflict):
        models.load({"users": {scenario.user()}})
    assert models.read_checkpoint().checkpoint.position == 0
    models.write(token, Checkpoint(1, hash=log.read(0, 1)[0].hash), Changes())
    assert models.read_checkpoint().checkpoint.position == 1
    models.close()


def test_a_projector_that_never_gets_ahead_gives_up(scenario, log, app_url):
    scenario.user()

    class Losing(PostgresReadModels):
        def write(self, *_, **__):
            raise CheckpointConflict

    projector = Projector(lambda: RowCache(WriteBehind(Losing(postgres_store.connect(app_url)))), LogDecoder(log))
    with pytest.raises(CheckpointConflict):
        replay(projector, log, log.head())
    projector.close()
