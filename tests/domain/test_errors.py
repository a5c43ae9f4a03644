"""Errors travel between processes: each arrives as the same error, with the same fields."""

import copy
import inspect
import pickle
import re
from pathlib import Path
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

import api.pages.visits
import api.problems  # noqa: F401
import application.recheck.pixel_reader  # noqa: F401
import projections.rebuild.rebuilding  # noqa: F401
from domain.errors import DomainError, Taken

ROOT = Path(__file__).parents[2]
CLASS = re.compile(r"^class (?P<name>\w+)\((?P<bases>[^)]*)\):", re.MULTILINE)
PACKAGES = ("domain", "application", "infrastructure", "projections", "api")


def kinds(kind=DomainError):
    """All classes of errors of the product that are imported."""
    found = [kind] if kind.__module__.startswith(PACKAGES) else []
    return sorted({*found, *(one for child in kind.__subclasses__() for one in kinds(child))}, key=lambda it: it.__qualname__)


def errors_of(kind):
    """Errors of one class, made with all arguments that it takes."""
    types = get_type_hints(kind.__init__)
    return st.builds(kind, **{name: st.from_type(types[name]) for name in inspect.signature(kind).parameters})


def content(error):
    return type(error), error.args, str(error), vars(error)


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
@given(data=st.data(), protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_an_error_survives_pickling_and_copying(kind, data, protocol):
    error = data.draw(errors_of(kind))
    assert content(pickle.loads(pickle.dumps(error, protocol))) == content(error)
    assert content(copy.copy(error)) == content(error)


def test_a_note_survives_too():
    error = Taken("The address is taken", scope="email")
    error.add_note("while registering")
    restored = pickle.loads(pickle.dumps(error))
    assert (restored.scope, restored.__notes__) == ("email", ["while registering"])


def test_no_class_of_errors_is_missing_above():
    names = {kind.__name__ for kind in kinds()}
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    classes = [match for path in files for match in CLASS.finditer(path.read_text())]
    derived = {match["name"] for match in classes if names & set(re.split(r"\W+", match["bases"]))}
    assert derived | {DomainError.__name__} == names
