"""What a caller chooses for a job beside the model: the images of the dataset, and how the job runs. Checked before it is recorded."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from domain.classification.events import ImageFilter, Priority
from domain.errors import Invalid
from domain.values import MAX_PATH_LENGTH, invalid, text

MAX_LISTED: Final = 1000
"""Images in the list of a job."""
MAX_TOP_K: Final = 1000
MAX_DEADLINE: Final = timedelta(days=30)
"""From the request to the deadline of a job."""


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a job runs. `deadline` ends it, `top_k` is the number of scores that its results show, `fresh` reuses no earlier result."""

    priority: Priority = Priority.NORMAL
    deadline: datetime | None = None
    top_k: int | None = None
    fresh: bool = False


DEFAULT_OPTIONS: Final = RunOptions()


def check_options(options: RunOptions, *, at: datetime) -> None:
    """Raises Invalid for a deadline that is not within 30 days after `at`, and for a number of scores outside 1 to 1,000."""
    if options.top_k is not None and not 1 <= options.top_k <= MAX_TOP_K:
        raise invalid("top_k", f"must lie between 1 and {MAX_TOP_K:,}")
    if options.deadline is None:
        return
    if options.deadline.tzinfo is None:
        raise invalid("deadline", "must have a time zone, like 2027-01-31T18:00:00Z")
    if not at < options.deadline <= at + MAX_DEADLINE:
        raise invalid("deadline", f"must be in the future, at most {MAX_DEADLINE.days} days from now")


def listed_images(images: Sequence[UUID]) -> tuple[UUID, ...]:
    """The images of a list, each once. Raises Invalid for an empty list, and for one that is too long."""
    listed = tuple(dict.fromkeys(images))
    if not 1 <= len(listed) <= MAX_LISTED:
        raise invalid("image_ids", f"must name 1 to {MAX_LISTED:,} images, not {len(listed):,}. For more, use dataset_id with a filter")
    return listed


def checked_filter(asked: ImageFilter, *, labels: Collection[str]) -> ImageFilter | None:
    """The filter; None for one that asks nothing. `labels` are those of the model version.

    Raises Invalid for a label that the version does not have, for times in the wrong order or without a time zone, and for conditions that
    exclude each other.
    """
    if asked == ImageFilter():
        return None
    for name in ("uploaded_from", "uploaded_before"):
        moment = getattr(asked, name)
        if moment is not None and moment.tzinfo is None:
            raise _invalid_filter(name, "must have a time zone, like 2027-01-31T18:00:00Z")
    if asked.uploaded_from and asked.uploaded_before and asked.uploaded_from >= asked.uploaded_before:
        raise _invalid_filter("uploaded_before", "must be later than uploaded_from")
    if asked.label is not None and asked.label not in labels:
        raise _invalid_filter("label", f"must be a label of the model version: {', '.join(sorted(labels))}")
    if asked.without_result and (asked.label is not None or asked.verdict is not None):
        raise _invalid_filter("without_result", "selects images without a result: leave label and verdict out")
    return asked


def path_pattern(pattern: str) -> str:
    """A pattern for relative paths as it is recorded: NFC, "/" as separator. Raises Invalid outside 1 to 512 characters."""
    try:
        return text(pattern.replace("\\", "/"), name="path", maximum=MAX_PATH_LENGTH)
    except Invalid as error:
        raise _invalid_filter("path", error.detail.removeprefix("path ")) from None


def _invalid_filter(name: str, message: str) -> Invalid:
    return Invalid(f"filter.{name} {message}", errors=[{"loc": ["body", "filter", name], "msg": message}])
