"""Classification of a chunk's images in groups: reads the files and runs the model on each group in a child."""

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from typing import BinaryIO, Final, NamedTuple

import structlog

from application.ports import BlobStore
from application.result_rules import ResultRules, result_rules
from domain.classification import PlaneSelection, PlannedImage
from domain.errors import CorruptBlob, NotFound
from domain.model import Version
from infrastructure.images.validation.limits import ImageLimits
from infrastructure.inference.children.child_process import ChildFailed, ChildLost, Provider
from infrastructure.inference.children.process_pool import ProcessPool
from infrastructure.inference.failures import read_images, refusal_for
from infrastructure.inference.model_reference import reference_to
from infrastructure.inference.models.onnx_validation import ModelRefused
from infrastructure.inference.predictions import BatchPrediction, ImageRefusal, ModelPrediction, check_batch
from infrastructure.retry import Retry

log = structlog.get_logger()

CLASSIFY: Final = "infrastructure.inference.children.child_functions:classify"
WARM: Final = "infrastructure.inference.children.child_functions:warm"

MODEL_FAILED: Final = ImageRefusal("model_failed", "The model failed on this image")
MODEL_UNUSABLE: Final = ImageRefusal(
    "model_refused", "The model's file is missing or damaged in the blob store and was not used. Add the model again"
)
MODEL_UNSAFE: Final = ImageRefusal("model_refused", "The model's file was refused and not used. The worker's log gives the reason")


class ClassifierLimits(NamedTuple):
    """A group has at most `group_images` images; one call of a child has at most `call_bytes` of files, or a single larger one.

    `groups_per_child`: groups in progress, so that the next one is read while a child works. `open_cache_seconds`: how long an open job
    counts as open without another check.
    """

    group_images: int = 8
    call_bytes: int = 32 * 1024**2
    groups_per_child: int = 2
    open_cache_seconds: float = 1.0


class GroupResult(NamedTuple):
    """The answer for each image of a call, and the whole answer of the child, if there was one."""

    answers: list[ModelPrediction | ImageRefusal]
    batch: BatchPrediction | None


class GroupClassifier:
    """Runs a model on images. Only an image that crashes its child gets a failure; the others get results."""

    def __init__(
        self,
        blobs: BlobStore,
        pool: ProcessPool,
        retry: Retry,
        *,
        function: str,
        image_limits: ImageLimits,
        limits: ClassifierLimits,
        provider: str,
    ) -> None:
        self._blobs, self._pool, self._retry, self._provider = blobs, pool, retry, provider
        self._function, self._image_limits, self._limits = function, image_limits, limits
        self._slots = asyncio.Semaphore(limits.groups_per_child * pool.size)

    async def classify(self, images: Sequence[PlannedImage], version: Version, planes: PlaneSelection | None = None) -> list[GroupResult]:
        """Group results whose answers are in the order of `images`. Without `planes` the model chooses. Raises Unavailable."""
        size = self._limits.group_images
        groups = [images[start : start + size] for start in range(0, len(images), size)]
        call = _ModelCall(version, planes or PlaneSelection(), result_rules(version))
        results = await asyncio.gather(*(self._classify_group(group, call) for group in groups))
        return [result for group in results for result in group]

    async def warm(self, version: Version) -> None:
        """Load the model in a child. Raises ChildFailed, ChildLost, NotFound, CorruptBlob, Unavailable."""
        await self._pool.run(WARM, reference_to(version, provider=self._provider), into=type(None), lend=self._file(version))

    async def _classify_group(self, images: Sequence[PlannedImage], model: "_ModelCall") -> list[GroupResult]:
        """Read the images of a group and classify them, in as many calls as their size requires."""
        async with self._slots:
            files = await self._retry(read_images, self._blobs, [image.sha256 for image in images])
            return [
                GroupResult([call], None) if isinstance(call, ImageRefusal) else await self._classify_files(call, model)
                for call in _calls(files, self._limits.call_bytes)
            ]

    async def _classify_files(self, files: list[bytes], model: "_ModelCall", *, may_divide: bool = True) -> GroupResult:
        """Classify files in one call. If it fails, classify them one by one, so that only the faulty one has no result."""
        try:
            batch = await self._call(model, files)
        except (NotFound, CorruptBlob):
            return GroupResult([MODEL_UNUSABLE] * len(files), None)
        except (ChildLost, ChildFailed) as error:
            if isinstance(error, ChildFailed) and error.kind == ModelRefused.__name__:
                log.warning("model refused", model=model.version.file, reason=error.detail)
                return GroupResult([MODEL_UNSAFE] * len(files), None)
            if not may_divide:
                return GroupResult([refusal_for(error, otherwise=MODEL_FAILED, runs_model=True)], None)
            singles = await asyncio.gather(*(self._classify_files([file], model, may_divide=False) for file in files))
            answers = [answer for single in singles for answer in single.answers]
            return GroupResult(answers, next((single.batch for single in singles if single.batch), None))
        return GroupResult(batch.answers, batch)

    async def _call(self, model: "_ModelCall", files: list[bytes]) -> BatchPrediction:
        return await self._pool.run(
            self._function,
            reference_to(model.version, provider=self._provider),
            files,
            self._image_limits,
            model.planes,
            into=BatchPrediction,
            check=partial(check_batch, images=len(files), rules=model.rules),
            lend=self._file(model.version),
        )

    def _file(self, version: Version) -> dict[str, Provider]:
        async def file() -> BinaryIO:
            return await self._retry(self._blobs.open_locally, version.file)

        return {version.file: file}


class _ModelCall(NamedTuple):
    """What the calls for the images of a chunk have in common."""

    version: Version
    planes: PlaneSelection
    rules: ResultRules


def _calls(files: Sequence[bytes | ImageRefusal], max_bytes: int) -> Iterator[list[bytes] | ImageRefusal]:
    """The files of each call, and the failures of images without a file, in order."""
    call: list[bytes] = []
    for file in files:
        if call and (isinstance(file, ImageRefusal) or sum(map(len, call)) + len(file) > max_bytes):
            yield call
            call = []
        if isinstance(file, ImageRefusal):
            yield file
        else:
            call.append(file)
    if call:
        yield call
