"""The contract of the relay's checkpoint: Postgres, and the simulator's twin."""

import pytest
from psycopg import AsyncConnection

from application.history.hash_chain import START
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.relay.checkpoint_store import PostgresCheckpointStore, RelayCheckpoint
from projections.engine import postgres_store
from projections.engine.batches import Changes
from projections.engine.checkpoints import Checkpoint
from projections.engine.postgres_store import PostgresReadModels
from tests.rigs.scenario import Scenario
from tests.simulation.processes import MemoryCheckpointStore
from tests.simulation.world import CALM, ROOT, World
from tests.twins.read_models import MemoryModels

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "postgres"])
async def stood(request):
    """The port, a scenario whose log it reads, and the read models."""
    if request.param == "memory":
        world = World(1, CALM)
        yield MemoryCheckpointStore(world), Scenario(RecorderEventStore(world.recorder, ROOT), None), MemoryModels(world.database)
        world.loop.end()
        return
    url = request.getfixturevalue("app_url")
    log, models = RecorderEventStore(PostgresRecorder(url, ROOT), ROOT), PostgresReadModels(postgres_store.connect(url))
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        yield PostgresCheckpointStore(connection), Scenario(log, None), models
    models.close()
    log.close()


async def test_who_led_before_cannot_move_the_place(stood):
    published, *_ = stood
    first, place = await published.take_over()
    second, same = await published.take_over()
    assert place == same == RelayCheckpoint(0, "", 0)
    assert second > first
    assert not await published.advance(first, place, RelayCheckpoint(1, "cluster", 1))
    assert await published.advance(second, place, RelayCheckpoint(1, "cluster", 1))
    assert not await published.advance(second, place, RelayCheckpoint(2, "cluster", 2))
    assert (await published.take_over())[1] == RelayCheckpoint(1, "cluster", 1)


async def test_the_log_is_read_on_from_a_position(stood):
    published, scenario, _ = stood
    for _ in range(5):
        scenario.user()
    assert [one.event.position for one in await published.events_after(1, 3)] == [2, 3, 4]
    assert [one.event.position for one in await published.events_after(4, 3)] == [5]
    hashes = [START, *(event.hash for event in scenario.log.read(0, 4))]
    assert [one.previous_hash for one in await published.events_after(0, 9)] == hashes
    assert [one.previous_hash for one in await published.events_after(2, 9)] == hashes[2:]
    assert list(await published.events_after(5, 3)) == []


async def test_what_the_read_models_lack_is_needed_but_not_what_was_never_published(stood):
    published, scenario, models = stood
    for _ in range(3):
        scenario.user()
    epoch, place = await published.take_over()
    models.write(models.read_checkpoint(), Checkpoint(3, hash=scenario.log.read(2, 1)[0].hash), Changes())
    assert await published.needed_position() == 0
    await published.advance(epoch, place, RelayCheckpoint(7, "cluster", 7))
    assert await published.needed_position() == 3
