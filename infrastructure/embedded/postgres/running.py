"""Postgres processes that are left over from an earlier start."""

import os
import re
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def processes_marked(name: str) -> list[int]:
    """The pids of Postgres processes with this cluster_name, including the postmaster's children."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _is_marked(entry, name)]


def _is_marked(process: Path, name: str) -> bool:
    words = re.split(rb"[\0 ]", _title(process))
    return b"postgres" in words[0] and any(name.encode() in word for word in words)


def _title(process: Path) -> bytes:
    with suppress(OSError):
        return (process / "cmdline").read_bytes()
    return b""


def end_orphans(pids: Sequence[int]) -> None:
    """End backends whose postmaster has died; none if it runs."""
    if all(_title(Path(f"/proc/{pid}")).startswith(b"postgres: ") for pid in pids):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGQUIT)


def program_of(pid: int) -> str | None:
    """The program name of a process; None if there is no such process."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return None


def works_in(pid: int) -> Path | None:
    """The working directory of a process; None if it is not accessible."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cwd").readlink()
    return None
