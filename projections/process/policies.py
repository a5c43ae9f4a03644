"""The background application of policies in the projector process."""

from collections.abc import Callable

import structlog

from infrastructure.postgres.advisory_locks import AdvisoryLock, try_lock
from infrastructure.postgres.profiles import POLICIES
from projections.engine import postgres_store
from projections.engine.postgres_store import PostgresReadModels
from projections.policy_application import PolicyApplication

log = structlog.get_logger()


def apply_policies(url: str, stopped: Callable[[], bool]) -> None:
    """Let all results follow the policies, unless another process does so. Raises FoldsDiffer, psycopg.Error."""
    with postgres_store.connect(url, monitored=True, profile=POLICIES) as connection:
        if not try_lock(connection, AdvisoryLock.POLICIES):
            return
        PostgresReadModels(connection).read_checkpoint()
        application = PolicyApplication(connection, stopped=stopped)
        if not application.is_done():
            log.info("policies applied", results=application.run(), done=application.is_done())
