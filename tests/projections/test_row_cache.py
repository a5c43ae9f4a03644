"""The projector's row cache: fewer rows are loaded, and none is stale."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projections.engine import postgres_store
from projections.engine.batches import TABLES
from projections.engine.checkpoints import Checkpoint, CheckpointConflict
from projections.engine.postgres_store import PostgresReadModels
from projections.engine.projector import Projector
from projections.engine.row_cache import RowCache
from projections.process.composition import LogDecoder, projector_over
from projections.process.dead_letters import retry_with
from tests.projections.test_projector import damage
from tests.rigs.scenario import record_full_history
from tests.twins.read_models import MemoryDatabase, MemoryModels


class Counting(PostgresReadModels):
    """Counts the rows that are loaded, by table."""

    def __init__(self, connection):
        super().__init__(connection)
        self.loaded = Counter()

    def load(self, wanted):
        self.loaded.update({name: len(keys) for name, keys in wanted.items()})
        return super().load(wanted)


def in_memory(log, batches, *, wrapped):
    """The rows of all tables once the log was applied in batches of these sizes, over and over."""
    database = MemoryDatabase()
    projector = Projector(lambda: wrapped(MemoryModels(database)), LogDecoder(log), discarded=log.discarded)
    at = 0
    while at < log.head():
        for size in batches:
            if events := log.read(at, size):
                at = events[-1].position
                projector.apply(events, Checkpoint(at))
    return {table.name: database.tables[table.name] for table in TABLES}


def test_the_read_models_are_the_same_however_few_rows_are_kept(scenario, log):
    record_full_history(scenario)
    as_they_are = in_memory(log, [1000], wrapped=lambda models: models)

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.integers(0, 30))
    def holds(batches, max_rows):
        assert in_memory(log, batches, wrapped=lambda models: RowCache(models, max_rows=max_rows)) == as_they_are

    holds()


def test_a_row_of_the_last_batch_is_not_loaded_again(scenario, log, app_url):
    models = Counting(postgres_store.connect(app_url))
    projector = Projector(lambda: RowCache(models), LogDecoder(log))
    ada = scenario.user()
    cells = scenario.dataset(ada)
    images = [scenario.image(ada, cells) for _ in range(3)]
    scenario.follow(projector=projector)
    models.loaded.clear()
    for image in images:
        scenario.accept(image)
        projector.apply(log.read(log.head() - 1, 1), Checkpoint(log.head()))
    assert models.loaded.total() == 0
    projector.close()


def test_rows_are_forgotten_once_somebody_else_changed_the_read_models(scenario, log, app_url, owner_url, connection):
    """A retry elsewhere heals what the running projector knew otherwise."""
    running = projector_over(app_url, log)
    ada = scenario.user()
    cells = scenario.dataset(ada)
    sick = scenario.image(ada, cells)
    scenario.reject(sick)
    position = log.head()
    topic = damage(owner_url, position)
    scenario.follow(projector=running)
    damage(owner_url, position, topic)
    assert connection.execute("select rejected from images where id = %s", (sick,)).fetchone() == (None,)
    elsewhere = projector_over(app_url, log)
    assert retry_with(elsewhere, PostgresReadModels(connection), log).remaining == 0
    elsewhere.close()
    at = log.head()
    scenario.delete_image(ada, sick)
    with pytest.raises(CheckpointConflict):
        running.apply(log.read(at, 1), Checkpoint(at + 1))
    scenario.follow(projector=running)
    assert connection.execute("select rejected, deleted from images where id = %s", (sick,)).fetchone() == ("damaged_image", True)
    running.close()
