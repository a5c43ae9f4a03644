"""Makes this process one of an older release, which does not know some event types or schema versions."""

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
