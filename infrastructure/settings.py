"""All that can be set, from `BIOSCOPE_*` variables: one frozen record, checked before anything starts."""

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

PREFIX = "BIOSCOPE_"

Port = Annotated[int, Meta(ge=0, le=65535)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


class WrongSetting(Exception):
    """A variable holds what it must not; the text names it and what it expects."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Defaults fit the embedded system; `.env.example` explains each variable."""

    data: Path = Path(".bioscope")
    environment: Annotated[str, Meta(pattern="^(development|production)$")] = "development"
    host: str = "127.0.0.1"
    port: Port = 8000
    public_url: str = ""
    metrics_port: Port = 0

    postgres_url: str = ""
    postgres_owner_url: str = ""
    kafka_url: str = ""
    redis_url: str = ""
    blobs_url: str = ""
    blobs_endpoint: str = ""
    blobs_public_endpoint: str = ""
    blobs_key: str = ""
    blobs_secret: str = ""
    spool: Path = Path("spool")
    root_key_file: Path = Path("keys/root.key")

    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    access_ttl: Positive = 600
    refresh_idle_ttl: Positive = 7 * 86400
    refresh_absolute_ttl: Positive = 30 * 86400
    password_strength: Annotated[str, Meta(pattern="^(production|embedded)$")] = "embedded"  # noqa: S105 - a level, not a secret
    logins_per_minute_account: Positive = 5
    logins_per_minute_address: Positive = 20
    registrations_per_hour_address: Positive = 120

    upload_max_bytes: Positive = 64 * 1024**2
    image_max_pixels: Positive = 100_000_000
    image_max_bands: Positive = 32
    image_max_pages: Positive = 256

    inference_processes: Annotated[int, Meta(ge=0)] = 0
    inference_memory_bytes: Positive = 1024**3
    inference_hang_seconds: Seconds = 15.0
    chunk_lease_seconds: Seconds = 60.0
    chunk_attempts: Positive = 3
    kafka_fetch_wait: Seconds = 0.5
    kafka_groups: bool = True
    log_level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$")] = "info"
    log_json: bool = False

    @property
    def root_key_path(self) -> Path:
        return self.root_key_file if self.root_key_file.is_absolute() else self.data / self.root_key_file

    @property
    def spool_path(self) -> Path:
        """Where uploads to S3 are collected before they are sent."""
        return self.spool if self.spool.is_absolute() else self.data / self.spool

    @property
    def base_url(self) -> str:
        return self.public_url or f"http://{self.host}:{self.port}"


def networks(given: Settings) -> tuple[IPv4Network | IPv6Network, ...]:
    """Those of the proxies that are trusted. Raises WrongSetting."""
    try:
        return tuple(map(ip_network, given.trusted_proxies))
    except ValueError as error:
        raise WrongSetting(f"{PREFIX}TRUSTED_PROXIES: {error}") from None


def load(environment: Mapping[str, str]) -> Settings:
    """Read the settings from `environment`. Raises WrongSetting, naming the variable and what it expects."""
    known = {PREFIX + field.name.upper(): field for field in msgspec.structs.fields(Settings)}
    given = {name: text for name, text in environment.items() if name in known and text}
    values: dict[str, Any] = {known[name].name: _value(name, text, known[name].type) for name, text in given.items()}
    settings = Settings(**values)
    networks(settings)
    return settings


def _value(name: str, text: str, wanted: object) -> object:
    if wanted == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if wanted is Path:
        return Path(text)
    try:
        return msgspec.convert(text, wanted, strict=False)
    except msgspec.ValidationError as error:
        raise WrongSetting(f"{name}: {error}; found {text!r}") from None
