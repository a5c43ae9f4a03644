"""Positions of events for `bioscope audit`, which then reads the log."""

from typing import Final
from uuid import UUID

import psycopg

from infrastructure.configuration.settings import Settings
from infrastructure.postgres.errors import database_unavailable
from infrastructure.postgres.profiles import READ_MODELS
from projections import activity
from projections.engine import postgres_store

PROFILE: Final = READ_MODELS.having(statement_timeout="30s")


def positions_about(settings: Settings, subject_id: UUID) -> list[int]:
    """The positions of all events that concern a thing, without a check of access. Raises Unavailable."""
    parameters = activity.EVERYTHING | {"about": subject_id, "position": 0, "maximum": None}
    try:
        with postgres_store.connect(settings.postgres_url, profile=PROFILE) as connection:
            return [position for (position,) in connection.execute(activity.ABOUT, parameters)]
    except psycopg.OperationalError:
        raise database_unavailable() from None
