"""An image: one uploaded file, named by its sha256. It is decoded completely before it is used."""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from domain.errors import Conflict
from domain.events import Event, PrivateText, State, changed, fields_set, new_stream, next_event
from domain.values import MAX_FILENAME, ImageWarning, changed_text, relative_path, text

MAX_OUTDATED = 4000  # results in one ImageReinspected, which keeps it below 256 KiB
NOT_READABLE = "not_readable"
"""Warning code of an accepted image that the current reader cannot read."""


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """Metadata of the completely decoded file. Fields as in ImageAccepted."""

    width: int
    height: int
    bands: int
    dtype: str
    pages: int
    axes: str
    pixel_size_um: float | None
    reader: int
    warnings: tuple[ImageWarning, ...]


class ImageUploaded(Event, frozen=True, kw_only=True):
    """`sha256` is in hexadecimal, `size` in bytes; `width` and `height` are in pixels, from the file's header.

    `path` is the file's path relative to the uploaded folder, with "/" as separator; None where the client sent none.
    """

    dataset_id: UUID
    device_id: UUID | None
    filename: PrivateText
    sha256: str
    size: int
    media_type: str
    width: int
    height: int
    path: PrivateText | None = None


class ImageAccepted(Event, frozen=True, kw_only=True):
    """The whole file was decoded. `pixel_size_um` is the edge length of a pixel in micrometres, if the file contains it.

    `reader` is the reader version; `warnings` lists parts of the file that were ignored, assumed or converted. `sha256` (hexadecimal)
    names the inspected bytes; release 0.1.0 did not record it.
    """

    width: int
    height: int
    bands: int
    dtype: str
    pages: int
    axes: str
    pixel_size_um: float | None = None
    reader: int = 1
    warnings: tuple[ImageWarning, ...] = ()
    sha256: str | None = None


class ImageRejected(Event, frozen=True, kw_only=True):
    """The file could not be decoded; `reason` is a code, `detail` a sentence for the user, `sha256` as in ImageAccepted."""

    reason: str
    detail: str
    sha256: str | None = None


class ImageReinspected(Event, frozen=True, kw_only=True):
    """A stored image was decoded again. It is accepted, and its metadata is replaced.

    `outdated` lists results that were computed from other pixels than this reader gives, and that no earlier event listed.
    """

    width: int
    height: int
    bands: int
    dtype: str
    pages: int
    axes: str
    pixel_size_um: float | None
    reader: int
    warnings: tuple[ImageWarning, ...]
    outdated: tuple[UUID, ...]


class ImageDescribed(Event, frozen=True, kw_only=True):
    """Omitted fields did not change."""

    filename: PrivateText | UnsetType = UNSET
    device_id: UUID | None | UnsetType = UNSET
    analyzed: bool | UnsetType = UNSET


class ImageDeleted(Event, frozen=True, kw_only=True):
    dataset_id: UUID


CLOSING = (ImageDeleted,)


class Image(State, frozen=True, kw_only=True):
    """`inspection` is None until the image is accepted. `outdated` are its results that were computed from other pixels."""

    dataset_id: UUID
    device_id: UUID | None
    filename: str
    sha256: str
    size: int
    media_type: str
    uploaded_by: UUID
    uploaded_at: datetime
    path: str | None = None
    analyzed: bool = False
    accepted: bool = False
    rejected: str | None = None
    deleted: bool = False
    inspection: Inspection | None = None
    outdated: frozenset[UUID] = frozenset()

    @property
    def inspected(self) -> bool:
        return self.accepted or self.rejected is not None


def upload(
    image: UUID,
    *,
    dataset: UUID,
    device: UUID | None,
    filename: str,
    sha256: str,
    size: int,
    media_type: str,
    width: int,
    height: int,
    path: str | None = None,
    by: UUID,
    at: datetime,
) -> ImageUploaded:
    return ImageUploaded(
        **new_stream(image, by=by, at=at),
        dataset_id=dataset,
        device_id=device,
        filename=text(filename, name="filename", maximum=MAX_FILENAME),
        sha256=sha256,
        size=size,
        media_type=media_type,
        width=width,
        height=height,
        path=None if path is None else relative_path(path),
    )


def accept(image: Image, found: Inspection, *, by: UUID, at: datetime) -> list[ImageAccepted]:
    if image.inspected:
        return []
    return [
        ImageAccepted(
            **next_event(image, by=by, at=at),
            width=found.width,
            height=found.height,
            bands=found.bands,
            dtype=found.dtype,
            pages=found.pages,
            axes=found.axes,
            pixel_size_um=found.pixel_size_um,
            reader=found.reader,
            warnings=found.warnings,
            sha256=image.sha256,
        )
    ]


def reject(image: Image, *, reason: str, detail: str, by: UUID, at: datetime) -> list[ImageRejected]:
    if image.inspected:
        return []
    return [ImageRejected(**next_event(image, by=by, at=at), reason=reason, detail=detail, sha256=image.sha256)]


