"""The recorded results of an image, with the model version and preprocessing that produced them."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, Protocol
from uuid import UUID

import msgspec

from application.ports import EventStore
from domain import model
from domain.classification import ChunkJudged, ClassificationRequested, ImageResult, PlaneSelection
from domain.errors import NotFound
from domain.model import Version
from domain.values import model_id, result_id

CACHED_CHUNKS: Final = 64  # up to 64 results each; images that were uploaded together are usually in the same chunk
CACHED_JOBS: Final = 256
CACHED_VERSIONS: Final = 32


class ChunkPositions(Protocol):
    def chunks_of(self, image: UUID) -> Sequence[int]:
        """Positions of the ChunkJudged events that contain an image, ascending, without deleted jobs. Raises Unavailable."""


class RecordedResult(msgspec.Struct, frozen=True, kw_only=True):
    """One result. `preprocessing` is the digest of the preprocessing that made the tensor, empty if the log does not contain it.

    `planes` are those that its job has chosen; None where the model chose.
    """

    job: UUID
    planes: PlaneSelection | None
    model_name: str
    model_version: int
    preprocessing: str
    result: ImageResult

    @property
    def id(self) -> UUID:
        return result_id(self.job, self.result.image_id)

    @property
    def model(self) -> tuple[str, int]:
        return self.model_name, self.model_version


class RecordedResults:
    """Reads results and model versions from the log, with bounded caches. Thread-safe."""

    def __init__(self, *, log: EventStore, chunks: ChunkPositions) -> None:
        self._log, self._chunks = log, chunks
        self._chunk = lru_cache(CACHED_CHUNKS)(self._loaded_chunk)
        self._planes = lru_cache(CACHED_JOBS)(self._loaded_planes)
        self.version = lru_cache(CACHED_VERSIONS)(self._loaded_version)

    def of(self, image: UUID) -> Iterator[RecordedResult]:
        """The results of an image, oldest first. Raises Unavailable."""
        for position in self._chunks.chunks_of(image):
            chunk = self._chunk(position)
            for result in chunk.results:
                if result.image_id == image:
                    yield RecordedResult(
                        job=chunk.job_id,
                        planes=self._planes(chunk.job_id),
                        model_name=chunk.model_name,
                        model_version=chunk.model_version,
                        preprocessing=chunk.provenance.preprocessing if chunk.provenance else "",
                        result=result,
                    )

    def _loaded_chunk(self, position: int) -> ChunkJudged:
        event = self._log.decode(self._log.read(position - 1, 1)[0])
        assert isinstance(event, ChunkJudged)
        return event

    def _loaded_planes(self, job: UUID) -> PlaneSelection | None:
        requested = self._log.event(job, 1)
        event = None if requested is None else self._log.decode(requested)
        return event.planes if isinstance(event, ClassificationRequested) else None

    def _loaded_version(self, name: str, number: int) -> Version:
        """A model version. Raises NotFound."""
        state = self._log.load(model_id(name), model.evolve)
        if state is None:
            raise NotFound(f"Model {name} not found")
        return state.numbered(number)
