"""From a command to its result, on the embedded broker and on Apache Kafka, also when parts fail."""

import msgspec
import pytest

from infrastructure.embedded.broker import Broker
from infrastructure.retry import RETRY_DELAYS_SECONDS
from tests.kafka.fixture import free_port, kafka_node
from tests.kafka.system_processes import SystemProcesses, busy


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.long)])
def processes(request, settings):
    if request.param == "kafka":
        url = request.getfixturevalue("kafka_url")
        settings = msgspec.structs.replace(settings, kafka_url=url, kafka_groups=True, kafka_fetch_wait=0.5)
    processes = SystemProcesses(settings)
    yield processes
    processes.close()


@pytest.fixture
def embedded(settings):
    processes = SystemProcesses(settings)
    yield processes
    processes.close()


def test_a_run_over_a_dataset_and_one_over_an_image_come_back_with_results(processes):
    """On a Kafka that holds other installations' logs, too: the tests before have left theirs."""
    processes.models()
    processes.start("relay", "projector", "inference")
    cells = processes.dataset().id
    pictures = [processes.picture(cells, number) for number in range(6)]
    processes.until(lambda: processes.inspected(cells) == 6)
    assert processes.until_ended(processes.run(dataset=cells)) == ("completed", 6, 0)
    assert processes.until_ended(processes.run(image=pictures[3])) == ("completed", 1, 0)
    assert processes.row("select count(*) from read.results")[0] == 7
    assert processes.row("select count(*) from read.dead_letters")[0] == 0
    assert processes.stop() == [0, 0, 0]


def test_in_steady_state_every_event_comes_by_kafka(processes):
    processes.start("relay")
    processes.start("projector", by="tests.kafka.kafka_only_projector")
    processes.until_kafka_delivers()
    before = processes.until_counted()
    with busy(processes):
        processes.until(lambda: processes.sources()["kafka"] > before["kafka"] + 100)
    assert processes.until_counted()["store"] == before["store"]
    assert processes.stop() == [0, 0]


@pytest.mark.long
def test_without_a_broker_read_models_follow_from_the_store_and_kafka_takes_over_when_it_comes(embedded, tmp_path_factory):
    port = free_port()
    embedded.settings = msgspec.structs.replace(embedded.settings, kafka_url=f"127.0.0.1:{port}", kafka_groups=True, kafka_fetch_wait=0.5)
    embedded.start("relay", "projector")
    embedded.dataset()
    embedded.until_shown()
    assert embedded.shown == 2
    with kafka_node(tmp_path_factory.mktemp("late"), port=port):
        embedded.until_kafka_delivers()
        assert embedded.stop() == [0, 0]


@pytest.mark.long
def test_a_broker_that_lost_its_log_gets_what_is_needed_again(embedded, tmp_path_factory):
    """The embedded broker comes back elsewhere, and empty: its clients are started again, as the supervisor does."""
    embedded.start("relay", "projector")
    embedded.until_kafka_delivers()
    assert embedded.stop() == [0, 0]
    embedded.dataset()
    with Broker(tmp_path_factory.mktemp("another")) as broker:
        embedded.settings = msgspec.structs.replace(embedded.settings, kafka_url=broker.url)
        embedded.start("relay", "projector")
        embedded.until_kafka_delivers()
        embedded.until_shown()
        assert embedded.shown == embedded.log.head()
        assert embedded.stop() == [0, 0]


@pytest.mark.parametrize("name", ["relay", pytest.param("projector", marks=pytest.mark.long)])
def test_one_that_is_killed_loses_nothing(processes, name):
    processes.start("relay", "projector")
    processes.until_kafka_delivers()
    with busy(processes):
        for _ in range(2):
            processes.kill(name)
            processes.start(name)
            processes.until_shown(within=20)
    processes.until_shown()
    applied = processes.row("select count(*), min(position), max(position) from read.activity")
    assert applied == (processes.log.head(), 1, processes.log.head())


@pytest.mark.long
def test_a_store_that_is_away_for_longer_than_all_attempts_take_fails_nothing(embedded):
    embedded.settings = msgspec.structs.replace(embedded.settings, chunk_lease_seconds=1.0)
    embedded.models()
    cells = embedded.dataset().id
    first = [embedded.picture(cells, number) for number in range(4)]
    embedded.start("relay", "projector", "inference")
    embedded.until(lambda: embedded.inspected(cells) == 4)
    later = [embedded.picture(cells, number) for number in range(4, 8)]
    store, elsewhere = embedded.settings.data / "blobs", embedded.settings.data / "elsewhere"
    store.rename(elsewhere)
    jobs = [embedded.run(image=first[0]), embedded.run(dataset=cells)]
    embedded.until(lambda: embedded.times_logged("inference", "retrying") > len(RETRY_DELAYS_SECONDS))
    assert embedded.row("select count(*) from read.results")[0] == 0
    elsewhere.rename(store)
    assert [embedded.until_ended(job)[0::2] for job in jobs] == [("completed", 0)] * 2
    embedded.until(lambda: embedded.inspected(cells) == len(first + later))
    assert embedded.row("select count(*) from read.images where rejected is not null")[0] == 0
    assert embedded.stop() == [0, 0, 0]


@pytest.mark.long
def test_inference_that_is_killed_is_replaced_and_every_image_has_one_result(processes):
    """On Apache Kafka its tasks wait 10 s for another member: until its session has timed out."""
    processes.settings = msgspec.structs.replace(processes.settings, chunk_lease_seconds=15.0)
    processes.models()
    processes.start("relay", "projector", "inference")
    cells = processes.dataset().id
    for number in range(20):
        processes.picture(cells, number)
    processes.until(lambda: processes.inspected(cells) == 20)
    jobs = [processes.run(dataset=cells) for _ in range(3)]
    processes.kill("inference")
    processes.start("inference")
    assert [processes.until_ended(job) for job in jobs] == [("completed", 20, 0)] * 3
    assert processes.row("select count(*), count(distinct (classification_id, image_id)) from read.results") == (60, 60)
