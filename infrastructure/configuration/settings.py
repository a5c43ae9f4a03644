"""All settings, read from `BIOSCOPE_*` variables and validated before anything starts."""

import re
from collections.abc import Mapping
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.utils import parseaddr
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args, get_origin

import msgspec
from msgspec import Meta

from infrastructure.configuration.names import PREFIX, is_injected, unknown_names
from infrastructure.configuration.urls import alternatives, url_problem

__all__ = [
    "LOCAL_ADDRESSES",
    "LOOPBACK_HOSTS",
    "PREFIX",
    "Readings",
    "Settings",
    "WrongSetting",
    "load",
    "networks",
    "read",
    "variable",
]

Port = Annotated[int, Meta(ge=0, le=65535, description="a port number from 0 to 65535")]
Positive = Annotated[int, Meta(ge=1, description="a whole number >= 1")]
Count = Annotated[int, Meta(ge=0, description="a whole number >= 0")]
TopicName = Annotated[
    str,
    Meta(
        pattern=r"^(?!bioscope\.)[A-Za-z0-9._-]{1,249}$",
        description="a name of a Kafka topic: 1 to 249 of A-Z, a-z, 0-9, ., _ and -, without bioscope. at the beginning",
    ),
]
Seconds = Annotated[float, Meta(gt=0, le=1e9, description="a number > 0")]
HOST_NAME: Final = re.compile(r"[^\s:/@\[\]]+")
LOOPBACK_HOSTS: Final = frozenset({"127.0.0.1", "::1", "localhost"})
LOCAL_ADDRESSES: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - to reach a server that listens everywhere


class WrongSetting(Exception):
    """Variables are unknown or invalid. The message has a line for each, with the expected value."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings. Defaults suit the embedded system; `.env.example` explains each variable."""

    data: Path = Path(".bioscope")
    environment: Literal["development", "production"] = "development"
    host: str = "127.0.0.1"
    port: Port = 8000
    public_url: str = ""
    metrics_port: Port = 0
    metrics_host: str = "127.0.0.1"
    metrics_token_file: str = ""

    postgres_url: str = ""
    postgres_owner_url: str = ""
    kafka_url: str = ""
    kafka_port: Port = 0
    redis_url: str = ""
    blobs_url: str = ""
    blobs_endpoint: str = ""
    blobs_public_endpoint: str = ""
    blobs_key: str = ""
    blobs_secret: str = ""
    spool: Path = Path("spool")
    root_key_file: Path = Path("keys/root.key")
    key_file: str = ""

    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    access_ttl: Positive = 600
    refresh_idle_ttl: Positive = 7 * 86400
    refresh_absolute_ttl: Positive = 30 * 86400
    password_strength: Literal["production", "embedded"] = "embedded"  # noqa: S105 - a level, not a secret
    logins_per_minute_account: Positive = 5
    logins_per_hour_account: Positive = 100
    logins_per_minute_address: Positive = 300
    known_address_days: Positive = 30
    registrations_per_hour_address: Positive = 120
    registration: Literal["auto", "open", "invite", "closed"] = "auto"
    email_verification: Literal["auto", "on", "off"] = "auto"
    smtp_url: str = ""
    smtp_password_file: str = ""
    mail_from: str = ""
    mails_per_hour_address: Positive = 5
    mails_per_hour_strangers: Positive = 20
    access_log_days: Positive = 400
    changes_per_minute_stream: Positive = 60

    connections: Positive = 4096
    connections_per_address: Positive = 512
    anonymous_connections: Positive = 1024
    request_head_seconds: Seconds = 10.0
    anonymous_body_max_bytes: Positive = 8192
    anonymous_body_seconds: Seconds = 5.0
    anonymous_bodies: Positive = 512
    anonymous_bodies_per_address: Positive = 64
    websockets: Positive = 1000
    websockets_per_account: Positive = 100
    websocket_max_bytes: Positive = 65536
    anonymous_websockets: Positive = 256
    anonymous_websockets_per_address: Positive = 32

    reconcile_seconds: Seconds = 3600.0

    live_connections: Positive = 2
    live_rows_per_second: Positive = 2000

    upload_max_bytes: Positive = 64 * 1024**2
    model_max_bytes: Positive = 512 * 1024**2
    image_max_pixels: Positive = 100_000_000
    image_max_bands: Positive = 32
    image_max_pages: Positive = 256

    kserve_processes: Count = 1
    kserve_max_images: Positive = 16
    kserve_requests_per_minute: Positive = 600

    inference_processes: Count = 0
    inference_memory_bytes: Positive = 1024**3
    inference_hang_seconds: Seconds = 15.0
    inference_provider: str = "CPUExecutionProvider"
    accept_unsandboxed: bool = False
    chunk_lease_seconds: Seconds = 60.0
    chunk_attempts: Positive = 3
    classification_job_topic: TopicName = "classification-job"
    classification_result_topic: TopicName = "classification-result"
    external_window: Positive = 32
    kafka_fetch_wait: Seconds = 0.5
    kafka_groups: bool = True
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_json: bool = False

    @property
    def registration_mode(self) -> str:
        """Who may create an account: `open`, `invite` or `closed`. By default anyone in development, and only invited people otherwise."""
        if self.registration != "auto":
            return self.registration
        return "open" if self.environment == "development" else "invite"

    @property
    def verifies_email(self) -> bool:
        """Whether an address is verified by mail before its account exists. By default wherever mail is sent over SMTP."""
        return bool(self.smtp_url) if self.email_verification == "auto" else self.email_verification == "on"

    @property
    def mail_path(self) -> Path:
        """The folder that mails are written to where no SMTP server is set."""
        return self.data / "mail"

    @property
    def root_key_path(self) -> Path:
        return self.root_key_file if self.root_key_file.is_absolute() else self.data / self.root_key_file

    @property
    def key_path(self) -> Path | None:
        """The key file of this process; None if it derives its keys from the root key."""
        return self.data / self.key_file if self.key_file else None

    @property
    def local_url(self) -> str:
        """The URL of the API on this machine."""
        host = LOCAL_ADDRESSES.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def spool_path(self) -> Path:
        """The folder in which uploads to S3 are collected before they are sent."""
        return self.spool if self.spool.is_absolute() else self.data / self.spool

    @property
    def base_url(self) -> str:
        """The URL of the API for clients."""
        return self.public_url or self.local_url


