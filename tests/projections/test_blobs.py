"""Blob references in the read models: unused blobs are swept; those that are or may be in use are not."""

from datetime import UTC, datetime, timedelta
from functools import partial

import psycopg
import pytest

from application import images
from application.blob_gc import MAX_LAG, MIN_AGE, SweepResult, sweep_orphans
from domain import model
from domain.errors import Unavailable
from domain.values import model_id
from projections import blob_references as reading
from projections.process.dead_letters import discard_with
from tests.rigs.scenario import LABELS, SYSTEM
from tests.twins.blobs import MemoryBlobs


def tomorrow():
    return datetime.now(UTC) + MIN_AGE + timedelta(minutes=1)


@pytest.fixture
def known(connection):
    return partial(reading.blobs_in_use, connection)


@pytest.fixture
def blobs():
    return MemoryBlobs()


def image(scenario, owner, dataset, sha256):
    about = {"device_id": None, "filename": "cell.png", "size": 9, "media_type": "image/png", "width": 9, "height": 9}
    return images.upload(dataset_id=dataset, sha256=sha256, **about, command=scenario.command(owner), log=scenario.log).id


def versions(scenario, *sha256s):
    for sha256 in sha256s:
        version = model.Version(number=1, sha256=sha256, size=10, labels=LABELS, review_below=0.6, record="{}")
        state = scenario.log.load(model_id("shapes"), model.evolve)
        added = model.add_version(model_id("shapes"), state, name="shapes", description="", version=version, by=SYSTEM.id, at=scenario.now)
        scenario.log.append(scenario.command(), *added)


def test_what_nobody_refers_to_is_swept_and_what_images_and_models_are_made_of_stays(scenario, blobs, known):
    ada = scenario.user()
    cells = scenario.dataset(ada)
    orphan, one, weights, older = (blobs.keep(name) for name in (b"orphan", b"image", b"weights", b"older weights"))
    image(scenario, ada, cells, one)
    versions(scenario, older, weights)
    scenario.follow()
    assert sweep_orphans(blobs, known, now=tomorrow()) == SweepResult(freed=1, waiting=0)
    assert set(blobs.kept) == {one, weights, older}
    assert orphan not in blobs.kept
    assert sweep_orphans(blobs, known, now=tomorrow()).freed == 0


def test_packages_of_versions_and_of_pending_checks_stay_and_those_of_failed_checks_are_swept(scenario, blobs, known):
    """A version needs its package; its weights are in there, and are no blob of their own."""
    ada = scenario.user()
    passed, pending, failed, weights = (blobs.keep(name) for name in (b"passed", b"pending", b"failed", b"weights of the passed one"))
    scenario.pass_check(scenario.package(ada, passed), weights=weights)
    waiting = scenario.package(ada, pending)
    scenario.fail_check(scenario.package(ada, failed))
    scenario.follow()
    assert sweep_orphans(blobs, known, now=datetime.now(UTC)) == SweepResult(freed=0, waiting=0), "all are too young"
    assert sweep_orphans(blobs, known, now=tomorrow()) == SweepResult(freed=2, waiting=0)
    assert set(blobs.kept) == {passed, pending}
    scenario.fail_check(waiting)
    scenario.follow()
    assert sweep_orphans(blobs, known, now=tomorrow()).freed == 1
    assert set(blobs.kept) == {passed}


def test_a_declaration_names_no_file(scenario, blobs, known):
    """Somebody may have stored its bytes all the same."""
    declared = scenario.external(scenario.user())
    blobs.keep(scenario.log.load(declared, model.evolve).production.record.encode())
    scenario.follow()
    assert sweep_orphans(blobs, known, now=tomorrow()).freed == 1


def test_a_package_that_is_uploaded_again_after_its_refusal_stays(scenario, blobs, known):
    ada = scenario.user()
    sha256 = blobs.keep(b"package")
    scenario.fail_check(scenario.package(ada, sha256))
    scenario.package(ada, sha256)
    scenario.follow()
    assert sweep_orphans(blobs, known, now=tomorrow()).freed == 0


def test_an_upload_that_may_still_become_an_event_stays(scenario, blobs, known):
    scenario.follow()
    blobs.keep(b"under way")
    assert sweep_orphans(blobs, known, now=datetime.now(UTC)).freed == 0
    assert len(blobs.kept) == 1


def test_what_is_uploaded_again_while_it_is_swept_stays(scenario, blobs, known):
    ada = scenario.user()
    cells = scenario.dataset(ada)
    sha256 = blobs.keep(b"an old orphan")
    scenario.follow()
    old = datetime.now(UTC)

    class UploadedMeanwhile(MemoryBlobs):
        def delete(self, sha256, *, put_before=None):
            image(scenario, ada, cells, blobs.keep(b"an old orphan"))
            return blobs.delete(sha256, put_before=put_before)

    meanwhile = UploadedMeanwhile()
    meanwhile.orphans = blobs.orphans
    assert sweep_orphans(meanwhile, known, now=old + MIN_AGE).freed == 0
    assert set(blobs.kept) == {sha256}


