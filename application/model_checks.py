"""Use cases of model checks: upload a package, test a version again, and record the answer of a worker."""

from collections.abc import Callable, Sequence
from typing import NamedTuple
from uuid import UUID

from application.commands import CommandResult, create_stream, execute, load_existing, new_id
from application.models import check_version, load_model
from application.ports import Command, EventStore, StreamPrecondition
from domain import model, model_check, user
from domain.access import Role, require_role
from domain.errors import Conflict, Forbidden, NotFound, Refused, TooMany
from domain.events import Event
from domain.model import CANDIDATE, Model, Version
from domain.model_check import CheckReport, Environment, ModelCheck
from domain.values import model_id

MAX_PENDING = 10  # checks of one person
RETRY_AFTER_SECONDS = 10


class CheckedModel(NamedTuple):
    """What a worker found in a package that passed. `version.number` is replaced."""

    name: str
    description: str
    version: Version
    report: CheckReport


class PackageRefusal(NamedTuple):
    """Why a package was refused: a `code`, a sentence, and where in the package."""

    code: str
    detail: str
    file: str = ""
    field: str = ""


def may_upload(command: Command) -> None:
    """Raises Forbidden. Asked before the first byte of a package."""
    require_role(command.actor, Role.RESEARCHER)


def require_free_slot(pending: int) -> None:
    """Raises TooMany if a person has `MAX_PENDING` checks without an answer already, those that are uploaded now included."""
    if pending >= MAX_PENDING:
        raise TooMany(f"{pending} of your model checks have no answer yet; wait until one has", retry_after=RETRY_AFTER_SECONDS)


def is_repeated(command: Command, *, log: EventStore) -> bool:
    """Whether a command with this Idempotency-Key has asked for a check before."""
    return command.digest is not None and log.event(new_id(command, "model_check"), 1) is not None


def upload(*, filename: str, sha256: str, size: int, command: Command, log: EventStore) -> CommandResult:
    """Ask for a check of a package that is stored under `sha256`. If it passes, its version is added to its model."""
    may_upload(command)
    check = new_id(command, "model_check")
    uploaded = model_check.upload(check, filename=filename, sha256=sha256, size=size, by=command.actor.id, at=command.at)
    return create_stream(log, command, [uploaded])


def request_test(*, name: str, number: int, command: Command, log: EventStore) -> CommandResult:
    """Ask for another check of version `number`, for instance on a new machine. Raises Forbidden, NotFound, Conflict."""
    require_role(command.actor, Role.RESEARCHER)
    found = load_model(name, log=log)
    if found.retired:
        raise Conflict(f"Model {name} is retired: its versions are not tested any more")
    version = found.numbered(number)
    if version.is_external:
        raise Conflict(f"Version {number} of the model {name} is an external classifier: it has no package that could be tested")
    if not version.package:
        raise Conflict(f"Version {number} of the model {name} was added without its package, so it has no test tensors")
    check = new_id(command, "model_check")
    requested = model_check.request_test(
        check, model=found.id, name=found.name, number=number, sha256=version.package, by=command.actor.id, at=command.at
    )
    return create_stream(log, command, [requested])


def requested(check: UUID, *, log: EventStore) -> ModelCheck:
    """The check, whether it has an answer or not. Raises NotFound, Unavailable."""
    return load_existing(log, check, model_check.evolve, what="Check", closed=lambda _: False)


def unanswered(check: UUID, *, log: EventStore) -> ModelCheck | None:
    """The check, or None if it does not exist or has an answer. Raises Unavailable."""
    state = log.load(check, model_check.evolve)
    return None if state is None or state.answered else state


def record_passed(check: UUID, found: CheckedModel, *, command: Command, log: EventStore) -> bool:
    """Add the version to its model, unless it is known, and record that the check passed. Done by the system.

    The person who uploaded the package is the author of the version. False if the check has an answer. Raises Forbidden if that person
    may add no models any more, Conflict if the model is retired, Invalid for a version that cannot be used, Unavailable.
    """
    stream = model_id(found.name)
    guards: list[StreamPrecondition] = []

    def decide(state: Model | None, asked: ModelCheck) -> list[Event]:
        if asked.retested is not None:
            number = asked.retested[1]
            return [_passed(asked, stream, found, number, command)]
        guards[:] = [_unchanged_uploader(asked, log)]
        if state is not None and state.retired:
            raise Conflict(f"The model {found.name} is retired")
        check_version(found.version)
        known = state.same_as(found.version) if state else None
        added = model.add_version(
            stream,
            state,
            name=found.name,
            description=found.description,
            version=found.version,
            alias=CANDIDATE,
            check=check,
            by=asked.requested_by,
            at=command.at,
        )
        number = known.number if known else len(state.versions) + 1 if state else 1
        return [*added, _passed(asked, stream, found, number, command)]

    return _record(check, lambda asked: decide(log.load(stream, model.evolve), asked), guards=guards, command=command, log=log)


def record_failed(check: UUID, why: PackageRefusal, environment: Environment | None, *, command: Command, log: EventStore) -> bool:
    """Record that the check failed. False if it has an answer. Done by the system. Raises Unavailable."""

    def decide(asked: ModelCheck) -> list[Event]:
        return [
            model_check.failed(
                asked,
                code=why.code,
                detail=why.detail,
                file=why.file,
                field=why.field,
                environment=environment,
                by=command.actor.id,
                at=command.at,
            )
        ]

    return _record(check, decide, command=command, log=log)


def _passed(asked: ModelCheck, stream: UUID, found: CheckedModel, number: int, command: Command) -> Event:
    return model_check.passed(asked, model=stream, name=found.name, number=number, report=found.report, by=command.actor.id, at=command.at)


def _unchanged_uploader(asked: ModelCheck, log: EventStore) -> StreamPrecondition:
    """That the account stays as it is, with the right to add models. Raises Forbidden."""
    account = log.load(asked.requested_by, user.evolve)
    if account is None or not account.acts_as(Role.RESEARCHER):
        raise Forbidden("The account that uploaded the package may add no models any more: it is not active, or no researcher")
    return StreamPrecondition(stream=account.id, version=account.version)


def _record(
    check: UUID,
    decide: Callable[[ModelCheck], list[Event]],
    *,
    guards: Sequence[StreamPrecondition] = (),
    command: Command,
    log: EventStore,
) -> bool:
    """A concurrent change of the model, the check or the account leads to a new decision, which may fill `guards`."""

    def load() -> ModelCheck:
        return load_existing(log, check, model_check.evolve, what="Check", closed=lambda state: state.answered)

    try:
        return execute(log, command, load, decide, guards=lambda *_: guards).position > 0
    except (NotFound, Refused):
        return False
