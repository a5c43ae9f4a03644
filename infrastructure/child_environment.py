"""The environment of the processes that we start: a short list of variables, none inherited by accident."""

import os
import site
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

PRIVATE_UMASK: Final = 0o077
NATIVE_ENVIRONMENT: Final = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
"""For programs that are not ours: Postgres and Redis."""

TELEMETRY_OFF: Final = {"ORT_DISABLE_TELEMETRY": "1"}
"""onnxruntime reads it when it is imported. Set later, or by its API, it does not stop the first event and the device id."""

ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
"""NumPy's library reads them when it is imported, and otherwise starts a thread for each core."""

KEPT_FOR_PYTHON: Final = ("LD_LIBRARY_PATH", "HOME", "TMPDIR")
KEPT_FOR_STORAGE: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
AWS_PREFIX: Final = "AWS_"
TEMPORARY: Final = "tmp"
"""The folder for temporary files in a data folder."""


def python_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """The variables of a Python process. Of `inherited`: where libraries, the home and temporary files are.

    Temporary files lie where this process puts its own, if it has chosen a folder.
    """
    kept = {name: inherited[name] for name in KEPT_FOR_PYTHON if name in inherited}
    if tempfile.tempdir is not None:
        kept["TMPDIR"] = str(tempfile.tempdir)
    return {"PATH": os.defpath, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC"} | TELEMETRY_OFF | kept | _user_packages()


def supervised_environment(data: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    """The same for a process of a system in the folder `data`, whose home and temporary files lie there."""
    return python_environment(inherited) | {"HOME": str(data), "TMPDIR": str(data / TEMPORARY)}


def storage_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """What an S3 client may need beyond our settings: certificates, and the credentials of its own chain."""
    return {name: value for name, value in inherited.items() if name in KEPT_FOR_STORAGE or name.startswith(AWS_PREFIX)}


def _user_packages() -> dict[str, str]:
    """Where `pip install --user` put packages: Python derives it from HOME, which children do not share with us."""
    return {"PYTHONUSERBASE": site.getuserbase()} if site.ENABLE_USER_SITE else {}
