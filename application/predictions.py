"""Use case of predictions: one version of a model over images that the caller sends. Nothing is recorded."""

from typing import Final

from application.models import load_model
from application.ports import EventStore, InputCheck
from domain.access import Actor, Role, Scope, require_role_or_scope
from domain.classification import PlaneSelection
from domain.classification.job import checked_planes
from domain.errors import Conflict, InputMismatch, Invalid, NotFound
from domain.model import Model, Version, require_runner, select_version

EXTERNAL: Final = "{}@{} is external: another program answers for it. Start a job instead (POST /api/classifications/run)"


def usable_version(name: str, wanted: str, *, log: EventStore) -> tuple[Model, Version]:
    """The model, and its version of that number or alias, if it can be run here. Raises NotFound, Conflict."""
    found = load_model(name, log=log)
    if found.retired:
        raise Conflict(f"The model {name} is retired: choose another one")
    try:
        version = select_version(found, wanted)
    except Invalid as error:
        raise NotFound(error.detail) from None
    if version.is_external:
        raise Conflict(EXTERNAL.format(name, version.number))
    return found, version


def may_predict(actor: Actor) -> None:
    """Raises Forbidden unless `actor` has at least the role analyst, or is a service with the scope `models:run`."""
    require_role_or_scope(actor, Role.ANALYST, Scope.MODELS_RUN)


def version_to_run(name: str, wanted: str, planes: PlaneSelection, *, actor: Actor, input_check: InputCheck, log: EventStore) -> Version:
    """The version that `actor` may run over images of their own, with that choice of planes.

    A version that is not in production needs the role researcher, as in a job. Raises Forbidden, NotFound, Conflict, InputMismatch, and
    Invalid for planes that no image can have.
    """
    may_predict(actor)
    found, version = usable_version(name, wanted, log=log)
    require_runner(found, version, actor)
    if mismatches := input_check(version, None, checked_planes(planes)):
        raise InputMismatch(". ".join(one.message for one in mismatches))
    return version
