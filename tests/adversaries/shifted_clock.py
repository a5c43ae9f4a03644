"""`python -m tests.adversaries.shifted_clock NAME`: what `bioscope NAME` does, by a clock that somebody sets.

The file `clock-NAME` in the working directory says by how many seconds it is wrong. It is read each time that somebody asks for the time,
so the clock of a process can be set while it runs. Only the time of day is wrong: what measures spans of time goes on, as on a machine
whose clock is set. Whoever imports this module has such a clock.
"""

import ctypes
import gc
import os
import sys
import time
from datetime import date, datetime, timedelta
from pathlib import Path

NAME = sys.argv[1]
right_time, right_now, right_utcnow = time.time, datetime.now, datetime.utcnow


def wrong_by():
    try:
        with Path(f"clock-{NAME}").open() as file:
            return float(file.read() or 0)
    except OSError:
        return 0.0


def wrong_time():
    return right_time() + wrong_by()


def wrong_now(cls, tz=None):
    return right_now(tz) + timedelta(seconds=wrong_by())


def replace_method(of, name, method):
    """Of a type in C, which cannot be changed otherwise: a class of our own in its place would be encoded by nobody."""
    gc.get_referents(of.__dict__)[0][name] = method
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(of))


time.time, time.time_ns = wrong_time, lambda: int(wrong_time() * 1e9)
replace_method(datetime, "now", classmethod(wrong_now))
replace_method(datetime, "utcnow", classmethod(lambda cls: wrong_now(cls, None)))
replace_method(date, "today", classmethod(lambda cls: wrong_now(cls).date()))


if __name__ == "__main__":
    from api.cli import main

    assert os.environ["TZ"] == "UTC", "what has no time zone is in UTC"
    main()
