"""Use cases of jobs: request, cancel, delete."""

from collections.abc import Sequence
from uuid import UUID

from application import datasets, images
from application.commands import CommandResult, create_stream, execute, load_existing, new_id
from application.ports import Command, EventStore, InputCheck, Mismatch, StreamPrecondition
from domain import classification, model
from domain.access import Actor, Grant, Role, require_role
from domain.classification import Classification, PlaneSelection, PlannedImage
from domain.errors import Conflict, InputMismatch, Invalid, MismatchedInput, NotFound, StreamClosed
from domain.image import Image
from domain.model import PRODUCTION, Model, Version, require_runner, select_version
from domain.values import model_id


def run(
    *,
    dataset_id: UUID | None,
    image_id: UUID | None,
    model_name: str,
    threshold: float | None,
    known_models: list[str],
    model_version: str | None = None,
    planes: PlaneSelection | None = None,
    input_check: InputCheck | None = None,
    command: Command,
    log: EventStore,
) -> CommandResult:
    """Request a job with one version of a model. Exactly one of `dataset_id` and `image_id` is given.

    `model_version` is a number or an alias; None takes the version in production, the only one that analysts may run. `threshold` (0 to
    1) is the confidence below which a result needs review; None takes that of the version. `known_models` are named in the message if
    there is no model `model_name`. Without `input_check`, and for images that were not inspected yet, the worker finds out whether an
    image fits. Choices are refused before a dataset that does not exist, so that a client can try them out. Raises Forbidden, Invalid,
    InputMismatch, NotFound, Conflict (a rejected image).
    """
    require_role(command.actor, Role.ANALYST)
    if (dataset_id is None) == (image_id is None):
        raise Invalid("Provide exactly one of dataset_id or image_id.")
    chosen = _model(model_name, known_models, log)
    version = select_version(chosen, model_version or PRODUCTION)
    require_runner(chosen, version, command.actor)
    found: Image | None = None
    guards: list[StreamPrecondition] = []
    if image_id is not None:
        found = images.load_image(log, image_id, command, Grant.ANALYST)
        if found.rejected is not None:
            raise Conflict(f"This image cannot be classified: it was rejected ({found.rejected})")
        dataset_id = found.dataset_id
        guards.append(images.open_guard(found.id))
    assert dataset_id is not None
    events = classification.request(
        new_id(command, "classification"),
        dataset=dataset_id,
        image=PlannedImage(found.id, found.sha256) if found else None,
        model_id=chosen.id,
        model_name=chosen.name,
        model_version=version.number,
        model_sha256=version.sha256,
        threshold=version.review_below if threshold is None else threshold,
        planes=planes,
        by=command.actor.id,
        at=command.at,
    )
    if input_check is not None:
        _require_match(chosen, version, input_check(version, found, planes))
    datasets.load_dataset(log, dataset_id, command.actor, Grant.ANALYST)
    guards.append(datasets.open_guard(dataset_id))
    try:
        return create_stream(log, command, events, guards=guards)
    except StreamClosed:
        raise NotFound("This was deleted in the meantime") from None


def _model(name: str, known: list[str], log: EventStore) -> Model:
    found = log.load(model_id(name), model.evolve)
    if found is None or found.retired:
        names = ", ".join(known) or "none yet"
        problem = f"There is no model {name!r}" if found is None else f"The model {name} is retired and accepts no new jobs"
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
        raise NotFound("Classification not found") from None
    return found


def cancel(job_id: UUID, *, expected: int | None = None, command: Command, log: EventStore) -> CommandResult:
    """Stop a job. Recorded results stay readable; remaining chunks are not processed. Raises Forbidden, NotFound, Conflict."""
    require_role(command.actor, Role.ANALYST)
    return execute(
        log,
        command,
        lambda: load_job(log, job_id, command, Grant.ANALYST),
        lambda found: classification.cancel(found, by=command.actor.id, at=command.at),
        expected=expected,
    )


def delete(job_id: UUID, *, expected: int | None = None, command: Command, log: EventStore) -> CommandResult:
    require_role(command.actor, Role.RESEARCHER)
    return execute(
        log,
        command,
        lambda: load_job(log, job_id, command, Grant.EDITOR),
        lambda found: classification.delete(found, by=command.actor.id, at=command.at),
        expected=expected,
    )
