"""The clock of the web layer."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    return datetime.now(UTC)