class Readings(NamedTuple):
    """Settings from the environment: valid values by setting, and problems by variable."""

    values: Mapping[str, Any]
    problems: Mapping[str, str]


def variable(field: str) -> str:
    """The name of the variable of a setting."""
    return PREFIX + field.upper()


def networks(given: Settings) -> tuple[IPv4Network | IPv6Network, ...]:
    """The networks of trusted proxies. Raises ValueError."""
    return tuple(map(ip_network, given.trusted_proxies))


def load(environment: Mapping[str, str]) -> Settings:
    """Read the settings from `environment`. Raises WrongSetting with all invalid variables."""
    values, problems = read(environment)
    if problems:
        raise WrongSetting("\n".join(problems.values()))
    return Settings(**values)


def read(environment: Mapping[str, str]) -> Readings:
    """The settings in `environment`, and all problems with `BIOSCOPE_*` variables. An empty variable counts as not set."""
    fields = {variable(field.name): field for field in msgspec.structs.fields(Settings)}
    given = {name: text for name, text in environment.items() if name in fields and text and not is_injected(name, text)}
    problems = {name: f"{name} {problem}" for name, text in given.items() if (problem := _problem_of(fields[name], text))}
    values = {fields[name].name: _value(fields[name].type, text) for name, text in given.items() if name not in problems}
    problems |= _equal_topics(Settings(**values))
    return Readings(values, unknown_names(environment, fields) | problems)


def _equal_topics(settings: Settings) -> dict[str, str]:
    if settings.classification_job_topic != settings.classification_result_topic:
        return {}
    name, other = variable("classification_result_topic"), variable("classification_job_topic")
    return {name: f"{name} must be another topic than {other}: jobs would be read as answers"}


def _problem_of(field: msgspec.structs.FieldInfo, text: str) -> str | None:
    """The problem, as the end of a sentence that begins with the variable's name."""
    if problem := url_problem(field.name, text):
        return problem
    if field.name == "host" and not _is_host(text):
        return f"must be a host name or an IP address, without scheme, port and brackets, not {text!r}"
    if field.name == "mail_from" and not _is_sender(text):
        return f"must be an address, or a name and an address like BioScopeAI <bioscope@example.org>, not {text!r}"
    try:
        value = _value(field.type, text)
        if field.name == "trusted_proxies":
            networks(Settings(trusted_proxies=value))
    except msgspec.ValidationError:
        return f"must be {_expected(field.type)}, not {text!r}"
    except ValueError as error:
        return f"must be addresses or networks, separated by commas: {error}"
    return None


def _value(kind: Any, text: str) -> Any:
    """Convert the text of a variable. Raises msgspec.ValidationError."""
    if kind == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return Path(text) if kind is Path else msgspec.convert(text, kind, strict=False)


def _expected(kind: Any) -> str:
    if kind is bool:
        return "true or false"
    if get_origin(kind) is Literal:
        return alternatives(get_args(kind))
    return next(str(meta.description) for meta in get_args(kind) if isinstance(meta, Meta))


def _is_host(text: str) -> bool:
    try:
        return bool(ip_address(text))
    except ValueError:
        return HOST_NAME.fullmatch(text) is not None


def _is_sender(text: str) -> bool:
    address = parseaddr(text)[1]
    try:
        return text.isprintable() and address.isascii() and Address(addr_spec=address).addr_spec == address
    except (ValueError, IndexError, HeaderParseError):
        return False
