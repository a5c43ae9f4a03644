"""One batch is written while the next one is folded: the same read models, and errors of the events that they come from."""

import os
import threading

import pytest

from infrastructure.event_store import EventLog
from infrastructure.keys import RootKey
from infrastructure.memory_store import MemoryRecorder
from projections import rebuilding
from projections.batches import Changes
from projections.checkpoints import Checkpoint, Outrun
from projections.memory_models import MemoryDatabase, MemoryModels
from projections.projector import Projector
from projections.rebuilding import replay
from projections.worker import LogDecoder
from projections.write_behind import WriteBehind
from tests.projections.laboratory import Laboratory, a_busy_week

ROOT = RootKey(os.urandom(32))


class Unwritable(Exception):
    """As Postgres says it of a value that it cannot hold."""


class Strict(MemoryModels):
    """Refuses a file name."""

    def write(self, target, to, changes, *, generations=0):
        if any(getattr(row, "filename", "") == "unwritable" for written in changes.rows for row in written.upserts):
            raise Unwritable
        super().write(target, to, changes, generations=generations)


class Slow(MemoryModels):
    """Waits before it writes."""

    def __init__(self, database):
        super().__init__(database)
        self.may_write = threading.Event()

    def write(self, *arguments, **keywords):
        assert self.may_write.wait(5)
        super().write(*arguments, **keywords)


@pytest.fixture
def laboratory():
    return Laboratory(EventLog(MemoryRecorder(ROOT), ROOT), None)


def projected(log, database, models):
    projector = Projector(models, LogDecoder(log))
    replay(projector, log, log.head())
    projector.close()
    return database


def behind(database, kind=MemoryModels):
    return WriteBehind(MemoryModels(database), kind(database))


@pytest.mark.parametrize("batch", [1, 2, 7, 1000])
def test_read_models_are_the_same_as_when_each_batch_is_waited_for(laboratory, monkeypatch, batch):
    a_busy_week(laboratory)
    monkeypatch.setattr(rebuilding, "BATCH", batch)
    waited, not_waited = MemoryDatabase(), MemoryDatabase()
    projected(laboratory.log, waited, lambda: MemoryModels(waited))
    projected(laboratory.log, not_waited, lambda: behind(not_waited))
    assert not_waited.tables == waited.tables
    assert not_waited.target == waited.target
    assert all(waited.tables.values())


@pytest.mark.parametrize("batch", [1, 2, 7, 1000])
def test_an_event_that_cannot_be_written_is_set_aside_alone(laboratory, monkeypatch, batch):
    ada = laboratory.user()
    cells = laboratory.dataset(ada)
    names = [f"cell {number}.png" for number in range(5)]
    for name in [*names[:3], "unwritable", *names[3:]]:
        laboratory.accept(laboratory.image(ada, cells, name))
    monkeypatch.setattr(rebuilding, "BATCH", batch)
    database = MemoryDatabase()
    projected(laboratory.log, database, lambda: behind(database, Strict))
    (letter,) = database.letters.values()
    assert (letter.type, letter.position) == ("ImageUploaded", 9)
    assert list(database.parked) == [10]
    assert {row.filename for row in database.tables["images"].values()} == set(names)
    assert database.target.at.position == laboratory.log.head()


def test_a_batch_that_failed_is_noticed_with_the_next_call(laboratory):
    laboratory.image(*[ada := laboratory.user(), laboratory.dataset(ada)], "unwritable")
    laboratory.user()
    log, database = laboratory.log, MemoryDatabase()
    projector = Projector(lambda: behind(database, Strict), LogDecoder(log))
    projector.apply(log.read(0, 3), Checkpoint(3))
    with pytest.raises(Outrun):
        projector.apply(log.read(3, 1), Checkpoint(4))
    assert projector.checkpoint().position == 0
    projector.close()


def test_rows_under_way_are_loaded_before_they_are_there(laboratory):
    ada = laboratory.user()
    image = laboratory.image(ada, laboratory.dataset(ada))
    log, database = laboratory.log, MemoryDatabase()
    slow = Slow(database)
    models = WriteBehind(MemoryModels(database), slow)
    projector = Projector(lambda: models, LogDecoder(log))
    projector.apply(log.read(0, 3), Checkpoint(3))
    assert not database.tables["images"]
    assert models.load({"images": {image}})["images"][image].filename == "cell.png"
    slow.may_write.set()
    assert projector.checkpoint().position == 3
    assert models.load({"images": {image}})["images"][image].filename == "cell.png"
    projector.close()


def test_what_was_begun_is_written_before_it_is_closed(laboratory):
    laboratory.user()
    log, database = laboratory.log, MemoryDatabase()
    slow = Slow(database)
    models = WriteBehind(MemoryModels(database), slow)
    target = models.target()
    models.write(target, Checkpoint(1, hash=log.read(0, 1)[0].hash), Changes())
    threading.Timer(0.05, slow.may_write.set).start()
    models.close()
    assert models.closed
    assert database.target.at.position == 1
