"""Logging: one line per event, with secrets removed."""

import io
import logging
import re
import sys
import threading
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, TextIO, cast

import msgspec
import structlog

from infrastructure.configuration.settings import Settings

REDACTED: Final = "[redacted]"
MAX_DEPTH: Final = 6
MAX_TEXT_CHARACTERS: Final = 16_384  # characters of one value
SECRET_KEYS: Final = re.compile(
    "authorization|cookie|passw|passphrase|secret|token|(?:api|root|private)[_-]?key|credential|signature|e[_-]?mail|(?:first|last)_?name|phone",
    re.IGNORECASE,
)
OWN_FIELDS: Final = frozenset({"time", "level", "process", "method", "route", "request_id"})  # set by this program on every line
PATTERNS: Final = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}", rf"\1 {REDACTED}"),
        (r"(?<![\w-])eyJ[\w-]{4,2048}\.[\w-]+(?:\.[\w-]*)?", REDACTED),
        (r"(?i)([?&;](?:x-amz-[\w-]+|signature|sig|token|key|code|awsaccesskeyid)=)[^&\s\"'<>]+", rf"\1{REDACTED}"),
        (r"bsk_[\w-]{8,}", REDACTED),
        (r"(/api/blobs/)[\w.-]{16,}", rf"\1{REDACTED}"),
        (r"(://[^\s:/@]*:)[^\s/@]+@", rf"\1{REDACTED}@"),
        (r"(?i)\b(passw\w*|secret\w*|\w*token|api_?key)([\"']?\s*[=:]\s*)(?:\"[^\"]*\"|'[^']*'|[^\s,;&}\"']+)", rf"\1\2{REDACTED}"),
        (r"\$argon2\w*\$[^\s\"']+", REDACTED),
        (r"(?<![\w-])(?=[\w-]*[a-z])(?=[\w-]*[A-Z])(?=[\w-]*\d)(?:[\w-]{43}|[\w-]{48})(?![\w-])", REDACTED),
        (r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+", "[address]"),
    )
)
HARMLESS: Final = re.compile(r"(?![\w-]*bsk_)[\w-]{0,42}", re.ASCII)  # matches no pattern, like most words; testing ten patterns is slow
CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

Line = MutableMapping[str, Any]


def configure_logging(settings: Settings, process: str, *, to: TextIO | None = None) -> None:
    """Set up logging of this process and its libraries: one line per event without secrets, as JSON or as text for a terminal."""
    stream = cast(TextIO, BestEffortStream(to or sys.stderr))
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    pretty = not settings.log_json and stream.isatty()
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        _add_process(process),
        structlog.processors.format_exc_info,
        redact,
    ]
    last: Any = structlog.dev.ConsoleRenderer(colors=True, timestamp_key="time") if pretty else structlog.processors.JSONRenderer(_json)
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.INFO), force=True)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_fatal_error
    threading.excepthook = _log_thread_error


class BestEffortStream(io.TextIOBase):
    """A stream that drops lines that cannot be written, such as on a full disk."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):  # ValueError: closed at the end of the process
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()


def redact(_: object, __: str, line: Line) -> Line:
    """Replace secrets in a line, by field names and by patterns, and escape line breaks."""
    return {_plain(name): _sanitized(name, value, MAX_DEPTH) for name, value in line.items()}


def redacted(text: str) -> str:
    if HARMLESS.fullmatch(text):
        return text
    for pattern, replacement in PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _sanitized(name: str, value: object, depth: int) -> object:
    if name in OWN_FIELDS:
        return _plain(str(value))
    if _is_secret(name):
        return REDACTED
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            text = redacted(value[:MAX_TEXT_CHARACTERS])
            return CONTROLS.sub(_escaped, text) if name == "exception" else _plain(text)  # a traceback keeps its line breaks
        case Mapping() if depth:
            return {_plain(str(key)): _sanitized(str(key), inner, depth - 1) for key, inner in value.items()}
        case list() | tuple() | set() | frozenset() if depth:
            return [_sanitized("", inner, depth - 1) for inner in value]
        case _:
            return _sanitized("", str(value), 0)


@lru_cache(maxsize=256)
def _is_secret(name: str) -> bool:
    return bool(SECRET_KEYS.search(name))


def _plain(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    return CONTROLS.sub(_escaped, text.replace("\n", "\\n"))


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def _add_process(process: str) -> Any:
    def add(_: object, __: str, line: Line) -> Line:
        return {"time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"), "process": process, **line}

    return add


def _json(line: Line, **_: object) -> str:
    return msgspec.json.encode(line).decode()


def _log_fatal_error(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        structlog.get_logger().critical("process ended by an error", exc_info=(kind, error, trace))


def _log_thread_error(ended: threading.ExceptHookArgs) -> None:
    name = ended.thread.name if ended.thread else ""
    structlog.get_logger().error("thread ended by an error", thread=name, exc_info=(ended.exc_type, ended.exc_value, ended.exc_traceback))
