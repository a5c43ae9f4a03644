"""Paths in the data folder."""

from pathlib import Path


def run_folder(data: Path) -> Path:
    """The folder for files of the running system: sockets, addresses, readiness."""
    return data / "run"
