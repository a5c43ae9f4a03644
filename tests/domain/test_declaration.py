"""Declarations of external classifiers."""

from hashlib import sha256
from uuid import uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import declaration, model
from domain.declaration import Declaration, declare, violation_of
from domain.errors import Conflict, Invalid
from domain.model import MAX_LABELS, OutputKind
from domain.values import MAX_LABEL, model_id
from tests.given import NOW

ME = uuid4()
VESICLES = {"name": "vesicles", "description": "", "labels": ("round", "flat"), "label_texts": {"flat": "Flat ones"}, "review_below": 0.6}


def added(**changes):
    version = declare(**VESICLES).version
    about = {"name": "vesicles", "description": "", "version": version, "alias": "candidate", "by": ME, "at": NOW}
    event, _ = model.add_version(model_id("vesicles"), None, **about)
    fields = {name: changes.pop(name) for name in ("name", "description") if name in changes}
    return msgspec.structs.replace(event, **fields, version=msgspec.structs.replace(event.version, **changes))


def test_a_version_says_that_its_weights_are_unknown_and_its_sha256_is_that_of_the_declaration():
    version = declare(**VESICLES).version
    assert (version.kind, version.package, version.size, version.is_external) == (OutputKind.EXTERNAL, "", 0, True)
    assert version.sha256 == version.digest == sha256(version.record.encode()).hexdigest()
    assert msgspec.json.decode(version.record)["weights"] == "unknown"
    with pytest.raises(Conflict, match="Version 1 is an external classifier: it has no file"):
        _ = version.file


@given(st.permutations(["round", "flat", "other"]))
def test_the_order_of_labels_matters_and_that_of_their_texts_does_not(labels):
    texts = {label: label.title() for label in labels}
    about = VESICLES | {"labels": tuple(labels), "label_texts": texts}
    same = about | {"label_texts": dict(sorted(texts.items()))}
    assert declare(**about).version == declare(**same).version
    digests = {declare(**about | {"labels": order}).version.digest for order in (tuple(labels), tuple(reversed(labels)))}
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("field", "wrong", "said"),
    [
        ("name", "Vesicles", "must be 1 to 64 of a-z"),
        ("name", "vesicles@2", "must be 1 to 64 of a-z"),
        ("name", "a" * 65, "must be 1 to 64 of a-z"),
        ("name", str(model_id("vesicles")), "not look like an id"),
        ("labels", (), "must be 1 to 300 different names"),
        ("labels", ("round", "round"), "must be 1 to 300 different names"),
        ("labels", tuple(map(str, range(MAX_LABELS + 1))), "must be 1 to 300 different names"),
        ("labels", (" round",), "must be printable"),
        ("labels", ("ro\tund",), "must be one line without tabs"),
        ("labels", ("ro\u200bund",), "must not contain invisible characters"),
        ("labels", ("e\u0301",), "must be printable, in Unicode NFC form"),
        ("labels", ("a\x00",), "must not contain control characters"),
        ("labels", ("",), "must have 1 to 100 characters"),
        ("labels", ("a" * (MAX_LABEL + 1),), "must have 1 to 100 characters"),
        ("label_texts", {"square": "Square ones"}, "must name labels only: square is none"),
        ("label_texts", {"flat": ""}, "must have 1 to 200 characters"),
        ("review_below", 1.1, "must lie between 0 and 1"),
        ("review_below", float("nan"), "must lie between 0 and 1"),
        ("description", "a" * 4001, "must have 0 to 4000 characters"),
    ],
)
def test_a_declaration_that_breaks_a_rule_is_refused(field, wrong, said):
    with pytest.raises(Invalid, match=said) as refused:
        declare(**VESICLES | {field: wrong})
    assert refused.value.errors[0]["loc"] == ["body", field]


def test_as_many_labels_as_a_version_may_have_are_taken():
    assert len(declare(**VESICLES | {"labels": tuple(map(str, range(MAX_LABELS))), "label_texts": {}}).labels) == MAX_LABELS


def test_a_version_as_it_was_declared_breaks_no_rule():
    assert violation_of(added()) is None
    assert model.violation_of(added(), None) is None


def forged(**changes):
    """A record that was changed, with the digest that belongs to it."""
    fields = msgspec.to_builtins(declare(**VESICLES)) | changes
    record = msgspec.json.encode(fields, order="sorted").decode()
    digest = sha256(record.encode()).hexdigest()
    return {"record": record, "sha256": digest, "digest": digest}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"package": "ab" * 32}, "an external version has no file"),
        ({"size": 1}, "an external version has no file"),
        ({"sha256": "ab" * 32}, "the digest is not that of the declaration"),
        ({"digest": "ab" * 32}, "the digest is not that of the declaration"),
        ({"record": "{}"}, "the digest is not that of the declaration"),
        ({"labels": ("flat", "round")}, "the version differs from its declaration"),
        ({"review_below": 0.1}, "the version differs from its declaration"),
        ({"release": "2"}, "the version differs from its declaration"),
        ({"name": "others"}, "the version differs from its declaration"),
        ({"description": "Others"}, "the version differs from its declaration"),
        (forged(weights="known"), "the record is not a declaration"),
        (forged(network="resnet"), "the record is not a declaration"),
        (forged(labels=["square"]), "the version differs from its declaration"),
    ],
)
def test_a_version_that_differs_from_its_declaration_breaks_a_rule(changed, said):
    assert violation_of(added(**changed)) == said


def test_a_record_with_other_whitespace_is_not_that_of_the_declaration():
    record = msgspec.json.format(declare(**VESICLES).version.record.encode()).decode()
    digest = sha256(record.encode()).hexdigest()
    assert violation_of(added(record=record, sha256=digest, digest=digest)) == "the version differs from its declaration"


def test_a_package_that_passed_a_check_is_not_external():
    assert model.violation_of(msgspec.structs.replace(added(), check_id=uuid4()), None) == "no package is an external classifier"


def test_the_record_can_be_read_as_a_declaration():
    assert msgspec.json.decode(declare(**VESICLES).version.record, type=Declaration) == declare(**VESICLES)
    assert declare(**VESICLES).weights == declaration.UNKNOWN


def test_the_person_who_declared_a_version_is_the_one_who_added_it():
    assert added().addition.by == ME
