"""Uploaded images, decoded whole for the first time: accepted with their measures, or rejected with a reason."""

import asyncio
from concurrent.futures import Executor
from datetime import UTC, datetime
from functools import partial
from typing import Final
from uuid import UUID, uuid4

import structlog

from application.derivatives import MEDIA_TYPE, preview_of, thumbnail_of
from application.ports import BlobStore, Command, ConcurrencyConflict, EventStore
from application.tasks import Task
from domain import image
from domain.image import Image, ImageAccepted, ImageRejected
from infrastructure.images.validation import ImageLimits
from infrastructure.inference.children.process_pool import ChildFailed, ChildLost, ProcessPool
from infrastructure.inference.failures import ACTOR, read_images, refusal_for
from infrastructure.inference.predictions import ImageRefusal, InspectedUpload, check_inspected, inspection_of
from infrastructure.observability.metrics import IMAGES
from infrastructure.retry import retry_while_unavailable

log = structlog.get_logger()

EXAMINE: Final = "infrastructure.inference.children.child_functions:examine"
IMAGES_PER_CHILD: Final = 2  # images for each child: one at work, one being read
MAX_ATTEMPTS: Final = 8
INSPECTION_FAILED: Final = ImageRefusal("inspection_failed", "The image could not be inspected. Save or export it again")


class ImageInspector:
    """Inspects images. Harmless to ask twice."""

    def __init__(
        self, *, log: EventStore, blobs: BlobStore, pool: ProcessPool, threads: Executor, limits: ImageLimits, examine: str = EXAMINE
    ) -> None:
        self._log, self._blobs, self._pool, self._threads = log, blobs, pool, threads
        self._limits, self._examine = limits, examine
        self._held = asyncio.Semaphore(IMAGES_PER_CHILD * pool.size)

    async def inspect(self, task: Task) -> None:
        """Answer for each image of the task, unless it was deleted or answered for. Raises Unavailable."""
        await asyncio.gather(*(self._inspect(image_id) for image_id in task.image_ids))

    async def _inspect(self, image_id: UUID) -> None:
        """The bytes are those that the log names: a task is only a reference."""
        async with self._held:
            state = await retry_while_unavailable(self._threads, self._waiting, image_id)
            if state is None:
                return
            found = await self._look(state.sha256)
            if isinstance(found, InspectedUpload):
                await retry_while_unavailable(self._threads, self._put, state.sha256, found)
            said = await retry_while_unavailable(self._threads, self._say, image_id, found)
        reason = found.reason if isinstance(found, ImageRefusal) else None
        IMAGES.labels("rejected" if reason else "inspected").inc()
        log.info("image inspected", image=str(image_id), rejected=reason, written=said)

    async def _look(self, sha256: str) -> InspectedUpload | ImageRefusal:
        """A call that fails is repeated once: what broke the child may have been somebody else."""
        (data,) = await retry_while_unavailable(self._threads, read_images, self._blobs, [sha256])
        if isinstance(data, ImageRefusal):
            return data
        try:
            return await self._ask(data)
        except (ChildLost, ChildFailed):
            pass
        try:
            return await self._ask(data)
        except (ChildLost, ChildFailed) as error:
            return refusal_for(error, otherwise=INSPECTION_FAILED)

    async def _ask(self, data: bytes) -> InspectedUpload | ImageRefusal:
        return await self._pool.run(
            self._examine,
            data,
            self._limits,
            into=InspectedUpload | ImageRefusal,  # type: ignore[arg-type]
            check=partial(check_inspected, limits=self._limits),
        )

    def _put(self, sha256: str, found: InspectedUpload) -> None:
        """What browsers show of it, before anybody is told that it is there."""
        self._blobs.put_derived(thumbnail_of(sha256, found.reader), found.thumbnail, MEDIA_TYPE)
        if found.preview is not None:
            self._blobs.put_derived(preview_of(sha256, found.reader), found.preview, MEDIA_TYPE)

    def _waiting(self, image_id: UUID) -> Image | None:
        """None when nobody waits for an answer, or there is no such image."""
        state = self._log.load(image_id, image.evolve)
        return None if state is None or state.deleted or state.inspected else state

    def _say(self, image_id: UUID, found: InspectedUpload | ImageRefusal) -> bool:
        """False when there was nothing to say any more."""
        for _ in range(MAX_ATTEMPTS):
            state = self._waiting(image_id)
            if state is None:
                return False
            events = _decided(state, found)
            try:
                self._log.append(Command(id=uuid4(), actor=ACTOR, at=events[0].at), *events, subject=image_id)
            except ConcurrencyConflict:
                continue
            return True
        raise ConcurrencyConflict("This image changes all the time")


def _decided(state: Image, found: InspectedUpload | ImageRefusal) -> list[ImageAccepted] | list[ImageRejected]:
    now = datetime.now(UTC)
    if isinstance(found, ImageRefusal):
        return image.reject(state, reason=found.reason, detail=found.detail, by=ACTOR.id, at=now)
    return image.accept(state, inspection_of(found), by=ACTOR.id, at=now)
