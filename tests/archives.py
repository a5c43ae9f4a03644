"""Archives of test data."""

import tarfile

OLD_PYTHON = not hasattr(tarfile, "tar_filter")  # Debian 12 has CPython 3.11.2; filters came with 3.11.4


def extract(archive, folder):
    """Unpack a tar file that we made ourselves, with the modes of its files."""
    with tarfile.open(archive) as opened:
        opened.extractall(folder, **({} if OLD_PYTHON else {"filter": "tar"}))
