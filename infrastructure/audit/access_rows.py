"""The rows of the trail of access."""

from collections.abc import Sequence
from typing import Any, Final

from application.history.access_records import RecordedAccess

RECORD_COLUMNS: Final = """position, recorded_at, at, kind, outcome, actor_id, actor_kind, key_id, noun, object_id, dataset_id, route,
  request_id, count, address, hash"""
RECORDS_BETWEEN: Final = f"""select {RECORD_COLUMNS}
  from ops.access_log where position > %s and position <= %s
  order by position"""  # noqa: S608 - constants
ENDS: Final = "select position, hash, anchor_position, anchor_hash from ops.access_head"


def recorded_access_from(row: Sequence[Any]) -> RecordedAccess:
    """The record in a row of `RECORD_COLUMNS`."""
    return RecordedAccess(**dict(zip(RecordedAccess.__struct_fields__, row, strict=True)))
