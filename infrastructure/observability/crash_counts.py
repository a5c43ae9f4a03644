"""Which processes end again and again: written by the supervisor into the data folder, read for readiness."""

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from infrastructure.atomic_files import write_atomically
from infrastructure.embedded.data_folder import run_folder

CRASH_WINDOW_SECONDS: Final = 60.0
CRASHES_OF_A_LOOP: Final = 3
"""So many ends within the window are no accident."""

Crashes = dict[str, list[float]]


def record_crash(file: Path, name: str, *, now: float | None = None) -> int:
    """Note that the process `name` ended by itself; how often it did so within the window. A file that cannot be written is left out."""
    at = time.time() if now is None else now
    crashes = _recent(file, at)
    crashes.setdefault(name, []).append(at)
    with suppress(OSError):
        write_atomically(file, [msgspec.json.encode(crashes)], durable=False)
    return len(crashes[name])


def crash_loops(file: Path, *, now: float | None = None) -> Mapping[str, int]:
    """The processes that end again and again, with the number of their ends within the window. Empty without a supervisor."""
    crashes = _recent(file, time.time() if now is None else now)
    return {name: len(times) for name, times in crashes.items() if len(times) >= CRASHES_OF_A_LOOP}


def crashes_file(data: Path) -> Path:
    return run_folder(data) / "crashes.json"


def _recent(file: Path, now: float) -> Crashes:
    try:
        known = msgspec.json.decode(file.read_bytes(), type=Crashes)
    except (OSError, msgspec.DecodeError):
        return {}
    return {name: kept for name, times in known.items() if (kept := [at for at in times if 0 <= now - at < CRASH_WINDOW_SECONDS])}
