"""The images that a recheck goes through, and the positions of their results: Postgres and the in-memory twin."""

from uuid import uuid4

import psycopg
import pytest

from domain.errors import Unavailable
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.security.keys import RootKey
from projections.engine import postgres_store
from projections.engine.postgres_store import PostgresReadModels
from projections.engine.projector import Projector
from projections.process.composition import LogDecoder
from projections.stored_images import PAGE, PostgresStoredImages
from tests.rigs.scenario import Scenario, record_full_history
from tests.twins.event_store import MemoryRecorder
from tests.twins.read_models import MemoryDatabase, MemoryModels
from tests.twins.stored_images import MemoryStoredImages

ROOT = RootKey(bytes(32))
PAGE_SIZE = 4


class Stored:
    """A log with its read models, and the stored images over them."""

    def __init__(self, models, images, recorder):
        self.log, self.images = RecorderEventStore(recorder, ROOT), images
        self.projector = Projector(models, LogDecoder(self.log))
        self.scenario = Scenario(self.log, self.projector)


@pytest.fixture(params=["memory", "postgres"])
def stored(request):
    if request.param == "memory":
        database = MemoryDatabase()
        stored = Stored(lambda: MemoryModels(database), MemoryStoredImages(database, page_size=PAGE_SIZE), MemoryRecorder(ROOT))
        yield stored
    else:
        url = request.getfixturevalue("app_url")
        with postgres_store.connect(url) as connection:
            images = PostgresStoredImages(connection, page_size=PAGE_SIZE)
            stored = Stored(lambda: PostgresReadModels(postgres_store.connect(url)), images, PostgresRecorder(url, ROOT))
            yield stored
    stored.projector.close()
    stored.log.close()


@pytest.fixture
def history(stored):
    history = record_full_history(stored.scenario)
    stored.scenario.follow()
    return history


def types_at(log, positions):
    return [log.read(position - 1, 1)[0].type for position in positions]


def test_every_inspected_image_that_is_still_there_comes_once(stored, history):
    pages = list(stored.images.pages(None))
    found = [image for page in pages for image in page]
    pending, deleted = history.images[-2], history.images[3]
    assert sorted(found) == sorted({*history.images} - {pending, deleted})
    assert {len(page) for page in pages[:-1]} == {PAGE_SIZE}
    assert stored.images.count(None) == len(found)
    assert [*stored.images.pages(history.cells)] == pages


def test_images_come_in_the_order_of_their_upload(stored):
    scenario = stored.scenario
    ada = scenario.user()
    cells = scenario.dataset(ada)
    uploaded = []
    for _ in range(2 * PAGE_SIZE + 1):
        scenario.later(seconds=1)
        uploaded.append(scenario.image(ada, cells))
        scenario.accept(uploaded[-1])
    scenario.follow()
    assert [image for page in stored.images.pages(cells) for image in page] == uploaded


@pytest.mark.parametrize("dataset", ["gone", "unknown"])
def test_of_a_dataset_that_is_gone_there_are_none(stored, history, dataset):
    asked = history.gone if dataset == "gone" else uuid4()
    assert list(stored.images.pages(asked)) == []
    assert stored.images.count(asked) == 0


def test_the_chunks_of_an_image_are_found_in_order_without_those_of_deleted_jobs(stored, history):
    chunks = stored.images.chunks_of(history.images[2])
    assert list(chunks) == sorted(chunks)
    assert types_at(stored.log, chunks) == ["ChunkJudged"] * 2
    jobs = [stored.log.decode(stored.log.read(position - 1, 1)[0]).job_id for position in chunks]
    assert jobs == [history.whole, history.single]
    assert len(stored.images.chunks_of(history.images[4])) == 1
    assert list(stored.images.chunks_of(uuid4())) == []


def test_read_models_are_complete_up_to_what_was_applied(stored, history):
    head = stored.log.head()
    assert stored.images.are_complete(head)
    assert not stored.images.are_complete(head + 1)


@pytest.mark.parametrize("stored", ["postgres"], indirect=True)
def test_a_page_of_images_is_found_by_index(stored, owner_url):
    scenario = stored.scenario
    ada = scenario.user()
    scenario.accept(scenario.image(ada, scenario.dataset(ada)))
    scenario.follow()
    wanted = {"dataset": None, "at": "2000-01-01T00:00:00Z", "after": uuid4(), "maximum": 200}
    with psycopg.connect(owner_url, autocommit=True, options="-c search_path=read") as owner:
        owner.execute(
            "insert into images select (jsonb_populate_record(i, jsonb_build_object('id', gen_random_uuid(),"
            " 'uploaded_at', i.uploaded_at + g * interval '1 s'))).* from images i, generate_series(1, 5000) g"
        )
        owner.execute("analyze images")
        plan = "\n".join(row[0] for row in owner.execute("explain " + PAGE, wanted))
    assert "images_newest_of_all" in plan, plan
    assert "Sort" not in plan, plan
    assert sum(len(page) for page in stored.images.pages(None)) == stored.images.count(None) == 5001


def test_a_database_that_is_away_is_unavailable(app_url, owner_url):
    with postgres_store.connect(app_url) as connection:
        images = PostgresStoredImages(connection)
        with psycopg.connect(owner_url, autocommit=True) as owner:
            owner.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'bioscope_app'")
        with pytest.raises(Unavailable):
            images.count(None)
