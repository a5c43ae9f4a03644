"""The inspection of uploads: decodes each image completely, and accepts it with metadata and renditions or rejects it with a reason."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final
from uuid import UUID, uuid4

import structlog

from application import image_inspection
from application.derivatives import MEDIA_TYPE, preview_of, thumbnail_of
from application.jobs.tasks import Task
from application.ports import BlobStore, Command, EventStore
from infrastructure.images.validation import ImageLimits
from infrastructure.inference.children.child_process import ChildFailed, ChildLost
from infrastructure.inference.children.process_pool import ProcessPool
from infrastructure.inference.failures import ACTOR, read_images, refusal_for
from infrastructure.inference.predictions import ImageRefusal, InspectedUpload, check_inspected, inspection_of
from infrastructure.observability.metrics import IMAGES
from infrastructure.retry import Retry

log = structlog.get_logger()

EXAMINE: Final = "infrastructure.inference.children.child_functions:examine"
IMAGES_PER_CHILD: Final = 2  # in progress, so that the next one is read while a child works
INSPECTION_FAILED: Final = ImageRefusal("inspection_failed", "The image could not be inspected. Save or export it again")


class ImageInspector:
    """Inspects images. A repeated task is harmless, since an inspection is recorded once."""

    def __init__(
        self,
        *,
        log: EventStore,
        blobs: BlobStore,
        pool: ProcessPool,
        retry: Retry,
        limits: ImageLimits,
        function: str = EXAMINE,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._log, self._blobs, self._pool, self._retry = log, blobs, pool, retry
        self._limits, self._function, self._now = limits, function, now
        self._slots = asyncio.Semaphore(IMAGES_PER_CHILD * pool.size)

    async def inspect(self, task: Task) -> None:
        """Inspect each image of the task, unless it was deleted or inspected before. Raises Unavailable."""
        await asyncio.gather(*(self._inspect(image_id) for image_id in task.image_ids))

    async def _inspect(self, image_id: UUID) -> None:
        """Inspect the file that the log names; the task is only a reference."""
        async with self._slots:
            state = await self._retry(image_inspection.uninspected, image_id, log=self._log)
            if state is None:
                return
            result = await self._decode(state.sha256)
            if isinstance(result, InspectedUpload):
                await self._retry(self._store_renditions, state.sha256, result)
            recorded = await self._retry(self._record, image_id, result)
        reason = result.reason if isinstance(result, ImageRefusal) else None
        IMAGES.labels("rejected" if reason else "inspected").inc()
        log.info("image inspected", image=str(image_id), rejected=reason, written=recorded)

    async def _decode(self, sha256: str) -> InspectedUpload | ImageRefusal:
        """Decode the file. A failed call is repeated once, since an earlier call may have damaged the child."""
        (file,) = await self._retry(read_images, self._blobs, [sha256])
        if isinstance(file, ImageRefusal):
            return file
        try:
            return await self._call(file)
        except (ChildLost, ChildFailed):
            pass
        try:
            return await self._call(file)
        except (ChildLost, ChildFailed) as error:
            return refusal_for(error, otherwise=INSPECTION_FAILED)

    async def _call(self, file: bytes) -> InspectedUpload | ImageRefusal:
        return await self._pool.run(
            self._function,
            file,
            self._limits,
            into=InspectedUpload | ImageRefusal,  # type: ignore[arg-type]
            check=partial(check_inspected, limits=self._limits),
        )

    def _store_renditions(self, sha256: str, result: InspectedUpload) -> None:
        """Store renditions before the image is accepted, so that they exist when it becomes visible."""
        self._blobs.put_derived(thumbnail_of(sha256, result.reader), result.thumbnail, MEDIA_TYPE)
        if result.preview is not None:
            self._blobs.put_derived(preview_of(sha256, result.reader), result.preview, MEDIA_TYPE)

    def _record(self, image_id: UUID, result: InspectedUpload | ImageRefusal) -> bool:
        """Record the result. False if the image was inspected or deleted in the meantime."""
        command = Command(id=uuid4(), actor=ACTOR, at=self._now())
        if isinstance(result, ImageRefusal):
            return image_inspection.reject(image_id, reason=result.reason, detail=result.detail, command=command, log=self._log)
        return image_inspection.accept(image_id, inspection_of(result), command=command, log=self._log)
