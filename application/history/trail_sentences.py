"""Sentences for the audit trail: who did what to which thing, with current names."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple
from uuid import UUID

from msgspec import UNSET

from application.ports import EventStore
from domain import (
    api_key,
    classification,
    dataset,
    dead_letter,
    device,
    image,
    invitation,
    model,
    model_check,
    policy,
    registration,
    service_account,
    session,
    team,
    user,
)
from domain.events import ERASED, Event
from domain.registry import NOUN_OF, is_known

NAMING: Final[tuple[type[Event], ...]] = (
    user.UserRegistered,
    user.UserProfileChanged,
    user.EmailChanged,
    registration.RegistrationRequested,
    service_account.ServiceAccountCreated,
    api_key.KeyIssued,
    team.TeamCreated,
    team.TeamRenamed,
    dataset.DatasetCreated,
    dataset.DatasetDescribed,
    image.ImageUploaded,
    image.ImageDescribed,
    device.DeviceRegistered,
    device.DeviceDescribed,
    model.ModelVersionAdded,
    model_check.ModelPackageUploaded,
)
NAMELESS: Final = frozenset({"classification", "session", "dead_letter", "invitation"})
"""Nouns whose streams have no name of their own."""

ACTORS: Final = {"service": "A service", "anonymous": "Somebody", "pending": "Somebody"}
"""Actors without a name, by their kind."""

NAME_FIELDS: Final = ("first_name", "last_name", "name", "filename")


class Scene(NamedTuple):
    """The context of a sentence: the thing that the trail is about, the actor, and the names of things by id."""

    about: UUID
    actor: Mapping[str, Any]
    names: Mapping[UUID, str]

    def name(self, one: UUID | None, otherwise: str) -> str:
        return self.names.get(one, otherwise) if one else otherwise

    @property
    def who(self) -> str:
        if self.actor.get("kind") == "user":
            return self.name(_uuid(self.actor.get("id")), "A user")
        return str(self.actor.get("name") or ACTORS.get(str(self.actor.get("kind")), "The system"))

    @property
    def key(self) -> UUID | None:
        """The API key with which the actor acted."""
        return _uuid(self.actor.get("key"))


def sentence(event: Event, scene: Scene) -> str:
    """One line for an event. Never raises for a registered event type."""
    with_key = f" with the key {scene.name(scene.key, '')}" if scene.key else ""
    return " ".join(f"{SENTENCES[type(event)](event, scene)}{with_key}".split())


def unknown(type_name: str, scene: Scene) -> str:
    """The sentence for an event of a newer release."""
    return f"{scene.who} did something that only a newer release can describe: {type_name}"


def names_in(events: Iterable[Event], actors: Iterable[UUID], log: EventStore) -> dict[UUID, str]:
    """The names of the users, datasets, images, devices and models that the events mention. Names of erased users are `[erased]`.

    Names that only a newer release can read are omitted. Takes two queries.
    """
    streams = {one for event in events for one in _mentioned(event)}.union(actors)
    recorded = [one for one in log.histories(streams, *NAMING) if is_known(one.type, one.schema_version)]
    log.prefetch(recorded)
    parts: dict[UUID, dict[str, str]] = {}
    for event in map(log.decode, recorded):
        known = parts.setdefault(event.originator_id, {})
        known |= {field: value for field in NAME_FIELDS if isinstance(value := getattr(event, field, None), str)}
    return {one: _joined(known) for one, known in parts.items()}


def _mentioned(event: Event) -> Iterable[UUID]:
    """The streams that an event mentions, except those of jobs, which are long and have no names."""
    own = () if NOUN_OF[type(event).__name__] in NAMELESS else (event.originator_id,)
    fields = (getattr(event, name) for name in event.__struct_fields__ if name not in {"originator_id", "job_id"})
    return (*own, *(value for value in fields if isinstance(value, UUID)))


def _joined(parts: Mapping[str, str]) -> str:
    found = [parts[field] for field in NAME_FIELDS if field in parts]
    return ERASED if ERASED in found else " ".join(found)


def _uuid(text: object) -> UUID | None:
    try:
        return UUID(str(text))
    except ValueError:
        return None


# ---- users and sessions --------------------------------------------------------------------------------------------------------------
def _account(event: Event, scene: Scene) -> str:
    return scene.name(event.originator_id, "an account")


def _of_account(words: str) -> Callable[[Event, Scene], str]:
    return lambda event, scene: f"{scene.who} {words} {_account(event, scene)}"


def _registered(event: user.UserRegistered, scene: Scene) -> str:
    account = _account(event, scene)
    by_oneself = scene.actor.get("kind") == "anonymous"
    return f"{account[:1].upper()}{account[1:]} registered" if by_oneself else f"{scene.who} registered {account}"


def _profile(event: user.UserProfileChanged, scene: Scene) -> str:
    return f"{scene.who} changed the profile of {_account(event, scene)}: {_fields(event)}"


def _role(event: user.UserRoleChanged, scene: Scene) -> str:
    return f"{scene.who} gave {_account(event, scene)} the role {event.role}"


def _status(event: user.UserStatusChanged, scene: Scene) -> str:
    return f"{scene.who} set the account of {_account(event, scene)} to {event.status}"


def _signed_in(event: session.SessionStarted, scene: Scene) -> str:
    return f"{scene.name(event.user_id, 'A user')} signed in"


ENDINGS: Final = {
    session.Reason.LOGOUT: "signed out",
    session.Reason.ACCOUNT: "the account was no longer active",
    session.Reason.ENDED: "ended from the list of sessions",
    session.Reason.ADMINISTRATOR: "ended by an administrator",
}


def _session_ended(event: session.SessionRevoked, scene: Scene) -> str:
    words = ENDINGS.get(event.reason) or event.reason.replace("_", " ")
    return f"A session of {scene.name(event.user_id, 'a user')} ended: {words}"


def _reused(event: session.RefreshReuseDetected, scene: Scene) -> str:
    return f"A refresh token of {scene.name(event.user_id, 'a user')} was used again"


def _registration(words: str) -> Callable[[Any, Scene], str]:
    return lambda event, scene: f"The registration of {scene.name(event.originator_id, 'a person')} {words}"


def _invited(event: invitation.UserInvited, scene: Scene) -> str:
    return f"{scene.who} invited a person as {event.role}"


def _invitation(words: str, *, then: str = "") -> Callable[[Event, Scene], str]:
    return lambda _, scene: f"{scene.who} {words} an invitation {then}".rstrip()


# ---- programs and teams --------------------------------------------------------------------------------------------------------------
def _service(words: str) -> Callable[[Event, Scene], str]:
    return lambda event, scene: f"{scene.who} {words} the service account {scene.name(event.originator_id, '')}".rstrip()


def _key_issued(event: api_key.KeyIssued, scene: Scene) -> str:
    is_own = str(event.owner_id) == scene.actor.get("id")
    is_of_service = event.owner_kind is api_key.OwnerKind.SERVICE
    owner = f"the service account {scene.name(event.owner_id, '')}".rstrip() if is_of_service else scene.name(event.owner_id, "an account")
    to = "" if is_own else f" to {owner}"
    limit = "" if event.dataset_ids is None else f", for {_count(len(event.dataset_ids), 'dataset')} only"
    return f"{scene.who} issued the key {event.name}{to}: {', '.join(event.scopes)}{limit}"


def _key(words: str) -> Callable[[Event, Scene], str]:
    return lambda event, scene: f"{scene.who} {words} the key {scene.name(event.originator_id, '')}".rstrip()


def _team(event: Event, scene: Scene) -> str:
    return f"the team {scene.name(event.originator_id, '')}".rstrip()


def _of_team(words: str) -> Callable[[Event, Scene], str]:
    return lambda event, scene: f"{scene.who} {words} {_team(event, scene)}"


def _member_added(event: team.TeamMemberAdded, scene: Scene) -> str:
    return f"{scene.who} added {scene.name(event.user_id, 'a user')} to {_team(event, scene)}"


def _member_removed(event: team.TeamMemberRemoved, scene: Scene) -> str:
    return f"{scene.who} removed {scene.name(event.user_id, 'a user')} from {_team(event, scene)}"


# ---- datasets, images and devices ----------------------------------------------------------------------------------------------------
def _dataset(event: Event, scene: Scene) -> str:
    return f"the dataset {scene.name(event.originator_id, '')}".rstrip()


def _shared(event: dataset.DatasetShared, scene: Scene) -> str:
    return f"{scene.who} shared {_dataset(event, scene)} with {scene.name(event.user_id, 'a user')} as {event.grant}"


def _withdrawn(event: dataset.DatasetShareWithdrawn, scene: Scene) -> str:
    return f"{scene.who} withdrew {_dataset(event, scene)} from {scene.name(event.user_id, 'a user')}"


def _shared_with_team(event: dataset.DatasetSharedWithTeam, scene: Scene) -> str:
    return f"{scene.who} shared {_dataset(event, scene)} with the team {scene.name(event.team_id, '')} as {event.grant}"


def _withdrawn_from_team(event: dataset.DatasetTeamShareWithdrawn, scene: Scene) -> str:
    return f"{scene.who} withdrew {_dataset(event, scene)} from the team {scene.name(event.team_id, '')}".rstrip()


def _transferred(event: dataset.DatasetTransferred, scene: Scene) -> str:
    return f"{scene.who} made {scene.name(event.owner_id, 'a user')} the owner of {_dataset(event, scene)}"


def _of_dataset(words: str) -> Callable[[Event, Scene], str]:
    return lambda event, scene: f"{scene.who} {words} {_dataset(event, scene)}"


def _described_dataset(event: dataset.DatasetDescribed, scene: Scene) -> str:
    return f"{scene.who} changed {_dataset(event, scene)}: {_fields(event)}"


def _image(event: Event, scene: Scene) -> str:
    return scene.name(event.originator_id, "an image")


def _uploaded(event: image.ImageUploaded, scene: Scene) -> str:
    return f"{scene.who} uploaded {event.filename}"


def _accepted(event: image.ImageAccepted, scene: Scene) -> str:
    return f"{_image(event, scene)} was accepted: {event.width} x {event.height} pixels"


def _rejected(event: image.ImageRejected, scene: Scene) -> str:
    return f"{_image(event, scene)} was rejected: {event.detail}"


def _reinspected(event: image.ImageReinspected, scene: Scene) -> str:
    outdated = f"; {len(event.outdated)} results were computed from other pixels" if event.outdated else ""
    return f"{_image(event, scene)} was decoded again by reader {event.reader}{outdated}"


def _described_image(event: image.ImageDescribed, scene: Scene) -> str:
    return f"{scene.who} changed {_image(event, scene)}: {_fields(event)}"


def _deleted_image(event: image.ImageDeleted, scene: Scene) -> str:
    return f"{scene.who} deleted {_image(event, scene)}"


def _device(event: Event, scene: Scene) -> str:
    return f"the device {scene.name(event.originator_id, '')}".rstrip()


def _of_device(words: str) -> Callable[[Event, Scene], str]:
    return lambda event, scene: f"{scene.who} {words} {_device(event, scene)}"


def _described_device(event: device.DeviceDescribed, scene: Scene) -> str:
    return f"{scene.who} changed {_device(event, scene)}: {_fields(event)}"


def _device_event(words: str) -> Callable[[Event, Scene], str]:
    return lambda event, scene: f"The {_device(event, scene).removeprefix('the ')} {words}"


# ---- models and results --------------------------------------------------------------------------------------------------------------
def _added(event: model.ModelVersionAdded, scene: Scene) -> str:
    added = f"{scene.who} added version {event.version.number} of the model {event.name}"
    return f"{added}, an external classifier" if event.version.is_external else added


def _moved(event: model.ModelAliasMoved, scene: Scene) -> str:
    of_model = f"of {scene.name(event.originator_id, 'a model')}"
    if event.alias == model.PRODUCTION:
        return f"{scene.who} put version {event.number} {of_model} into production{_because(event)}"
    return f"{scene.who} moved the alias {event.alias} to version {event.number} {of_model}{_because(event)}"


def _retired(event: model.ModelRetired, scene: Scene) -> str:
    return f"{scene.who} retired the model {scene.name(event.originator_id, '')}".rstrip() + _because(event)


def _because(event: model.ModelAliasMoved | model.ModelRetired) -> str:
    return f": {event.reason}" if event.reason else ""


def _promoter(words: str) -> Callable[[Any, Scene], str]:
    return lambda event, scene: (
        f"{scene.who} {words} {scene.name(event.user_id, 'a user')} promote versions of {scene.name(event.originator_id, 'a model')}"
    )


def _promoter_team(words: str) -> Callable[[Any, Scene], str]:
    return lambda event, scene: (
        f"{scene.who} {words} the team {scene.name(event.team_id, '')} promote versions of {scene.name(event.originator_id, 'a model')}"
    )


def _policy_set(event: policy.PolicySet, scene: Scene) -> str:
    name = "" if event.scope is policy.PolicyScope.JOB else scene.name(event.target_id, "")
    return f"{scene.who} set a policy for the {event.scope} {name}".rstrip() + f": {event.reason}"


def _policy_withdrawn(event: policy.PolicyWithdrawn, scene: Scene) -> str:
    return f"{scene.who} withdrew a policy: {event.reason}"


def _package_uploaded(event: model_check.ModelPackageUploaded, scene: Scene) -> str:
    return f"{scene.who} uploaded the model package {event.filename}"


def _test_requested(event: model_check.ModelTestRequested, scene: Scene) -> str:
    return f"{scene.who} asked for a test of version {event.number} of {scene.name(event.model_id, 'a model')}"


def _check_passed(event: model_check.ModelCheckPassed, _: Scene) -> str:
    return f"Version {event.number} of the model {event.model_name} passed its check"


def _check_failed(event: model_check.ModelCheckFailed, _: Scene) -> str:
    return f"The model package failed its check: {event.detail}"


def _requested(event: classification.ClassificationRequested, scene: Scene) -> str:
    asked = f"{scene.who} asked {event.model_name} version {event.model_version} to classify"
    return f"{asked} {_covered(event, scene)}{' again' if event.retry_of else ''}{_chosen(event.planes)}"


def _covered(event: classification.ClassificationRequested, scene: Scene) -> str:
    """Such as `3 images of the dataset cells`."""
    if event.image_id:
        return scene.name(event.image_id, "an image")
    dataset = f"the dataset {scene.name(event.dataset_id, '')}".rstrip()
    if event.images:
        return f"{_count(len(event.images), 'image')} of {dataset}"
    return f"a part of {dataset}" if event.filter or event.path or event.retry_of else dataset


def _chosen(planes: classification.PlaneSelection | None) -> str:
    """Such as ` (z=max, c=0,2)`."""
    if planes is None:
        return ""
    chosen = {"z": planes.z, "c": planes.c and ",".join(map(str, planes.c)), "t": planes.t}
    return f" ({', '.join(f'{axis}={value}' for axis, value in chosen.items() if value is not None)})"


def _planned(event: classification.ClassificationPlanned, _: Scene) -> str:
    return f"Part {event.part + 1} of the job was planned: {_count(len(event.images), 'image')}"


def _of_job(words: str) -> Callable[[Event, Scene], str]:
    return lambda _, scene: f"{scene.who} {words} the job"


def _completed(event: classification.ClassificationCompleted, _: Scene) -> str:
    return f"The job was completed: {_count(event.succeeded, 'result')}, {_count(event.failed, 'failure')}"


def _failed(event: classification.ClassificationFailed, _: Scene) -> str:
    return f"The job failed: {event.reason}"


def _chunk_judged(event: classification.ChunkJudged, scene: Scene) -> str:
    by = f"{event.model_name} version {event.model_version}"
    for result in event.results:
        if result.image_id == scene.about and result.value is not None:
            return f"{by} measured {result.label}: {result.value:.6g}"
        if result.image_id == scene.about:
            return f"{by} classified it as {result.label}, {result.confidence * 100:.0f} %"
    for failure in event.failures:
        if failure.image_id == scene.about:
            return f"{by} could not classify it: {failure.detail}"
    failed = f", and could not classify {len(event.failures)}" if event.failures else ""
    return f"{by} classified {_count(len(event.results), 'image')}{failed}"


def _discarded(event: dead_letter.DeadLetterDiscarded, scene: Scene) -> str:
    return f"{scene.who} discarded the {event.type} at position {event.position}, which is not applied to read models: {event.reason}"


def _fields(event: Event) -> str:
    """The names of the fields that an event sets. Their values are in the entry's data."""
    common = Event.__struct_fields__
    changed = [name.replace("_", " ") for name in event.__struct_fields__ if name not in common and getattr(event, name) is not UNSET]
    return ", ".join(changed)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


