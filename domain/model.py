"""A model: immutable versions, each named by a digest of what determines its results, and aliases that point to versions."""

import re
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import msgspec

from domain.access import Actor, Role
from domain.errors import Conflict, Forbidden, Invalid, NotFound
from domain.events import Event, PrivateText, State, event_meta, next_event
from domain.values import invalid, is_id, model_id, multiline_text, text

PRODUCTION, CANDIDATE = "production", "candidate"
ALIAS: Final = re.compile(r"[a-z][a-z0-9_-]{0,49}")
NUMBER: Final = re.compile(r"[0-9]{1,9}")
SHA256: Final = re.compile("[0-9a-f]{64}")
MAX_REASON: Final = 1000
NONE_APPLIES: Final = "none"
"""The label of an image of a `multi_label` model to which no label applies."""
RESERVED_NAMES: Final = frozenset({"external"})  # parts of paths of the API
MAX_VERSIONS: Final = 200
MAX_PROMOTER_TEAMS: Final = 100
MAX_LABELS: Final = 300
"""Of every version. The scores of a whole chunk must fit into one event."""


class OutputKind(StrEnum):
    """What the numbers of a network mean; docs/models/format.md has the table."""

    SOFTMAX = "softmax"
    LOGITS = "logits"
    MULTI_LABEL = "multi_label"
    REGRESSION = "regression"
    EXTERNAL = "external"


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model: everything that determines a result.

    `sha256` (hexadecimal) and `size` (bytes) are those of the weights. A confidence below `review_below` (0 to 1) needs review.
    `record` is the model's manifest (rdf.yaml) as JSON text. `digest` (hexadecimal) covers the weights, the manifest and the code of the
    preprocessing. `package` is the sha256 of the archive that holds the weights; they are a file of their own where it is empty.
    `kind` is what the numbers of the network mean, `label_texts` are labels in words, and `release` is the version that the manifest
    states. Versions of release 0.2.0 lack these five.

    An external version has no weights: another program computes its results. `record` is then its declaration, whose sha256 stands for
    that of the weights.
    """

    number: int
    sha256: str
    size: int
    labels: tuple[str, ...]
    review_below: float
    record: str
    digest: str = ""
    package: str = ""
    kind: OutputKind = OutputKind.LOGITS
    label_texts: dict[str, str] = {}
    release: str = ""

    @property
    def is_external(self) -> bool:
        return self.kind is OutputKind.EXTERNAL

    @property
    def file(self) -> str:
        """The sha256 of the blob with the weights: the package, or the weights themselves. Raises Conflict for an external version."""
        if self.is_external:
            raise Conflict(f"Version {self.number} is an external classifier: it has no file, since another program computes its results")
        return self.package or self.sha256

    @property
    def unit(self) -> str:
        """The unit of the number that a regression gives, as the manifest states it. Empty if it states none."""
        return self._output.unit or ""

    @property
    def label_threshold(self) -> float | None:
        """The score from which a label of `multi_label` applies; None for other kinds."""
        return self._output.threshold if self.kind is OutputKind.MULTI_LABEL else None

    @property
    def _output(self) -> "_Output":
        try:
            return _MANIFEST.decode(self.record).config.bioscope.output
        except (msgspec.DecodeError, RecursionError):
            return _Output()


class _Output(msgspec.Struct, frozen=True):
    unit: str | None = None
    threshold: float = 0.5


class _Bioscope(msgspec.Struct, frozen=True):
    output: _Output = _Output()


class _Config(msgspec.Struct, frozen=True):
    bioscope: _Bioscope = _Bioscope()


class _Manifest(msgspec.Struct, frozen=True):
    config: _Config = _Config()


_MANIFEST: Final = msgspec.json.Decoder(_Manifest)


class Addition(msgspec.Struct, frozen=True):
    """When a version was added, by whom (None for a version that came with a release), and its description.

    Versions of release 0.2.0 have no description of their own.
    """

    at: datetime
    by: UUID | None
    description: str | None = None


class ModelVersionAdded(Event, frozen=True, kw_only=True):
    """`check_id` is the check that the version has passed; None for a version that came with a release, and for an external one."""

    name: str
    description: str
    version: Version
    check_id: UUID | None = None

    @property
    def addition(self) -> Addition:
        by_user = self.check_id is not None or self.version.is_external
        return Addition(self.at, self.by if by_user else None, self.description if self.version.digest else None)


class ModelAliasMoved(Event, frozen=True, kw_only=True):
    """`reason` is None where no person moved the alias."""

    alias: str
    number: int
    reason: PrivateText | None = None


class ModelRetired(Event, frozen=True, kw_only=True):
    """The model accepts no new jobs; its results stay."""

    reason: PrivateText | None = None


class ModelPromoterAdded(Event, frozen=True, kw_only=True):
    """The user may move aliases of the model and retire it."""

    user_id: UUID


class ModelPromoterRemoved(Event, frozen=True, kw_only=True):
    user_id: UUID


class ModelPromoterTeamAdded(Event, frozen=True, kw_only=True):
    """The members of the team may move aliases of the model and retire it."""

    team_id: UUID


class ModelPromoterTeamRemoved(Event, frozen=True, kw_only=True):
    team_id: UUID


class Model(State, frozen=True, kw_only=True):
    """`aliases` and `additions` name versions by their number. `description` is that of versions without their own."""

    name: str
    description: str
    versions: tuple[Version, ...]
    additions: dict[int, Addition]
    aliases: dict[str, int]
    created_at: datetime
    retired: bool = False
    promoters: frozenset[UUID] = frozenset()
    promoter_teams: frozenset[UUID] = frozenset()

    @property
    def numbers(self) -> frozenset[int]:
        return frozenset(version.number for version in self.versions)

    @property
    def production(self) -> Version:
        """Raises NotFound."""
        return self.aliased(PRODUCTION)

    def aliased(self, alias: str) -> Version:
        """The version that `alias` points to. Raises NotFound."""
        if alias not in self.aliases:
            raise NotFound(f"No version of the model {self.name} is its {alias}")
        return self.numbered(self.aliases[alias])

    def numbered(self, number: int) -> Version:
        """Version `number`. Raises NotFound."""
        for version in self.versions:
            if version.number == number:
                return version
        raise NotFound(f"Model {self.name} has no version {number}")

    def same_as(self, version: Version) -> Version | None:
        """The version with the same weights and manifest, and with the same digest where both have one."""
        for known in self.versions:
            is_same_digest = known.digest == version.digest or not (known.digest and version.digest)
            if (known.sha256, known.record) == (version.sha256, version.record) and is_same_digest:
                return known
        return None


def select_version(model: Model, wanted: str) -> Version:
    """The version that a job names by its number or by an alias. Raises Invalid, which lists the versions and aliases that exist."""
    try:
        return model.numbered(int(wanted)) if NUMBER.fullmatch(wanted) else model.aliased(wanted)
    except NotFound:
        raise _not_selectable(model, wanted) from None


def external_labels(model: Model | None, number: int, sha256: str) -> tuple[str, ...]:
    """The labels of version `number`; empty unless it is the external classifier with the declaration `sha256`."""
    versions = model.versions if model is not None else ()
    return next((one.labels for one in versions if one.is_external and (one.number, one.sha256) == (number, sha256)), ())


def require_runner(model: Model, version: Version, actor: Actor) -> None:
    """Raises Forbidden unless the version is in production, or the actor is the system or has at least the role researcher."""
    if model.aliases.get(PRODUCTION) == version.number or actor.is_system:
        return
    if actor.role is None or actor.role.level < Role.RESEARCHER.level:
        raise Forbidden(f"Version {version.number} of the model {model.name} is not in production. It needs the role researcher or higher")


def require_promoter(model: Model, actor: Actor, is_member: Callable[[UUID], bool]) -> None:
    """Raises Forbidden unless the actor is an administrator, the system, a promoter of the model, or a member of a team that is one.

    `is_member` says whether the actor is a member of a team.
    """
    is_promoter = actor.kind == "user" and (actor.id in model.promoters or any(map(is_member, model.promoter_teams)))
    if not (actor.is_admin or actor.is_system or is_promoter):
        raise Forbidden(f"This needs the role admin, or the right to promote versions of the model {model.name}")


def add_version(
    model: UUID,
    state: Model | None,
    *,
    name: str,
    description: str,
    version: Version,
    alias: str | None = None,
    check: UUID | None = None,
    by: UUID,
    at: datetime,
) -> list[Event]:
    """The version, to which `alias` points from now on; by default `production` for the first version, and `candidate` for a later one.

    No event if the model has the same version already. Raises Invalid, and Conflict for an external version of a model that has others.
    """
    if is_id(name):
        raise invalid("name", "must not look like an id")
    if name in RESERVED_NAMES:
        raise invalid("name", f"must not be {name}: choose another name")
    if state is not None and state.same_as(version) is not None:
        return []
    if state is not None and version.is_external and not all(known.is_external for known in state.versions):
        raise Conflict(f"The model {name} has versions that this system runs itself: give the external classifier another name")
    number = len(state.versions) + 1 if state else 1
    if number > MAX_VERSIONS:
        raise invalid("versions", f"of a model are at most {MAX_VERSIONS}: give the model another name")
    stream_version = state.version if state else 0
    added = ModelVersionAdded(
        **event_meta(model, stream_version + 1, by=by, at=at),
        name=text(name, name="name", maximum=100),
        description=description,
        version=msgspec.structs.replace(version, number=number),
        check_id=check,
    )
    chosen = alias or (CANDIDATE if state else PRODUCTION)
    return [added, ModelAliasMoved(**event_meta(model, stream_version + 2, by=by, at=at), alias=chosen, number=number)]


def violation_of(added: ModelVersionAdded, model: Model | None) -> str | None:
    """The first rule that a version which a user added breaks, as a text; None if it breaks none.

    `model` is the state before the version was added. Migration 0024 contains the same rules.
    """
    if added.check_id is not None and added.version.is_external:
        return "no package is an external classifier"
    if not SHA256.fullmatch(added.version.digest):
        return "the digest is no SHA-256 in hexadecimal"
    if not SHA256.fullmatch(added.version.sha256):
        return "the sha256 of the weights is none"
    if not _may_be_labels(added.version.labels):
        return "the labels are missing, too many, empty or double"
    if not _is_json_object(added.version.record):
        return "the record is no manifest"
    if added.originator_id != model_id(added.name):
        return "the name is not that of the model"
    if model is not None and model.retired:
        return "the model is retired"
    if added.version.number != (len(model.versions) + 1 if model else 1):
        return "the number is not the next one"
    return None


def _may_be_labels(labels: tuple[str, ...]) -> bool:
    return 1 <= len(labels) <= MAX_LABELS and "" not in labels and len(set(labels)) == len(labels)


def _is_json_object(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def move_alias(model: Model, *, alias: str, number: int, reason: str | None = None, by: UUID, at: datetime) -> list[ModelAliasMoved]:
    """No event if the alias points to the version already. Raises Invalid, NotFound, and Conflict for a retired model."""
    _require_in_use(model)
    if not ALIAS.fullmatch(alias):
        raise invalid("alias", "must begin with a letter and have at most 50 of a-z, 0-9, - and _")
    model.numbered(number)
    reason = _reason(reason)
    if model.aliases.get(alias) == number:
        return []
    return [ModelAliasMoved(**next_event(model, by=by, at=at), alias=alias, number=number, reason=reason)]


def with_alias(aliases: dict[str, int], alias: str, number: int) -> dict[str, int]:
    """`aliases` with `alias` pointing to version `number`. A version that goes into production is no longer the candidate."""
    others = {name: at for name, at in aliases.items() if (alias, name, at) != (PRODUCTION, CANDIDATE, number)}
    return {**others, alias: number}


def shared_description(shared: str, event: ModelVersionAdded) -> str:
    """The description of versions without their own, once `event` is applied. Versions of release 0.2.0 share the newest one."""
    return event.description if event.addition.description is None else shared


def first_aliases(version: Version) -> dict[str, int]:
    """The aliases before any was moved. Earlier releases put the first version of a model into production without an event."""
    return {} if version.digest else {PRODUCTION: version.number}


def retire(model: Model, *, reason: str | None = None, by: UUID, at: datetime) -> ModelRetired:
    """Raises Conflict for a retired model."""
    _require_in_use(model)
    return ModelRetired(**next_event(model, by=by, at=at), reason=_reason(reason))


def add_promoter(model: Model, *, user: UUID, by: UUID, at: datetime) -> list[ModelPromoterAdded]:
    """No event if the user is a promoter already. Raises Conflict for a retired model."""
    _require_in_use(model)
    return [] if user in model.promoters else [ModelPromoterAdded(**next_event(model, by=by, at=at), user_id=user)]


def remove_promoter(model: Model, *, user: UUID, by: UUID, at: datetime) -> list[ModelPromoterRemoved]:
    """No event if the user is no promoter. Raises Conflict for a retired model."""
    _require_in_use(model)
    return [ModelPromoterRemoved(**next_event(model, by=by, at=at), user_id=user)] if user in model.promoters else []


def add_promoter_team(model: Model, *, team: UUID, by: UUID, at: datetime) -> list[ModelPromoterTeamAdded]:
    """No event if the team is a promoter already. Raises Conflict for a retired model."""
    _require_in_use(model)
    if team in model.promoter_teams:
        return []
    if len(model.promoter_teams) >= MAX_PROMOTER_TEAMS:
        raise Conflict(f"A model has at most {MAX_PROMOTER_TEAMS} teams of promoters: remove one first")
    return [ModelPromoterTeamAdded(**next_event(model, by=by, at=at), team_id=team)]


def remove_promoter_team(model: Model, *, team: UUID, by: UUID, at: datetime) -> list[ModelPromoterTeamRemoved]:
    """No event if the team is no promoter. Raises Conflict for a retired model."""
    _require_in_use(model)
    return [ModelPromoterTeamRemoved(**next_event(model, by=by, at=at), team_id=team)] if team in model.promoter_teams else []


def evolve(model: Model | None, event: Event) -> Model | None:
    match event:
        case ModelVersionAdded() if model is None:
            return Model(
                id=event.originator_id,
                version=event.originator_version,
                name=event.name,
                description=event.description,
                versions=(event.version,),
                additions={event.version.number: event.addition},
                aliases=first_aliases(event.version),
                created_at=event.at,
            )
        case _ if model is None:
            return None
        case _:
            return msgspec.structs.replace(model, version=event.originator_version, **_changes(model, event))


def _changes(model: Model, event: Event) -> dict[str, Any]:
    match event:
        case ModelVersionAdded():
            return {
                "versions": (*model.versions, event.version),
                "additions": {**model.additions, event.version.number: event.addition},
                "description": shared_description(model.description, event),
            }
        case ModelAliasMoved():
            return {"aliases": with_alias(model.aliases, event.alias, event.number)}
        case ModelRetired():
            return {"retired": True}
        case ModelPromoterAdded():
            return {"promoters": model.promoters | {event.user_id}}
        case ModelPromoterRemoved():
            return {"promoters": model.promoters - {event.user_id}}
        case ModelPromoterTeamAdded():
            return {"promoter_teams": model.promoter_teams | {event.team_id}}
        case ModelPromoterTeamRemoved():
            return {"promoter_teams": model.promoter_teams - {event.team_id}}
        case _:
            return {}


def _not_selectable(model: Model, wanted: str) -> Invalid:
    versions = ", ".join(str(version.number) for version in model.versions)
    aliases = ", ".join(f"{alias} (version {number})" for alias, number in sorted(model.aliases.items())) or "none"
    if wanted == PRODUCTION:
        missing = f"The model {model.name} has no version in production"
        advice = "name another one, or ask an administrator or a promoter of the model to put one into production"
    else:
        missing = f"The model {model.name} has no such version or alias"
        advice = "name one of these"
    detail = f"{missing}. Versions: {versions}. Aliases: {aliases}. In model_version, {advice}"
    return Invalid(detail, errors=[{"loc": ["body", "model_version"], "msg": detail}])


def _require_in_use(model: Model) -> None:
    if model.retired:
        raise Conflict(f"Model {model.name} is retired, which cannot be undone: its aliases and promoters stay as they are")


def _reason(reason: str | None) -> str | None:
    return None if reason is None else multiline_text(reason, name="reason", maximum=MAX_REASON)
