"""Properties of `evolve` for every noun."""

from importlib import import_module
from pkgutil import walk_packages

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import domain
from domain.events import Event, State
from domain.registry import EVENTS, NOUN_OF, NOUNS
from tests.given import state_after
from tests.strategies import events

BY_NOUN = {noun: [EVENTS[name] for name, of in NOUN_OF.items() if of == noun] for noun in NOUNS}


@settings(max_examples=300)
@given(st.lists(events(), max_size=8))
def test_every_fold_is_total(history):
    """Any events in any order fold without an error, foreign ones too."""
    for noun in NOUNS.values():
        state = state_after(noun.evolve, history)
        assert state is None or isinstance(state, State)


@pytest.mark.parametrize("noun", NOUNS)
@given(data=st.data())
def test_a_replay_from_any_cut_equals_the_replay_from_zero(noun, data):
    history = data.draw(st.lists(events(*BY_NOUN[noun]), max_size=10))
    cut = data.draw(st.integers(0, len(history)))
    state = state_after(NOUNS[noun].evolve, history[:cut])
    for event in history[cut:]:
        state = NOUNS[noun].evolve(state, event)
    assert state == state_after(NOUNS[noun].evolve, history)


@pytest.mark.parametrize("noun", NOUNS)
@given(data=st.data())
def test_a_state_knows_the_version_of_its_newest_event(noun, data):
    history = data.draw(st.lists(events(*BY_NOUN[noun]), min_size=1, max_size=6))
    state = state_after(NOUNS[noun].evolve, history)
    assert state is None or state.version == history[-1].originator_version


def test_every_event_that_is_defined_belongs_to_one_noun():
    for module in walk_packages(domain.__path__, "domain."):
        import_module(module.name)
    defined = [kind.__name__ for kind in Event.__subclasses__() if kind.__module__.startswith("domain.")]
    assert sorted(NOUN_OF) == sorted(defined), "add the module of the event to NOUNS in domain/registry.py"
    assert all(BY_NOUN.values())
