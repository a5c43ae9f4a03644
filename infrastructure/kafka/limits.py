"""How large a record may be: no broker takes, and no reader stalls at, a larger one."""

from typing import Final

MAX_RECORD_BYTES: Final = 1024 * 1024
MAX_FETCH_BYTES: Final = 4 * MAX_RECORD_BYTES  # more than any record has
