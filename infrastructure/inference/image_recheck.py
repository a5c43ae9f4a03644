"""The recheck of stored images in sandboxed children. One thread per image waits for the answers."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import BinaryIO, Final, TypeVar
from uuid import UUID

from anyio.from_thread import BlockingPortal, start_blocking_portal

from application.ports import BlobStore
from application.recheck.image_recheck import ImageRecheck, RecheckResult
from application.recheck.pixel_reader import DecodedImage, DecoderFailed, PixelReader, Prediction, UnreadableImage
from application.result_rules import result_rules
from domain.classification import PlaneSelection
from domain.errors import Invalid
from domain.model import Version
from infrastructure.configuration.settings import Settings
from infrastructure.images.reader_version import READER_VERSION
from infrastructure.images.validation import ImageLimits
from infrastructure.inference.children.child_process import ChildFailed, ChildLost
from infrastructure.inference.children.process_pool import ForkServer, ProcessPool
from infrastructure.inference.failures import refusal_for
from infrastructure.inference.model_reference import DEFAULT_PROVIDER, reference_to
from infrastructure.inference.models.refusals import PackageRefused
from infrastructure.inference.packages.manifest_reader import parse_record
from infrastructure.inference.predictions import (
    BatchPrediction,
    ImageRefusal,
    InspectedUpload,
    ModelPrediction,
    check_batch,
    check_inspected,
    inspection_of,
)
from infrastructure.sandbox import supported
from infrastructure.sandbox.policy import require_sandbox

T = TypeVar("T")
Report = Callable[[RecheckResult | None], None]

EXAMINE: Final = "infrastructure.inference.children.child_functions:examine"
CLASSIFY: Final = "infrastructure.inference.children.child_functions:classify"
NICENESS: Final = 10  # so that other work goes first
IMAGES_PER_CHILD: Final = 2  # one is processed while the next is read
MAX_ATTEMPTS: Final = 2  # an earlier call may have damaged the child
DECODER_FAILED: Final = ImageRefusal("decoder_failed", "The image could not be decoded. Try again")


class ChildReader:
    """Implements `PixelReader` with a pool of children. `portal` gives other threads access to the pool's event loop."""

    version = READER_VERSION

    def __init__(
        self,
        portal: BlockingPortal,
        pool: ProcessPool,
        *,
        blobs: BlobStore,
        limits: ImageLimits,
        examine: str = EXAMINE,
        classify: str = CLASSIFY,
        provider: str = DEFAULT_PROVIDER,
    ) -> None:
        self._portal, self._pool, self._blobs, self._limits, self._provider = portal, pool, blobs, limits, provider
        self._examine, self._classify = examine, classify
        self.preprocessing = lru_cache(_preprocessing)

    def decode(self, data: bytes) -> DecodedImage | UnreadableImage:
        answer: InspectedUpload | ImageRefusal = self._answer(
            lambda: self._pool.run(
                self._examine,
                data,
                self._limits,
                into=InspectedUpload | ImageRefusal,  # type: ignore[arg-type]
                check=partial(check_inspected, limits=self._limits),
            )
        )
        if isinstance(answer, ImageRefusal):
            return UnreadableImage(answer.detail)
        return DecodedImage(inspection=inspection_of(answer), thumbnail=answer.thumbnail, preview=answer.preview)

    def classify(self, data: bytes, version: Version, planes: PlaneSelection | None) -> Prediction | UnreadableImage:
        async def file() -> BinaryIO:
            return await asyncio.to_thread(self._blobs.open_locally, version.file)

        arguments = reference_to(version, provider=self._provider), [data], self._limits, planes or PlaneSelection()
        check = partial(check_batch, images=1, rules=result_rules(version))
        batch = self._answer(
            lambda: self._pool.run(self._classify, *arguments, into=BatchPrediction, check=check, lend={version.file: file})
        )
        (answer,) = batch.answers
        if isinstance(answer, ModelPrediction):
            return Prediction(label=answer.label, confidence=answer.confidence, scores=answer.scores)
        return UnreadableImage(answer.detail)

    def _answer(self, call: Callable[[], Awaitable[T]]) -> T:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                return self._portal.call(call)
            except (ChildLost, ChildFailed) as error:
                if attempt == MAX_ATTEMPTS:
                    raise DecoderFailed(refusal_for(error, otherwise=DECODER_FAILED).detail) from error
        raise AssertionError("unreachable")


def _preprocessing(record: str) -> str:
    try:
        return parse_record(record).preprocessing_digest
    except PackageRefused as error:
        raise Invalid(f"The manifest of the model cannot be read: {error}") from error


def recheck_images(
    settings: Settings,
    pages: Iterable[Sequence[UUID]],
    *,
    blobs: BlobStore,
    recheck_with: Callable[[PixelReader], ImageRecheck],
    report: Report,
) -> None:
    """Recheck images page by page. `report` is called with each result, None for an image that had nothing to check.

    May be interrupted at any time. Raises Unavailable, Unsandboxed.
    """
    require_sandbox(settings, supported())
    size = settings.inference_processes or os.cpu_count() or 1
    limits = ImageLimits(pixels=settings.image_max_pixels, bands=settings.image_max_bands, pages=settings.image_max_pages)
    with (
        start_blocking_portal(name="recheck") as portal,
        _threads(IMAGES_PER_CHILD * size) as threads,
        _pool(portal, size, settings) as pool,
    ):
        recheck = recheck_with(ChildReader(portal, pool, blobs=blobs, limits=limits, provider=settings.inference_provider))
        for page in pages:
            for check in as_completed([threads.submit(recheck.check, image) for image in page]):
                report(check.result())


@contextmanager
def _threads(size: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that end after their current check."""
    threads = ThreadPoolExecutor(size, thread_name_prefix="recheck")
    try:
        yield threads
    finally:
        threads.shutdown(cancel_futures=True)


@contextmanager
def _pool(portal: BlockingPortal, size: int, settings: Settings) -> Iterator[ProcessPool]:
    """A pool of children. Calls that still wait at the end raise PoolClosed."""
    fork_server = portal.call(ForkServer, "infrastructure.inference.children.child_functions")
    pool = portal.call(
        lambda: ProcessPool(
            fork_server,
            size=size,
            nice=NICENESS,
            memory_bytes=settings.inference_memory_bytes,
            hang_seconds=settings.inference_hang_seconds,
        )
    )
    try:
        yield pool
    finally:
        portal.call(pool.close)
        portal.call(fork_server.close)
