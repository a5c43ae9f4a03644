"""How a planned list of images is divided into parts and chunks: every reader of the log finds the same ones."""

from collections.abc import Sequence

from domain.classification.events import ClassificationPlanned, PlannedImage

MAX_PART_IMAGES = 500  # images in one ClassificationPlanned

# No settings: every reader of the log cuts a recorded plan into the same chunks, and so does `ops.chunk_size` of migration 0010.
MAX_CHUNK_IMAGES, MIN_CHUNK_IMAGES = 64, 8  # images in one chunk; the last chunk of a plan part may be smaller
TARGET_CHUNKS = 8  # per small plan part, so that several workers share it and results arrive early


def chunks_of(images: Sequence[PlannedImage]) -> list[Sequence[PlannedImage]]:
    """The images of a plan part, cut into chunks. It depends on the part alone, so that every reader of the plan finds the same chunks."""
    size = min(MAX_CHUNK_IMAGES, max(MIN_CHUNK_IMAGES, -(-len(images) // TARGET_CHUNKS)))
    return [images[start : start + size] for start in range(0, len(images), size)]


def planned_images(plan: ClassificationPlanned, number: int) -> Sequence[PlannedImage] | None:
    """The images of chunk `number`; None if this part of the plan does not contain it."""
    chunks = chunks_of(plan.images)
    index = number - plan.first_chunk
    return chunks[index] if 0 <= index < len(chunks) else None
