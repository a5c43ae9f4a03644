"""The children of running processes, read from /proc; some end while it is read."""

from contextlib import suppress
from pathlib import Path


def children(pid):
    """Those of every thread of a process. Nothing for one that has ended."""
    found = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                found += map(int, (task / "children").read_text().split())
    return found


def descendants(pid):
    below = children(pid)
    return [*below, *(deeper for child in below for deeper in descendants(child))]


def command_line(pid):
    """Its arguments, each followed by a NUL; nothing for one that has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""
