"""Model versions of jobs, read from the log and cached."""

from threading import Lock
from uuid import UUID

from cachetools import LRUCache

from application.ports import EventStore
from domain import model
from domain.classification import Classification
from domain.errors import NotFound
from domain.model import Version

MAX_CACHED_VERSIONS = 64


class JobVersions:
    """The model version of each job. Versions never change, so they are cached. Thread-safe."""

    def __init__(self, log: EventStore, *, maximum: int = MAX_CACHED_VERSIONS) -> None:
        self._log = log
        self._lock = Lock()
        self._versions: LRUCache[tuple[UUID, int], Version] = LRUCache(maximum)

    def of(self, job: Classification) -> Version:
        """Blocks. Raises NotFound for a job that is older than this log, and Unavailable."""
        key = job.model_id, job.model_version
        with self._lock:
            known = self._versions.get(key)
        if known is None:
            state = self._log.load(job.model_id, model.evolve)
            if state is None:
                raise NotFound(f"Model {job.model_name} not found")
            known = state.numbered(job.model_version)
            with self._lock:
                self._versions[key] = known
        return known
