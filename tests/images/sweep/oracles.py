"""Decoders other than the product's: what ImageMagick, libvips, libtiff, tifffile and Pillow see in a file.

Only development machines need the first three: Debian has them in the packages imagemagick, libvips-tools and libtiff-tools. A decoder that
is not installed is not asked.
"""

import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np

ORACLE_TIMEOUT_SECONDS = 60
ORIENTATION = 274
VIPS_HEADER_BYTES = 64
VIPS_LITTLE_ENDIAN = b"\xb6\xa6\xf2\x08"
VIPS_TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f4", None, "f8")
VIPS_COLOURS = {15: 4, 17: 3, 22: 3, 25: 3}  # CMYK, RGB, sRGB, RGB16
RGB, INKS = 3, 4
MAX_BYTE = 255


class OracleFailed(Exception):
    """The decoder is not installed, refuses the file, or gives numbers that cannot be compared."""


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """One page as an oracle sees it, upright, black is zero.

    `pixels` (height, width, colours) from 0 to `full`, which is None where numbers are signed or floating point. `associated`: the
    colours are multiplied by alpha already. `complaint`: what the oracle wrote to standard error.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    full: float | None
    associated: bool = False
    complaint: str = ""


Oracle = Callable[[Path, str, int, int], Picture]
"""Path (a plain name), kind (jpeg, png, tiff), number of the page (from 0), colours that are wanted (1, 3 or 4)."""


def imagemagick(path: Path, kind: str, page: int, colours: int) -> Picture:
    """16-bit samples, no profile applied. Floating point is cut to 0..1 in usual builds, so it is refused here."""
    program = shutil.which("convert-im6.q16") or shutil.which("magick") or shutil.which("convert")
    labels = [] if colours == INKS else ["-set", "colorspace", "sRGB"]
    output = _run([program, f"{kind}:{path}[{page}]", "-auto-orient", *labels, "-depth", "16", "pam:-"])
    header, _, body = output.stdout.partition(b"ENDHDR\n")
    fields = dict(line.split(b" ", 1) for line in header.split(b"\n") if b" " in line)
    try:
        width, height, depth, full = (int(fields[name]) for name in (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL"))
        samples = np.frombuffer(body, ">u2" if full > MAX_BYTE else "u1", width * height * depth).reshape(height, width, depth)
    except (KeyError, ValueError) as error:
        raise OracleFailed("no picture came") from error
    has_alpha = fields[b"TUPLTYPE"].endswith(b"_ALPHA")
    pixels, alpha = (samples[:, :, :-1], samples[:, :, -1]) if has_alpha else (samples, None)
    return Picture(pixels=pixels, alpha=alpha, full=full, complaint=_complaint(output))


def libvips(path: Path, kind: str, page: int, colours: int) -> Picture:
    """Numbers as they are stored, floating point too."""
    result = path.with_suffix(".v")
    pages = f"[page={page}]" if kind == "tiff" else ""
    output = _run([shutil.which("vips"), "autorot", f"{path}{pages}", str(result)])
    raw = result.read_bytes()
    result.unlink()
    order = "<" if raw[:4] == VIPS_LITTLE_ENDIAN else ">"
    width, height, bands, _, type_number, _, meaning = struct.unpack(f"{order}7i", raw[4:32])
    stored = VIPS_TYPES[type_number]
    if stored is None:
        raise OracleFailed("complex numbers")
    count = width * height * bands
    samples = np.frombuffer(raw, order + stored, count, VIPS_HEADER_BYTES).reshape(height, width, bands)
    found = VIPS_COLOURS.get(meaning, min(colours, bands))
    alpha = samples[:, :, found] if bands == found + 1 else None
    full = float(np.iinfo(samples.dtype).max) if samples.dtype.kind == "u" else None
    return Picture(pixels=samples[:, :, :found], alpha=alpha, full=full, complaint=_complaint(output))


def libtiff(path: Path, kind: str, page: int, colours: int) -> Picture:
    """8-bit RGB with associated alpha, as libtiff resolves every photometric interpretation for programs that want none of it."""
    if kind != "tiff" or colours == INKS:
        raise OracleFailed("not asked about these colours")
    result = path.with_suffix(".rgba")
    output = _run([shutil.which("tiff2rgba"), "-c", "none", str(path), str(result)])
    try:
        seen = tifffile_reader(result, kind, page, RGB)
    finally:
        result.unlink(missing_ok=True)
    return msgspec.structs.replace(seen, associated=True, complaint=_complaint(output))


def tifffile_reader(path: Path, kind: str, page: int, colours: int) -> Picture:
    """The numbers of tifffile, with its codecs; photometric interpretation and orientation resolved here."""
    if kind != "tiff":
        raise OracleFailed("not a TIFF")
    from tifffile import PHOTOMETRIC, TiffFile

    with TiffFile(path) as file:
        directory = file.pages[page]
        stored = directory.asarray()
        samples = stored.reshape(directory.shape if directory.ndim > 2 else (*directory.shape, 1))
        if directory.planarconfig == 2 and samples.ndim == 3 and directory.samplesperpixel > 1:
            samples = np.moveaxis(samples, 0, -1)
        full = float(2**directory.bitspersample - 1) if samples.dtype.kind in "ub" else None
        if directory.photometric == PHOTOMETRIC.PALETTE:
            samples, full = (
                np.moveaxis(directory.colormap, 0, -1)[samples[:, :, 0]],
                float(directory.colormap.max() > MAX_BYTE) * 65280 + 255,
            )
        elif directory.photometric == PHOTOMETRIC.MINISWHITE and full is not None:
            samples = (full - samples.astype(np.float64)).astype(samples.dtype)
        orientation = directory.tags[ORIENTATION].value if ORIENTATION in directory.tags else 1
        kinds = tuple(directory.extrasamples)
    pixels = _turned(samples, int(orientation))
    alpha = pixels[:, :, colours] if kinds[:1] in {(1,), (2,)} and pixels.shape[2] > colours else None
    return Picture(pixels=pixels[:, :, :colours], alpha=alpha, full=full, associated=kinds[:1] == (1,))


def pillow(path: Path, kind: str, page: int, colours: int) -> Picture:
    """8 bits; only for JPEG and PNG, whose modes Pillow resolves."""
    from PIL import Image, ImageOps

    if kind == "tiff":
        raise OracleFailed("not asked about TIFF")
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if "transparency" in image.info or "A" in image.getbands() or image.mode == "P":
            image = image.convert("RGBA")
        if image.mode.startswith("I"):
            return Picture(pixels=np.asarray(image)[:, :, None], alpha=None, full=65535)
        samples = np.asarray(image.convert("L") if image.mode == "1" else image)
    samples = samples[:, :, None] if samples.ndim == 2 else samples
    if samples.shape[2] in {2, 4} and image.mode != "CMYK":
        return Picture(pixels=samples[:, :, :-1], alpha=samples[:, :, -1], full=MAX_BYTE)
    return Picture(pixels=samples, alpha=None, full=MAX_BYTE)


ORACLES: dict[str, Oracle] = {
    "ImageMagick": imagemagick,
    "libvips": libvips,
    "libtiff": libtiff,
    "tifffile": tifffile_reader,
    "Pillow": pillow,
}


def pictures(path: Path, kind: str, page: int, colours: int) -> Iterator[tuple[str, Picture | OracleFailed]]:
    """What each oracle sees, in the order in which they are trusted."""
    for name, oracle in ORACLES.items():
        try:
            yield name, oracle(path, kind, page, colours)
        except OracleFailed as failure:
            yield name, failure
        except Exception as error:
            yield name, OracleFailed(f"{type(error).__name__}: {error}"[:200])


def _run(command: list[str | None]) -> subprocess.CompletedProcess[bytes]:
    if command[0] is None:
        raise OracleFailed("not installed")
    output = subprocess.run([str(part) for part in command], capture_output=True, timeout=ORACLE_TIMEOUT_SECONDS, check=False)
    if output.returncode:
        raise OracleFailed(_complaint(output) or f"exit status {output.returncode}")
    return output


def _complaint(output: subprocess.CompletedProcess[bytes]) -> str:
    lines = output.stderr.decode(errors="replace").splitlines()
    serious = [line for line in lines if not re.search("unknown field|Unknown field|incorrect count|ICC|profile", line)]
    return " / ".join(serious)[:200]


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """By the definition of TIFF 6.0: where row 0 and column 0 of the stored array are."""
    turned = np.swapaxes(pixels, 0, 1) if orientation in {5, 6, 7, 8} else pixels
    turned = turned[:, ::-1] if orientation in {2, 3, 6, 7} else turned
    return turned[::-1] if orientation in {3, 4, 7, 8} else turned
