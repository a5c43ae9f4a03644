"""Given these events, when this is asked, then that happens."""

import unicodedata
from pathlib import PurePosixPath, PureWindowsPath
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import classification, dataset, device, image, model, session, user, values
from domain.access import Actor, Grant, Role, require_grant, require_role
from domain.classification import MAX_CHUNK_IMAGES, MAX_PART_IMAGES, JobStatus, PlannedImage, Verdict
from domain.errors import Conflict, Forbidden, Invalid, NotFound
from tests.given import LATER, NOW, state_after

ME, OTHER = uuid4(), uuid4()
NAMES = {"email": "ada@example.org", "username": "ada", "first_name": "Ada", "last_name": "Byron"}


def a_user():
    return user.evolve(None, user.register(ME, **NAMES, by=ME, at=NOW))


def a_dataset():
    return dataset.evolve(None, dataset.create(uuid4(), name="cells", description=None, by=ME, at=NOW))


def a_job(images=None):
    asked = classification.request(
        uuid4(),
        dataset=uuid4(),
        image=images,
        model_id=uuid4(),
        model_name="pbc8",
        model_version=1,
        model_sha256="ab",
        threshold=0.5,
        by=ME,
        at=NOW,
    )
    return state_after(classification.evolve, asked), asked


def pictures(count):
    return [PlannedImage(uuid4(), f"{number:064x}") for number in range(count)]


def test_a_fresh_registration_is_an_active_viewer():
    registered = user.register(ME, **NAMES, by=ME, at=NOW)
    assert (registered.role, registered.status) == (Role.VIEWER, user.Status.ACTIVE)


