"""Writing behind: the rows are those of the plain way, at once and in the end, and a write that fails is noticed."""

import os

import psycopg
import pytest

from infrastructure.event_store import EventLog
from infrastructure.keys import RootKey
from infrastructure.memory_store import MemoryRecorder
from projections import rebuilding
from projections.batches import TABLES
from projections.memory_models import MemoryDatabase, MemoryModels
from projections.projector import Projector
from projections.rebuilding import replay
from projections.worker import LogDecoder
from projections.writing_behind import WritingBehind
from tests.projections.laboratory import Laboratory, a_busy_week

ROOT = RootKey(os.urandom(32))


@pytest.fixture
def log():
    log = EventLog(MemoryRecorder(ROOT), ROOT)
    a_busy_week(Laboratory(log, None))
    return log


def plainly(log):
    database = MemoryDatabase()
    projector = Projector(lambda: MemoryModels(database), LogDecoder(log))
    Laboratory(log, projector).follow()
    return database


class Refusing(MemoryModels):
    """Refuses a batch that holds more than `most` events, the first time and ever after."""

    def __init__(self, database, most):
        super().__init__(database)
        self.most, self.refused = most, 0

    def write(self, target, to, changes, **more):
        if to.position - target.at.position > self.most:
            self.refused += 1
            raise ValueError("too much")
        return super().write(target, to, changes, **more)


@pytest.mark.parametrize("batch", [1, 2, 7, 1000])
def test_the_rows_are_those_of_the_plain_way(log, batch, monkeypatch):
    monkeypatch.setattr(rebuilding, "BATCH", batch)
    behind = MemoryDatabase()
    projector = Projector(lambda: WritingBehind(MemoryModels(behind), MemoryModels(behind)), LogDecoder(log))
    replay(projector, log, log.head(), lambda _: None)
    plain = plainly(log)
    for table in TABLES:
        assert behind.tables[table.name] == plain.tables[table.name]
    assert projector.checkpoint().position == log.head()
    projector.close()


def test_what_is_under_way_is_read_as_if_it_were_written(log):
    database = MemoryDatabase()
    plain = plainly(log)
    models = WritingBehind(MemoryModels(MemoryDatabase()), MemoryModels(database))  # what it reads by never sees a row
    projector = Projector(lambda: models, LogDecoder(log))
    projector.apply(log.read(0, log.head()), rebuilding.Checkpoint(log.head()))
    for table in TABLES:
        if table.loads:
            rows = plain.tables[table.name]
            assert models.load({table.name: set(rows)})[table.name] == rows
    projector.close()


def test_after_a_write_that_failed_nothing_is_missing(log, monkeypatch):
    monkeypatch.setattr(rebuilding, "BATCH", 8)
    database, opened = MemoryDatabase(), []

    def models():
        opened.append(Refusing(database, most=4))
        return WritingBehind(MemoryModels(database), opened[-1])

    projector = Projector(models, LogDecoder(log))
    replay(projector, log, log.head(), lambda _: None)
    plain = plainly(log)
    for table in TABLES:
        assert database.tables[table.name] == plain.tables[table.name]
    assert sum(one.refused for one in opened) > 1
    assert projector.checkpoint().position == log.head()
    projector.close()


def test_a_lost_connection_ends_it(log):
    class Lost(MemoryModels):
        closed = False

        def write(self, target, to, changes, **more):
            self.closed = True
            raise psycopg.OperationalError("gone")

    database = MemoryDatabase()
    projector = Projector(lambda: WritingBehind(MemoryModels(database), Lost(database)), LogDecoder(log))
    with pytest.raises(psycopg.OperationalError, match="gone"):
        replay(projector, log, log.head(), lambda _: None)
    projector.close()


def test_an_event_that_cannot_be_written_is_set_aside_and_the_rest_goes_on(log):
    database = MemoryDatabase()

    class Choosy(MemoryModels):
        def write(self, target, to, changes, **more):
            if target.at.position < 9 <= to.position and not changes.aside:
                raise ValueError("the ninth is refused")
            return super().write(target, to, changes, **more)

    projector = Projector(lambda: WritingBehind(MemoryModels(database), Choosy(database)), LogDecoder(log))
    replay(projector, log, log.head(), lambda _: None)
    assert list(projector._there().behind().letters) == [9]
    projector.close()
