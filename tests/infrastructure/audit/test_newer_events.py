"""Audits of an older release over a log that a newer one continued report no false findings."""

import msgspec
import psycopg
import pytest

from application import datasets, images
from domain.access import Role
from infrastructure.audit import log_verification
from infrastructure.audit.reconciliation import discrepancies, named_subjects
from infrastructure.audit.record_rules import RecordAudit
from infrastructure.eventstore.event_store import open_event_store
from tests.given import actor, command
from tests.infrastructure.audit.test_reconciliation import account
from tests.older_release import without
from tests.twins.blobs import MemoryBlobs

ADA = actor(Role.RESEARCHER)
TYPES = ("UserRegistered", "UserErased", "ImageUploaded", "ImageDescribed", "DatasetCreated")


@pytest.fixture
def log(settings):
    with open_event_store(settings) as log:
        yield log


def an_image(log):
    about = {"filename": "cell.png", "sha256": "ab" * 32, "size": 1000, "media_type": "image/png", "width": 96, "height": 96}
    dataset = datasets.create(name="cells", description=None, command=command(ADA), log=log).id
    image = images.upload(dataset_id=dataset, device_id=None, **about, command=command(ADA), log=log).id
    images.describe(image, filename="renamed.png", command=command(ADA), log=log)
    images.delete(image, command=command(ADA), log=log)
    return image


@pytest.mark.parametrize("type_name", TYPES)
def test_what_a_newer_release_wrote_is_no_discrepancy_and_counts_as_unchecked(log, settings, type_name):
    account(log, "ada")
    an_image(log)
    assert log_verification.verify_log(settings, log, blobs=MemoryBlobs()).unchecked == 0
    with without(type_name):
        found = log_verification.verify_log(settings, log, blobs=MemoryBlobs())
        assert list(discrepancies(log, sorted(named_subjects(log)))) == []
    assert found.problem is None
    assert found.unchecked >= (type_name in {"UserRegistered", "ImageUploaded", "ImageDescribed", "DatasetCreated"})


def test_a_key_that_a_newer_type_destroyed_is_not_missed(log, settings, owner_url):
    image = an_image(log)
    with psycopg.connect(owner_url) as owner:
        owner.execute("delete from es.secrets where kind = 'key' and owner = %s", (image,))
    assert f"{image}: its data key is missing" in log_verification.verify_log(settings, log, blobs=MemoryBlobs()).problem
    with without("ImageDeleted"):
        assert log_verification.verify_log(settings, log, blobs=MemoryBlobs()).problem is None


def test_rules_are_left_to_the_release_that_knows_the_whole_stream(log):
    image = an_image(log)
    history = log.history(image)
    twice = msgspec.structs.replace(history[-1], position=9)
    with without("ImageDescribed"):
        audit = RecordAudit(log)
        assert [audit.violation_of(one) for one in [*history, twice]] == [None] * 4
    assert audit.unchecked >= 2
