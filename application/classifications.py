"""Use cases of jobs: request, retry, cancel, delete."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec

from application import datasets, images
from application.commands import CommandResult, create_stream, execute, load_existing, new_id
from application.ports import Command, EventStore, InputCheck, Mismatch, StreamPrecondition
from domain import classification, model
from domain.access import Actor, Grant, Role, Scope, require_role, require_role_or_scope
from domain.classification import (
    DEFAULT_OPTIONS,
    Classification,
    ImageFilter,
    PlaneSelection,
    PlannedImage,
    RunOptions,
    checked_filter,
    path_pattern,
)
from domain.errors import Conflict, InputMismatch, Invalid, MismatchedInput, NotFound, StreamClosed
from domain.events import Event
from domain.image import Image
from domain.model import PRODUCTION, Model, Version, require_runner, select_version
from domain.values import invalid, model_id, quoted


class ImageSelection(msgspec.Struct, frozen=True, kw_only=True):
    """The images of a job: one image, a list of images of one dataset, or a dataset, of which `filter` and `path` choose a part.

    `path` is a pattern for the relative path, in which * stands for any characters and ? for one.
    """

    image_id: UUID | None = None
    image_ids: tuple[UUID, ...] | None = None
    dataset_id: UUID | None = None
    filter: ImageFilter | None = None
    path: str | None = None


class _Covered(NamedTuple):
    """What a job covers, as it is recorded, and the conditions on which it may be recorded."""

    dataset: UUID
    guards: tuple[StreamPrecondition, ...]
    image: Image | None = None
    images: tuple[UUID, ...] = ()


def run(
    *,
    selection: ImageSelection,
    model_name: str,
    threshold: float | None,
    known_models: list[str],
    model_version: str | None = None,
    planes: PlaneSelection | None = None,
    options: RunOptions = DEFAULT_OPTIONS,
    input_check: InputCheck | None = None,
    command: Command,
    log: EventStore,
) -> CommandResult:
    """Request a job with one version of a model, over exactly one of an image, a list and a dataset.

    `model_version` is a number or an alias, and may follow `model_name` after an @ instead; None takes the version in production, the only
    one that analysts may run. `threshold` (0 to 1) is the confidence below which a result needs review; None takes that of the version.
    `known_models` are named in the message if there is no model `model_name`. Without `input_check`, and for images that were not inspected
    yet, the worker finds out whether an image fits. Choices are refused before a dataset that does not exist, so that a client can try them
    out. Raises Forbidden, Invalid, InputMismatch, NotFound, Conflict (a rejected image).
    """
    require_role_or_scope(command.actor, Role.ANALYST, Scope.JOBS_RUN)
    _check_selection(selection)
    chosen, version = _model_version(model_name, model_version, known_models, command.actor, log)
    if version.is_external and planes not in {None, PlaneSelection()}:
        raise invalid("planes", f"cannot be chosen for {chosen.name}: an external classifier reads the image itself")
    asked = None if selection.filter is None else checked_filter(selection.filter, labels=version.labels)
    path = None if selection.path is None else path_pattern(selection.path)
    covered = _covered(selection, command, log)
    events = classification.request(
        new_id(command, "classification"),
        dataset=covered.dataset,
        image=_planned(covered.image),
        images=covered.images,
        filter=asked,
        path=path,
        model_id=chosen.id,
        model_name=chosen.name,
        model_version=version.number,
        model_sha256=version.sha256,
        threshold=version.review_below if threshold is None else threshold,
        planes=planes,
        external=version.is_external,
        options=options,
        by=command.actor.id,
        at=command.at,
    )
    if input_check is not None and not version.is_external:
        _require_match(chosen, version, input_check(version, covered.image, planes))
    datasets.load_dataset(log, covered.dataset, command.actor, Grant.ANALYST)
    return _record(events, covered, command, log)


def retry(job_id: UUID, *, command: Command, log: EventStore) -> CommandResult:
    """Request a job over the images that an ended job left without a result, with the same model version, planes and threshold.

    Raises Forbidden, NotFound, Invalid (a retired model), Conflict (nothing to retry, or a rejected image).
    """
    require_role_or_scope(command.actor, Role.ANALYST, Scope.JOBS_RUN)
    earlier = load_job(log, job_id, command, Grant.ANALYST)
    chosen = _model(earlier.model_name, [], log)
    require_runner(chosen, chosen.numbered(earlier.model_version), command.actor)
    covered = _covered(ImageSelection(image_id=earlier.image_id, dataset_id=None if earlier.image_id else earlier.dataset_id), command, log)
    job = new_id(command, "classification")
    return _record(classification.retry(job, earlier, _planned(covered.image), by=command.actor.id, at=command.at), covered, command, log)


def _check_selection(selection: ImageSelection) -> None:
    """Raises Invalid unless the selection names exactly one of an image, a list and a dataset, and a filter only with the dataset."""
    if [selection.image_id, selection.image_ids, selection.dataset_id].count(None) != 2:
        raise Invalid("Provide exactly one of dataset_id, image_id or image_ids.")
    if selection.dataset_id is None and (selection.filter is not None or selection.path is not None):
        raise invalid("filter", "needs dataset_id: it chooses images of a dataset")


def _covered(selection: ImageSelection, command: Command, log: EventStore) -> _Covered:
    """Raises Forbidden, Invalid, NotFound, and Conflict for a rejected image."""
    if selection.image_id is not None:
        found = images.load_image(log, selection.image_id, command, Grant.ANALYST)
        _require_accepted([found])
        return _Covered(found.dataset_id, (images.open_guard(found.id), datasets.open_guard(found.dataset_id)), image=found)
    if selection.image_ids is not None:
        listed = classification.listed_images(selection.image_ids)
        several = images.load_images(log, listed, command, Grant.ANALYST)
        _require_accepted(several)
        homes = {image.dataset_id for image in several}
        if len(homes) > 1:
            raise invalid("image_ids", f"must be images of one dataset; these are of {len(homes)}. Run one job for each dataset")
        return _Covered(several[0].dataset_id, (datasets.open_guard(several[0].dataset_id),), images=listed)
    assert selection.dataset_id is not None
    return _Covered(selection.dataset_id, (datasets.open_guard(selection.dataset_id),))


def _require_accepted(found: Sequence[Image]) -> None:
    for one in found:
        if one.rejected is not None:
            which = "This image" if len(found) == 1 else f"The image {one.id}"
            raise Conflict(f"{which} cannot be classified: it was rejected ({one.rejected})")


def _planned(found: Image | None) -> PlannedImage | None:
    return None if found is None else PlannedImage(found.id, found.sha256)


def _record(events: Sequence[Event], covered: _Covered, command: Command, log: EventStore) -> CommandResult:
    try:
        return create_stream(log, command, events, guards=covered.guards)
    except StreamClosed:
        raise NotFound("This was deleted in the meantime") from None


def _model_version(model_name: str, model_version: str | None, known: list[str], actor: Actor, log: EventStore) -> tuple[Model, Version]:
    """The model and the version that a caller named, as `NAME`, `NAME@ALIAS` or `NAME@NUMBER`. Raises Invalid, Forbidden."""
    name, at, version = model_name.partition("@")
    if at and not version:
        raise invalid("model_name", "has nothing after the @: name an alias or a number, like cells@candidate or cells@2")
    if at and model_version is not None:
        raise invalid("model_version", "and a version in model_name exclude each other: leave one of them out")
    chosen = _model(name, known, log)
    found = select_version(chosen, version or model_version or PRODUCTION)
    require_runner(chosen, found, actor)
    return chosen, found


def _model(name: str, known: list[str], log: EventStore) -> Model:
    found = log.load(model_id(name), model.evolve)
    if found is None or found.retired:
        names = ", ".join(known) or "none yet"
        problem = f"There is no {quoted('model', name)}" if found is None else f"The model {name} is retired and accepts no new jobs"
        detail = f"{problem}. Models: {names}"
        raise Invalid(detail, errors=[{"loc": ["body", "model_name"], "msg": detail}])
    return found


def _require_match(chosen: Model, version: Version, mismatches: Sequence[Mismatch]) -> None:
    """Raises InputMismatch."""
    if not mismatches:
        return
    errors: list[MismatchedInput] = [
        {"loc": ["body", *one.field], "msg": one.message, "axis": one.axis, "expected": one.expected, "found": one.found}
        for one in mismatches
    ]
    reasons = ". ".join(one.message for one in mismatches)
    raise InputMismatch(f"This does not fit version {version.number} of the model {chosen.name}. {reasons}", errors=errors)


def load_job(log: EventStore, job_id: UUID, command: Command, minimum: Grant) -> Classification:
    return readable_job(log, job_id, command.actor, minimum)


def readable_job(log: EventStore, job_id: UUID, actor: Actor, minimum: Grant) -> Classification:
    """The job. Raises NotFound if it was deleted or the actor has no grant on its dataset, Forbidden if the grant is too low."""
    found = load_existing(log, job_id, classification.evolve, what="Classification", closed=lambda it: it.deleted)
    try:
        datasets.load_dataset(log, found.dataset_id, actor, minimum)
    except NotFound:
        raise NotFound("Classification not found", noun="classification", object_id=job_id) from None
    return found


def cancel(job_id: UUID, *, expected: int | None = None, command: Command, log: EventStore) -> CommandResult:
    """Stop a job. Recorded results stay readable; remaining chunks are not processed. Raises Forbidden, NotFound, Conflict."""
    require_role_or_scope(command.actor, Role.ANALYST, Scope.JOBS_RUN)
    return execute(
        log,
        command,
        lambda: load_job(log, job_id, command, Grant.ANALYST),
        lambda found: classification.cancel(found, by=command.actor.id, at=command.at),
        expected=expected,
    )


def _load_deletable(log: EventStore, job_id: UUID, command: Command) -> Classification:
    found = load_job(log, job_id, command, Grant.VIEWER)
    if found.created_by == command.actor.id:
        return found
    require_role(command.actor, Role.RESEARCHER)
    return load_job(log, job_id, command, Grant.EDITOR)


def delete(job_id: UUID, *, expected: int | None = None, command: Command, log: EventStore) -> CommandResult:
    """For the creator unless a viewer, and for researchers with the grant editor. Raises Forbidden, NotFound, VersionMismatch."""
    require_role(command.actor, Role.ANALYST)
    return execute(
        log,
        command,
        lambda: _load_deletable(log, job_id, command),
        lambda found: classification.delete(found, by=command.actor.id, at=command.at),
        expected=expected,
    )
