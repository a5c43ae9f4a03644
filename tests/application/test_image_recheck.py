"""Stored images are decoded again: what is corrected, what is listed, and what is left alone."""

from typing import NamedTuple
from uuid import uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.derivatives import of_file
from application.recheck.image_recheck import Change, require_complete
from application.recheck.outdated_results import MAX_SCORE_DIFFERENCE
from application.recheck.pixel_reader import DecoderFailed, UnreadableImage
from domain import image
from domain.classification import PlaneSelection
from domain.errors import Unavailable
from domain.values import ImageWarning, result_id
from tests.application.recheck_archive import NEW, OLD, SYSTEM, Archive
from tests.given import NOW
from tests.twins.read_models import MemoryDatabase

UNREADABLE = UnreadableImage("Save it uncompressed")


class Result(NamedTuple):
    """`now` is what the model answers for the pixels of today."""

    score: float
    version: int
    is_todays: bool


class File(NamedTuple):
    """One image of an archive: how it was inspected, what became of its file, what the reader of today makes of it."""

    before: str
    stored: str
    answer: object
    score_now: object
    results: list[Result]


inspections = st.builds(
    lambda width, warned: msgspec.structs.replace(NEW, width=width, warnings=(ImageWarning("values_scaled", "x"),) if warned else ()),
    st.integers(1, 9),
    st.booleans(),
)
scores = st.sampled_from([0.1, 0.9, 0.9 - 0.9 * MAX_SCORE_DIFFERENCE, 0.9 - 1.1 * MAX_SCORE_DIFFERENCE])
files = st.builds(
    File,
    st.sampled_from(["accepted", "rejected", "pending", "deleted"]),
    st.sampled_from(["whole", "whole", "lost", "damaged"]),
    st.one_of(inspections, st.just(UNREADABLE), st.just(DecoderFailed("The decoder crashed"))),
    st.one_of(scores, st.just(UNREADABLE), st.just(DecoderFailed("The decoder crashed"))),
    st.lists(st.builds(Result, scores, st.sampled_from([1, 2]), st.booleans()), max_size=3),
)


def archive_of(described, *, missing_model):
    archive, images = Archive(), []
    if missing_model:
        archive.reader.models_missing.add(2)
    for number, file in enumerate(described):
        data = f"file {number}".encode()
        make = {"accepted": archive.accepted, "rejected": archive.rejected, "pending": archive.uploaded, "deleted": archive.accepted}
        images.append(make[file.before](data))
        for result in file.results:
            preprocessing = f"digest {result.version}" if result.is_todays else "an earlier one"
            archive.result(images[-1], result.score, version=result.version, preprocessing=preprocessing)
        if file.before == "deleted":
            archive.delete(images[-1])
        if file.stored != "whole":
            {"lost": archive.lose, "damaged": archive.damage}[file.stored](images[-1])
        archive.reader.decoded[data], archive.reader.predicted[data] = file.answer, file.score_now
    return archive, images


@given(described=st.lists(files, max_size=5), missing_model=st.booleans())
def test_a_second_recheck_writes_nothing_and_finds_the_same(described, missing_model):
    archive, _ = archive_of(described, missing_model=missing_model)
    first = archive.recheck()
    head, pictures = archive.log.head(), dict(archive.blobs._derived)
    second = archive.recheck()
    assert (archive.log.head(), archive.blobs._derived) == (head, pictures)
    assert not any(one.changes or one.recorded or one.redrawn for one in second.values())
    assert {key: (one.outdated, one.not_checked) for key, one in second.items()} == {
        key: (one.outdated, one.not_checked) for key, one in first.items()
    }


@given(described=st.lists(files, max_size=5), batch=st.integers(1, 7))
def test_read_models_made_from_zero_are_those_that_followed(described, batch):
    archive, _ = archive_of(described, missing_model=False)
    archive.recheck()
    from_zero = MemoryDatabase()
    archive.follow(from_zero, batch=batch)
    assert from_zero.tables == archive.rows()


@given(described=st.lists(files, max_size=5), missing_model=st.booleans())
def test_a_dry_run_finds_the_same_and_writes_nothing(described, missing_model):
    archive, _ = archive_of(described, missing_model=missing_model)
    head = archive.log.head()
    planned = archive.recheck(dry_run=True)
    assert archive.log.head() == head
    assert archive.blobs._derived == {}
    done = archive.recheck()
    assert {key: msgspec.structs.replace(one, recorded=False) for key, one in done.items()} == planned


