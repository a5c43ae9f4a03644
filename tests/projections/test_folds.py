"""Folds of read models without a database: total, and independent of the batches."""

import unicodedata
from uuid import uuid4

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from domain.classification import ChunkJudged, ClassificationCancelled, ClassificationDeleted, ClassificationRequested
from domain.image import ImageDescribed, ImageUploaded
from domain.model import ModelPromoterAdded, ModelPromoterRemoved, ModelVersionAdded, Version
from domain.model_check import ModelCheckFailed, ModelCheckPassed, ModelPackageUploaded, ModelTestRequested
from domain.registry import EVENTS, NOUN_OF
from domain.user import UserErased, UserProfileChanged, UserRegistered
from domain.values import model_id
from projections import classifications, images, users
from projections.engine.batches import TABLES
from projections.engine.projection import PositionedEvent, event_steps, fold_batch, needed_rows
from tests.given import NOW
from tests.rigs.scenario import REPORT
from tests.strategies import events

BY_NAME = {table.name: table for table in TABLES}
HISTORIES = st.lists(events(), max_size=25).map(lambda found: [PositionedEvent(number, event) for number, event in enumerate(found, 1)])


def apply(state, batch, *, tables=TABLES):
    """The read models in memory, as the projector treats them."""
    taken = event_steps(tables, batch)
    loaded = {name: {key: state[name][key] for key in keys if key in state[name]} for name, keys in needed_rows(taken).items()}
    for table, upserts, deletes in fold_batch(taken, loaded):
        rows = state[table.name]
        for row in upserts:
            rows[key_of(table, row)] = row
        for key in deletes:
            rows.pop(key, None)
    return state


def key_of(table, row):
    columns = tuple(getattr(row, name) for name in table.key)
    return columns[0] if len(columns) == 1 else columns


def empty():
    return {table.name: {} for table in TABLES}


@given(HISTORIES)
def test_folds_take_every_event_whatever_came_before(history):
    state = apply(empty(), history)
    assert len(state["activity"]) == len(history)


@given(events(), HISTORIES)
def test_every_row_survives_json(event, history):
    for name, rows in apply(empty(), [*history, PositionedEvent(999, event)]).items():
        kept = list(rows.values())
        assert msgspec.json.decode(msgspec.json.encode(kept), type=list[BY_NAME[name].row]) == kept


@pytest.mark.parametrize("kind", EVENTS.values(), ids=lambda kind: kind.__name__)
def test_every_event_type_leaves_a_trace(kind):
    @given(events(kind))
    def check(event):
        assert apply(empty(), [PositionedEvent(1, event)])["activity"][1].type == kind.__name__

    check()


VERSIONED = {NOUN_OF[table.kinds[0].__name__]: table for table in TABLES if "version" in table.row.__struct_fields__}
"""By noun, the tables whose rows show the version of their stream. It is the ETag."""
OF_STREAMS = [(noun, EVENTS[name]) for name, noun in NOUN_OF.items() if noun in VERSIONED and EVENTS[name] is not ChunkJudged]


def test_a_table_that_shows_versions_reads_every_event_of_its_noun():
    """Otherwise a stream gets a version that queries never show, and a change with If-Match is refused for ever."""
    assert VERSIONED.keys() <= set(NOUN_OF.values())
    assert len(VERSIONED) > 5
    for noun, table in VERSIONED.items():
        missing = [name for name, of in NOUN_OF.items() if of == noun and EVENTS[name] not in table.kinds]
        assert missing == [], f"add these to `kinds` of the table {table.name}"


@pytest.mark.parametrize(("noun", "kind"), OF_STREAMS, ids=lambda one: getattr(one, "__name__", one))
@given(data=st.data())
def test_a_row_shows_the_version_of_the_newest_event_of_its_stream(noun, kind, data):
    first = next(EVENTS[name] for name, of in NOUN_OF.items() if of == noun)
    begun = data.draw(events(first))
    event = msgspec.structs.replace(data.draw(events(kind)), originator_id=begun.originator_id, originator_version=2)
    history = [PositionedEvent(1, msgspec.structs.replace(begun, originator_version=1)), PositionedEvent(2, event)]
    table = VERSIONED[noun]
    row = apply(empty(), history, tables=(table,))[table.name].get(begun.originator_id)
    assert row is None or row.version == 2


@given(events(UserRegistered), st.lists(events(UserProfileChanged), max_size=3), events(UserErased))
def test_an_erased_user_keeps_no_private_text(registered, changes, erased):
    row = None
    for number, event in enumerate([registered, *changes, erased], 1):
        row = users.fold(event.originator_id, row, PositionedEvent(number, event), lambda *_: None)
    kept = {getattr(row, name) for name in users.PRIVATE}
    assert "[erased]" in kept
    assert kept <= {"[erased]", None}
    assert row.deleted


@given(events(ClassificationRequested), events(ImageUploaded), events(ChunkJudged))
def test_a_chunk_is_found_by_every_image_that_it_judged(requested, uploaded, judged):
    history = [PositionedEvent(number, event) for number, event in enumerate([requested, uploaded, judged], 1)]
    found = apply(empty(), history)["activity"][3]
    assert {judged.job_id, judged.dataset_id, *(one.image_id for one in judged.results)} <= set(found.subjects)


