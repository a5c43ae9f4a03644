"""Positions for `bioscope audit`, which reads the log itself."""

from uuid import UUID

import psycopg

from domain.errors import Unavailable
from infrastructure.configuration.settings import Settings
from projections import activity
from projections.engine import postgres_store

CONNECTION_OPTIONS = "-c statement_timeout=30s"


def positions_about(settings: Settings, subject_id: UUID) -> list[int]:
    """The positions of all events that touch a thing, without a check of access. Raises Unavailable."""
    parameters = activity.EVERYTHING | {"about": subject_id, "position": 0, "maximum": None}
    try:
        with postgres_store.connect(settings.postgres_url, options=CONNECTION_OPTIONS) as connection:
            return [position for (position,) in connection.execute(activity.ABOUT, parameters)]
    except psycopg.OperationalError:
        raise Unavailable("The database is away; try again", retry_after=2) from None
