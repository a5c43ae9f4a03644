"""Limits of record sizes, so that brokers accept every record and readers can fetch it."""

from typing import Final

MAX_RECORD_BYTES: Final = 1024 * 1024
MAX_FETCH_BYTES: Final = 4 * MAX_RECORD_BYTES  # more than any record has
