"""A check of a model package: of one that was uploaded, or of a version again. It has one answer."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

import msgspec

from domain.errors import Refused
from domain.events import Event, PrivateText, State, new_stream, next_event
from domain.values import MAX_FILENAME, model_id, text


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """Where a check ran. Results can differ between environments: `cpu` has the flags that decide which arithmetic is used."""

    cpu: str
    runtime: str
    provider: str


class CheckReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a check measured. `largest_difference` is that of the test outputs, within `tolerance`; None where there is no test tensor.

    `load_seconds` and `run_seconds` are those of one image; `memory_bytes` is what the network added to its process. `opset` is the
    version of ai.onnx. `files` is the number of files in the package, `size` their bytes. `notes` are sentences about what is worth a
    second look.
    """

    environment: Environment
    largest_difference: float | None
    tolerance: float | None
    load_seconds: float
    run_seconds: float
    memory_bytes: int
    nodes: int
    opset: int
    files: int
    size: int
    notes: tuple[str, ...] = ()


class ModelPackageUploaded(Event, frozen=True, kw_only=True):
    """`sha256` (hexadecimal) and `size` (bytes) are those of the archive."""

    filename: PrivateText
    sha256: str
    size: int


class ModelTestRequested(Event, frozen=True, kw_only=True):
    """Version `number` of a model is to be checked again. `sha256` is that of its package."""

    model_id: UUID
    model_name: str
    number: int
    sha256: str


class ModelCheckPassed(Event, frozen=True, kw_only=True):
    """`number` is that of the version: added with this event, or known before."""

    model_id: UUID
    model_name: str
    number: int
    report: CheckReport


class ModelCheckFailed(Event, frozen=True, kw_only=True):
    """`code` says what is wrong; `file` and `field` say where in the package, and are empty where that is not one place.

    `model_id` and `number` are those of a version that was checked again.
    """

    code: str
    detail: str
    file: str = ""
    field: str = ""
    environment: Environment | None = None
    model_id: UUID | None = None
    number: int | None = None


ANSWERS = (ModelCheckPassed, ModelCheckFailed)


class ModelCheck(State, frozen=True, kw_only=True):
    """`retested` is the model and version that are checked again; None for an upload."""

    sha256: str
    requested_by: UUID
    requested_at: datetime
    retested: tuple[UUID, int] | None = None
    answered: bool = False


def upload(check: UUID, *, filename: str, sha256: str, size: int, by: UUID, at: datetime) -> ModelPackageUploaded:
    name = text(filename, name="filename", maximum=MAX_FILENAME)
    return ModelPackageUploaded(**new_stream(check, by=by, at=at), filename=name, sha256=sha256, size=size)


def request_test(check: UUID, *, model: UUID, name: str, number: int, sha256: str, by: UUID, at: datetime) -> ModelTestRequested:
    return ModelTestRequested(**new_stream(check, by=by, at=at), model_id=model, model_name=name, number=number, sha256=sha256)


def passed(check: ModelCheck, *, model: UUID, name: str, number: int, report: CheckReport, by: UUID, at: datetime) -> ModelCheckPassed:
    """Raises Refused if the check has an answer, or was of another version."""
    _require_unanswered(check)
    if check.retested not in {None, (model, number)}:
        raise Refused("The check was of another version")
    return ModelCheckPassed(**next_event(check, by=by, at=at), model_id=model, model_name=name, number=number, report=report)


def failed(
    check: ModelCheck, *, code: str, detail: str, file: str, field: str, environment: Environment | None, by: UUID, at: datetime
) -> ModelCheckFailed:
    """Raises Refused if the check has an answer."""
    _require_unanswered(check)
    model, number = check.retested or (None, None)
    return ModelCheckFailed(
        **next_event(check, by=by, at=at),
        code=code,
        detail=detail,
        file=file,
        field=field,
        environment=environment,
        model_id=model,
        number=number,
    )


def violation_of(answer: ModelCheckPassed | ModelCheckFailed, asked: ModelCheck | None, numbers: Collection[int]) -> str | None:
    """The first rule that an answer breaks, as a text; None if it breaks none.

    `asked` is the state of the check before the answer. `numbers` are those of the versions that the named model has; one that the check
    adds is added before the answer. Migration 0024 contains the same rules.
    """
    if asked is None:
        return "nobody asked for the check"
    if asked.answered:
        return "the check has an answer already"
    is_of_known_version = isinstance(answer, ModelCheckFailed) or asked.retested is not None
    if is_of_known_version and (answer.model_id, answer.number) != (asked.retested or (None, None)):
        return "the check was of another version"
    if isinstance(answer, ModelCheckFailed):
        return None
    if answer.model_id != model_id(answer.model_name):
        return "the name is not that of the model"
    if answer.number not in numbers:
        return "the model has no such version"
    return None


def violation_of_addition(asked: ModelCheck | None, *, package: str, by: UUID) -> str | None:
    """The first rule that a version breaks which was added for the check `asked`. `package` and `by` are those of the version."""
    if asked is None:
        return "nobody asked for the check"
    if asked.retested is not None:
        return "nobody uploaded the package"
    if asked.answered:
        return "the check has an answer already"
    if by != asked.requested_by:
        return "the version is not added for the person who uploaded it"
    if package != asked.sha256:
        return "the package is not the uploaded one"
    return None


def evolve(check: ModelCheck | None, event: Event) -> ModelCheck | None:
    match event:
        case ModelPackageUploaded() | ModelTestRequested():
            return ModelCheck(
                id=event.originator_id,
                version=event.originator_version,
                sha256=event.sha256,
                requested_by=event.by,
                requested_at=event.at,
                retested=(event.model_id, event.number) if isinstance(event, ModelTestRequested) else None,
            )
        case _ if check is None:
            return None
        case ModelCheckPassed() | ModelCheckFailed():
            return msgspec.structs.replace(check, version=event.originator_version, answered=True)
        case _:
            return msgspec.structs.replace(check, version=event.originator_version)


def _require_unanswered(check: ModelCheck) -> None:
    if check.answered:
        raise Refused("The check has an answer already")
