"""Uploaded images, decoded whole for the first time: accepted with their measures, or rejected with a reason."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime
from functools import partial
from typing import Final
from uuid import UUID, uuid4

import structlog

from application import image_inspection
from application.derivatives import MEDIA_TYPE, preview_of, thumbnail_of
from application.ports import BlobStore, Command, EventStore
from application.tasks import Task
from infrastructure.images.validation import ImageLimits
from infrastructure.inference.children.process_pool import ChildFailed, ChildLost, ProcessPool
from infrastructure.inference.failures import ACTOR, bytes_of, failure_for
from infrastructure.inference.predictions import ImageRefusal, Inspected, check_inspected, inspection_of
from infrastructure.observability.metrics import IMAGES
from infrastructure.retry import RETRY_DELAYS_SECONDS, Retry

log = structlog.get_logger()

EXAMINE: Final = "infrastructure.inference.children.child_functions:examine"
IMAGES_PER_CHILD: Final = 2  # images for each child: one at work, one being read
FAILS: Final = ImageRefusal("inspection_failed", "The image could not be inspected. Save or export it again")


class ImageInspector:
    """Inspects images. Harmless to ask twice."""

    def __init__(
        self,
        *,
        log: EventStore,
        blobs: BlobStore,
        pool: ProcessPool,
        threads: Executor,
        limits: ImageLimits,
        examine: str = EXAMINE,
        retry_delays_seconds: Sequence[float] = RETRY_DELAYS_SECONDS,
    ) -> None:
        self._log, self._blobs, self._pool = log, blobs, pool
        self._retry = Retry(threads, delays_seconds=retry_delays_seconds)
        self._limits, self._examine = limits, examine
        self._held = asyncio.Semaphore(IMAGES_PER_CHILD * pool.size)

    async def inspect(self, task: Task) -> None:
        """Answer for each image of the task, unless it was deleted or answered for. Raises Unavailable."""
        await asyncio.gather(*(self._inspect(image_id) for image_id in task.image_ids))

    async def _inspect(self, image_id: UUID) -> None:
        """The bytes are those that the log names: a task is only a reference."""
        async with self._held:
            state = await self._retry(image_inspection.uninspected, image_id, log=self._log)
            if state is None:
                return
            found = await self._look(state.sha256)
            if isinstance(found, Inspected):
                await self._retry(self._put, state.sha256, found)
            recorded = await self._retry(self._record, image_id, found)
        reason = found.reason if isinstance(found, ImageRefusal) else None
        IMAGES.labels("rejected" if reason else "inspected").inc()
        log.info("image inspected", image=str(image_id), rejected=reason, written=recorded)

    async def _look(self, sha256: str) -> Inspected | ImageRefusal:
        """A call that fails is repeated once: what broke the child may have been somebody else."""
        (data,) = await self._retry(bytes_of, self._blobs, [sha256])
        if isinstance(data, ImageRefusal):
            return data
        try:
            return await self._ask(data)
        except (ChildLost, ChildFailed):
            pass
        try:
            return await self._ask(data)
        except (ChildLost, ChildFailed) as error:
            return failure_for(error, otherwise=FAILS)

    async def _ask(self, data: bytes) -> Inspected | ImageRefusal:
        return await self._pool.run(
            self._examine,
            data,
            self._limits,
            into=Inspected | ImageRefusal,  # type: ignore[arg-type]
            check=partial(check_inspected, limits=self._limits),
        )

    def _put(self, sha256: str, found: Inspected) -> None:
        """What browsers show of it, before anybody is told that it is there."""
        self._blobs.put_derived(thumbnail_of(sha256, found.reader), found.thumbnail, MEDIA_TYPE)
        if found.preview is not None:
            self._blobs.put_derived(preview_of(sha256, found.reader), found.preview, MEDIA_TYPE)

    def _record(self, image_id: UUID, found: Inspected | ImageRefusal) -> bool:
        """False when the image was inspected or deleted meanwhile."""
        command = Command(id=uuid4(), actor=ACTOR, at=datetime.now(UTC))
        if isinstance(found, ImageRefusal):
            return image_inspection.reject(image_id, reason=found.reason, detail=found.detail, command=command, log=self._log)
        return image_inspection.accept(image_id, inspection_of(found), command=command, log=self._log)
