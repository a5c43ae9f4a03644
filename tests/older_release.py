"""This process as one of an older release: it does not know some types of events, or their newest schema versions."""

from contextlib import contextmanager

import pytest

from domain.registry import EVENTS


@contextmanager
def without(*types):
    """While the block runs. The types keep their order, in which documents list them."""
    known = dict(EVENTS)
    for name in types:
        del EVENTS[name]
    try:
        yield
    finally:
        EVENTS.clear()
        EVENTS.update(known)


@contextmanager
def at_version(name, schema_version):
    """While the block runs, the type has another schema version."""
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(EVENTS[name], "schema_version", schema_version)
        yield
