"""A blob store whose files an attacker replaces: the names stay, the bytes change."""

import io
import os
from contextlib import contextmanager

import numpy as np
from PIL import Image

HUGE_BYTES = 512 * 1024**2  # more than any upload may have
KINDS = ("another image", "truncated", "one bit", "garbage", "empty", "huge")


class Folder:
    """`root` holds `sha256/` and `derived/`: the folder of an installation, or that of the bucket of an S3 server."""

    def __init__(self, root):
        self.root = root

    def original(self, sha256):
        return self.root / "sha256" / sha256[:2] / sha256[2:4] / sha256

    def derived(self, name):
        return self.root / "derived" / name

    @contextmanager
    def replaced(self, path, data):
        """By other bytes until the block ends. None: by very many that take no room on the disk."""
        before = path.read_bytes()
        write(path, data)
        try:
            yield
        finally:
            write(path, before)


def write(path, data):
    """In place, with the times that the file had before: what tells a program that nothing was changed."""
    times = path.stat()
    path.write_bytes(data or b"")
    if data is None:
        os.truncate(path, HUGE_BYTES)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def other_bytes(kind, right, another):
    """What lies under the name of `right`; `another` is an image too."""
    match kind:
        case "another image":
            return another
        case "truncated":
            return right[: len(right) // 2]
        case "one bit":
            return bytes([right[0] ^ 1]) + right[1:]
        case "garbage":
            return bytes(range(256)) * 40
        case "empty":
            return b""
        case _:
            return None


def noise(seed):
    """A PNG of some megabytes: more than is sent at once."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (700, 900, 3), np.uint8)
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()
