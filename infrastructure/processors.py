"""The number of processors that this process may use."""

import math
import os
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
MEMBERSHIP: Final = Path("/proc/self/cgroup")
UNIFIED: Final = "0::/"  # begins the line of the unified hierarchy, cgroup v2
UNLIMITED: Final = "max"


def available_processors() -> int:
    """Those that the process may run on, and no more than the CPU quota of its container pays for. At least 1."""
    return max(1, math.ceil(min(len(os.sched_getaffinity(0)), cpu_quota())))


def cpu_quota(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> float:
    """The processors that the strictest quota among our cgroups allows, such as 1.5; infinity where there is none.

    `cgroups` is the folder where cgroup v2 is mounted. Inside a container the path of our own cgroup may lie outside what is mounted; the
    folder itself is then that of the container.
    """
    return min((_quota(folder / "cpu.max") for folder in _own_cgroups(cgroups, membership)), default=math.inf)


def _own_cgroups(cgroups: Path, membership: Path) -> list[Path]:
    """The folders from our cgroup up to the root."""
    lines = _text(membership).splitlines()
    own = next((Path(line.removeprefix(UNIFIED)) for line in lines if line.startswith(UNIFIED)), Path())
    folder = cgroups if ".." in own.parts else cgroups / own
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(cgroups))]


def _quota(file: Path) -> float:
    """Of a file such as `150000 100000`: microseconds of computing in each period of so many microseconds."""
    match _text(file).split():
        case [quota, period] if quota != UNLIMITED:
            return int(quota) / int(period)
    return math.inf


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""