@given(described=st.lists(files, max_size=5), missing_model=st.booleans())
def test_exactly_the_results_whose_scores_differ_today_are_marked(described, missing_model):
    archive, images = archive_of(described, missing_model=missing_model)
    found = archive.recheck()
    expected = 0
    for image_id, file in zip(images, described, strict=True):
        is_read = file.before in {"accepted", "rejected"} and file.stored == "whole" and isinstance(file.answer, type(NEW))
        compared = [one for one in file.results if is_read and not one.is_todays and not (missing_model and one.version == 2)]
        if isinstance(file.score_now, float):
            other = sum(abs(one.score - file.score_now) > MAX_SCORE_DIFFERENCE for one in compared)
            assert len(found[image_id].outdated if image_id in found else ()) == other
            expected += other
    assert len(archive.outdated()) == expected


@given(described=st.lists(files, max_size=5))
def test_for_a_file_that_is_lost_or_damaged_nothing_is_written_and_it_is_reported(described):
    archive, images = archive_of(described, missing_model=False)
    before = [archive.state(one).version for one in images]
    found = archive.recheck()
    for image_id, version, file in zip(images, before, described, strict=True):
        if file.stored != "whole":
            state = archive.state(image_id)
            assert state.version == version
            assert not any(archive.blobs.get_derived(name) for name in of_file(state.sha256, NEW.reader))
            if file.before in {"accepted", "rejected"}:
                [missed] = found[image_id].not_checked
                assert missed.job is None
                assert "Restore it from a backup" in missed.detail


@given(described=st.lists(files, max_size=5))
def test_what_the_api_names_exists(described):
    """For each image that the recheck accepted there is a thumbnail under the name of its reader."""
    archive, _ = archive_of(described, missing_model=False)
    found = archive.recheck()
    for image_id in found:
        row = archive.rows()["images"][image_id]
        if row.reader == NEW.reader:
            thumbnail, _ = of_file(row.sha256, row.reader)
            assert archive.blobs.get_derived(thumbnail) == f"small {row.width}".encode()


# ---- one image -------------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def archive():
    return Archive()


def test_a_changed_field_is_listed_and_recorded(archive):
    cell = archive.accepted(b"cell")
    archive.reader.decoded[b"cell"] = msgspec.structs.replace(NEW, axes="ZYX", pixel_size_um=0.25)
    found = archive.recheck()[cell]
    assert found.changes == (
        Change(field="axes", before="YXS", after="ZYX"),
        Change(field="pixel_size_um", before="", after="0.25"),
    )
    row = archive.rows()["images"][cell]
    assert (row.axes, row.pixel_size_um, row.reader, row.version) == ("ZYX", 0.25, 2, 3)


def test_an_image_whose_facts_are_the_same_gets_new_pictures_and_no_line(archive):
    cell = archive.accepted(b"cell")
    found = archive.recheck()[cell]
    assert (found.changes, found.redrawn, found.recorded) == ((), True, True)
    assert archive.rows()["images"][cell].reader == 2


def test_a_rejected_image_that_can_be_read_now_is_accepted(archive):
    cell = archive.rejected(b"cell")
    [change] = archive.recheck()[cell].changes
    assert change == Change(field="status", before="rejected (unsupported_layout)", after="accepted")
    row = archive.rows()["images"][cell]
    assert (row.accepted, row.rejected, row.rejected_detail) == (True, None, None)


def test_a_result_from_other_pixels_is_listed_with_the_answer_of_today(archive):
    cell = archive.accepted(b"cell")
    job = archive.result(cell, 0.9)
    archive.reader.predicted[b"cell"] = 0.2
    [result] = archive.recheck()[cell].outdated
    assert (result.id, result.job, result.model_name, result.model_version) == (result_id(job, cell), job, "shapes", 1)
    assert (result.label, result.confidence, result.label_now, result.confidence_now) == ("round", 0.9, "flat", 0.8)
    assert archive.outdated() == {result.id}


def test_results_of_a_deleted_job_are_left_alone(archive):
    cell = archive.accepted(b"cell")
    archive.delete_job(archive.result(cell, 0.2))
    assert archive.recheck()[cell].outdated == ()


def test_the_model_is_run_once_for_all_results_of_a_version(archive):
    cell = archive.accepted(b"cell")
    for _ in range(5):
        archive.result(cell, 0.2)
    calls = []
    classify = archive.reader.classify
    archive.reader.classify = lambda data, version, planes: calls.append(version.number) or classify(data, version, planes)
    assert len(archive.recheck()[cell].outdated) == 5
    assert calls == [1]


def test_the_model_is_run_again_on_the_planes_that_a_job_has_chosen(archive):
    cell, chosen = archive.accepted(b"cell"), PlaneSelection(z=2, c=(0,))
    for planes in (None, chosen, chosen):
        archive.result(cell, 0.2, planes=planes)
    calls = []
    classify = archive.reader.classify
    archive.reader.classify = lambda data, version, planes: calls.append(planes) or classify(data, version, planes)
    assert len(archive.recheck()[cell].outdated) == 3
    assert calls == [None, chosen]


