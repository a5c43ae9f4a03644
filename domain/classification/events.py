"""The events of jobs and of their chunks, and the values that they carry."""

from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Final
from uuid import UUID

import msgspec

from domain.events import Event, PrivateText
from domain.values import ImageWarning


class Verdict(StrEnum):
    CLEAR = "clear"
    NEEDS_REVIEW = "needs_review"
    OUT_OF_DOMAIN = "out_of_domain"


class PlannedImage(msgspec.Struct, frozen=True):
    id: UUID
    sha256: str


class Projection(StrEnum):
    """One plane made of all focal planes."""

    MAX = "max"
    MEAN = "mean"


class PlaneSelection(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The part of each image that a job gives to its model. Planes are counted from 0.

    `z` is a focal plane or a projection of all, `c` are channels in the order in which the model gets them, `t` is a point in time. None
    leaves the choice to the model: all channels, and the first focal plane and time unless its manifest says otherwise.
    """

    z: int | Projection | None = None
    c: tuple[int, ...] | None = None
    t: int | None = None


class Priority(StrEnum):
    """The order of the jobs of one person. It takes no capacity from the jobs of others."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"

    @property
    def rank(self) -> int:
        """Higher for jobs that come first."""
        return list(Priority).index(self)


class ImageFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The images of a dataset that a job covers: those for which everything holds that is not None.

    `uploaded_from` is included, `uploaded_before` is not. `label` and `verdict` are those of the image's newest result by the model of the
    job; `without_result` selects images that have no result by it. All three are as of the position of the request.
    """

    uploaded_from: datetime | None = None
    uploaded_before: datetime | None = None
    device_id: UUID | None = None
    label: str | None = None
    verdict: Verdict | None = None
    without_result: bool = False


class ClassificationRequested(Event, frozen=True, kw_only=True):
    """A job was requested for a whole dataset, or for a part of it. The model version is fixed by this event.

    The part is the image `image_id`, the list `images`, or the images that match `filter` and whose relative path matches the pattern
    `path`, in which * stands for any characters and ? for one. `planes` is the choice of the caller; None where the model chooses.
    `external`: a program outside of the system classifies. `top_k` is the number of scores that results show; None shows all. `fresh`: no
    earlier result is reused. `retry_of` is the job whose failed images this one classifies again.

    Readers of schema version 1 ignore all fields from `planes` on: they would classify other pixels or images.
    """

    schema_version: ClassVar[int] = 2

    dataset_id: UUID
    image_id: UUID | None
    model_id: UUID
    model_name: str
    model_version: int
    model_sha256: str
    threshold: float
    planes: PlaneSelection | None = None
    images: tuple[UUID, ...] = ()
    filter: ImageFilter | None = None
    path: PrivateText | None = None
    external: bool = False
    priority: Priority = Priority.NORMAL
    deadline: datetime | None = None
    top_k: int | None = None
    fresh: bool = False
    retry_of: UUID | None = None

    @property
    def written_version(self) -> int:
        chosen = self.planes, self.filter, self.path, self.deadline, self.retry_of
        return 1 if not self.images and not self.external and chosen == (None,) * len(chosen) else 2


class ClassificationPlanned(Event, frozen=True, kw_only=True):
    """Part `part` (0, 1, ...) of the job's plan. Chunk numbers continue through all parts; this part begins with `first_chunk`."""

    part: int
    last: bool
    first_chunk: int
    images: tuple[PlannedImage, ...]


class ClassificationCancelled(Event, frozen=True, kw_only=True):
    pass


class ClassificationCompleted(Event, frozen=True, kw_only=True):
    """Every image has a result or a failure."""

    succeeded: int
    failed: int


class ClassificationFailed(Event, frozen=True, kw_only=True):
    reason: str
    failed: int


class ClassificationDeleted(Event, frozen=True, kw_only=True):
    """The job is hidden with its results, and its remaining work stops. The log keeps its events."""


ENDING = (ClassificationCancelled, ClassificationCompleted, ClassificationFailed, ClassificationDeleted)


class ImageResult(msgspec.Struct, frozen=True, kw_only=True):
    """The prediction for one image. `scores` are in the order of the chunk's labels; they and `confidence` are from 0 to 1.

    `signals` are measures by name of how far the image is outside the model's domain. `warnings` lists parts of the file that were
    ignored, assumed or converted. `value` is the number that a regression gave; its score says where that lies in the declared range.
    `reused` is the earlier result that this one repeats. An external classifier gives no scores.
    """

    image_id: UUID
    sha256: str
    label: str
    confidence: float
    verdict: Verdict
    scores: tuple[float, ...]
    signals: dict[str, float] = {}
    warnings: tuple[ImageWarning, ...] = ()
    value: float | None = None
    reused: UUID | None = None


class ImageFailure(msgspec.Struct, frozen=True, kw_only=True):
    image_id: UUID
    reason: str
    detail: str


EXTERNAL_RUNTIME: Final = "external"


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """The model, software and hardware that produced the results; `seconds` is the processing time of the whole chunk.

    Of an external classifier only the declaration is known (`model_sha256`). Its `runtime` is `EXTERNAL_RUNTIME`, its `worker` the bridge.
    """

    model_sha256: str
    preprocessing: str
    runtime: str
    provider: str
    decoder: str
    cpu: str
    worker: str
    seconds: float


class ChunkJudged(Event, frozen=True, kw_only=True):
    """The results of one chunk. It is the only event of its stream, so results are recorded once, even if a task is delivered twice.

    The job id and the chunk number determine the stream.
    """

    job_id: UUID
    number: int
    dataset_id: UUID
    model_name: str
    model_version: int
    labels: tuple[str, ...]
    results: tuple[ImageResult, ...]
    failures: tuple[ImageFailure, ...]
    provenance: Provenance | None
