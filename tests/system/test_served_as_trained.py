"""Every `val` picture through HTTP: the scores are those of the training code."""

import pytest

from infrastructure.inference.models.bundled import models
from tests.training.val_pictures import val_pictures
from training.evaluate import stored
from training.over_http import compared
from training.sets import digest_of


@pytest.mark.long
@pytest.mark.parametrize("model", ["pbc8", "bccd3"])
def test_what_is_served_is_what_was_evaluated(model, admin):
    pictures, metrics = val_pictures(model), stored(models() / model)["sets"]["val"]
    assert digest_of(pictures) == metrics["sha256"]
    found = compared(admin, models() / model, pictures)
    assert found.faults == []
    assert found.pictures == metrics["pictures"]
