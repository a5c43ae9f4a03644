"""How large a record may be: no broker accepts a larger one, and no reader stalls at one."""

from typing import Final

MAX_RECORD_BYTES: Final = 1024 * 1024
MAX_FETCH_BYTES: Final = 4 * MAX_RECORD_BYTES  # more than any record has