def test_a_deleted_image_frees_its_blob_unless_another_image_has_the_same_bytes(scenario, blobs, known):
    ada = scenario.user()
    cells, gone = scenario.dataset(ada), scenario.dataset(ada, "gone")
    twice, once, drowned = (blobs.keep(name) for name in (b"twice", b"once", b"drowned"))
    first, _, only = (image(scenario, ada, cells, sha256) for sha256 in (twice, twice, once))
    image(scenario, ada, gone, drowned)
    scenario.delete_image(ada, first)
    scenario.delete_image(ada, only)
    scenario.delete_dataset(ada, gone)
    scenario.follow()
    assert sweep_orphans(blobs, known, now=tomorrow()).freed == 2
    assert set(blobs.kept) == {twice}


def recorded_earlier(owner_url, position, ago):
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("set session_replication_role = replica")
        owner.execute("update es.events set recorded_at = now() - %s::interval where notification_id >= %s", (ago, position))


def test_orphans_are_swept_while_new_events_wait_for_the_read_models(scenario, blobs, known):
    """As under steady load, where there is always one."""
    scenario.follow()
    ada = scenario.user()
    blobs.keep(b"orphan")
    scenario.dataset(ada)
    assert sweep_orphans(blobs, known, now=tomorrow()) == SweepResult(freed=1, waiting=0)


def test_nothing_is_swept_while_the_read_models_lack_an_event_that_is_older_than_a_day(scenario, blobs, known, owner_url):
    scenario.follow()
    ada = scenario.user()
    image(scenario, ada, scenario.dataset(ada), blobs.keep(b"not seen yet"))
    recorded_earlier(owner_url, 1, MAX_LAG)
    with pytest.raises(Unavailable, match="more than a day behind"):
        sweep_orphans(blobs, known, now=tomorrow())
    assert len(blobs.kept) == 1


def test_nothing_is_swept_by_read_models_that_stand_beyond_the_log_and_lack_what_it_holds(scenario, blobs, known, owner_url):
    """A row that is missing from the log, as after somebody's edit, shows no time."""
    scenario.follow()
    scenario.dataset(scenario.user())
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("set session_replication_role = replica")
        owner.execute("delete from es.events")
    with pytest.raises(Unavailable):
        sweep_orphans(blobs, known, now=tomorrow())


def set_aside(owner_url, table, position):
    row = {"dead_letters": "(%s, gen_random_uuid(), 'ImageUploaded', 'why')", "parked": "(%s, gen_random_uuid())"}[table]
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute(f"insert into read.{table} values {row}", (position,))
        owner.execute("delete from read.images where position = %s", (position,))


@pytest.mark.parametrize("table", ["dead_letters", "parked"])
def test_what_an_event_names_that_could_not_be_applied_is_left_and_counted_and_the_rest_is_swept(scenario, blobs, known, owner_url, table):
    ada = scenario.user()
    named, orphan = blobs.keep(b"perhaps in use"), blobs.keep(b"orphan")
    image(scenario, ada, scenario.dataset(ada), named)
    scenario.follow()
    set_aside(owner_url, table, scenario.log.head())
    assert sweep_orphans(blobs, known, now=tomorrow()) == SweepResult(freed=1, waiting=1)
    assert set(blobs.kept) == {named}
    assert orphan not in blobs.kept


def test_what_a_discarded_event_names_stays_since_commands_may_still_use_it(scenario, blobs, known, owner_url, connection):
    ada = scenario.user()
    image(scenario, ada, scenario.dataset(ada), blobs.keep(b"known to commands"))
    scenario.follow()
    position = scenario.log.head()
    set_aside(owner_url, "dead_letters", position)
    retry = discard_with(scenario.projector, connection, scenario.log, position, reason="torn", command=scenario.command(SYSTEM))
    assert retry == (1, 0)
    orphan = blobs.keep(b"orphan")
    assert sweep_orphans(blobs, known, now=tomorrow()) == SweepResult(freed=1, waiting=0)
    assert orphan not in blobs.kept


def test_the_images_of_a_dataset_that_the_read_models_do_not_know_are_in_use(scenario, blobs, known, owner_url):
    """Its first event could not be applied."""
    ada = scenario.user()
    cells = scenario.dataset(ada)
    image(scenario, ada, cells, blobs.keep(b"in use"))
    scenario.follow()
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("delete from read.datasets where id = %s", (cells,))
    assert sweep_orphans(blobs, known, now=tomorrow()) == SweepResult(freed=0, waiting=0)


def test_the_role_of_the_projector_suffices(scenario, blobs, postgres, database):
    ada = scenario.user()
    image(scenario, ada, scenario.dataset(ada), blobs.keep(b"in use"))
    scenario.follow()
    blobs.keep(b"orphan")
    scenario.dataset(ada)
    url = postgres.url(user="bioscope_projector", database=database)
    with psycopg.connect(url, autocommit=True, options="-c search_path=read") as connection:
        assert sweep_orphans(blobs, partial(reading.blobs_in_use, connection), now=tomorrow()) == SweepResult(freed=1, waiting=0)


def test_a_lost_database_sweeps_nothing(scenario, blobs, connection):
    scenario.follow()
    blobs.keep(b"perhaps in use")
    connection.close()
    with pytest.raises(psycopg.OperationalError):
        sweep_orphans(blobs, partial(reading.blobs_in_use, connection), now=tomorrow())
    assert len(blobs.kept) == 1
