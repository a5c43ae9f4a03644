"""The recheck of stored images with the current reader: new renditions, corrected metadata, and a list of outdated results."""

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Final, Protocol
from uuid import UUID, uuid5

import msgspec

from application.commands import execute, load_existing
from application.derivatives import MEDIA_TYPE, preview_of, thumbnail_of
from application.ports import BlobStore, Command, EventStore
from application.recheck.outdated_results import NotChecked, OutdatedResult, ResultComparison
from application.recheck.pixel_reader import DecodedImage, DecoderFailed, PixelReader, UnreadableImage
from application.recheck.recorded_results import ChunkPositions, RecordedResults
from domain import image
from domain.access import Actor
from domain.errors import CorruptBlob, DomainError, NotFound, Unavailable
from domain.image import Image, ImageReinspected, Inspection

COMPLETE_ATTEMPTS: Final = 100
COMPLETE_POLL_SECONDS: Final = 0.1
MEASURES: Final = ("width", "height", "bands", "dtype", "pages", "axes", "pixel_size_um")


class StoredImages(ChunkPositions, Protocol):
    """Inspected images of datasets that are not deleted. Thread-safe. Calls block, and raise Unavailable."""

    def are_complete(self, position: int) -> bool:
        """Whether this source includes all events up to `position`."""

    def count(self, dataset: UUID | None) -> int: ...

    def pages(self, dataset: UUID | None) -> Iterator[Sequence[UUID]]:
        """The images of a dataset, or all images; oldest first, a few hundred per page."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    field: str
    before: str
    after: str


class RecheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """The findings about one image. `redrawn`: a rendition was missing or different. `recorded`: an event was appended."""

    image: UUID
    changes: tuple[Change, ...] = ()
    outdated: tuple[OutdatedResult, ...] = ()
    not_checked: tuple[NotChecked, ...] = ()
    redrawn: bool = False
    recorded: bool = False


class ImageRecheck:
    """Rechecks one image at a time. Thread-safe; may be interrupted and repeated. A dry run writes nothing."""

    def __init__(
        self,
        *,
        log: EventStore,
        blobs: BlobStore,
        images: StoredImages,
        reader: PixelReader,
        actor: Actor,
        now: Callable[[], datetime],
        dry_run: bool = False,
    ) -> None:
        self._log, self._blobs, self._reader = log, blobs, reader
        self._actor, self._now, self._dry_run = actor, now, dry_run
        self._comparison = ResultComparison(results=RecordedResults(log=log, chunks=images), reader=reader)

    def check(self, image_id: UUID) -> RecheckResult | None:
        """Recheck an image. None if it was deleted or is not inspected yet. Nothing is written if the file is missing or damaged.

        Blocks. Raises Unavailable.
        """
        state = self._log.load(image_id, image.evolve)
        if state is None or state.deleted or not state.inspected:
            return None
        try:
            data = self._blobs.read(state.sha256)
            decoded = self._reader.decode(data)
        except (NotFound, CorruptBlob, DecoderFailed) as failure:
            return RecheckResult(image=image_id, not_checked=(NotChecked(job=None, detail=_explanation(failure)),))
        if isinstance(decoded, UnreadableImage):
            return self._keep(state, decoded)
        return self._correct(state, data, decoded)

    def _keep(self, state: Image, refusal: UnreadableImage) -> RecheckResult | None:
        detail = f"The file can no longer be read; its metadata and pictures come from an earlier version. {refusal.detail}"
        found = RecheckResult(image=state.id, not_checked=tuple(self._comparison.give_up(state.id, detail)))
        return self._record(state, found, partial(image.keep_unreadable, detail=detail))

    def _correct(self, state: Image, data: bytes, decoded: DecodedImage) -> RecheckResult | None:
        compared = list(self._comparison.compare(state.id, data))
        outdated = tuple(one for one in compared if isinstance(one, OutdatedResult))
        not_checked = tuple(one for one in compared if isinstance(one, NotChecked))
        redrawn = self._redraw(state.sha256, decoded)
        found = RecheckResult(image=state.id, outdated=outdated, not_checked=not_checked, redrawn=redrawn)
        return self._record(state, found, partial(image.reinspect, found=decoded.inspection, outdated=[one.id for one in outdated]))

    def _redraw(self, sha256: str, decoded: DecodedImage) -> bool:
        """Store missing or different renditions; return whether there were any. Called before the event that makes them visible."""
        different = {name: data for name, data in _renditions(sha256, decoded) if self._blobs.get_derived(name) != data}
        if not self._dry_run:
            for name, data in different.items():
                self._blobs.put_derived(name, data, MEDIA_TYPE)
        return bool(different)

    def _record(self, state: Image, found: RecheckResult, decide: Callable[..., list[ImageReinspected]]) -> RecheckResult | None:
        """Append the events. None if the image was deleted in the meantime."""
        command = Command(id=self._command_id(state), actor=self._actor, at=self._now())
        decide = partial(decide, by=command.actor.id, at=command.at)
        events = decide(state)
        found = msgspec.structs.replace(found, changes=_changes(state, events))
        if not events or self._dry_run:
            return found
        try:
            done = execute(self._log, command, partial(self._loaded, state.id), decide)
        except NotFound:
            return None
        return msgspec.structs.replace(found, recorded=bool(done.position))

    def _loaded(self, image_id: UUID) -> Image:
        return load_existing(self._log, image_id, image.evolve, what="Image", closed=lambda it: it.deleted)

    def _command_id(self, state: Image) -> UUID:
        """Concurrent runs share one command id. A later run has another one, since a missing model may be available by then."""
        return uuid5(state.id, f"recheck/{self._reader.version}/{state.version}")


def require_complete(images: StoredImages, log: EventStore, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Wait until the read models, which list the images, have reached the current head. Raises Unavailable after about 10 s."""
    head = log.head()
    for _ in range(COMPLETE_ATTEMPTS):
        if images.are_complete(head):
            return
        sleep(COMPLETE_POLL_SECONDS)
    raise Unavailable(
        f"The read models lack some of the {head} events: start the projector, check `bioscope dead-letters list`, then try again",
        retry_after=5,
    )


def _explanation(failure: DomainError) -> str:
    match failure:
        case NotFound():
            return "The file is missing in the blob store. Restore it from a backup, or upload the image again"
        case CorruptBlob():
            return "The file in the blob store is damaged. Restore it from a backup, or upload the image again"
        case _:
            return failure.detail


def _renditions(sha256: str, decoded: DecodedImage) -> Iterator[tuple[str, bytes]]:
    reader = decoded.inspection.reader
    yield thumbnail_of(sha256, reader), decoded.thumbnail
    if decoded.preview is not None:
        yield preview_of(sha256, reader), decoded.preview


def _changes(state: Image, events: Sequence[ImageReinspected]) -> tuple[Change, ...]:
    """The changes as a user sees them: the new status of a rejected image, or changed metadata."""
    if not events:
        return ()
    if state.inspection is None:
        return (Change(field="status", before=f"rejected ({state.rejected})", after="accepted"),)
    changed = image.evolve(state, events[0])
    assert changed is not None
    assert changed.inspection is not None
    before, after = _shown(state.inspection), _shown(changed.inspection)
    return tuple(Change(field=name, before=before[name], after=after[name]) for name in after if before[name] != after[name])


def _shown(inspection: Inspection) -> dict[str, str]:
    measures = {name: "" if (value := getattr(inspection, name)) is None else str(value) for name in MEASURES}
    return {**measures, "warnings": ", ".join(one.code for one in inspection.warnings)}
