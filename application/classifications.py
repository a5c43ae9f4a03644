"""Use cases of jobs: request, cancel, delete."""

from uuid import UUID

from application import datasets, images
from application.commands import CommandResult, create_stream, execute, load_existing, new_id
from application.ports import Command, EventStore, StreamPrecondition
from domain import classification, model
from domain.access import Grant, Role, require_role
from domain.classification import Classification, PlannedImage
from domain.errors import Conflict, Invalid, NotFound, StreamClosed
from domain.model import Model
from domain.values import model_id


def run(
    *,
    dataset_id: UUID | None,
    image_id: UUID | None,
    model_name: str,
    threshold: float | None,
    known_models: list[str],
    command: Command,
    log: EventStore,
) -> CommandResult:
    """Request a job with the model's current production version. Exactly one of `dataset_id` and `image_id` is given.

    `threshold` (0 to 1) is the confidence below which a result needs review; None takes that of the model. `known_models` are named in
    the message if there is no model `model_name`. Raises Forbidden, Invalid, NotFound, Conflict (a rejected image).
    """
    require_role(command.actor, Role.ANALYST)
    if (dataset_id is None) == (image_id is None):
        raise Invalid("Provide exactly one of dataset_id or image_id.")
    chosen = _model(model_name, known_models, log)
    version = chosen.production
    planned: PlannedImage | None = None
    guards: list[StreamPrecondition] = []
    if image_id is not None:
        found = images.load_image(log, image_id, command, Grant.ANALYST)
        if found.rejected is not None:
            raise Conflict(f"This image cannot be classified: it was rejected ({found.rejected})")
        planned, dataset_id = PlannedImage(found.id, found.sha256), found.dataset_id
        guards.append(images.open_guard(found.id))
    assert dataset_id is not None
    datasets.load_dataset(log, dataset_id, command.actor, Grant.ANALYST)
    guards.append(datasets.open_guard(dataset_id))
    events = classification.request(
        new_id(command, "classification"),
        dataset=dataset_id,
        image=planned,
        model_id=chosen.id,
        model_name=chosen.name,
        model_version=version.number,
        model_sha256=version.sha256,
        threshold=version.review_below if threshold is None else threshold,
        by=command.actor.id,
        at=command.at,
    )
    try:
        return create_stream(log, command, events, guards=guards)
    except StreamClosed:
        raise NotFound("This was deleted in the meantime") from None


def _model(name: str, known: list[str], log: EventStore) -> Model:
    found = log.load(model_id(name), model.evolve)
    if found is None or found.retired:
        names = ", ".join(known) or "none yet"
        detail = f"There is no model {name!r}. Models: {names}"
        raise Invalid(detail, errors=[{"loc": ["body", "model_name"], "msg": detail}])
    return found


def load_job(log: EventStore, job_id: UUID, command: Command, minimum: Grant) -> Classification:
    found = load_existing(log, job_id, classification.evolve, what="Classification", closed=lambda it: it.deleted)
    try:
        datasets.load_dataset(log, found.dataset_id, command.actor, minimum)
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
