"""The garbage collector of processes that handle events by the million."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

GENERATION_THRESHOLD: Final = 200_000  # new containers that outlive others; some tens of megabytes at most


@contextmanager
def infrequent_collection() -> Iterator[None]:
    """Collect cycles a hundredth as often as usual, and do not look for them among what is here already.

    Events and rows hold no cycles and go when their batch goes. Looking for cycles among them took a third of the time of folding.
    """
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(GENERATION_THRESHOLD, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()
