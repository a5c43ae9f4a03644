"""Use cases of images: upload, describe, delete."""

from collections.abc import Sequence
from uuid import UUID

from msgspec import UNSET, UnsetType

from application import datasets, devices
from application.commands import CommandResult, create_stream, execute, load_existing, new_id
from application.ports import Command, EventStore, StreamPrecondition
from domain import image
from domain.access import Grant, Role, Scope, has_role, require_role, require_role_or_scope
from domain.errors import Forbidden, NotFound, StreamClosed
from domain.image import Image


def may_upload(dataset_id: UUID, *, device_id: UUID | None = None, command: Command, log: EventStore) -> None:
    """Check the actor's right to upload, before the first byte of the file is read. Raises Forbidden, NotFound."""
    require_role_or_scope(command.actor, Role.ANALYST, Scope.IMAGES_WRITE)
    datasets.load_dataset(log, dataset_id, command.actor, Grant.ANALYST)
    _check_device(device_id, log)


def _check_device(device_id: UUID | None | UnsetType, log: EventStore) -> None:
    if isinstance(device_id, UUID):
        devices.check_exists(log, device_id)


def upload(
    *,
    dataset_id: UUID,
    device_id: UUID | None,
    filename: str,
    sha256: str,
    size: int,
    media_type: str,
    width: int,
    height: int,
    path: str | None = None,
    command: Command,
    log: EventStore,
) -> CommandResult:
    """Record an upload whose bytes are already stored under `sha256` (hexadecimal). `size` is in bytes, `width` and `height` in pixels.

    Raises Forbidden, Invalid, and NotFound if the device or the dataset does not exist.
    """
    may_upload(dataset_id, device_id=device_id, command=command, log=log)
    event = image.upload(
        new_id(command, "image"),
        dataset=dataset_id,
        device=device_id,
        filename=filename,
        sha256=sha256,
        size=size,
        media_type=media_type,
        width=width,
        height=height,
        path=path,
        by=command.actor.id,
        at=command.at,
    )
    try:
        return create_stream(log, command, [event], guards=(datasets.open_guard(dataset_id),))
    except StreamClosed:
        raise NotFound("Dataset not found", noun="dataset", object_id=dataset_id) from None


def load_image(log: EventStore, image_id: UUID, command: Command, minimum: Grant) -> Image:
    """The image. Raises NotFound if it or its dataset was deleted, or the actor has no grant; Forbidden if the grant is too low."""
    found = load_existing(log, image_id, image.evolve, what="Image", closed=lambda it: it.deleted)
    try:
        datasets.load_dataset(log, found.dataset_id, command.actor, minimum)
    except NotFound:
        raise NotFound("Image not found", noun="image", object_id=image_id) from None
    return found


def load_images(log: EventStore, image_ids: Sequence[UUID], command: Command, minimum: Grant) -> list[Image]:
    """Several images, in one query. Raises as `load_image` does, and names the first image that it does not find."""
    recorded = log.histories(image_ids)
    log.prefetch(recorded)
    states: dict[UUID, Image | None] = {}
    for one in recorded:
        states[one.stream] = image.evolve(states.get(one.stream), log.decode(one))
    found = [_existing(states.get(image_id), image_id) for image_id in image_ids]
    for dataset_id, first in {one.dataset_id: one.id for one in reversed(found)}.items():
        try:
            datasets.load_dataset(log, dataset_id, command.actor, minimum)
        except NotFound:
            raise NotFound(f"Image {first} not found", noun="image", object_id=first) from None
    return found


def _existing(state: Image | None, image_id: UUID) -> Image:
    if state is None or state.deleted:
        raise NotFound(f"Image {image_id} not found", noun="image", object_id=image_id)
    return state


def open_guard(image_id: UUID) -> StreamPrecondition:
    return StreamPrecondition(stream=image_id, closed_by=image.CLOSING)


def describe(
    image_id: UUID,
    *,
    filename: str | UnsetType = UNSET,
    device_id: UUID | None | UnsetType = UNSET,
    analyzed: bool | UnsetType = UNSET,
    expected: int | None = None,
    command: Command,
    log: EventStore,
) -> CommandResult:
    """Change what is known of an image. A service may only do so for its own uploads. Raises Forbidden, NotFound, VersionMismatch."""
    require_role_or_scope(command.actor, Role.ANALYST, Scope.IMAGES_WRITE)
    _check_device(device_id, log)
    return execute(
        log,
        command,
        lambda: _describable(log, image_id, command),
        lambda found: image.describe(found, filename=filename, device_id=device_id, analyzed=analyzed, by=command.actor.id, at=command.at),
        expected=expected,
    )


def _describable(log: EventStore, image_id: UUID, command: Command) -> Image:
    found = load_image(log, image_id, command, Grant.EDITOR)
    if command.actor.is_service and found.uploaded_by != command.actor.id:
        raise Forbidden("A service may only change the images that it uploaded")
    return found


def _load_deletable(log: EventStore, image_id: UUID, command: Command) -> Image:
    found = load_image(log, image_id, command, Grant.EDITOR)
    if found.uploaded_by == command.actor.id or has_role(command.actor, Role.RESEARCHER):
        return found
    return load_image(log, image_id, command, Grant.OWNER)


def delete(image_id: UUID, *, expected: int | None = None, command: Command, log: EventStore) -> CommandResult:
    """For the owner of the dataset unless a viewer, and with the grant editor for the uploader and for researchers.

    Raises Forbidden, NotFound, VersionMismatch.
    """
    require_role(command.actor, Role.ANALYST)
    return execute(
        log,
        command,
        lambda: _load_deletable(log, image_id, command),
        lambda found: image.delete(found, by=command.actor.id, at=command.at),
        expected=expected,
    )
