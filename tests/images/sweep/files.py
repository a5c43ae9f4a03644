"""One file of a sweep: what the product makes of it, and how far that is from what other decoders see. Runs in a process of its own."""

import io
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from math import ceil
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from domain.errors import DomainError
from infrastructure.images.inspection import inspect
from infrastructure.images.reader import ImageReader, open_image
from infrastructure.images.rendering import Colours, Plane
from infrastructure.images.validation import ImageLimits, examine
from infrastructure.images.validation.layout import Compression
from tests.images.sweep.comparison import Comparison, compare
from tests.images.sweep.oracles import OracleFailed, Picture, pictures
from tests.images.sweep.sheets import save_sheet

MEMORY_BYTES = 1 << 30
PROCESSOR_SECONDS = 30
STARTS = {
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG": "png",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
}
COLOUR_COUNTS = {Colours.GREY: 1, Colours.RGB: 3, Colours.CMYK: 4}


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """What the product makes of a file: accepted, crashed, timed out, or the code of the refusal.

    `refused_by`: validator or reader. `reason` and `message` are those of the refusal. `seconds` of processor time.
    `peak_mib` is what the decoding added to the process.
    """

    outcome: str
    refused_by: str = ""
    reason: str = ""
    message: str = ""
    seconds: float = 0.0
    peak_mib: float = 0.0


def kind_of(path: Path) -> str | None:
    """By the first bytes: jpeg, png or tiff."""
    with path.open("rb") as file:
        start = file.read(4)
    return next((kind for known, kind in STARTS.items() if start.startswith(known)), None)


def sweep_file(path: Path, sheet: Path | None, results: Connection) -> None:
    """Sends an Examined, and then a list of Comparisons."""
    _silence_decoders()
    examined = _examined(path)
    results.send(examined)
    kind = kind_of(path)
    assert kind is not None
    with tempfile.TemporaryDirectory(prefix="sweep-") as folder:
        plain = Path(folder) / "image"
        plain.symlink_to(path.resolve())
        if examined.outcome == "accepted":
            results.send(list(_compared(plain, kind, sheet)))
        elif examined.outcome == "damaged_image":
            results.send(list(_read_by_others(plain, kind)))
        else:
            results.send([])


def _silence_decoders() -> None:
    """What C libraries write to standard error would tear the progress bar."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)


def _examined(path: Path) -> Examined:
    before = _peak_mib()
    _limit()
    start = time.process_time()
    stage = "validator"
    try:
        data = path.read_bytes()
        examine(io.BytesIO(data), limits=ImageLimits())
        stage = "reader"
        inspect(path, limits=ImageLimits())
        found = Examined(outcome="accepted")
    except DomainError as error:
        found = Examined(outcome=error.code, refused_by=stage, reason=error.reason, message=error.detail)
    except Exception as error:
        found = Examined(outcome="crashed", refused_by=stage, reason=type(error).__name__, message=str(error)[:300])
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_CPU):
        resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return msgspec.structs.replace(found, seconds=time.process_time() - start, peak_mib=_peak_mib() - before)


def _limit() -> None:
    """Memory as the pool of decoders has it, and processor time, but so that the oracles may have more afterwards."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY_BYTES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CPU, (ceil(time.process_time()) + PROCESSOR_SECONDS, resource.RLIM_INFINITY))


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _compared(path: Path, kind: str, sheet: Path | None) -> Iterator[Comparison]:
    with open_image(path, limits=ImageLimits()) as image:
        for name, plane, page, lossy in _planes(image):
            comparisons, seen = _with_oracles(path, kind, plane, page, lossy=lossy)
            for comparison in comparisons:
                yield msgspec.structs.replace(comparison, plane=name)
            if sheet and seen and not comparisons[-1].agrees:
                save_sheet(sheet, plane, seen)


def _planes(image: ImageReader) -> Iterator[tuple[str, Plane, int, bool]]:
    """The first and the last plane, with the numbers of their pages in the file, and whether their coding loses something."""
    if image.metadata is None:
        yield "", image.plane(), 0, image.header.media_type == "image/jpeg"
        return
    sizes = image.metadata.planes.sizes
    last = {"c": sizes.get("C", 1) - 1, "z": sizes.get("Z", sizes.get("I", 1)) - 1, "t": sizes.get("T", 1) - 1}
    for place in [{"c": 0, "z": 0, "t": 0}, last][: 2 if any(last.values()) else 1]:
        layout = image.pages[image.metadata.planes.page_of(**place)]
        lossy = layout.compression is Compression.JPEG or layout.subsampled
        assert layout.directory.page is not None
        channels = image.pages[0].channels
        plane = image.plane(**(place | {"c": place["c"] * channels}))
        yield f"page {layout.directory.page}", plane, layout.directory.page - 1, lossy


def _with_oracles(path: Path, kind: str, plane: Plane, page: int, *, lossy: bool) -> tuple[list[Comparison], dict[str, Picture]]:
    """Until one agrees; and what each of them saw."""
    comparisons: list[Comparison] = []
    seen: dict[str, Picture] = {}
    for name, picture in pictures(path, kind, page, COLOUR_COUNTS[plane.colours]):
        if isinstance(picture, OracleFailed):
            comparisons.append(Comparison(oracle=name, agrees=False, read=False, what=str(picture)))
            continue
        seen[name] = picture
        comparisons.append(compare(name, plane, picture, lossy=lossy))
        if comparisons[-1].agrees:
            break
    return comparisons, seen


def _read_by_others(path: Path, kind: str) -> Iterator[Comparison]:
    """The oracles that read a file without complaint which the product calls damaged."""
    for name, seen in pictures(path, kind, 0, 3):
        complaint = str(seen) if isinstance(seen, OracleFailed) else seen.complaint
        read = isinstance(seen, Picture)
        yield Comparison(oracle=name, agrees=read and not complaint, read=read, what=complaint)
