"""What `--json` prints, a contract with the programs that read it: fields are added, never renamed or removed.

docs/commands.md shows these types, with their descriptions.
"""

from datetime import date, datetime
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

import msgspec

from domain.access import Grant, Role
from domain.classification import JobStatus, Priority, Verdict
from domain.model import OutputKind
from domain.model_check import CheckReport, Environment
from domain.policy import PolicyScope
from domain.user import Status
from domain.values import ImageWarning

Described = msgspec.Meta
Shape = TypeVar("Shape", bound=msgspec.Struct)


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A running installation."""

    url: Annotated[str, Described(description="address of the API")]
    data: Annotated[str, Described(description="data folder")]


class DependencyStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one part of an installation."""

    name: str
    ok: bool
    detail: str
    silent_models: Annotated[tuple[str, ...], Described(description="models whose external classifier does not answer")] = ()


class InstallationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A running installation, and how its parts are."""

    url: Annotated[str, Described(description="address of the API")]
    data: Annotated[str, Described(description="data folder")]
    kafka: Annotated[str, Described(description="address of Kafka for programs beside the system")]
    job_topic: Annotated[str, Described(description="topic with images for external classifiers")]
    result_topic: Annotated[str, Described(description="topic for their answers")]
    status: Annotated[str, Described(description="`ok`, `degraded`, or `unavailable` if the API does not answer")]
    dependencies: Annotated[tuple[DependencyStatus, ...], Described(description="each part")]


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the log is as it was written."""

    intact: Annotated[bool, Described(description="false with exit code 4")]
    events: Annotated[int, Described(description="events in the log")]
    heads: Annotated[int, Described(description="signed heads that were compared")]
    hash: Annotated[str, Described(description="hash of the last event")]
    unchecked: Annotated[int, Described(description="events of a newer release, whose content was not checked")]
    problem: Annotated[str | None, Described(description="the first problem")]
    discrepancies: Annotated[tuple[str, ...], Described(description="where other tables differ from the log")]
    accesses: Annotated[int, Described(description="records of the trail of access")] = 0
    accesses_since: Annotated[datetime | None, Described(description="time of its oldest record; older ones were removed")] = None


class TrailLine(msgspec.Struct, frozen=True, kw_only=True):
    """A change, or an access."""

    at: datetime
    kind: Annotated[str, Described(description="change, or the kind of an access")]
    outcome: Annotated[str, Described(description="allowed, refused or throttled")]
    sentence: Annotated[str, Described(description="with the present names")]
    position: Annotated[int, Described(description="in the log for a change, otherwise in the trail of access")]
    actor: dict[str, Any]
    key: Annotated[UUID | None, Described(description="API key of the request")]
    object: Annotated[UUID | None, Described(description="what was changed, read or asked for")]
    dataset: UUID | None
    type: Annotated[str, Described(description="event type of a change")]
    route: Annotated[str, Described(description="method and template of the route")]
    request_id: Annotated[str, Described(description="empty for a change, and for an access that stands for several")]
    address: Annotated[str | None, Described(description="of the client; null if it was erased")]
    count: Annotated[int, Described(description="number of requests")]


class LookAt(msgspec.Struct, frozen=True, kw_only=True):
    """How often somebody looked at something in one way."""

    actor: Annotated[UUID | None, Described(description="account or service")]
    name: Annotated[str, Described(description="its present name")]
    key: Annotated[UUID | None, Described(description="API key")]
    key_name: str | None
    kind: Annotated[str, Described(description="preview, download, export or admin_read")]
    times: int
    first: datetime
    last: datetime


class TrailEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An event of an audit trail."""

    position: Annotated[int, Described(description="position in the log")]
    at: datetime
    type: Annotated[str, Described(description="event type, see docs/events.md")]
    stream: Annotated[UUID, Described(description="stream of the event")]
    version: Annotated[int, Described(description="number of the event in its stream")]
    actor: Annotated[dict[str, Any], Described(description="who caused it: `id`, `kind`, `role`, `name`")]
    sentence: Annotated[str, Described(description="the event in a sentence")]
    data: Annotated[Any, Described(description="fields of the event")]


class RebuildReport(msgspec.Struct, frozen=True, kw_only=True):
    """A rebuild of the read models, or a comparison with `--check`."""

    events: Annotated[int, Described(description="last position that was read")]
    swapped: Annotated[bool, Described(description="whether the rebuilt read models replaced the live ones")]
    differences: Annotated[tuple[str, ...], Described(description="with `--check`: rows that differ")]


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """An event that could not be applied to the read models."""

    position: Annotated[int, Described(description="position in the log")]
    stream: UUID
    type: Annotated[str, Described(description="event type")]
    reason: Annotated[str, Described(description="error of the last attempt")]
    at: Annotated[datetime, Described(description="time of that attempt")]
    parked: Annotated[int, Described(description="later events that wait for it")]


class RetryReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of applying dead letters."""

    applied: Annotated[int, Described(description="events applied, dead letters and parked ones")]
    remaining: Annotated[int, Described(description="dead letters that remain")]


class BackupReport(msgspec.Struct, frozen=True, kw_only=True):
    """A backup."""

    folder: str
    events: Annotated[int, Described(description="events in the backup")]
    files: Annotated[int, Described(description="images and models in the backup")]
    missing: Annotated[tuple[str, ...], Described(description="sha256 of files that the log names and the blob store lacks")]


class RestoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """A restored installation, whose log was verified."""

    events: Annotated[int, Described(description="events in the log")]
    hash: Annotated[str, Described(description="hash of the last event")]


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """An account."""

    id: UUID
    email: str
    username: str
    first_name: str
    last_name: str
    role: Role
    status: Status
    institution: str | None
    department: str | None
    phone: str | None
    registered_at: datetime
    deleted: bool
    erased: bool


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """An open session."""

    id: UUID
    device: str
    address: str
    started_at: datetime
    last_used_at: Annotated[datetime, Described(description="sign-in or newest refresh")]
    is_current: Annotated[bool, Described(description="whether this command used it")] = False


class NewPassword(msgspec.Struct, frozen=True, kw_only=True):
    """A password that was reset."""

    account: Annotated[UUID, Described(description="id of the account")]
    password: Annotated[str | None, Described(description="the random password; null if you gave one")]


class ListedToken(msgspec.Struct, frozen=True, kw_only=True):
    """A key of a program or of a user, or a signed token of an earlier release."""

    id: UUID
    owner: Annotated[str, Described(description="name of the service account, or user name")]
    name: str
    scopes: tuple[str, ...]
    dataset_ids: Annotated[tuple[UUID, ...] | None, Described(description="datasets that it reaches; null for all of its owner's")]
    expires_at: datetime
    revoked: bool
    legacy: Annotated[bool, Described(description="a signed token of an earlier release, whose scopes are in the token only")]
    first_used_at: Annotated[datetime | None, Described(description="null if it was never used")]
    last_used_at: Annotated[datetime | None, Described(description="within a minute; null if it was never used")]
    last_used_from: Annotated[str | None, Described(description="network of the last client")]


class OwnKey(msgspec.Struct, frozen=True, kw_only=True):
    """One of your own API keys."""

    id: UUID
    name: str
    scopes: tuple[str, ...]
    dataset_ids: Annotated[tuple[UUID, ...] | None, Described(description="datasets that it reaches; null for all of yours")]
    status: Literal["working", "expired", "revoked"]
    issued_at: datetime
    expires_at: datetime
    previous_until: Annotated[datetime | None, Described(description="until when the secret before a rotation works; null without one")]
    last_used_at: Annotated[datetime | None, Described(description="within a minute; null if it was never used")]
    last_used_from: Annotated[str | None, Described(description="network of the last client")]


class InvitationListed(msgspec.Struct, frozen=True, kw_only=True):
    """An invitation to create an account."""

    id: UUID
    email: Annotated[str | None, Described(description="null once the invitation was accepted or withdrawn")]
    role: Role
    status: Annotated[Literal["open", "accepted", "withdrawn"], Described(description="`open` until the account exists")]
    invited_by: Annotated[UUID, Described(description="administrator, or the system if the command was recorded as root")]
    invited_at: datetime
    sent_at: Annotated[datetime, Described(description="when it was sent last")]
    expires_at: Annotated[datetime, Described(description="until when its link works")]
    user_id: Annotated[UUID | None, Described(description="account of the person; null before it exists")]


