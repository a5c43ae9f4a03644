"""Copies the logs of all processes to the terminal, each line with the name of its process."""

import sys
from contextlib import suppress
from pathlib import Path


class LogTail:
    """Prints new lines of the logs in a folder; nothing without a folder."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._offsets = {log: log.stat().st_size for log in self._logs()}

    def repeat(self) -> None:
        for log in self._logs():
            with suppress(FileNotFoundError):
                self._repeat(log)

    def _logs(self) -> list[Path]:
        """All logs except the supervisor's, which is printed anyway."""
        logs = self._folder.glob("*.log") if self._folder is not None else ()
        return sorted(log for log in logs if log.stem != "supervisor")

    def _repeat(self, log: Path) -> None:
        offset, size = self._offsets.get(log, 0), log.stat().st_size
        start = offset if offset <= size else 0  # the log was rotated
        if start == size:
            return
        with log.open("rb") as file:
            file.seek(start)
            lines, _, _ = file.read(size - start).rpartition(b"\n")
        self._offsets[log] = start + (len(lines) + 1 if lines else 0)
        for line in lines.decode(errors="replace").splitlines():
            sys.stderr.write(f"{log.stem:>10} | {line}\n")
