"""Use cases of policies: set, withdraw, and which one was in force at a position of the log."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec

from application import classifications, datasets, models
from application.commands import CommandResult, execute, load_existing
from application.grants import is_member
from application.ports import Command, EventStore, StreamPrecondition
from domain import model, policy
from domain.access import Actor, Grant, Role, require_role
from domain.classification import ClassificationDeleted
from domain.derivation import Answer, applying_labels, derive
from domain.errors import Invalid, NotFound
from domain.events import Event
from domain.model import Model, OutputKind, Version, require_promoter
from domain.policy import Policy, PolicyRules, PolicyScope, PolicySet, PolicyWithdrawn, check_rules, policies_of, policy_id
from domain.values import model_id

MAX_CHANGES = 200


class PolicyChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a policy. `rules` is None where it was withdrawn."""

    position: int
    at: datetime
    by: UUID
    rules: PolicyRules | None
    reason: str


class PolicyTarget(NamedTuple):
    """What a policy applies to: its dataset (None for a model), the versions that give its results, and what must stay open."""

    dataset_id: UUID | None
    versions: Sequence[Version]
    guards: Sequence[StreamPrecondition] = ()

    @property
    def labels(self) -> frozenset[str]:
        return frozenset(label for version in self.versions for label in version.labels)


class StoredAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A result as the log has it: what its model said, and what a policy needs to derive another answer."""

    job: UUID
    dataset: UUID
    model_name: str
    model_version: int
    position: int
    answer: Answer
    scores: dict[str, float]
    value: float | None


def set_policy(
    scope: PolicyScope,
    target: UUID,
    *,
    rules: PolicyRules,
    reason: str,
    known_models: Collection[str],
    expected: int | None = None,
    command: Command,
    log: EventStore,
) -> CommandResult:
    """Let labels and verdicts of a job, a dataset or a model follow `rules`. Equal rules change nothing (position 0).

    For researchers with the grant editor on the dataset; for a model, administrators and its promoters. The labels of a dataset are those
    of `known_models`. Raises Invalid, Forbidden, NotFound, VersionMismatch.
    """
    found = check(scope, target, rules=rules, known_models=known_models, actor=command.actor, log=log)
    return execute(
        log,
        command,
        lambda: log.load(policy_id(scope, target), policy.evolve),
        lambda state: policy.set_policy(
            state, scope=scope, target=target, dataset=found.dataset_id, rules=rules, reason=reason, by=command.actor.id, at=command.at
        ),
        stream=policy_id(scope, target),
        expected=expected,
        guards=lambda *_: found.guards,
    )


def check(
    scope: PolicyScope, target: UUID, *, rules: PolicyRules, known_models: Collection[str], actor: Actor, log: EventStore
) -> PolicyTarget:
    """The target, if the actor may set these rules for it. Raises Invalid, Forbidden, NotFound."""
    found = _editable_target(scope, target, known_models=known_models, actor=actor, log=log)
    check_rules(rules, labels=found.labels)
    _check_kinds(rules, {version.kind for version in found.versions})
    return found


def withdraw(
    scope: PolicyScope, target: UUID, *, reason: str, expected: int | None = None, command: Command, log: EventStore
) -> CommandResult:
    """End a policy: results follow that of the next scope, or their model. Raises Forbidden, NotFound, Conflict, VersionMismatch."""
    found = _editable_target(scope, target, known_models=(), actor=command.actor, log=log)

    def decide(state: Policy | None) -> Event:
        if state is None:
            raise NotFound(f"There is no policy for this {scope.value}")
        return policy.withdraw(state, reason=reason, by=command.actor.id, at=command.at)

    return execute(
        log,
        command,
        lambda: log.load(policy_id(scope, target), policy.evolve),
        decide,
        stream=policy_id(scope, target),
        expected=expected,
        guards=lambda *_: found.guards,
    )


def history(
    scope: PolicyScope, target: UUID, *, after: int = 0, until: int | None = None, maximum: int = MAX_CHANGES, actor: Actor, log: EventStore
) -> list[PolicyChange]:
    """The first `maximum` changes of a policy after position `after`, up to position `until`, oldest first.

    The last change up to a position is what was in force there. Raises Forbidden, NotFound.
    """
    _require_reader(scope, target, actor, log)
    recorded = log.touching(policy_id(scope, target), (), after=after, maximum=maximum)
    due = [one for one in recorded if until is None or one.position <= until]
    log.prefetch(due)
    return [change for one in due if (change := _change_of(one.position, log.decode(one))) is not None]


def policy_at(scope: PolicyScope, target: UUID, *, until: int, actor: Actor, log: EventStore) -> Policy:
    """The policy as it was at position `until`. Raises Forbidden, NotFound."""
    _require_reader(scope, target, actor, log)
    found = log.load(policy_id(scope, target), policy.evolve, until=until)
    if found is None:
        raise NotFound(f"There was no policy for this {scope.value} at that time")
    return found


def answer_at(result: StoredAnswer, *, until: int, log: EventStore) -> tuple[Answer, Policy | None]:
    """The answer under the policies at position `until`, and the policy that determined it. Raises NotFound if there was no result."""
    if until < result.position:
        raise NotFound("There was no result at that time")
    in_force = policy_in_force(result.job, result.dataset, model_id(result.model_name), until=until, log=log)
    if in_force is None or in_force.rules is None:
        return result.answer, None
    version = models.load_model(result.model_name, log=log).numbered(result.model_version)
    answer = derive(result.answer, kind=version.kind, scores=result.scores, value=result.value, rules=in_force.rules)
    return answer, in_force


def labels_under(result: StoredAnswer, answer: Answer, in_force: Policy | None, *, log: EventStore) -> tuple[str, ...]:
    """All labels that apply, the highest score first, where `answer_at` gave this answer and policy."""
    version = models.load_model(result.model_name, log=log).numbered(result.model_version)
    rules = None if in_force is None else in_force.rules
    return applying_labels(answer, scores=result.scores, label_threshold=version.label_threshold, rules=rules)


def policy_in_force(job: UUID, dataset: UUID, model: UUID, *, until: int, log: EventStore) -> Policy | None:
    """The policy with rules of the nearest scope at position `until`; None if results followed their model."""
    loaded = (log.load(one, policy.evolve, until=until) for one in policies_of(job, dataset, model))
    return next((found for found in loaded if found is not None and found.rules is not None), None)


def _editable_target(scope: PolicyScope, target: UUID, *, known_models: Collection[str], actor: Actor, log: EventStore) -> PolicyTarget:
    """What the policy applies to, for an actor who may change it. Raises Forbidden, NotFound."""
    match scope:
        case PolicyScope.JOB:
            require_role(actor, Role.RESEARCHER)
            job = classifications.readable_job(log, target, actor, Grant.EDITOR)
            versions = [_load_model(job.model_id, log).numbered(job.model_version)]
            guard = StreamPrecondition(stream=target, closed_by=(ClassificationDeleted,))
            return PolicyTarget(job.dataset_id, versions, (guard, datasets.open_guard(job.dataset_id)))
        case PolicyScope.DATASET:
            require_role(actor, Role.RESEARCHER)
            datasets.load_dataset(log, target, actor, Grant.EDITOR)
            return PolicyTarget(target, _versions(known_models, log), (datasets.open_guard(target),))
        case PolicyScope.MODEL:
            found = _load_model(target, log)
            require_promoter(found, actor, lambda team_id: is_member(actor.id, team_id, log))
            return PolicyTarget(None, found.versions)


def _require_reader(scope: PolicyScope, target: UUID, actor: Actor, log: EventStore) -> None:
    require_role(actor, Role.VIEWER)
    match scope:
        case PolicyScope.JOB:
            classifications.readable_job(log, target, actor, Grant.VIEWER)
        case PolicyScope.DATASET:
            datasets.load_dataset(log, target, actor, Grant.VIEWER)
        case PolicyScope.MODEL:
            _load_model(target, log)


def _load_model(target: UUID, log: EventStore) -> Model:
    return load_existing(log, target, model.evolve, what="Model", closed=lambda _: False)


def _versions(names: Iterable[str], log: EventStore) -> list[Version]:
    found = (log.load(model_id(name), model.evolve) for name in names)
    return [version for one in found if one is not None for version in one.versions]


def _check_kinds(rules: PolicyRules, kinds: Collection[OutputKind]) -> None:
    """Raises Invalid for rules that would change no result, because no version gives results of their kind."""
    one_label = {OutputKind.SOFTMAX, OutputKind.LOGITS, OutputKind.EXTERNAL}
    with_confidence = one_label | {OutputKind.MULTI_LABEL}
    needed: dict[str, tuple[set[OutputKind], str]] = {
        "review_below": (with_confidence, "needs a model that gives a confidence; for numbers, use review_outside"),
        "review_below_for": (with_confidence, "needs a model that gives a confidence; for numbers, use review_outside"),
        "label_at": (one_label, "needs a model that chooses one label; where labels can apply together, use applies_at"),
        "applies_at": ({OutputKind.MULTI_LABEL}, "needs a model whose labels can apply together; otherwise use label_at"),
        "review_outside": ({OutputKind.REGRESSION}, "needs a model that gives a number"),
    }
    for name, (fitting, message) in needed.items():
        if getattr(rules, name) not in (None, {}) and not fitting & set(kinds):
            raise Invalid(f"rules.{name} {message}", errors=[{"loc": ["body", "rules", name], "msg": message}])


def _change_of(position: int, event: Event) -> PolicyChange | None:
    match event:
        case PolicySet():
            return PolicyChange(position=position, at=event.at, by=event.by, rules=event.rules, reason=event.reason)
        case PolicyWithdrawn():
            return PolicyChange(position=position, at=event.at, by=event.by, rules=None, reason=event.reason)
        case _:
            return None
