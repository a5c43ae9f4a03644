"""What the numbers of a network mean, by the kind of its output, and when they are no result."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrastructure.inference.packages.manifest_reader import parse_manifest
from infrastructure.inference.scoring import NotOfItsKind, interpret, picture_measures, result_labels
from tests.infrastructure.inference.packages.making import manifest

LABELS = ("alpha", "beta", "gamma")
PICTURE = {"contrast": 0.2, "focus": 0.5}


def described(kind, *, labels=LABELS, output=None, distance=False, **bioscope):
    document = manifest()
    document["outputs"][0]["postprocessing"] = []
    document["outputs"][0]["axes"][1]["channel_names"] = list(labels)
    del document["outputs"][0]["test_tensor"]
    rules = {"kind": kind, **(output or {})}
    if distance:
        document["outputs"].append({"id": "distance", "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["distance"]}]})
        rules["distance"] = "distance"
    return parse_manifest(document | {"config": {"bioscope": {"output": rules, **bioscope}}})


def interpreted(numbers, described_as, *, picture=PICTURE, distance=None):
    outputs = {"scores": np.asarray([numbers], np.float32)}
    if distance is not None:
        outputs["distance"] = np.asarray([[distance]], np.float32)
    return interpret(outputs, described_as, picture=picture)


COUNT = described("regression", labels=["cells"], output={"range": [0, 200]})
SEVERAL = described("multi_label", output={"threshold": 0.5})
PROBABILITIES = described("softmax")


def test_probabilities_stay_as_they_are():
    found = interpreted([0.1, 0.7, 0.2], PROBABILITIES)
    assert (found.label, found.value) == ("beta", None)
    assert found.confidence == max(found.scores) == pytest.approx(0.7)
    assert "energy" not in found.signals


def test_logits_become_probabilities_at_the_temperature_of_the_manifest():
    logits = [1.0, 3.0, 2.0]
    cold, warm = interpreted(logits, described("logits")), interpreted(logits, described("logits", temperature=4.0))
    assert cold.scores == pytest.approx(np.exp(logits) / np.exp(logits).sum())
    assert warm.scores == pytest.approx(np.exp(np.array(logits) / 4) / np.exp(np.array(logits) / 4).sum())
    assert cold.label == warm.label == "beta"
    assert cold.signals["energy"] == warm.signals["energy"] == pytest.approx(np.log(np.exp(logits).sum()))


def test_the_label_that_applies_most_is_the_label():
    found = interpreted([0.6, 0.9, 0.1], SEVERAL)
    assert (found.label, found.confidence) == ("beta", pytest.approx(0.9))
    assert found.scores == pytest.approx((0.6, 0.9, 0.1, 0.1))


def test_where_none_applies_the_label_says_so_with_its_own_confidence():
    found = interpreted([0.3, 0.2, 0.1], SEVERAL)
    assert (found.label, found.confidence) == ("none", pytest.approx(0.7))
    assert found.scores[-1] == found.confidence
    assert result_labels(SEVERAL) == (*LABELS, "none")


@given(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), st.floats(0, 1))
def test_a_result_of_several_labels_is_always_one_of_its_labels(scores, threshold):
    rules = described("multi_label", output={"threshold": threshold})
    found = interpreted(scores, rules)
    labels = result_labels(rules)
    assert len(found.scores) == len(labels)
    assert found.confidence == found.scores[labels.index(found.label)]
    assert (found.label == "none") == (round(max(scores), 6) < threshold)
    assert all(0 <= score <= 1 for score in found.scores)


def test_a_number_lies_somewhere_in_its_range_and_claims_no_certainty():
    found = interpreted([50.0], COUNT)
    assert (found.label, found.confidence, found.scores, found.value) == ("cells", 0.0, (0.25,), 50.0)
    assert interpreted([0.0], COUNT).scores == (0.0,)
    assert interpreted([200.0], COUNT).scores == (1.0,)


def limited(low, high):
    return described("regression", labels=["cells"], output={"range": [low, high]})


@given(st.floats(-1e30, 1e30), st.floats(-1e30, 1e30))
def test_a_number_at_a_bound_is_a_result_though_float32_rounds_it(one, other):
    low, high = sorted((one, other))
    if np.float32(low) == np.float32(high):
        return
    assert interpreted([low], limited(low, high)).value == pytest.approx(low, rel=1e-6, abs=1e-40)
    assert interpreted([high], limited(low, high)).value <= high


def test_a_number_that_float32_rounds_beyond_a_bound_becomes_the_bound():
    assert float(np.float32(0.1)) > 0.1
    found = interpreted([0.1], limited(0.0, 0.1))
    assert (found.value, found.scores) == (0.1, (1.0,))
    assert interpreted([-0.1], limited(-0.1, 0.0)).scores == (0.0,)
    with pytest.raises(NotOfItsKind, match=r"a result lies between 0 and 0\.1"):
        interpreted([np.nextafter(np.float32(0.1), np.float32(1))], limited(0.0, 0.1))


@pytest.mark.parametrize(
    ("numbers", "rules", "said"),
    [
        ([0.5, 0.5, 0.2], PROBABILITIES, "add up to 1.2 instead of 1"),
        ([0.5, 0.7, -0.2], PROBABILITIES, "below 0 or above 1"),
        ([0.5, 0.5], PROBABILITIES, "2 numbers for 3 labels"),
        ([np.nan, 0.5, 0.5], PROBABILITIES, "not finite"),
        ([np.inf, 0.5, 0.5], described("logits"), "not finite"),
        ([0.5, 1.1, 0.5], SEVERAL, "below 0 or above 1"),
        ([-0.1, 0.1, 0.5], SEVERAL, "below 0 or above 1"),
        ([200.1], COUNT, "gives 200.1; a result lies between 0 and 200"),
        ([-1.0], COUNT, "gives -1"),
        ([np.nan], COUNT, "not finite"),
    ],
)
def test_numbers_that_are_no_result_of_their_kind_are_none(numbers, rules, said):
    with pytest.raises(NotOfItsKind, match=said):
        interpreted(numbers, rules)


def test_the_rounding_of_a_network_is_no_lie():
    """Of a softmax in single precision."""
    assert interpreted([1.0 + 2e-7, -1e-8, 0.0], PROBABILITIES).scores == (1.0, 0.0, 0.0)
    assert interpreted([0.33333, 0.33333, 0.33333], PROBABILITIES).label == "alpha"


def test_gates_judge_picture_distance_and_energy():
    rules = described("logits", distance=True, gates={"contrast_above": 0.1, "distance_below": 2.0, "energy_above": 1.0})
    assert interpreted([1.0, 3.0, 2.0], rules, distance=1.0).reasons == ()
    assert interpreted([1.0, 3.0, 2.0], rules, distance=3.0).reasons == ("distance too high",)
    assert interpreted([-9.0, -9.0, -9.0], rules, distance=1.0).reasons == ("energy too low",)
    assert interpreted([1.0, 3.0, 2.0], rules, distance=1.0, picture={"contrast": 0.01}).reasons == ("contrast too low",)


@pytest.mark.parametrize("distance", [np.nan, np.inf])
def test_a_distance_that_is_no_number_is_no_result(distance):
    with pytest.raises(NotOfItsKind, match="distance that is not finite"):
        interpreted([1.0, 3.0, 2.0], described("logits", distance=True), distance=distance)


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 9, 3), (1, 64, 3)])
def test_a_picture_too_small_for_edges_is_out_of_focus(shape):
    assert picture_measures(np.random.default_rng(1).random(shape, np.float32))["focus"] == 0.0
