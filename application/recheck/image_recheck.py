"""Stored images, decoded again by the reader of this release: new pictures, corrected metadata, outdated results by name."""

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
    """Inspected images of datasets that are not deleted. Calls block and raise Unavailable. May be shared by threads."""

    def are_complete(self, position: int) -> bool:
        """Whether all events up to `position` are known here."""

    def count(self, dataset: UUID | None) -> int: ...

    def pages(self, dataset: UUID | None) -> Iterator[Sequence[UUID]]:
        """All images, oldest first, some hundred at a time."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    field: str
    before: str
    after: str


class RecheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was found about one image. `redrawn`: a picture was missing or another one; `recorded`: an event was written."""

    image: UUID
    changes: tuple[Change, ...] = ()
    outdated: tuple[OutdatedResult, ...] = ()
    not_checked: tuple[NotChecked, ...] = ()
    redrawn: bool = False
    recorded: bool = False


class ImageRecheck:
    """Checks one image at a time; may be shared by threads. Harmless to interrupt and to repeat; a dry run writes nothing."""

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
        """None for an image that was deleted or not inspected yet. Nothing is written where the file is missing or damaged.

        Raises Unavailable.
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
        detail = f"The file cannot be read any more; what is shown of it comes from an earlier reader. {refusal.detail}"
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
        """Whether a picture was missing or another one. To be called before the event, which has them shown."""
        wrong = {name: picture for name, picture in _pictures(sha256, decoded) if self._blobs.get_derived(name) != picture}
        if not self._dry_run:
            for name, picture in wrong.items():
                self._blobs.put_derived(name, picture, MEDIA_TYPE)
        return bool(wrong)

    def _record(self, state: Image, found: RecheckResult, decide: Callable[..., list[ImageReinspected]]) -> RecheckResult | None:
        """None when the image was deleted meanwhile."""
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
        """Two runs at once give one command. A later run gives another: a model that was missing may be back."""
        return uuid5(state.id, f"recheck/{self._reader.version}/{state.version}")


def require_complete(images: StoredImages, log: EventStore, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Wait until the read models, which name the images, hold what the log holds now. Raises Unavailable when they stay behind."""
    head = log.head()
    for _ in range(COMPLETE_ATTEMPTS):
        if images.are_complete(head):
            return
        sleep(COMPLETE_POLL_SECONDS)
    raise Unavailable(
        f"The read models lack some of the {head} events: start the projector, look at `bioscope dead-letters list`, then try again",
        retry_after=5,
    )


def _explanation(failure: DomainError) -> str:
    match failure:
        case NotFound():
            return "The file is missing in the blob store. Bring it back from a backup, or upload the image again"
        case CorruptBlob():
            return "The file in the blob store is damaged. Bring it back from a backup, or upload the image again"
        case _:
            return failure.detail


def _pictures(sha256: str, decoded: DecodedImage) -> Iterator[tuple[str, bytes]]:
    reader = decoded.inspection.reader
    yield thumbnail_of(sha256, reader), decoded.thumbnail
    if decoded.preview is not None:
        yield preview_of(sha256, reader), decoded.preview


def _changes(state: Image, events: Sequence[ImageReinspected]) -> tuple[Change, ...]:
    """What a user sees of them: of an image that was rejected the status, of another one what the inspection says."""
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
