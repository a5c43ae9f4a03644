"""Conflicts with other installed packages, since the names of this program's packages are general words."""

import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Final

from infrastructure.operations.config_checks import ConfigFinding, good, weak, wrong

DISTRIBUTION: Final = "bioscope"
PACKAGES: Final = ("domain", "application", "infrastructure", "projections", "api")
INSTALLATION: Final = Path(__file__).resolve().parents[2]
ADVICE: Final = "install bioscope in its own environment, for example with `pipx install bioscope`"


def package_clashes(search_path: Sequence[str] | None = None) -> list[ConfigFinding]:
    """A finding for each conflict, or a single good one. Reads the metadata of all installed distributions.

    `search_path` lists the folders where modules are searched; by default `sys.path`.
    """
    path = list(sys.path if search_path is None else search_path)
    installed = [(_name(distribution), _top_level_names(distribution)) for distribution in distributions(path=path)]
    providers = {package: {name for name, contents in installed if package in contents} - {DISTRIBUTION} for package in PACKAGES}
    clashes = [clash for package in PACKAGES if (clash := _clash_of(package, providers[package], path))]
    return clashes or [good("packages", "no other package has the same name as one of bioscope")]


def _name(distribution: Distribution) -> str:
    return str(distribution.metadata.get_all("Name", ["a distribution without a name"])[0])


def _top_level_names(distribution: Distribution) -> set[str]:
    """The top-level packages, modules and folders of a distribution."""
    listed = (distribution.read_text("top_level.txt") or "").split()
    recorded = (distribution.read_text("RECORD") or "").splitlines()
    return {*listed, *(line.split(",")[0].split("/")[0].removesuffix(".py") for line in recorded)}


def _clash_of(package: str, providers: set[str], path: Sequence[str]) -> ConfigFinding | None:
    subject, own_file = f"package {package}", INSTALLATION / package / "__init__.py"
    if providers:
        return wrong(subject, f"{' and '.join(sorted(providers))} installs a package of that name too: {ADVICE}")
    files = list(_importable_files(package, path))
    elsewhere = [file for file in files if file != own_file]
    if not elsewhere:
        return None
    if files[0] != own_file:
        return wrong(subject, f"{elsewhere[0]} hides that of bioscope: remove its folder from PYTHONPATH, or {ADVICE}")
    return weak(subject, f"that of bioscope hides {elsewhere[0]} from other programs: {ADVICE}")


def _importable_files(package: str, path: Sequence[str]) -> Iterator[Path]:
    """The files that this name could import, in the order of the search path. Folders without `__init__.py` are never imported first."""
    for entry in path:
        spec = PathFinder.find_spec(package, [entry])
        if spec is not None and spec.origin is not None:
            yield Path(spec.origin).resolve()