def violation_of(inspection: ImageAccepted | ImageRejected, uploaded: Image | None) -> str | None:
    """The first rule that a first inspection breaks, as a text; None if it breaks none.

    `uploaded` is the state of the image before the inspection. Migration 0010 contains the same rules.
    """
    if uploaded is None:
        return "the image was not uploaded"
    if uploaded.deleted:
        return "the image was deleted"
    if uploaded.inspected:
        return "the image was inspected before"
    if inspection.sha256 is not None and inspection.sha256 != uploaded.sha256:
        return "the inspected sha256 is not the uploaded one"
    return None


def reinspect(image: Image, found: Inspection, *, outdated: Iterable[UUID] = (), by: UUID, at: datetime) -> list[ImageReinspected]:
    """Replace the metadata of an earlier reader, and record which results are outdated. A rejected image becomes accepted.

    No event if nothing is new, or if a newer reader has inspected the image. Several events for more than `MAX_OUTDATED` results.
    Raises Conflict if the image was deleted or not inspected yet.
    """
    _require_inspected(image)
    if image.inspection is not None and image.inspection.reader > found.reader:
        return []
    new = tuple(one for one in dict.fromkeys(outdated) if one not in image.outdated)
    if image.inspection == found and not new:
        return []
    parts = [new[start : start + MAX_OUTDATED] for start in range(0, len(new) or 1, MAX_OUTDATED)]
    return [_reinspected(image, found, part, offset, by=by, at=at) for offset, part in enumerate(parts)]


def keep_unreadable(image: Image, *, detail: str, by: UUID, at: datetime) -> list[ImageReinspected]:
    """Add a warning to an accepted image that the current reader cannot read; its metadata stays.

    No event for a rejected image. Raises Conflict as `reinspect` does.
    """
    _require_inspected(image)
    if image.inspection is None:
        return []
    others = tuple(one for one in image.inspection.warnings if one.code != NOT_READABLE)
    marked = msgspec.structs.replace(image.inspection, warnings=(*others, ImageWarning(NOT_READABLE, detail)))
    return reinspect(image, marked, by=by, at=at)


def describe(
    image: Image,
    *,
    filename: str | UnsetType = UNSET,
    device_id: UUID | None | UnsetType = UNSET,
    analyzed: bool | UnsetType = UNSET,
    by: UUID,
    at: datetime,
) -> list[ImageDescribed]:
    if filename is not UNSET:
        filename = changed_text(filename, image.filename, name="filename", maximum=MAX_FILENAME)
    device_id, analyzed = changed(device_id, image.device_id), changed(analyzed, image.analyzed)
    if filename is UNSET and device_id is UNSET and analyzed is UNSET:
        return []
    return [ImageDescribed(**next_event(image, by=by, at=at), filename=filename, device_id=device_id, analyzed=analyzed)]


def delete(image: Image, *, by: UUID, at: datetime) -> ImageDeleted:
    return ImageDeleted(**next_event(image, by=by, at=at), dataset_id=image.dataset_id)


def evolve(image: Image | None, event: Event) -> Image | None:
    match event:
        case ImageUploaded():
            return Image(
                id=event.originator_id,
                version=event.originator_version,
                dataset_id=event.dataset_id,
                device_id=event.device_id,
                filename=event.filename,
                sha256=event.sha256,
                size=event.size,
                media_type=event.media_type,
                uploaded_by=event.by,
                uploaded_at=event.at,
                path=event.path,
            )
        case _ if image is None:
            return None
        case ImageAccepted():
            return msgspec.structs.replace(image, version=event.originator_version, accepted=True, inspection=_inspection_of(event))
        case ImageRejected():
            return msgspec.structs.replace(image, version=event.originator_version, rejected=event.reason)
        case ImageReinspected():
            return msgspec.structs.replace(
                image,
                version=event.originator_version,
                accepted=True,
                rejected=None,
                inspection=_inspection_of(event),
                outdated=image.outdated.union(event.outdated),
            )
        case ImageDescribed():
            described = fields_set(event, "filename", "device_id", "analyzed")
            return msgspec.structs.replace(image, version=event.originator_version, **described)
        case ImageDeleted():
            return msgspec.structs.replace(image, version=event.originator_version, deleted=True)
        case _:
            return msgspec.structs.replace(image, version=event.originator_version)


def _require_inspected(image: Image) -> None:
    if image.deleted:
        raise Conflict("The image was deleted")
    if not image.inspected:
        raise Conflict("The image has not been inspected yet: wait until it is accepted or rejected")


def _reinspected(image: Image, found: Inspection, outdated: tuple[UUID, ...], offset: int, *, by: UUID, at: datetime) -> ImageReinspected:
    return ImageReinspected(
        **next_event(image, by=by, at=at, offset=offset),
        width=found.width,
        height=found.height,
        bands=found.bands,
        dtype=found.dtype,
        pages=found.pages,
        axes=found.axes,
        pixel_size_um=found.pixel_size_um,
        reader=found.reader,
        warnings=found.warnings,
        outdated=outdated,
    )


def _inspection_of(event: ImageAccepted | ImageReinspected) -> Inspection:
    return msgspec.convert(event, Inspection, from_attributes=True)
