"""Validation of URLs in settings, and removal of passwords for display."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import SplitResult, urlsplit

ESCAPES: Final = "percent-encode special characters of the user name and password (@ is %40, / is %2F)"
ADDRESS: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]*)(?::[0-9]{1,5})?")
BROKER: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+):[0-9]{1,5}")
SCHEME: Final = re.compile(r"[A-Za-z][\w+.-]*:/")
BAD_ESCAPE: Final = re.compile("%(?![0-9A-Fa-f]{2})")
PASSWORD: Final = re.compile(r"(://[^:/?#@]*:)[^/?#@]*@")
PASSWORD_PARAMETER: Final = re.compile(r"([?&](?:password|sslpassword)=)[^&#]*", re.IGNORECASE)
HIDDEN: Final = "(hidden)"

Rule = Callable[[str], str | None]
"""The expected value, as the end of a sentence that begins with the variable's name; None for a valid value."""


def url_problem(field: str, value: str) -> str | None:
    """The problem with the value of a setting, without passwords; None for a valid or empty one."""
    rule = RULES.get(field)
    return rule(value) if rule is not None and value else None


def without_password(value: str) -> str:
    """A URL with its password hidden; any other text unchanged."""
    return PASSWORD_PARAMETER.sub(rf"\1{HIDDEN}", PASSWORD.sub(rf"\1{HIDDEN}@", value))


def shown_origin(value: str) -> str:
    """Only the scheme, host and port of a URL; a text without a scheme as it is, unless it may contain a password."""
    scheme, separator, rest = value.partition("://")
    if not separator:
        return HIDDEN if "@" in value else value
    return f"{scheme}://{re.split('[/?#]', rest.rpartition('@')[2], maxsplit=1)[0]}"


def alternatives(words: Sequence[str]) -> str:
    """Two or more words as `a, b or c`."""
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _url(*schemes: str, example: str, needs: Callable[[SplitResult], bool] = lambda _: True) -> Rule:
    def problem(value: str) -> str | None:
        if value.partition("://")[0] not in schemes or "://" not in value:
            return f"must begin with {alternatives([f'{scheme}://' for scheme in schemes])}, like {example}{_found(value)}"
        parts = _split(value)
        if parts is None or BAD_ESCAPE.search(parts.netloc):
            return f"is not a valid URL: write it like {example}, and {ESCAPES}"
        return None if needs(parts) else f"must be like {example}"

    return problem


def _brokers(value: str) -> str | None:
    if all(BROKER.fullmatch(part.strip()) for part in value.split(",")):
        return None
    return f"must be HOST:PORT, or several separated by commas, without a scheme{_found(value)}"


def _blobs(value: str) -> str | None:
    if value.startswith("s3://") and value.removeprefix("s3://").strip("/"):
        return None
    if "://" not in value and not SCHEME.match(value):
        return None
    return f"must be s3://BUCKET or the path of a folder{_found(value)}"


def _smtp(value: str) -> str | None:
    if (parts := _split(value)) is not None and parts.password is not None:
        return "must not contain a password: write it into a file, and name that in BIOSCOPE_SMTP_PASSWORD_FILE"
    return _SMTP(value)


def _split(value: str) -> SplitResult | None:
    """The parts, or None for an invalid URL, such as one with unescaped characters in its password."""
    try:
        parts = urlsplit(value)
    except ValueError:
        return None
    user, _, addresses = parts.netloc.rpartition("@")
    valid = "@" not in user and all(ADDRESS.fullmatch(address) for address in addresses.split(","))
    return parts if valid else None


def _found(value: str) -> str:
    """A message about the scheme of the value only, since the rest may contain a password."""
    return f"; {value.partition('://')[0]}:// is not supported" if SCHEME.match(value) and "://" in value else ""


def _has_host(parts: SplitResult) -> bool:
    return bool(parts.hostname) and not (parts.query or parts.fragment)


def _has_socket_path(parts: SplitResult) -> bool:
    return parts.scheme != "unix" or bool(parts.path)


def _is_server(parts: SplitResult) -> bool:
    return _has_host(parts) and parts.path in {"", "/"}


_SMTP = _url("smtp", "smtps", example="smtps://USER@mail.example.org", needs=_is_server)
_POSTGRES = _url("postgresql", "postgres", example="postgresql://USER:PASSWORD@HOST:5432/DATABASE")
RULES: Final[Mapping[str, Rule]] = {
    "postgres_url": _POSTGRES,
    "postgres_owner_url": _POSTGRES,
    "kafka_url": _brokers,
    "redis_url": _url("redis", "rediss", "unix", example="redis://HOST:6379/0 or unix:///path/to/socket", needs=_has_socket_path),
    "blobs_url": _blobs,
    "blobs_endpoint": _url("http", "https", example="https://objects.example.org", needs=_has_host),
    "blobs_public_endpoint": _url("http", "https", example="https://objects.example.org", needs=_has_host),
    "smtp_url": _smtp,
    "public_url": _url("http", "https", example="https://bioscope.example.org", needs=_has_host),
}
