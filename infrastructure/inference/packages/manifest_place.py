"""Which file of a package is its manifest, and where it lies."""

from collections.abc import Collection
from typing import Final

from infrastructure.inference.models.refusals import PackageRefused, RefusalCode

MANIFEST_FILE: Final = "rdf.yaml"
PLAIN_MANIFEST_FILE: Final = "bioscope.yaml"
MANIFEST_FILES: Final = (MANIFEST_FILE, "bioimageio.yaml")
"""Names that the specification gives the manifest."""
ALL_MANIFEST_FILES: Final = (PLAIN_MANIFEST_FILE, *MANIFEST_FILES)
"""The first of these is read: an rdf.yaml beside the simple form is for other programs."""


def folder_of_manifest(names: Collection[str]) -> str:
    """Empty where the manifest lies at the top, otherwise with a slash. Raises PackageRefused where there is none, or more than one."""
    if any(name in names for name in ALL_MANIFEST_FILES):
        return ""
    places = (name.rpartition("/") for name in names)
    folders = {folder for folder, _, name in places if name in ALL_MANIFEST_FILES and "/" not in folder}
    if len(folders) != 1:
        raise PackageRefused(
            RefusalCode.MANIFEST_MISSING, f"the package needs its manifest, {MANIFEST_FILE}, or {PLAIN_MANIFEST_FILE} of the simple form"
        )
    return f"{folders.pop()}/"
