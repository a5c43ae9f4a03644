"""The files of a package, in a zip archive or a folder: found, checked by name and kind, and read as streams.

Nothing is unpacked to disk, and archives within the package are not opened. `zipfile` is not used, because it loads a directory of any
length, truncates entries that are longer than declared, and does not compare the two headers of an entry.
"""

import io
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, Protocol, TypeAlias

import msgspec

from domain.values import canonical
from infrastructure.inference.models.refusals import PackageRefused, RefusalCode, shown

Archive: TypeAlias = bytes | memoryview
"""A zip archive in memory."""
CHUNK_BYTES: Final = 1024**2
STORED, DEFLATED = 0, 8
ENCRYPTED: Final = 1 | 1 << 6 | 1 << 13
SIZES_FOLLOW, UTF8 = 1 << 3, 1 << 11
END, CENTRAL, LOCAL = struct.Struct("<4s4H2LH"), struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s5H3L2H")
END_MARK, CENTRAL_MARK, LOCAL_MARK, ZIP64_MARK = b"PK\x05\x06", b"PK\x01\x02", b"PK\x03\x04", b"PK\x06\x07"
ZIP64_LOCATOR_BYTES: Final = 20
MAX_COMMENT_BYTES: Final = 2**16 - 1
MAX_DIRECTORY_BYTES_PER_ENTRY: Final = 4096


class FileLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`total_bytes`: of the archive, and of all files in it. `path_parts`: folders of a name, and the name itself."""

    total_bytes: int = 512 * 1024**2
    entries: int = 1000
    name_characters: int = 255
    path_parts: int = 8


class PackageFiles(Protocol):
    """`sizes`: bytes of each file by its name, as declared."""

    @property
    def sizes(self) -> Mapping[str, int]: ...

    def stream(self, name: str) -> Iterator[bytes]:
        """The file in pieces. Raises PackageRefused when it differs from what the package says of it."""
        ...


def open_files(source: Path | Archive, limits: FileLimits) -> PackageFiles:
    """Of a folder or zip archive. Raises PackageRefused, FileNotFoundError."""
    if not isinstance(source, Path):
        return _Archive(lambda: io.BufferedReader(_BytesFile(source)), limits)
    return _Folder(_walk(source, limits), limits) if source.is_dir() else _Archive(lambda: source.open("rb"), limits)


def open_archive(file: BinaryIO, limits: FileLimits) -> PackageFiles:
    """Of a zip archive in a seekable file, which stays open. Raises PackageRefused."""
    return _Archive(lambda: nullcontext(file), limits)


def open_named_files(paths: Mapping[str, Path], limits: FileLimits) -> PackageFiles:
    """Files of which each has its own path. Raises PackageRefused, FileNotFoundError."""
    return _Folder(paths, limits)


def check_names(names: list[str], limits: FileLimits) -> None:
    """Raises PackageRefused for names that leave the package, and for those that are one file on some systems."""
    if len(names) > limits.entries:
        raise _too_many(limits)
    seen: dict[str, str] = {}
    for name in names:
        _check_name(name, limits)
        other = seen.get(canonical(name))
        if other is not None:
            reason = "is there twice" if other == name else f"and {shown(other)} are one file where case does not count"
            raise PackageRefused(RefusalCode.ENTRY_DUPLICATE, reason, file=name)
        seen[canonical(name)] = name
    for name in names:
        parts = name.split("/")
        for end in range(1, len(parts)):
            if canonical("/".join(parts[:end])) in seen:
                raise PackageRefused(RefusalCode.ENTRY_DUPLICATE, "lies in a folder that is also a file", file=name)


def _check_name(name: str, limits: FileLimits) -> None:
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or ":" in name:
        problem = "has a control character, backslash or colon in its name"
    elif name.startswith("/") or ".." in parts:
        problem = "leads out of the package"
    elif any(part in {"", "."} or part.endswith((" ", ".")) for part in parts):
        problem = "has an empty part in its name, or one that ends with a blank or dot"
    elif len(name) > limits.name_characters or len(parts) > limits.path_parts:
        problem = f"has a name of more than {limits.name_characters} characters or {limits.path_parts} parts"
    else:
        return
    raise PackageRefused(RefusalCode.ENTRY_NAME, f"{problem}; names are relative to the package, like `model.onnx`", file=name)


def _too_many(limits: FileLimits) -> PackageRefused:
    return PackageRefused(RefusalCode.TOO_MANY_ENTRIES, f"the package has more than {limits.entries:,} files")


def _too_large(limits: FileLimits) -> PackageRefused:
    return PackageRefused(RefusalCode.TOO_LARGE, f"the package has more than {limits.total_bytes:,} bytes")


# ---- folder ------------------------------------------------------------------------------------------------------------------------
class _Folder:
    def __init__(self, paths: Mapping[str, Path], limits: FileLimits) -> None:
        self._paths = paths
        self.sizes: Mapping[str, int] = {name: _regular_size(name, path) for name, path in paths.items()}
        check_names(list(paths), limits)
        if sum(self.sizes.values()) > limits.total_bytes:
            raise _too_large(limits)

    def stream(self, name: str) -> Iterator[bytes]:
        count = 0
        with open(self._paths[name], "rb", opener=_open_no_link) as file:
            while chunk := file.read(CHUNK_BYTES):
                count += len(chunk)
                if count > self.sizes[name]:
                    break
                yield chunk
        if count != self.sizes[name]:
            raise PackageRefused(RefusalCode.FILE_CHANGED, "changed while it was read", file=name)


def _walk(root: Path, limits: FileLimits) -> dict[str, Path]:
    """Each file below `root`. Folders are counted too, so that the walk ends."""
    found: dict[str, Path] = {}
    waiting, entries = [(root, 1)], 0
    while waiting:
        folder, depth = waiting.pop()
        if depth > limits.path_parts:
            raise PackageRefused(RefusalCode.ENTRY_NAME, f"has more than {limits.path_parts} parts", file=str(folder.relative_to(root)))
        with os.scandir(folder) as items:
            for item in items:
                entries += 1
                if entries > limits.entries:
                    raise _too_many(limits)
                if item.is_dir(follow_symlinks=False):
                    waiting.append((Path(item.path), depth + 1))
                else:
                    found[Path(item.path).relative_to(root).as_posix()] = Path(item.path)
    return dict(sorted(found.items()))


def _regular_size(name: str, path: Path) -> int:
    status = path.lstat()
    _check_kind(name, status.st_mode)
    return status.st_size


def _check_kind(name: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise PackageRefused(RefusalCode.ENTRY_KIND, "is a link or device; a package holds plain files", file=name)


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


# ---- archive -----------------------------------------------------------------------------------------------------------------------
class _Entry(NamedTuple):
    """`name_bytes` as written; `header` is where its local header lies, `data` where its bytes do."""

    name: str
    name_bytes: bytes
    flags: int
    method: int
    crc: int
    packed_size: int
    size: int
    header: int
    data: int


class _BytesFile(io.RawIOBase):
    """Bytes as a file, without a copy of them, which io.BytesIO would make of a memoryview."""

    def __init__(self, data: Archive) -> None:
        self._data, self._at = memoryview(data), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._data)}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        part = self._data[self._at : self._at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


class _Archive:
    def __init__(self, opened: Callable[[], AbstractContextManager[BinaryIO]], limits: FileLimits) -> None:
        self._opened = opened
        with opened() as file:
            end = _find_end(file, limits)
            entries = [_with_data(file, entry) for entry in _read_directory(file, end, limits)]
        _check_overlap(entries, end.directory)
        check_names([entry.name for entry in entries], limits)
        if sum(entry.size for entry in entries) > limits.total_bytes:
            raise _too_large(limits)
        self._entries = {entry.name: entry for entry in entries}

    @property
    def sizes(self) -> Mapping[str, int]:
        return {name: entry.size for name, entry in self._entries.items()}

    def stream(self, name: str) -> Iterator[bytes]:
        entry = self._entries[name]
        count = crc = 0
        with self._opened() as file:
            file.seek(entry.data)
            for chunk in _stored(file, entry) if entry.method == STORED else _inflated(file, entry):
                count += len(chunk)
                if count > entry.size:
                    raise _corrupted(entry, f"is longer than the {entry.size:,} bytes that it declares")
                crc = zlib.crc32(chunk, crc)
                yield chunk
        if count != entry.size:
            raise _corrupted(entry, f"has {count:,} bytes and declares {entry.size:,}")
        if crc != entry.crc:
            raise _corrupted(entry, "does not have the checksum that the archive states: make it again")


class _End(NamedTuple):
    directory: int
    directory_bytes: int
    entries: int


def _malformed(detail: str) -> PackageRefused:
    return PackageRefused(RefusalCode.ARCHIVE_MALFORMED, f"the archive {detail}")


def _corrupted(entry: _Entry, detail: str) -> PackageRefused:
    return PackageRefused(RefusalCode.ENTRY_CORRUPTED, detail, file=entry.name)


def _find_end(file: BinaryIO, limits: FileLimits) -> _End:
    """Where the directory lies. Readers differ in how they look for it, so only one place is taken."""
    length = file.seek(0, io.SEEK_END)
    if length > limits.total_bytes:
        raise _too_large(limits)
    tail_bytes = min(length, END.size + MAX_COMMENT_BYTES + ZIP64_LOCATOR_BYTES)
    file.seek(length - tail_bytes)
    tail = file.read(tail_bytes)
    at = tail.rfind(END_MARK)
    if at < 0 or at + END.size > len(tail):
        raise _malformed("is not a zip file, or is cut off")
    _, disk, first_disk, here, total, directory_bytes, directory, comment_bytes = END.unpack_from(tail, at)
    if at + END.size + comment_bytes != len(tail):
        raise _malformed("has bytes after its end")
    if tail[max(at - ZIP64_LOCATOR_BYTES, 0) :].startswith(ZIP64_MARK) or total == 2**16 - 1:
        raise _malformed("is in zip64 form, which a package of this size does not need")
    if disk or first_disk or here != total or directory + directory_bytes != length - tail_bytes + at:
        raise _malformed("has parts elsewhere, or bytes between its parts")
    if total > limits.entries or directory_bytes > MAX_DIRECTORY_BYTES_PER_ENTRY * limits.entries:
        raise _too_many(limits)
    return _End(directory, directory_bytes, total)


def _read_directory(file: BinaryIO, end: _End, limits: FileLimits) -> Iterator[_Entry]:
    """The files of the archive; folders are left out. Their data are not found yet."""
    file.seek(end.directory)
    directory = file.read(end.directory_bytes)
    at = 0
    for _ in range(end.entries):
        if at + CENTRAL.size > len(directory):
            raise _malformed("has a directory that ends early")
        (mark, _, _, flags, method, _, _, crc, packed, size, name_bytes, extra, comment, disk, _, attributes, header) = CENTRAL.unpack_from(
            directory, at
        )
        raw = directory[at + CENTRAL.size :][:name_bytes]
        at += CENTRAL.size + name_bytes + extra + comment
        if mark != CENTRAL_MARK or disk or at > len(directory):
            raise _malformed("has a damaged directory")
        name = _decoded(raw, flags)
        _check_mode(name, attributes >> 16)
        if name.endswith("/"):
            _check_name(name[:-1], limits)
            continue
        entry = _Entry(name, raw, flags, method, crc, packed, size, header, 0)
        _check_entry(entry)
        yield entry
    if at != len(directory):
        raise _malformed("has a directory with more than it counts")


def _decoded(name: bytes, flags: int) -> str:
    try:
        return name.decode("utf-8" if flags & UTF8 else "cp437")
    except UnicodeDecodeError:
        raise PackageRefused(RefusalCode.ENTRY_NAME, "is not UTF-8", file=repr(name)) from None


def _check_mode(name: str, mode: int) -> None:
    """Zero where the archive was made on a system without file modes."""
    if stat.S_IFMT(mode) and not (stat.S_ISDIR(mode) and name.endswith("/")):
        _check_kind(name, mode)


def _check_entry(entry: _Entry) -> None:
    if entry.flags & ENCRYPTED:
        raise PackageRefused(RefusalCode.ARCHIVE_ENCRYPTED, "is encrypted: save the archive without a password", file=entry.name)
    if entry.method not in {STORED, DEFLATED}:
        raise PackageRefused(
            RefusalCode.ARCHIVE_COMPRESSION, f"is compressed by method {entry.method}; stored and deflated files are read", file=entry.name
        )
    if entry.method == STORED and entry.packed_size != entry.size:
        raise _corrupted(entry, "is stored and has two sizes")


def _with_data(file: BinaryIO, entry: _Entry) -> _Entry:
    """With the place of its data, after the local header was compared with the directory."""
    file.seek(entry.header)
    header = file.read(LOCAL.size)
    if len(header) < LOCAL.size:
        raise _malformed("ends before a file that its directory names")
    mark, _, flags, method, _, _, crc, packed, size, name_bytes, extra = LOCAL.unpack(header)
    stated = (entry.crc, entry.packed_size, entry.size)
    agrees = (mark, flags, method, file.read(name_bytes)) == (LOCAL_MARK, entry.flags, entry.method, entry.name_bytes)
    if not agrees or not ((crc, packed, size) == stated or flags & SIZES_FOLLOW):
        raise _corrupted(entry, "is described differently in the directory and before its data")
    return entry._replace(data=entry.header + LOCAL.size + name_bytes + extra)


def _check_overlap(entries: list[_Entry], directory: int) -> None:
    """Entries that share data make a small archive large."""
    ordered = sorted(entries, key=lambda entry: entry.header)
    ends = [*(entry.header for entry in ordered[1:]), directory]
    for entry, end in zip(ordered, ends, strict=True):
        if entry.data + entry.packed_size > end:
            raise PackageRefused(RefusalCode.ENTRY_OVERLAP, "shares bytes with another part of the archive", file=entry.name)


def _stored(file: BinaryIO, entry: _Entry) -> Iterator[bytes]:
    remaining = entry.packed_size
    while remaining and (chunk := file.read(min(CHUNK_BYTES, remaining))):
        remaining -= len(chunk)
        yield chunk


def _inflated(file: BinaryIO, entry: _Entry) -> Iterator[bytes]:
    inflater, remaining = zlib.decompressobj(-zlib.MAX_WBITS), entry.packed_size
    try:
        while not inflater.eof:
            packed = inflater.unconsumed_tail
            if not packed:
                packed = file.read(min(CHUNK_BYTES, remaining))
                remaining -= len(packed)
            chunk = inflater.decompress(packed, CHUNK_BYTES)
            if not packed and not chunk:
                raise _corrupted(entry, "ends early")
            yield chunk
    except zlib.error:
        raise _corrupted(entry, "cannot be decompressed") from None
    if remaining or inflater.unused_data:
        raise _corrupted(entry, "has bytes after its end")
