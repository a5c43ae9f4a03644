"""The images of a folder on this machine, with the names under which they are uploaded; other files are counted by their type."""

import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import msgspec

from application.filenames import clean_filename, decoded, safe_filename
from domain.values import DRIVE_LETTER, MAX_PATH_LENGTH, printable

MANIFEST = "manifest.csv"
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff"})
SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini"})
SYSTEM_FOLDERS = frozenset({"__macosx", "@eadir", "$recycle.bin", "system volume information"})
SHORT_EXTENSION = re.compile(r"\.[a-z0-9]{1,10}")
WITHOUT_EXTENSION = "without extension"
LINKED_FOLDER, UNREADABLE_FOLDER, BROKEN_LINK, UNREADABLE_FILE = "linked folder", "unreadable folder", "broken link", "unreadable file"
MAX_TYPES_SHOWN = 10
REPLACEMENT = "\ufffd"


class ImageFile(msgspec.Struct, frozen=True):
    """`name` is the file's path below the folder as it is uploaded, and `shown` as it is printed: "/" between the parts of both."""

    path: Path
    name: str
    shown: str


class ImageFolder(msgspec.Struct, frozen=True):
    """`skipped` counts the other files by type, such as `.csv`. Hidden files and those of operating systems are in neither."""

    images: tuple[ImageFile, ...]
    skipped: Mapping[str, int]


def scan(folder: Path) -> ImageFolder:
    """All images in `folder` and below it. Links to folders are not followed, so that no loop of them is endless."""
    images: list[Path] = []
    skipped: Counter[str] = Counter()
    for directory, subfolders, files in os.walk(folder, onerror=lambda _: skipped.update([UNREADABLE_FOLDER])):
        subfolders[:] = [name for name in subfolders if not _ignored(name, SYSTEM_FOLDERS)]
        skipped.update(LINKED_FOLDER for name in subfolders if Path(directory, name).is_symlink())
        for path in (Path(directory, name) for name in files if not _ignored(name, SYSTEM_FILES)):
            if (kind := _kind_of_other(path)) is None:
                images.append(path)
            elif path != folder / MANIFEST:
                skipped[kind] += 1
    return ImageFolder(tuple(image_file(path, folder) for path in sorted(images)), skipped)


def image_file(path: Path, folder: Path) -> ImageFile:
    relative = path.relative_to(folder)
    return ImageFile(path=path, name=upload_name(decoded(os.fsencode(relative))), shown=shown(relative))


def upload_name(relative: str) -> str:
    """A path as the server stores it. The first folders are left out of one that is too long."""
    parts = [clean_filename(part) or "_" for part in relative.replace("\\", "/").split("/") if part not in {"", "."}]
    while len(parts) > 1 and (len("/".join(parts)) > MAX_PATH_LENGTH or DRIVE_LETTER.fullmatch(parts[0])):
        del parts[0]
    return "/".join(parts)


def folder_name(folder: Path) -> str:
    """What a dataset of the folder's images is called."""
    return safe_filename(decoded(os.fsencode(folder.resolve())))


def shown(path: Path) -> str:
    """A path as it is printed: whatever is not UTF-8, or cannot be shown, is replaced."""
    text = os.fsencode(path).decode(errors="replace")
    return "".join(printable(sign) or REPLACEMENT for sign in text)


def skipped_files(skipped: Mapping[str, int]) -> str:
    """Such as `skipped 12 files: 8 .csv, 3 .txt, 1 without extension`. Empty where nothing was skipped."""
    if not (total := sum(skipped.values())):
        return ""
    ordered = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    kinds = [_counted(count, kind) for kind, count in ordered[:MAX_TYPES_SHOWN]]
    if others := sum(count for _, count in ordered[MAX_TYPES_SHOWN:]):
        kinds.append(f"{others} of other types")
    return f"skipped {total} file{'s' if total > 1 else ''}: {', '.join(kinds)}"


def _counted(count: int, kind: str) -> str:
    plural = "s" if count > 1 and not kind.startswith(".") and kind != WITHOUT_EXTENSION else ""
    return f"{count} {kind}{plural}"


def _ignored(name: str, system: frozenset[str]) -> bool:
    """AppleDouble files (`._cell.tif`) are hidden ones too."""
    return name.startswith(".") or name.casefold() in system


def _kind_of_other(path: Path) -> str | None:
    """The type of a file that is no image; None for an image."""
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where a folder may not be entered
        return BROKEN_LINK if path.is_symlink() else UNREADABLE_FILE
    extension = path.suffix.lower()
    if extension in EXTENSIONS:
        return None
    return extension if SHORT_EXTENSION.fullmatch(extension) else WITHOUT_EXTENSION