@given(events(ModelPackageUploaded, ModelTestRequested), events(ModelCheckPassed, ModelCheckFailed))
def test_a_check_concerns_the_account_that_asked_for_it(asked, answered):
    assume(asked.by not in {asked.originator_id, getattr(asked, "model_id", None), answered.model_id})
    answered = msgspec.structs.replace(answered, originator_id=asked.originator_id, originator_version=2)
    history = [PositionedEvent(number, event) for number, event in enumerate([asked, answered], 1)]
    found = apply(empty(), history)["activity"]
    assert found[1].subjects[-1] == found[2].subjects[-1] == asked.by


@given(events(ModelPromoterAdded, ModelPromoterRemoved))
def test_a_change_of_a_promoter_concerns_the_account(changed):
    assume(changed.user_id != changed.originator_id)
    assert apply(empty(), [PositionedEvent(1, changed)])["activity"][1].subjects == (changed.originator_id, changed.user_id)


@given(events(ClassificationRequested), events(ChunkJudged), events(ClassificationCancelled, ClassificationDeleted))
def test_a_chunk_that_waited_behind_a_dead_letter_gives_the_same_late_as_in_its_turn(requested, judged, ended):
    def row_after(*history):
        row = None
        for number, event in enumerate(history, 1):
            row = classifications.fold(requested.originator_id, row, PositionedEvent(number, event), lambda *_: None)
        return row

    assert row_after(requested, judged, ended) == row_after(requested, ended, judged)


@given(events(ImageUploaded), events(ImageDescribed), st.sampled_from(["Gro\u0308\u00dfe", "\u212b", "e\u0301"]))
def test_file_names_are_searched_in_nfc_whatever_form_was_stored(uploaded, described, name):
    row = None
    for event in (msgspec.structs.replace(uploaded, filename=name), described, msgspec.structs.replace(described, filename=name)):
        row = images.fold(event.originator_id, row, PositionedEvent(1, event), lambda *_: None)
        assert unicodedata.is_normalized("NFC", row.filename)
    assert row.filename == unicodedata.normalize("NFC", name)


@given(HISTORIES, st.data())
def test_a_batch_loads_no_row_that_it_begins_itself(history, data):
    begun = {happened.event.originator_id for happened in history[:1] if happened.event.originator_version == 1}
    assert all(begun.isdisjoint(keys) for keys in needed_rows(event_steps(TABLES, history[:1])).values())


# ---- the checks of a model's versions ----------------------------------------------------------------------------------------------
PACKAGE, ZIPPED_AGAIN = "a" * 64, "b" * 64
ELSEWHERE = msgspec.structs.replace(REPORT, environment=msgspec.structs.replace(REPORT.environment, cpu="another"))


def checks_shown(*answers):
    """The checks of a version, after one upload for each answer: of a package, with a report, or without as a failure that ran nothing."""
    about = {"labels": ("round",), "review_below": 0.5, "record": "{}", "digest": "d" * 64, "package": PACKAGE}
    version = Version(number=1, sha256="c" * 64, size=9, **about)
    model = {"originator_id": model_id("cells"), "by": uuid4(), "at": NOW}
    history = [ModelVersionAdded(**model, originator_version=1, name="cells", description="", version=version, check_id=uuid4())]
    for package, report in answers:
        check = {"originator_id": uuid4(), "by": uuid4(), "at": NOW}
        of = {"model_id": model_id("cells"), "number": 1}
        history.append(ModelTestRequested(**check, originator_version=1, **of, model_name="cells", sha256=package))
        if report is None:
            history.append(ModelCheckFailed(**check, originator_version=2, **of, code="worker_lost", detail="Every worker was lost"))
        else:
            history.append(ModelCheckPassed(**check, originator_version=2, **of, model_name="cells", report=report))
    rows = apply(empty(), [PositionedEvent(number, event) for number, event in enumerate(history, 1)])["models"]
    return [check.report or check.code for check in rows[model_id("cells")].versions[0].checks]


def test_a_version_shows_its_newest_check_of_each_environment():
    again = msgspec.structs.replace(REPORT, run_seconds=9.0)
    assert checks_shown((PACKAGE, REPORT), (PACKAGE, ELSEWHERE), (PACKAGE, again)) == [ELSEWHERE, again]


def test_a_version_shows_no_check_of_another_package():
    assert checks_shown((ZIPPED_AGAIN, REPORT)) == []
    assert checks_shown((PACKAGE, REPORT), (ZIPPED_AGAIN, ELSEWHERE), (ZIPPED_AGAIN, None)) == [REPORT]


def test_a_failure_that_ran_nothing_is_shown_until_the_next_answer():
    assert checks_shown((PACKAGE, REPORT), (PACKAGE, None)) == [REPORT, "worker_lost"]
    assert checks_shown((PACKAGE, None), (PACKAGE, None)) == ["worker_lost"]
    assert checks_shown((PACKAGE, REPORT), (PACKAGE, None), (PACKAGE, ELSEWHERE)) == [REPORT, ELSEWHERE]
