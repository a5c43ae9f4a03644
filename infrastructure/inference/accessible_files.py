"""The files that the inference process may open: Python and its libraries, originals (read), renditions (write), and little else."""

import os
import ssl
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from psycopg.conninfo import conninfo_to_dict

from infrastructure.blobs.store import originals_folder, rendition_folders
from infrastructure.configuration.settings import Settings
from infrastructure.embedded.data_folder import make_private
from infrastructure.process_lifecycle import READY_FILE, CannotStart
from infrastructure.sandbox.landlock import Rights, Rule

READ: Final = Rights.READ_FILE | Rights.READ_DIR
RUN: Final = READ | Rights.EXECUTE
OVERWRITE: Final = Rights.WRITE_FILE | Rights.TRUNCATE
WRITE: Final = READ | OVERWRITE | Rights.MAKE_REG | Rights.MAKE_DIR | Rights.REMOVE_FILE | Rights.REMOVE_DIR
MOVE: Final = WRITE | Rights.REFER

LIBRARIES: Final = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64", "/nix/store")
"""Libraries, including the dynamic loader, which the kernel must execute."""
SYSTEM: Final = (
    *(f"/etc/{name}" for name in ("hosts", "host.conf", "resolv.conf", "nsswitch.conf", "gai.conf", "services", "protocols")),
    *(f"/etc/{name}" for name in ("passwd", "group", "localtime", "timezone", "mime.types", "ld.so.cache", "ld.so.preload")),
    *(f"/etc/{name}" for name in ("ssl/certs", "ssl/cert.pem", "ssl/openssl.cnf", "crypto-policies")),
    *(f"/etc/pki/{name}" for name in ("ca-trust", "tls/certs", "tls/cert.pem", "tls/openssl.cnf")),
    *("/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/usr/share/pki", "/usr/share/zoneinfo"),
    *("/proc", "/sys/devices/system/cpu", "/sys/kernel/mm/transparent_hugepage", "/dev/zero", "/dev/random", "/dev/urandom"),
)
"""Names of hosts and users, certificates, time zones, and kernel information; no folder that may contain secrets."""
RESOLVER: Final = Path("/etc/resolv.conf")
NULL_DEVICE: Final = Path(os.devnull)

DATABASE_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir", "passfile")
"""Parameters of a database URL that name files."""
STORAGE_FILES: Final = ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
STORAGE_TOKENS: Final = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
"""Files that are replaced at run time, so that their folder must be readable."""
HOME_FILES: Final = (".aws", ".pgpass", ".postgresql")

CODE: Final = Path(__file__).resolve().parents[2]
"""The folder of this program's packages: site-packages, or a checkout, which may also contain secrets and data."""
PACKAGES: Final = ("domain", "application", "infrastructure", "projections", "api")
CHECKOUT_MARK: Final = "pyproject.toml"


def inference_rules(
    settings: Settings, environment: Mapping[str, str], *, prefixes: Sequence[str] = (sys.prefix, sys.exec_prefix)
) -> Iterator[Rule]:
    """The rules for this process, with its `environment`. Creates the folders that it writes to. Raises OSError.

    `prefixes` are the folders of its Python environment.
    """
    yield from _code_rules(environment, prefixes, forbidden=_forbidden(settings))
    yield from (Rule(Path(path), READ) for path in SYSTEM)
    yield from (Rule(path, READ) for path in _configured_files(settings, environment))
    yield from _blob_rules(settings)
    yield Rule(NULL_DEVICE, READ | OVERWRITE | Rights.IOCTL_DEV)
    if folder := _temporary_folder():
        yield Rule(folder, WRITE)
    if ready := environment.get(READY_FILE):
        yield Rule(Path(ready), OVERWRITE)


def without(forbidden: Iterable[Path], folder: Path) -> Iterator[Path]:
    """`folder`, or if it contains forbidden paths, everything else in it."""
    inside = [path for path in forbidden if path.is_relative_to(folder)]
    if not inside:
        yield folder
    elif folder not in inside:
        for entry in folder.iterdir():
            if not entry.is_symlink():  # could point anywhere
                yield from without(inside, entry)


def _forbidden(settings: Settings) -> list[Path]:
    """Paths that no rule for Python's folders may include."""
    originals = originals_folder(settings)
    paths = [settings.data, settings.root_key_path, *([originals.parent] if originals else [])]
    return [path.resolve() for path in paths]


def _code_rules(environment: Mapping[str, str], prefixes: Sequence[str], *, forbidden: list[Path]) -> Iterator[Rule]:
    yield Rule(Path(sys.executable).resolve(), RUN)
    yield from (Rule(Path(path), RUN) for path in LIBRARIES)
    for folder in _python_folders(environment, prefixes):
        yield Rule(folder, Rights.READ_DIR)  # to find modules by name
        if folder != CODE or not (CODE / CHECKOUT_MARK).exists():
            yield from (Rule(path, READ) for path in without(forbidden, folder))
    yield from (Rule(CODE / name, READ) for name in PACKAGES)


def _python_folders(environment: Mapping[str, str], prefixes: Sequence[str]) -> set[Path]:
    named = (*prefixes, sys.base_prefix, sys.base_exec_prefix, *sys.path, *_split(environment.get("LD_LIBRARY_PATH")))
    return {Path(path).resolve() for path in named if path and Path(path).exists()}


def _configured_files(settings: Settings, environment: Mapping[str, str]) -> Iterator[Path]:
    """The files that settings and variables name."""
    parameters = conninfo_to_dict(settings.postgres_url)
    named = [settings.metrics_token_file, *(str(parameters.get(name, "")) for name in DATABASE_FILES)]
    yield from (Path(path) for path in named if path)
    for name in STORAGE_FILES:
        yield from map(Path, _split(environment.get(name)))
    yield from (Path(environment[name]).parent for name in STORAGE_TOKENS if environment.get(name))
    if home := environment.get("HOME"):
        yield from (Path(home) / name for name in HOME_FILES)
    certificates = ssl.get_default_verify_paths()
    yield from (Path(path) for path in (certificates.openssl_cafile, certificates.openssl_capath) if path)
    if RESOLVER.resolve().parent != RESOLVER.parent:  # a link into a folder with replaced files
        yield RESOLVER.resolve().parent


def _blob_rules(settings: Settings) -> Iterator[Rule]:
    """Rules for blob folders, which are created first, since a rule needs an existing folder."""
    if (originals := originals_folder(settings)) is not None:
        originals.mkdir(parents=True, exist_ok=True, mode=0o700)
        yield Rule(originals, READ)
    for folder in rendition_folders(settings):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        yield Rule(folder, MOVE)


def _temporary_folder() -> Path | None:
    """A temporary folder for this process only, used from now on; None if it cannot be created."""
    try:
        folder = Path(tempfile.gettempdir()) / f"bioscope-inference-{os.geteuid()}"
        make_private(folder)
    except (OSError, CannotStart):
        return None
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    return folder


def _split(paths: str | None) -> list[str]:
    return [path for path in (paths or "").split(os.pathsep) if path]
