"""The model versions of jobs, read from the log and cached, since versions never change."""

from threading import Lock
from typing import Final
from uuid import UUID

from cachetools import LRUCache

from application.ports import EventStore
from domain import model
from domain.classification import Classification
from domain.errors import NotFound
from domain.model import Version

MAX_CACHED: Final = 64


class ModelVersions:
    """Thread-safe. Calls block, and raise Unavailable."""

    def __init__(self, log: EventStore) -> None:
        self._log = log
        self._lock = Lock()
        self._known: LRUCache[tuple[UUID, int], Version] = LRUCache(MAX_CACHED)

    def of(self, job: Classification) -> Version:
        """The version that the job runs. Raises NotFound for a job that is not of this log."""
        key = job.model_id, job.model_version
        with self._lock:
            known = self._known.get(key)
        if known is None:
            state = self._log.load(job.model_id, model.evolve)
            if state is None:
                raise NotFound(f"Model {job.model_name} not found")
            known = state.numbered(job.model_version)
            with self._lock:
                self._known[key] = known
        return known