def test_a_model_that_is_missing_is_reported_and_its_results_are_found_once_it_is_back(archive):
    cell = archive.accepted(b"cell")
    job = archive.result(cell, 0.2)
    archive.reader.models_missing.add(1)
    found = archive.recheck()[cell]
    [missed] = found.not_checked
    assert (missed.job, found.outdated, found.recorded) == (job, (), True)
    assert missed.detail == "The file of model shapes version 1 is missing or damaged. Add the model again, then repeat this check"
    archive.reader.models_missing.clear()
    found = archive.recheck()[cell]
    assert ([one.job for one in found.outdated], found.not_checked, found.recorded) == ([job], (), True)
    assert archive.outdated() == {result_id(job, cell)}


def test_an_image_that_cannot_be_read_any_more_keeps_its_description_and_says_so(archive):
    cell = archive.accepted(b"cell")
    job = archive.result(cell, 0.9)
    archive.reader.decoded[b"cell"] = UNREADABLE
    found = archive.recheck()[cell]
    assert found.changes == (Change(field="warnings", before="", after="not_readable"),)
    assert [one.job for one in found.not_checked] == [job]
    row = archive.rows()["images"][cell]
    assert (row.accepted, row.reader, row.width) == (True, OLD.reader, OLD.width)
    [warning] = row.warnings
    assert warning.detail == (
        "The file can no longer be read; its metadata and pictures come from an earlier version. Save it uncompressed"
    )


def test_a_decoder_that_breaks_down_changes_nothing_and_is_reported(archive):
    cell = archive.accepted(b"cell")
    archive.reader.decoded[b"cell"] = DecoderFailed("The decoder crashed on this image")
    found = archive.recheck()[cell]
    assert (found.recorded, archive.state(cell).version) == (False, 2)
    assert [(one.job, one.detail) for one in found.not_checked] == [(None, "The decoder crashed on this image")]


# ---- at the same time as others -----------------------------------------------------------------------------------------------------
class Overtaken(Archive):
    """Whatever is decoded, somebody else changes the image before the answer is recorded."""

    meanwhile = staticmethod(lambda state: [])

    def recheck(self, **how):
        decode = self.reader.decode

        def overtaken(data):
            answer = decode(data)
            for one in list(self.rows()["images"]):
                for event in self.meanwhile(self.state(one)):
                    self.append(event)
            return answer

        self.reader.decode = overtaken
        try:
            return super().recheck(**how)
        finally:
            self.reader.decode = decode


def test_an_image_that_is_described_meanwhile_is_corrected_all_the_same():
    archive = Overtaken()
    cell = archive.accepted(b"cell")
    archive.meanwhile = lambda state: image.describe(state, filename="renamed.tif", by=SYSTEM.id, at=NOW)
    assert archive.recheck()[cell].recorded
    state = archive.state(cell)
    assert (state.filename, state.inspection.reader) == ("renamed.tif", 2)


def test_an_image_that_is_deleted_meanwhile_is_left_out():
    archive = Overtaken()
    cell = archive.accepted(b"cell")
    archive.meanwhile = lambda state: [] if state.deleted else [image.delete(state, by=SYSTEM.id, at=NOW)]
    assert archive.recheck() == {}
    assert archive.state(cell).inspection.reader == 1


def test_two_rechecks_of_an_image_at_once_are_one_command(archive):
    cell = archive.accepted(b"cell")
    archive.follow(archive.database)
    decode = archive.reader.decode

    def decode_after_the_other_recheck(data):
        archive.reader.decode = decode
        assert archive.a_recheck().check(cell).recorded
        return decode(data)

    archive.reader.decode = decode_after_the_other_recheck
    archive.a_recheck().check(cell)
    assert archive.state(cell).version == 3


def test_read_models_that_stay_behind_are_not_believed(archive):
    archive.accepted(b"cell")
    with pytest.raises(Unavailable, match="The read models lack some of the"):
        require_complete(archive.stored, archive.log, sleep=lambda _: None)


def test_read_models_that_lag_are_waited_for(archive):
    archive.accepted(b"cell")
    waited = []
    require_complete(archive.stored, archive.log, sleep=lambda seconds: (waited.append(seconds), archive.follow(archive.database)))
    assert len(waited) == 1
    assert archive.stored.are_complete(archive.log.head())


def test_an_image_that_nobody_knows_is_left_out(archive):
    assert archive.a_recheck().check(uuid4()) is None
