"""The environment of child processes: a short list of variables, so that none is inherited by accident."""

import os
import site
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

PRIVATE_UMASK: Final = 0o077
NATIVE_ENVIRONMENT: Final = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
"""The environment of native programs: Postgres and Valkey."""

TELEMETRY_OFF: Final = {"ORT_DISABLE_TELEMETRY": "1"}
"""onnxruntime reads it at import. A later change, or its API, does not prevent the first telemetry event and the device id."""

ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
"""Read by NumPy's BLAS library at import, which otherwise starts one thread per core."""

KEPT_FOR_PYTHON: Final = ("LD_LIBRARY_PATH", "HOME", "TMPDIR")
KEPT_FOR_STORAGE: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
AWS_PREFIX: Final = "AWS_"
TEMPORARY: Final = "tmp"
"""The folder for temporary files in a data folder."""


def python_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of a Python process. Only the paths of libraries, home and temporary files come from `inherited`.

    Temporary files go to this process's own temporary folder, if one is set.
    """
    kept = {name: inherited[name] for name in KEPT_FOR_PYTHON if name in inherited}
    if tempfile.tempdir is not None:
        kept["TMPDIR"] = str(tempfile.tempdir)
    return {"PATH": os.defpath, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC"} | TELEMETRY_OFF | kept | _user_packages()


def supervised_environment(data: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of a supervised process, with its home and temporary files in the data folder `data`."""
    return python_environment(inherited) | {"HOME": str(data), "TMPDIR": str(data / TEMPORARY)}


def storage_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """The variables of an S3 client beyond the settings: certificates, and the credentials of its own provider chain."""
    return {name: value for name, value in inherited.items() if name in KEPT_FOR_STORAGE or name.startswith(AWS_PREFIX)}


def _user_packages() -> dict[str, str]:
    """The folder of `pip install --user`. Python derives it from HOME, which children do not inherit."""
    return {"PYTHONUSERBASE": site.getuserbase()} if site.ENABLE_USER_SITE else {}
