"""The records that are exchanged with external classifiers: what is sent, and which answers are refused with which reason."""

import json
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrastructure.bridge.messages import MAX_ANSWER_BYTES, RefusedAnswer, read_answer, request_for, require_fitting

JOB, IMAGE = UUID(int=1), UUID(int=2)
GOOD = {"classification_id": str(JOB), "image_id": str(IMAGE), "model_name": "cells", "label": "round", "confidence": 0.75}


def answer(**changed):
    return json.dumps(GOOD | changed).encode()


@pytest.mark.parametrize("dataset", [None, uuid4()])
def test_a_request_has_four_keys_whatever_is_known(dataset):
    request = request_for(IMAGE, job=JOB, dataset=dataset, model_name="Zelle ü")
    expected = {"classification_id": str(JOB), "dataset_id": dataset and str(dataset), "image_id": str(IMAGE), "model_name": "Zelle ü"}
    assert json.loads(request.value.decode("utf-8")) == expected
    assert request.key == str(IMAGE).encode()


@pytest.mark.parametrize("changed", [{}, {"model_name": None}, {"confidence": 1}, {"confidence": 0}, {"status": "done", "all": [1, {}]}])
def test_a_good_answer_is_read_and_what_else_it_says_is_ignored(changed):
    read = read_answer(answer(**changed))
    assert (read.classification_id, read.image_id, read.label) == (JOB, IMAGE, "round")
    assert 0 <= read.confidence <= 1


def test_the_model_name_may_be_missing():
    assert read_answer(json.dumps({key: value for key, value in GOOD.items() if key != "model_name"}).encode()).model_name is None


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        answer()[:-1],
        answer(classification_id=None),
        answer(classification_id="1"),
        answer(image_id=None),
        answer(image_id=7),
        answer(label=None),
        answer(label=["round"]),
        answer(confidence=None),
        answer(confidence="0.75"),
        answer(confidence=True),
        answer(confidence=1.0001),
        answer(confidence=-0.0001),
        answer(confidence=float("nan")),
        answer(confidence=float("inf")),
        answer().replace(b"0.75", b"1e999"),
        answer(model_name=7),
        answer(padding="x" * MAX_ANSWER_BYTES),
        b"[" * (MAX_ANSWER_BYTES - 1),
        b'{"a":' * 3000,
    ],
)
def test_what_is_no_answer_is_refused_with_a_reason(value):
    with pytest.raises(RefusedAnswer, match="record"):
        read_answer(value)


def test_an_answer_has_less_than_16_kib():
    padding = MAX_ANSWER_BYTES - len(answer(padding="")) - 1
    assert read_answer(answer(padding="x" * padding)).label == "round"
    with pytest.raises(RefusedAnswer, match=r"16,384 bytes"):
        read_answer(answer(padding="x" * (padding + 1)))


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(value):
    with pytest.raises(RefusedAnswer, match="the record"):
        read_answer(value)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"label": "oval"}, "label"),
        ({"label": "ROUND"}, "label"),
        ({"model_name": "bones"}, "model_name"),
        ({"model_name": ""}, "model_name"),
    ],
)
def test_an_answer_of_another_model_or_with_a_label_of_its_own_is_refused(changed, reason):
    with pytest.raises(RefusedAnswer, match=reason):
        require_fitting(read_answer(answer(**changed)), model_name="cells", labels=("round", "flat"))


@pytest.mark.parametrize("changed", [{}, {"model_name": None}, {"label": "flat"}])
def test_an_answer_with_a_declared_label_fits(changed):
    assert require_fitting(read_answer(answer(**changed)), model_name="cells", labels=("round", "flat")) is None
