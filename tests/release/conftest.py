"""One wheel for all tests of the release."""

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.release.installing import build_wheel


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