class ServiceToken(msgspec.Struct, frozen=True, kw_only=True):
    """A key for a program."""

    id: Annotated[UUID, Described(description="id of the key")]
    token: Annotated[str, Described(description="the key itself, shown once; only a hash is stored")]
    name: str
    scopes: tuple[str, ...]
    expires_at: datetime


class CheckedModel(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a check of a model package."""

    check: Annotated[UUID, Described(description="id of the check")]
    passed: Annotated[bool, Described(description="false with exit code 1")]
    model: Annotated[str | None, Described(description="name of the model; null if the package was refused")]
    version: Annotated[int | None, Described(description="number of the version; null if the package was refused")]
    is_new: Annotated[bool, Described(description="false if the version was known before")]
    differences: Annotated[tuple[str, ...], Described(description="of its kind and labels from those in production, as sentences")]
    notes: Annotated[tuple[str, ...], Described(description="what is worth a second look in the package, as sentences")]
    largest_difference: Annotated[float | None, Described(description="from the test outputs; null without test tensors")]
    tolerance: Annotated[float | None, Described(description="the difference that the manifest allows")]
    seconds: Annotated[float | None, Described(description="time of one image")]
    code: Annotated[str | None, Described(description="why it was refused: a code of docs/models/format.md")]
    detail: Annotated[str | None, Described(description="the reason as a sentence")]
    file: Annotated[str | None, Described(description="file of the package that is at fault")]
    field: Annotated[str | None, Described(description="field of that file")]


class ModelCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A check of a model package, and its answer. Fields that do not apply are null."""

    id: UUID
    status: Annotated[Literal["pending", "passed", "failed"], Described(description="`pending` until a worker has answered")]
    requested_at: datetime
    answered_at: datetime | None
    filename: Annotated[str | None, Described(description="of the package; null for a test of a version")]
    model_name: Annotated[str | None, Described(description="model of the version; null if the package was refused")]
    number: Annotated[int | None, Described(description="number of the version")]
    code: Annotated[str | None, Described(description="why it was refused: a code of docs/models/format.md")]
    detail: Annotated[str | None, Described(description="the reason as a sentence")]
    file: Annotated[str | None, Described(description="file of the package that is at fault")]
    field: Annotated[str | None, Described(description="field of that file")]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A finding of `bioscope doctor`."""

    level: Annotated[Literal["good", "weak", "wrong"], Described(description="`wrong` must be corrected, `weak` should be")]
    subject: str
    message: str


class KeyPurpose(msgspec.Struct, frozen=True, kw_only=True):
    """What keys are for. No key is shown."""

    purpose: str
    key_ids: Annotated[tuple[str, ...], Described(description="newest first; empty if this machine does not have them")]
    held_by: Annotated[tuple[str, ...], Described(description="processes that hold the keys; empty: only the root key gives them")]
    verified_by: Annotated[tuple[str, ...], Described(description="processes that hold the public key only")]


class MigratedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model version of this release."""

    name: str
    version: Annotated[int, Described(description="its number in this installation")]
    release: Annotated[str, Described(description="its number in its manifest")]
    sha256: str
    aliases: Annotated[tuple[str, ...], Described(description="`production`, `candidate`")]
    is_new: Annotated[bool, Described(description="whether it was registered now")]


class MigrationReport(msgspec.Struct, frozen=True, kw_only=True):
    """A migrated database."""

    migration: Annotated[int, Described(description="number of the last migration")]
    models: tuple[MigratedModel, ...]


class JobFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Conditions that all hold for each image of a job."""

    path: Annotated[str | None, Described(description="pattern of the relative path, with `*` and `?`")] = None
    uploaded_from: datetime | None = None
    uploaded_before: datetime | None = None
    device_id: UUID | None = None
    label: Annotated[str | None, Described(description="of the newest result of the model")] = None
    verdict: Annotated[Verdict | None, Described(description="of the newest result of the model")] = None
    without_result: Annotated[bool, Described(description="the model has no result for the image")] = False


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job: one model version run over images."""

    id: UUID
    status: Annotated[JobStatus, Described(description="`completed`, `failed` and `cancelled` jobs have ended")]
    model_name: str
    model_version: Annotated[int, Described(description="its number in this installation")]
    model_sha256: Annotated[str, Described(description="of the weights")]
    threshold: Annotated[float, Described(description="a lower confidence needs review")]
    dataset_id: Annotated[UUID | None, Described(description="null for a single image")]
    image_id: Annotated[UUID | None, Described(description="the single image")]
    planned: Annotated[bool, Described(description="whether `images` is final")]
    images: Annotated[int, Described(description="images that it covers")]
    succeeded: Annotated[int, Described(description="images with a result")]
    failed: Annotated[int, Described(description="images with a failure")]
    reason: Annotated[str | None, Described(description="why it failed")]
    created_by_id: Annotated[UUID, Described(description="account that started it")]
    created_at: datetime
    updated_at: datetime
    listed: Annotated[int, Described(description="length of the list of images; 0 without one")] = 0
    filter: Annotated[JobFilter | None, Described(description="which images of the dataset; null for all")] = None
    priority: Priority = Priority.NORMAL
    deadline: Annotated[datetime | None, Described(description="when it ends at the latest")] = None
    retry_of: Annotated[UUID | None, Described(description="job whose failed images it classifies again")] = None
    rate: Annotated[float | None, Described(description="images in a second; null if it is not running")] = None
    remaining_seconds: Annotated[float | None, Described(description="estimate; null if there is none")] = None


class JobFailure(msgspec.Struct, frozen=True, kw_only=True):
    """An image without a result."""

    image_id: UUID
    reason: Annotated[str, Described(description="stable code")]
    detail: Annotated[str, Described(description="the reason as a sentence")]


class JobDetails(Job, frozen=True, kw_only=True):
    """A job with its failures."""

    failures: tuple[JobFailure, ...]


class StartedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A new job."""

    id: UUID
    status: JobStatus


class RetriedJob(StartedJob, frozen=True, kw_only=True):
    """The new job of a retry."""

    retry_of: Annotated[UUID, Described(description="the job whose failed images it classifies again")]


class FoundResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a model found in one image."""

    id: UUID
    path: Annotated[str | None, Described(description="path of the image in its folder; null if it was uploaded without one")]
    filename: Annotated[str, Described(description="file name of the image")]
    label: str
    labels: Annotated[tuple[str, ...], Described(description="all labels that apply, that with the highest score first")]
    confidence: Annotated[float, Described(description="from 0 to 1; 0 for a value")]
    verdict: Verdict
    value: Annotated[float | None, Described(description="number that was measured; null for a label")]
    scores: Annotated[dict[str, float], Described(description="score of each label, from 0 to 1")]
    warnings: Annotated[tuple[ImageWarning, ...], Described(description="warnings about the file")]
    model_name: str
    model_version: Annotated[int, Described(description="its number in this installation")]
    result_version: Annotated[int, Described(description="number among the results of the model for this image")]
    is_newest: Annotated[bool, Described(description="whether there is no later one")]
    reused: Annotated[UUID | None, Described(description="earlier result that it repeats; null if the model was run")]
    created_at: datetime
    classification_id: Annotated[UUID, Described(description="id of the job")]
    image_id: UUID
    dataset_id: UUID


class Rules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What decides on labels and verdicts. Fields that decide nothing are left out."""

    review_below: Annotated[float | None, Described(description="results with a lower confidence need a review")] = None
    review_below_for: Annotated[dict[str, float], Described(description="the same for single labels")] = {}
    label_at: Annotated[dict[str, float], Described(description="score from which a label is chosen")] = {}
    applies_at: Annotated[float | None, Described(description="score from which a label applies, where several can")] = None
    applies_at_for: Annotated[dict[str, float], Described(description="the same for single labels")] = {}
    review_outside: Annotated[tuple[float, float] | None, Described(description="numbers outside of these need a review")] = None


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The rules for the results of a job, a dataset or a model."""

    scope: PolicyScope
    target_id: Annotated[UUID, Described(description="id of the job, dataset or model")]
    dataset_id: Annotated[UUID | None, Described(description="null for a model")]
    rules: Annotated[Rules | None, Described(description="null if it was withdrawn")]
    set_by: UUID
    set_by_username: str | None
    set_at: datetime
    applied_at: Annotated[datetime | None, Described(description="when all results followed it; null before, and with --as-of")]


class DatasetListed(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset that the caller may see."""

    id: UUID
    name: str
    description: str | None
    owner_id: UUID
    owner_username: str | None
    created_at: datetime
    grant: Annotated[Grant, Described(description="what the caller may do")]


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """A grant on a dataset, of an account or a team."""

    kind: Literal["user", "team"]
    user_id: Annotated[UUID | None, Described(description="null for a team")]
    team_id: Annotated[UUID | None, Described(description="null for an account")]
    name: Annotated[str | None, Described(description="user name, or name of the team")]
    grant: Grant


class TeamListed(msgspec.Struct, frozen=True, kw_only=True):
    """A team of the caller."""

    id: UUID
    name: str
    owner_id: UUID
    owner_username: str | None
    created_at: datetime
    members: Annotated[int, Described(description="number of members")]


class TeamMember(msgspec.Struct, frozen=True, kw_only=True):
    """A member of a team."""

    user_id: UUID
    username: str | None


class ResultAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A label with its confidence and verdict."""

    label: str
    confidence: Annotated[float, Described(description="from 0 to 1; 0 for a value")]
    verdict: Verdict


class ResultDetails(FoundResult, frozen=True, kw_only=True):
    """A result, how it came about, and all results of the model for the image."""

    label_text: Annotated[str, Described(description="the label in words; empty if the model has none for it")]
    unit: Annotated[str, Described(description="unit of the value; empty if there is none")]
    model_sha256: Annotated[str, Described(description="of the weights")]
    threshold: Annotated[float, Described(description="of the job: a lower confidence needs review, unless a policy is in force")]
    original: Annotated[ResultAnswer, Described(description="what the model said")]
    policy: Annotated[Policy | None, Described(description="the policy in force; null if none is")]
    versions: Annotated[tuple[FoundResult, ...], Described(description="newest first, this one included")]


class VersionCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The newest check of a version in one environment."""

    environment: Annotated[Environment | None, Described(description="null if the check did not come that far")]
    at: datetime
    report: Annotated[CheckReport | None, Described(description="null if the check failed")]
    code: Annotated[str | None, Described(description="code of the reason for a failure")]
    detail: Annotated[str | None, Described(description="reason for a failure")]


class RegisteredVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a model."""

    number: int
    description: str
    release: Annotated[str | None, Described(description="version that its manifest states")]
    kind: Annotated[OutputKind, Described(description="what its numbers mean, see docs/models/format.md")]
    unit: Annotated[str | None, Described(description="unit of the number of a regression")]
    label_threshold: Annotated[float | None, Described(description="score from which a label of `multi_label` applies")]
    labels: tuple[str, ...]
    label_texts: Annotated[dict[str, str], Described(description="labels in words")]
    review_below: Annotated[float, Described(description="a lower confidence needs review")]
    sha256: Annotated[str, Described(description="of the weights; of the declaration of an external classifier")]
    size: Annotated[int, Described(description="bytes of the weights; 0 for an external classifier")]
    digest: Annotated[str | None, Described(description="of all that determines a result")]
    package: Annotated[str | None, Described(description="sha256 of the package; null if there is none")]
    added_at: datetime
    added_by: Annotated[UUID | None, Described(description="account that uploaded or declared it; null if it came with a release")]
    added_by_username: str | None
    checks: tuple[VersionCheck, ...]


class Promoter(msgspec.Struct, frozen=True, kw_only=True):
    """An account that may promote versions of a model and retire it."""

    user_id: UUID
    username: str | None


class RegisteredModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model with all its versions."""

    id: UUID
    name: str
    description: str
    production: Annotated[int | None, Described(description="version that jobs use unless they name another one")]
    aliases: Annotated[dict[str, int], Described(description="version of each alias")]
    versions: tuple[RegisteredVersion, ...]
    promoters: tuple[Promoter, ...]
    created_at: datetime
    retired: bool


class ModelChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a model. Fields that do not apply are null."""

    position: Annotated[int, Described(description="position in the log")]
    at: datetime
    type: Annotated[str, Described(description="event type, see docs/events.md")]
    by: Annotated[UUID, Described(description="account, or part of the system")]
    by_username: Annotated[str | None, Described(description="null for the system")]
    number: Annotated[int | None, Described(description="version that was added, or to which the alias points")]
    alias: str | None
    user_id: Annotated[UUID | None, Described(description="account that became a promoter, or is none any more")]
    username: Annotated[str | None, Described(description="user name of that account")]
    reason: str | None


class PolicyChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a policy."""

    position: Annotated[int, Described(description="position in the log")]
    at: datetime
    by: UUID
    by_username: str | None
    rules: Annotated[Rules | None, Described(description="null if it was withdrawn")]
    reason: str


class AnswerCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many results have a label and a verdict."""

    label: str
    verdict: Verdict
    count: int


class PolicyPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What rules would change."""

    results: Annotated[int, Described(description="results that were counted, the newest ones")]
    complete: Annotated[bool, Described(description="whether these are all")]
    of_each_dataset: Annotated[
        int | None, Described(description="newest results of each dataset that were looked through; null if none was left out")
    ]
    changed: Annotated[int, Described(description="results that would get another label or verdict")]
    before: tuple[AnswerCount, ...]
    after: tuple[AnswerCount, ...]


class VerdictCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many results have each verdict."""

    clear: int
    needs_review: int
    out_of_domain: int


class ResultGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of some results. Fields by which the results are not grouped are null."""

    model_name: str | None
    model_version: Annotated[int | None, Described(description="number of the version")]
    dataset_id: UUID | None
    dataset_name: str | None
    device_id: Annotated[UUID | None, Described(description="null also if the images name no device")]
    day: Annotated[date | None, Described(description="on which the results were recorded, in UTC")]
    label: str | None
    verdict: str | None
    count: Annotated[int, Described(description="number of results, more than 0")]
    verdicts: VerdictCounts
    average_confidence: Annotated[float | None, Described(description="from 0 to 1; null if all results are numbers")]
    confidence_histogram: Annotated[tuple[int, ...], Described(description="20 numbers of results, each for 0.05 of confidence")]
    measured: Annotated[int, Described(description="how many results are numbers, which have no confidence")]
    average_value: Annotated[float | None, Described(description="mean of these numbers; null unless grouped by model and label")]


class ResultStatistics(msgspec.Struct, frozen=True, kw_only=True, rename={"first": "from", "last": "to"}):
    """Figures of the results of some days, in groups."""

    first: Annotated[date, Described(description="first day, in UTC")]
    last: Annotated[date, Described(description="last day, in UTC")]
    group_by: tuple[str, ...]
    groups: Annotated[tuple[ResultGroup, ...], Described(description="those that have results")]


class MailFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A mail that the server did not accept."""

    position: Annotated[int, Described(description="of the event that causes the mail")]
    reason: str
    attempts: int
    failed_at: Annotated[datetime, Described(description="time of the last attempt")]
    next_attempt_at: Annotated[datetime | None, Described(description="null if the mail was refused for good")]


class MailStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far mails were sent."""

    sent_to: Annotated[str, Described(description="the SMTP server, or the folder")]
    position: Annotated[
        int, Described(description="up to which mails were sent, deferred or refused; it may lag behind events without mails")
    ]
    head: Annotated[int, Described(description="position of the newest event")]
    problem: Annotated[str, Described(description="why no mail can be sent; empty if all is well")]
    problem_since: datetime | None
    deferred: Annotated[int, Described(description="mails that are tried again")]
    refused: Annotated[int, Described(description="mails of the last 90 days that were refused for good")]
    failures: Annotated[tuple[MailFailure, ...], Described(description="the newest 20")]


class ConfigValue(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a setting. Secrets are hidden."""

    value: Annotated[str | int | float | bool | tuple[str, ...] | None, Described(description="null if it is refused")]
    source: Literal["default", "environment", "command line"]


class ProcessHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a process works."""

    process: str
    healthy: Annotated[bool, Described(description="false with exit code 1")]


def shaped(value: object, shape: type[Shape]) -> Shape:
    return msgspec.convert(value, shape, from_attributes=True)
