"""Images: uploaded into a dataset, inspected, described, deleted."""

from uuid import uuid4

import pytest

from application import datasets, image_inspection, images
from application.images import load_image
from domain.access import Grant, Role
from domain.errors import Forbidden, NotFound
from domain.image import ImageAccepted, ImageDescribed, ImageRejected, ImageUploaded, Inspection
from tests.given import actor, command

ADA, STRANGER = actor(), actor()
SYSTEM = actor(None, kind="system")
INSPECTION = Inspection(width=95, height=94, bands=3, dtype="uint8", pages=1, axes="YXC", pixel_size_um=0.25, reader=2, warnings=())
FILE = {"device_id": None, "sha256": "ab" * 32, "size": 1000, "media_type": "image/png", "width": 96, "height": 96}
REFUSAL = {"reason": "damaged_image", "detail": "It is torn."}


@pytest.fixture
def cells(log):
    return datasets.create(name="cells", description=None, command=command(ADA), log=log).id


@pytest.fixture
def uploaded(log, cells):
    return images.upload(dataset_id=cells, filename="cell.png", **FILE, command=command(ADA), log=log).id


def types(log, stream):
    return [one.type for one in log.history(stream)]


def test_a_repeated_upload_is_one_image(log, cells):
    once = command(ADA)
    first, again = (images.upload(dataset_id=cells, filename="cell.png", **FILE, command=once, log=log) for _ in range(2))
    assert (again.id, again.position) == (first.id, first.position)
    assert types(log, first.id) == [ImageUploaded.__name__]


@pytest.mark.parametrize(("by", "error"), [(STRANGER, NotFound), (actor(Role.VIEWER), Forbidden)])
def test_an_upload_needs_a_grant_on_the_dataset_and_a_role(log, cells, by, error):
    with pytest.raises(error):
        images.upload(dataset_id=cells, filename="cell.png", **FILE, command=command(by), log=log)


def test_an_upload_from_an_unknown_device_or_into_a_deleted_dataset_is_refused(log, cells):
    with pytest.raises(NotFound, match="Device"):
        images.upload(dataset_id=cells, filename="cell.png", **FILE | {"device_id": uuid4()}, command=command(ADA), log=log)
    datasets.delete(cells, command=command(ADA), log=log)
    with pytest.raises(NotFound, match="Dataset"):
        images.may_upload(cells, command=command(ADA), log=log)


def test_an_image_is_described_and_deleted(log, uploaded):
    images.describe(uploaded, filename="other.png", analyzed=True, command=command(ADA), log=log)
    state = load_image(log, uploaded, command(ADA), Grant.VIEWER)
    assert (state.filename, state.analyzed, state.device_id) == ("other.png", True, None)
    images.delete(uploaded, command=command(ADA), log=log)
    with pytest.raises(NotFound):
        load_image(log, uploaded, command(ADA), Grant.VIEWER)


def test_an_image_of_a_foreign_or_deleted_dataset_is_not_found(log, cells, uploaded):
    with pytest.raises(NotFound, match="Image"):
        load_image(log, uploaded, command(STRANGER), Grant.VIEWER)
    datasets.delete(cells, command=command(ADA), log=log)
    with pytest.raises(NotFound, match="Image"):
        load_image(log, uploaded, command(ADA), Grant.VIEWER)


def test_an_image_is_inspected_once(log, uploaded):
    assert image_inspection.uninspected(uploaded, log=log).sha256 == FILE["sha256"]
    assert image_inspection.accept(uploaded, INSPECTION, command=command(SYSTEM), log=log)
    assert image_inspection.uninspected(uploaded, log=log) is None
    assert not image_inspection.accept(uploaded, INSPECTION, command=command(SYSTEM), log=log)
    assert not image_inspection.reject(uploaded, **REFUSAL, command=command(SYSTEM), log=log)
    assert types(log, uploaded) == [ImageUploaded.__name__, ImageAccepted.__name__]


def test_a_rejected_image_says_why(log, uploaded):
    assert image_inspection.reject(uploaded, **REFUSAL, command=command(SYSTEM), log=log)
    rejected = log.decode(log.history(uploaded)[-1])
    assert (rejected.reason, rejected.detail, rejected.sha256) == (*REFUSAL.values(), FILE["sha256"])


def test_an_inspection_of_a_deleted_or_unknown_image_is_not_recorded(log, uploaded):
    images.delete(uploaded, command=command(ADA), log=log)
    for image_id in (uploaded, uuid4()):
        assert image_inspection.uninspected(image_id, log=log) is None
        assert not image_inspection.accept(image_id, INSPECTION, command=command(SYSTEM), log=log)


def test_an_image_that_is_described_during_its_inspection_is_inspected_all_the_same(log, uploaded):
    append, changed = log.append, []

    def described_before(given, *events, **beside):
        if not changed:
            changed.append(images)
            images.describe(uploaded, filename="other.png", command=command(ADA), log=log)
        return append(given, *events, **beside)

    log.append = described_before
    assert image_inspection.reject(uploaded, **REFUSAL, command=command(SYSTEM), log=log)
    assert types(log, uploaded)[1:] == [ImageDescribed.__name__, ImageRejected.__name__]