SENTENCES: Final[Mapping[type[Event], Callable[[Any, Scene], str]]] = {
    user.UserRegistered: _registered,
    user.UserProfileChanged: _profile,
    user.UserRoleChanged: _role,
    user.UserStatusChanged: _status,
    user.PasswordChanged: _of_account("changed the password of"),
    user.PasswordRehashed: lambda event, scene: f"The password of {_account(event, scene)} was hashed again",
    user.PasswordResetRequested: lambda event, scene: f"A link to reset the password of {_account(event, scene)} was requested",
    user.PasswordReset: lambda event, scene: f"{_account(event, scene)} chose a new password with the link of a mail",
    user.EmailChangeRequested: _of_account("requested another e-mail address for"),
    user.EmailChanged: lambda event, scene: f"The new e-mail address of {_account(event, scene)} was verified",
    user.UserDeleted: _of_account("closed the account of"),
    user.UserErased: _of_account("erased"),
    registration.RegistrationRequested: _registration("was requested"),
    registration.VerificationRequested: _registration("was mailed again"),
    registration.RegistrationCompleted: _registration("was completed"),
    registration.RegistrationDiscarded: _registration("was discarded, since its address was not verified in time"),
    invitation.UserInvited: _invited,
    invitation.InvitationRepeated: _invitation("sent", then="again"),
    invitation.InvitationAccepted: lambda event, scene: f"{scene.name(event.user_id, 'A person')} accepted an invitation",
    invitation.InvitationWithdrawn: _invitation("withdrew"),
    session.SessionStarted: _signed_in,
    session.SessionRevoked: _session_ended,
    session.RefreshReuseDetected: _reused,
    service_account.ServiceAccountCreated: _service("created"),
    service_account.ServiceAccountDeleted: _service("deleted"),
    service_account.LegacyTokensRevoked: lambda _, scene: f"{scene.who} revoked all service tokens of earlier releases",
    api_key.KeyIssued: _key_issued,
    api_key.KeyRotated: _key("rotated"),
    api_key.KeyRevoked: _key("revoked"),
    team.TeamCreated: _of_team("created"),
    team.TeamRenamed: _of_team("renamed"),
    team.TeamMemberAdded: _member_added,
    team.TeamMemberRemoved: _member_removed,
    team.TeamDeleted: _of_team("deleted"),
    dataset.DatasetCreated: _of_dataset("created"),
    dataset.DatasetDescribed: _described_dataset,
    dataset.DatasetShared: _shared,
    dataset.DatasetShareWithdrawn: _withdrawn,
    dataset.DatasetSharedWithTeam: _shared_with_team,
    dataset.DatasetTeamShareWithdrawn: _withdrawn_from_team,
    dataset.DatasetTransferred: _transferred,
    dataset.DatasetDeleted: _of_dataset("deleted"),
    image.ImageUploaded: _uploaded,
    image.ImageAccepted: _accepted,
    image.ImageRejected: _rejected,
    image.ImageReinspected: _reinspected,
    image.ImageDescribed: _described_image,
    image.ImageDeleted: _deleted_image,
    device.DeviceRegistered: _of_device("registered"),
    device.DeviceDescribed: _described_device,
    device.DeviceCameOnline: _device_event("came online"),
    device.DeviceWentOffline: _device_event("went offline"),
    device.DeviceRemoved: _of_device("removed"),
    model.ModelVersionAdded: _added,
    model.ModelAliasMoved: _moved,
    model.ModelRetired: _retired,
    model.ModelPromoterAdded: _promoter("let"),
    model.ModelPromoterRemoved: _promoter("no longer lets"),
    model.ModelPromoterTeamAdded: _promoter_team("let"),
    model.ModelPromoterTeamRemoved: _promoter_team("no longer lets"),
    model_check.ModelPackageUploaded: _package_uploaded,
    model_check.ModelTestRequested: _test_requested,
    model_check.ModelCheckPassed: _check_passed,
    model_check.ModelCheckFailed: _check_failed,
    classification.ClassificationRequested: _requested,
    classification.ClassificationPlanned: _planned,
    classification.ClassificationCancelled: _of_job("cancelled"),
    classification.ClassificationCompleted: _completed,
    classification.ClassificationFailed: _failed,
    classification.ClassificationDeleted: _of_job("deleted"),
    classification.ChunkJudged: _chunk_judged,
    policy.PolicySet: _policy_set,
    policy.PolicyWithdrawn: _policy_withdrawn,
    dead_letter.DeadLetterDiscarded: _discarded,
}
"""One sentence for each event type."""
