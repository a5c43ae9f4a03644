"""Which files the inference process may open: Python and its libraries, originals for reading, pictures for writing, and little else."""

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
"""The dynamic loader lies there too, and the kernel has to execute it."""
SYSTEM: Final = (
    *(f"/etc/{name}" for name in ("hosts", "host.conf", "resolv.conf", "nsswitch.conf", "gai.conf", "services", "protocols")),
    *(f"/etc/{name}" for name in ("passwd", "group", "localtime", "timezone", "mime.types", "ld.so.cache", "ld.so.preload")),
    *(f"/etc/{name}" for name in ("ssl/certs", "ssl/cert.pem", "ssl/openssl.cnf", "crypto-policies")),
    *(f"/etc/pki/{name}" for name in ("ca-trust", "tls/certs", "tls/cert.pem", "tls/openssl.cnf")),
    *("/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/usr/share/pki", "/usr/share/zoneinfo"),
    *("/proc", "/sys/devices/system/cpu", "/sys/kernel/mm/transparent_hugepage", "/dev/zero", "/dev/random", "/dev/urandom"),
)
"""Names of hosts and users, certificates, time zones, and information about the kernel; no folder that may hold secrets."""
RESOLVER: Final = Path("/etc/resolv.conf")
NULL_DEVICE: Final = Path(os.devnull)

DATABASE_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir", "passfile")
"""Parameters of the database's URL that name files."""
STORAGE_FILES: Final = ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
STORAGE_TOKENS: Final = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
"""Files that are replaced while we run, so that the folder has to be readable."""
HOME_FILES: Final = (".aws", ".pgpass", ".postgresql")

CODE: Final = Path(__file__).resolve().parents[2]
"""The folder of our packages: in an environment among all others, or in a checkout, beside which may lie secrets and data."""
PACKAGES: Final = ("domain", "application", "infrastructure", "projections", "api")
CHECKOUT_MARK: Final = "pyproject.toml"


def inference_rules(
    settings: Settings, environment: Mapping[str, str], *, prefixes: Sequence[str] = (sys.prefix, sys.exec_prefix)
) -> Iterator[Rule]:
    """Makes the folders that are written to. `environment`: the variables of this process. `prefixes`: the folders of its Python
    environment. Raises OSError."""
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
    """`folder`; where something forbidden lies in it, all that lies beside that."""
    inside = [path for path in forbidden if path.is_relative_to(folder)]
    if not inside:
        yield folder
    elif folder not in inside:
        for entry in folder.iterdir():
            if not entry.is_symlink():  # it may lead anywhere
                yield from without(inside, entry)


def _forbidden(settings: Settings) -> list[Path]:
    """What no rule for Python's folders may include, wherever the administrator put it."""
    originals = originals_folder(settings)
    paths = [settings.data, settings.root_key_path, *([originals.parent] if originals else [])]
    return [path.resolve() for path in paths]


def _code_rules(environment: Mapping[str, str], prefixes: Sequence[str], *, forbidden: list[Path]) -> Iterator[Rule]:
    yield Rule(Path(sys.executable).resolve(), RUN)
    yield from (Rule(Path(path), RUN) for path in LIBRARIES)
    for folder in _python_folders(environment, prefixes):
        yield Rule(folder, Rights.READ_DIR)  # Python looks for modules by name
        if folder != CODE or not (CODE / CHECKOUT_MARK).exists():
            yield from (Rule(path, READ) for path in without(forbidden, folder))
    yield from (Rule(CODE / name, READ) for name in PACKAGES)


def _python_folders(environment: Mapping[str, str], prefixes: Sequence[str]) -> set[Path]:
    named = (*prefixes, sys.base_prefix, sys.base_exec_prefix, *sys.path, *_split(environment.get("LD_LIBRARY_PATH")))
    return {Path(path).resolve() for path in named if path and Path(path).exists()}


def _configured_files(settings: Settings, environment: Mapping[str, str]) -> Iterator[Path]:
    """Those that settings and variables name."""
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
    if RESOLVER.resolve().parent != RESOLVER.parent:  # a link into a folder whose files are replaced
        yield RESOLVER.resolve().parent


def _blob_rules(settings: Settings) -> Iterator[Rule]:
    """A rule holds for a folder that is there, so they are made here."""
    if (originals := originals_folder(settings)) is not None:
        originals.mkdir(parents=True, exist_ok=True, mode=0o700)
        yield Rule(originals, READ)
    for folder in rendition_folders(settings):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        yield Rule(folder, MOVE)


def _temporary_folder() -> Path | None:
    """One for inference alone, which is used from now on; None where none can be made, and where none is needed either."""
    try:
        folder = Path(tempfile.gettempdir()) / f"bioscope-inference-{os.geteuid()}"
        make_private(folder)
    except (OSError, CannotStart):
        return None
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    return folder


def _split(paths: str | None) -> list[str]:
    return [path for path in (paths or "").split(os.pathsep) if path]