@pytest.mark.parametrize(
    "address", ["", "ada", "ada@", "@example.org", "a b@example.org", "ada@example", "x" * 95 + "@ab.cd", "a\x00@b.cd"]
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(Invalid):
        values.email(address)


@given(st.text())
def test_a_kept_text_is_normal_and_within_its_bounds(value):
    try:
        kept = values.text(value, name="name", maximum=40)
    except Invalid:
        return
    assert 1 <= len(kept) <= 40
    assert values.text(kept, name="name", maximum=40) == kept


def test_a_profile_change_says_only_what_is_new():
    changed = user.change_profile(a_user(), {"first_name": "Ada", "phone": "123"}, by=ME, at=LATER)
    assert [(event.phone, event.originator_version) for event in changed] == [("123", 2)]
    assert user.change_profile(a_user(), {"first_name": "Ada"}, by=ME, at=LATER) == []


def test_nobody_deletes_their_own_account():
    with pytest.raises(Conflict):
        user.delete(a_user(), by=ME, at=LATER)


def test_a_second_revocation_says_nothing():
    started = session.start(uuid4(), user=ME, address="::1", agent="x", at=NOW)
    opened = session.evolve(None, started)
    closed = state_after(session.evolve, [started, *session.revoke(opened, session.Reason.LOGOUT, by=ME, at=NOW)])
    assert closed.revoked
    assert session.revoke(closed, session.Reason.LOGOUT, by=ME, at=LATER) == []
    assert session.detect_reuse(closed, address="::1", by=ME, at=LATER) == []


def test_reuse_is_recorded_and_revokes_at_once():
    opened = session.evolve(None, session.start(uuid4(), user=ME, address="::1", agent="x", at=NOW))
    seen = session.detect_reuse(opened, address="::2", by=ME, at=LATER)
    assert [(type(event).__name__, event.originator_version) for event in seen] == [("RefreshReuseDetected", 2), ("SessionRevoked", 3)]


def test_the_owner_keeps_the_right_to_a_dataset():
    for refused in (lambda: dataset.withdraw(a_dataset(), user=ME, by=ME, at=NOW), lambda: shared(ME), lambda: shared(OTHER, Grant.OWNER)):
        with pytest.raises(Conflict):
            refused()


def shared(whom, grant=Grant.VIEWER):
    return dataset.share(a_dataset(), user=whom, grant=grant, by=ME, at=NOW)


def test_a_share_can_be_given_and_withdrawn():
    mine = a_dataset()
    mine = state_after(dataset.evolve, [dataset.create(mine.id, name="x", description=None, by=ME, at=NOW), *shared(OTHER)])
    assert mine.grants == {ME: Grant.OWNER, OTHER: Grant.VIEWER}
    assert dataset.evolve(mine, *dataset.withdraw(mine, user=OTHER, by=ME, at=LATER)).grants == {ME: Grant.OWNER}


@given(st.sampled_from(Role), st.sampled_from(Role))
def test_a_role_includes_those_below_it(held, minimum):
    asker = Actor(id=ME, role=held)
    if held.level >= minimum.level:
        require_role(asker, minimum)
    else:
        with pytest.raises(Forbidden):
            require_role(asker, minimum)


@given(st.sampled_from(Role), st.sampled_from([None, *Grant]), st.sampled_from(Grant))
def test_a_grant_decides_and_a_foreign_dataset_looks_absent(role, held, minimum):
    asker, grants = Actor(id=ME, role=role), {} if held is None else {ME: held}
    if role is Role.ADMIN or (held is not None and held.level >= minimum.level):
        require_grant(asker, grants, minimum, what="Dataset")
    else:
        with pytest.raises(NotFound if held is None else Forbidden):
            require_grant(asker, grants, minimum, what="Dataset")


def test_a_service_is_no_administrator():
    with pytest.raises(Forbidden):
        require_role(Actor(id=ME, kind="service", scopes=frozenset({"events:read"})), Role.VIEWER)


def test_an_image_is_inspected_once():
    uploaded = image.upload(
        uuid4(),
        dataset=uuid4(),
        device=None,
        filename="a.png",
        sha256="00",
        size=1,
        media_type="image/png",
        width=1,
        height=1,
        by=ME,
        at=NOW,
    )
    fresh = image.evolve(None, uploaded)
    rejected = image.evolve(fresh, *image.reject(fresh, reason="truncated", detail="cut", by=ME, at=NOW))
    assert rejected.rejected == "truncated"
    assert image.reject(rejected, reason="other", detail="x", by=ME, at=LATER) == []


def version(sha256="aa"):
    return model.Version(number=0, sha256=sha256, size=1, labels=("a", "b"), review_below=0.5, record="{}")


def test_the_first_version_of_a_model_goes_into_production_and_a_later_one_becomes_the_candidate():
    name = values.model_id("pbc8")
    first = model.add_version(name, None, name="pbc8", description="", version=version(), by=ME, at=NOW)
    state = state_after(model.evolve, first)
    second = model.add_version(name, state, name="pbc8", description="", version=version("bb"), by=ME, at=LATER)
    both = state_after(model.evolve, [*first, *second])
    assert (both.production.sha256, both.numbered(both.aliases["candidate"]).sha256) == ("aa", "bb")
    assert model.add_version(name, state, name="pbc8", description="", version=version(), by=ME, at=LATER) == []


def test_a_job_over_one_image_is_planned_at_once():
    job, asked = a_job(pictures(1)[0])
    assert [type(event).__name__ for event in asked] == ["ClassificationRequested", "ClassificationPlanned"]
    assert (job.planned, job.chunks, job.images) == (True, 1, 1)


@given(st.integers(1, 3 * MAX_PART_IMAGES))
def test_a_plan_covers_every_image_once_in_parts_and_chunks(count):
    job, _ = a_job()
    images = pictures(count)
    parts = classification.plan(job, images, by=ME, at=LATER)
    assert [one for part in parts for one in part.images] == images
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert all(len(part.images) <= MAX_PART_IMAGES for part in parts)
    chunks = [len(chunk) for part in parts for chunk in classification.chunks_of(part.images)]
    assert sum(chunks) == count
    assert max(chunks) <= MAX_CHUNK_IMAGES
    assert state_after(classification.evolve, [_requested(job), *parts]).chunks == len(chunks)
    for part in parts[1:]:
        before = parts[: part.part]
        assert part.first_chunk == sum(len(classification.chunks_of(one.images)) for one in before)


def _requested(job):
    return classification.ClassificationRequested(
        originator_id=job.id,
        originator_version=1,
        at=NOW,
        by=ME,
        dataset_id=job.dataset_id,
        image_id=None,
        model_id=job.model_id,
        model_name=job.model_name,
        model_version=1,
        model_sha256="ab",
        threshold=0.5,
    )


def test_a_job_over_nothing_fails_with_a_reason():
    job, _ = a_job()
    (failed,) = classification.plan(job, [], by=ME, at=LATER)
    assert classification.evolve(job, failed).phase is JobStatus.FAILED
    assert "no image" in failed.reason


def test_a_job_in_which_nothing_succeeded_has_failed():
    job, _ = a_job(pictures(1)[0])
    assert classification.evolve(job, *classification.complete(job, succeeded=0, failed=1, by=ME, at=LATER)).phase is JobStatus.FAILED
    assert classification.evolve(job, *classification.complete(job, succeeded=1, failed=0, by=ME, at=LATER)).phase is JobStatus.COMPLETED


def test_an_ended_job_takes_no_other_end():
    job, _ = a_job(pictures(1)[0])
    ended = classification.evolve(job, classification.cancel(job, by=ME, at=LATER))
    assert classification.complete(ended, succeeded=1, failed=0, by=ME, at=LATER) == []
    with pytest.raises(Conflict):
        classification.cancel(ended, by=ME, at=LATER)


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_result_below_the_threshold_needs_review(confidence, threshold):
    verdict = classification.verdict_on(confidence, threshold=threshold, out_of_domain=False)
    assert (verdict is Verdict.CLEAR) == (confidence >= threshold)
    assert classification.verdict_on(confidence, threshold=threshold, out_of_domain=True) is Verdict.OUT_OF_DOMAIN


# ---- paths -------------------------------------------------------------------------------------------------------------------------
PARTS = st.sampled_from(
    ["A1", "img.tif", ".", "..", "...", "", " ", " a ", "C:", "C:x", "\\", "e\u0301", "\u202f", "\u200b", "\u202e", "\x00", "\n"]
)
PATHS = st.lists(PARTS | st.text(max_size=8), max_size=6).map("/".join) | st.text(max_size=600)


@given(PATHS)
def test_a_path_is_relative_and_stays_as_it_is_or_is_refused(path):
    try:
        kept = values.relative_path(path)
    except Invalid:
        return
    assert values.relative_path(kept) == kept
    assert unicodedata.is_normalized("NFC", kept)
    assert kept.isprintable()
    assert 1 <= len(kept) <= 512
    assert not PurePosixPath(kept).is_absolute()
    assert not PureWindowsPath(kept).is_absolute()
    assert not {"", ".", ".."} & set(kept.split("/"))
    assert "\\" not in kept


NO_PATHS = [
    "",
    "/",
    "/a.tif",
    "\\a.tif",
    "C:\\a.tif",
    "c:/a.tif",
    "./c:/a.tif",
    "../a.tif",
    "a/../b.tif",
    "a//b.tif",
    "a/",
    "a/...",
    "a\n.tif",
    "a\x7f.tif",
]


@pytest.mark.parametrize("path", [*NO_PATHS, "x" * 513, "a/" * 256 + "b"])
def test_a_path_that_is_absolute_or_leaves_the_folder_or_is_too_long_is_refused(path):
    with pytest.raises(Invalid, match="path must"):
        values.relative_path(path)


KEPT_PATHS = {
    "A1/img.tif": "A1/img.tif",
    "A1\\img.tif": "A1/img.tif",
    "./A1/./img.tif": "A1/img.tif",
    "t:10.tif": "t:10.tif",
    " A1 / b ": "A1/b",
}


@pytest.mark.parametrize(("path", "kept"), [*KEPT_PATHS.items(), ("x" * 512, "x" * 512)])
def test_a_path_is_kept_with_plain_slashes(path, kept):
    assert values.relative_path(path) == kept


def test_an_image_keeps_the_path_that_it_was_uploaded_with():
    about = {"dataset": uuid4(), "device": None, "sha256": "ab", "size": 1, "media_type": "image/png", "width": 1, "height": 1}
    with_path = image.upload(uuid4(), filename="img.tif", path="A1\\img.tif", **about, by=ME, at=NOW)
    assert image.evolve(None, with_path).path == "A1/img.tif"
    without = image.upload(uuid4(), filename="img.tif", **about, by=ME, at=NOW)
    assert image.evolve(None, without).path is None
    with pytest.raises(Invalid):
        image.upload(uuid4(), filename="img.tif", path="../img.tif", **about, by=ME, at=NOW)


def reported(*signs):
    """The types of the events of a device that is registered and then reports."""
    events = [device.register(uuid4(), name="Axio", hostname="scope", location=None, firmware_version=None, by=ME, at=NOW)]
    for online in signs:
        events += device.report(state_after(device.evolve, events), online=online, by=ME, at=LATER)
    return [type(event).__name__ for event in events[1:]]


@given(st.lists(st.booleans()))
def test_of_the_signs_of_life_of_a_device_only_changes_are_events(signs):
    changes = [now for before, now in zip([False, *signs], signs, strict=False) if before != now]
    assert reported(*signs) == ["DeviceCameOnline" if online else "DeviceWentOffline" for online in changes]
