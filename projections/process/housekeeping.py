"""Housekeeping of the projector process: deletes unused blobs and obsolete rows."""

from datetime import UTC, datetime
from functools import partial
from typing import Final

import structlog

from application.blob_gc import sweep_orphans
from infrastructure.audit.access_retention import remove_old_records
from infrastructure.blobs.store import open_blobs
from infrastructure.configuration.settings import Settings
from infrastructure.eventstore.pruning import prune
from infrastructure.observability.metrics import ORPHANS_FREED, ORPHANS_LEFT, ORPHANS_SWEPT_AT, PRUNED
from infrastructure.security.key_ring import NO_KEYS
from projections.blob_references import blobs_in_use
from projections.engine import postgres_store
from projections.engine.postgres_store import PostgresReadModels

log = structlog.get_logger()

ACCESS_LOG: Final = "ops.access_log"


def sweep(settings: Settings) -> None:
    """Delete unused blobs, and report those that were kept for events that could not be applied.

    Raises FoldsDiffer, since read models of another release may refer to unknown blobs, Unavailable, psycopg.Error.
    """
    with postgres_store.connect(settings.postgres_url, monitored=True) as connection:
        PostgresReadModels(connection).read_checkpoint()
        swept = sweep_orphans(open_blobs(settings, NO_KEYS), partial(blobs_in_use, connection), now=datetime.now(UTC))
    ORPHANS_FREED.inc(swept.freed)
    ORPHANS_LEFT.set(swept.waiting)
    ORPHANS_SWEPT_AT.set_to_current_time()
    if swept.waiting:
        log.warning("orphaned blobs kept", blobs=swept.waiting, reason="events that could not be applied may refer to them")
    if swept.freed:
        log.info("orphaned blobs deleted", blobs=swept.freed)


def remove_old_rows(settings: Settings) -> None:
    """Remove obsolete rows beside the log. Raises psycopg.Error."""
    with postgres_store.connect(settings.postgres_url, monitored=True) as connection:
        removed = prune(connection)
        removed[ACCESS_LOG] = remove_old_records(connection, days=settings.access_log_days)
    PRUNED.labels(ACCESS_LOG).inc(removed[ACCESS_LOG])
    if any(removed.values()):
        log.info("obsolete rows removed", **removed)
