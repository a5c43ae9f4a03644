"""Crash loops: the supervisor records crashes in the data folder, and readiness reports them."""

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from infrastructure.atomic_files import write_atomically
from infrastructure.configuration.paths import run_folder

CRASH_WINDOW_SECONDS: Final = 60.0
CRASHES_OF_A_LOOP: Final = 3
"""Number of crashes within the window that counts as a loop."""

Crashes = dict[str, list[float]]


def record_crash(file: Path, name: str, *, now: float | None = None) -> int:
    """Record the crash of a process; return its crashes within the window. A file that cannot be written is ignored."""
    at = time.time() if now is None else now
    crashes = _recent(file, at)
    crashes.setdefault(name, []).append(at)
    with suppress(OSError):
        write_atomically(file, [msgspec.json.encode(crashes)], durable=False)
    return len(crashes[name])


def crash_loops(file: Path, *, now: float | None = None) -> Mapping[str, int]:
    """The processes in a crash loop, each with its number of crashes within the window. Empty without a supervisor."""
    crashes = _recent(file, time.time() if now is None else now)
    return {name: len(times) for name, times in crashes.items() if len(times) >= CRASHES_OF_A_LOOP}


def crashes_file(data: Path) -> Path:
    return run_folder(data) / "crashes.json"


def _recent(file: Path, now: float) -> Crashes:
    try:
        crashes = msgspec.json.decode(file.read_bytes(), type=Crashes)
    except (OSError, msgspec.DecodeError):
        return {}
    return {name: recent for name, times in crashes.items() if (recent := [at for at in times if 0 <= now - at < CRASH_WINDOW_SECONDS])}
