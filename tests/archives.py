"""Archives of test data."""

import io
import tarfile
import zipfile

OLD_PYTHON = not hasattr(tarfile, "tar_filter")  # Debian 12 has CPython 3.11.2; filters came with 3.11.4


def extract(archive, folder):
    """Unpack a tar file that we made ourselves, with the modes of its files."""
    with tarfile.open(archive) as opened:
        opened.extractall(folder, **({} if OLD_PYTHON else {"filter": "tar"}))


def zip_of(folder):
    """The bytes of a zip file with the files of a folder."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return file.getvalue()
