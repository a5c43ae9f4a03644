"""One wheel, and one installation of it, for all tests of the release."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.release.installing import build_wheel, install


@pytest.fixture(scope="session")
def public_folder():
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="bioscope-release-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def installed(public_folder, wheel):
    """The path of `bioscope` in an environment that does not know the checkout."""
    before = os.umask(0o022)
    try:
        return install(wheel, public_folder / "environment")
    finally:
        os.umask(before)
