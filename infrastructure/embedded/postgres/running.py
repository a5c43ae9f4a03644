"""Postgres processes that an earlier start left behind."""

import os
import re
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def processes_marked(name: str) -> list[int]:
    """The pids of Postgres processes with this cluster_name, the postmaster's children among them."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _is_marked(entry, name)]


def _is_marked(process: Path, name: str) -> bool:
    words = re.split(rb"[\0 ]", _title(process))
    return b"postgres" in words[0] and any(name.encode() in word for word in words)


def _title(process: Path) -> bytes:
    with suppress(OSError):
        return (process / "cmdline").read_bytes()
    return b""


def end_orphans(pids: Sequence[int]) -> None:
    """End backends whose postmaster is gone; none where it lives."""
    if all(_title(Path(f"/proc/{pid}")).startswith(b"postgres: ") for pid in pids):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGQUIT)


def program_of(pid: int) -> str | None:
    """Its name; None when there is no such process."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return None


def works_in(pid: int) -> Path | None:
    """Its current folder; None when we may not know."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cwd").readlink()
    return None
