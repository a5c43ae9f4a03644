"""A policy: how labels and verdicts follow from the stored scores of a job, a dataset or a model. Scores never change."""

from collections.abc import Collection, Mapping
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from math import isfinite
from typing import Final
from uuid import UUID, uuid5

import msgspec

from domain.errors import Conflict, Invalid
from domain.events import Event, PrivateText, State, event_meta, next_event
from domain.values import NAMESPACE, multiline_text, quoted

MAX_REASON: Final = 1000
MAX_SHOWN_LABELS: Final = 50
MAX_RULES_BYTES: Final = 128 * 1024
"""Of rules as JSON, so that they fit an event."""


class PolicyScope(StrEnum):
    """What a policy applies to. That of a job precedes that of a dataset, and that of a dataset precedes that of a model."""

    JOB = "job"
    DATASET = "dataset"
    MODEL = "model"


class PolicyRules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The rules of a policy. What they leave open stays as the model and its job decided; `domain.derivation` applies them.

    A result with a confidence below `review_below` (0 to 1) needs review; `review_below_for` replaces it for some labels. A label of
    `label_at` is chosen where its score reaches the number (above 0, to 1), even if another score is higher, and only there. For models
    whose labels can apply together, a label applies from the score `applies_at`; `applies_at_for` replaces it for some labels. A number
    outside of the two of `review_outside`, the lower one first, needs review.
    """

    review_below: float | None = None
    review_below_for: dict[str, float] = {}
    label_at: dict[str, float] = {}
    applies_at: float | None = None
    applies_at_for: dict[str, float] = {}
    review_outside: tuple[float, float] | None = None


class PolicySet(Event, frozen=True, kw_only=True):
    """The rules for all results of the job, dataset or model `target_id`, from now on and for those that exist.

    `dataset_id` is the dataset of the job, or the dataset itself; None for a model.
    """

    scope: PolicyScope
    target_id: UUID
    dataset_id: UUID | None
    rules: PolicyRules
    reason: PrivateText


class PolicyWithdrawn(Event, frozen=True, kw_only=True):
    """The policy applies no longer: results follow the policy of the next scope, or the model version."""

    reason: PrivateText


class Policy(State, frozen=True, kw_only=True):
    """`rules` is None for a policy that was withdrawn."""

    scope: PolicyScope
    target_id: UUID
    dataset_id: UUID | None
    rules: PolicyRules | None
    set_by: UUID
    set_at: datetime


def policy_id(scope: PolicyScope, target: UUID) -> UUID:
    return uuid5(NAMESPACE, f"policy/{scope.value}/{target}")


@lru_cache(4096)
def policies_of(job: UUID, dataset: UUID, model: UUID) -> tuple[UUID, UUID, UUID]:
    """The ids of the policies that a result can have. The first one that has rules is in force."""
    return policy_id(PolicyScope.JOB, job), policy_id(PolicyScope.DATASET, dataset), policy_id(PolicyScope.MODEL, model)


def check_rules(rules: PolicyRules, *, labels: Collection[str]) -> None:
    """Raises Invalid for rules that state nothing or too much, for numbers out of range, and for labels that are not among `labels`."""
    if rules == PolicyRules():
        raise _invalid((), "must state at least one rule: to end a policy, withdraw it")
    if len(msgspec.json.encode(rules)) > MAX_RULES_BYTES:
        raise _invalid((), f"must have at most {MAX_RULES_BYTES:,} bytes as JSON: name fewer labels, or set a policy for each model")
    for name in ("review_below", "applies_at"):
        _check_number((name,), getattr(rules, name), positive=name == "applies_at")
    for name in ("review_below_for", "label_at", "applies_at_for"):
        for label, number in getattr(rules, name).items():
            _check_number((name, label), number, positive=name != "review_below_for")
        _check_labels(name, getattr(rules, name), labels)
    if rules.applies_at_for and rules.applies_at is None:
        raise _invalid(("applies_at",), "must be given together with applies_at_for: the other labels apply from this score")
    if rules.review_outside is not None and not (
        all(map(isfinite, rules.review_outside)) and rules.review_outside[0] < rules.review_outside[1]
    ):
        raise _invalid(("review_outside",), "must be two numbers, the lower one first")


def _check_number(path: tuple[str, ...], number: float | None, *, positive: bool) -> None:
    if number is not None and not (0 < number <= 1 if positive else 0 <= number <= 1):
        raise _invalid(path, "must be above 0 and at most 1" if positive else "must lie between 0 and 1")


def _check_labels(name: str, chosen: Mapping[str, float], labels: Collection[str]) -> None:
    unknown = sorted(set(chosen) - set(labels))
    if unknown:
        shown = sorted(labels)
        more = f" and {len(shown) - MAX_SHOWN_LABELS} more" if len(shown) > MAX_SHOWN_LABELS else ""
        known = f"Labels: {', '.join(shown[:MAX_SHOWN_LABELS])}{more}" if shown else "There are no labels yet"
        raise _invalid((name, unknown[0]), f"{quoted('names a label that does not exist here:', unknown[0]).rstrip(':')}. {known}")


def _invalid(path: tuple[str, ...], message: str) -> Invalid:
    return Invalid(f"{'.'.join(('rules', *path[:1]))} {message}", errors=[{"loc": ["body", "rules", *path], "msg": message}])


def set_policy(
    state: Policy | None, *, scope: PolicyScope, target: UUID, dataset: UUID | None, rules: PolicyRules, reason: str, by: UUID, at: datetime
) -> list[PolicySet]:
    """No event if the policy has these rules already; `check_rules` has passed them. Raises Invalid for the reason."""
    stated = multiline_text(reason, name="reason", maximum=MAX_REASON)
    if state is not None and state.rules == rules:
        return []
    return [
        PolicySet(
            **event_meta(policy_id(scope, target), state.version + 1 if state else 1, by=by, at=at),
            scope=scope,
            target_id=target,
            dataset_id=dataset,
            rules=rules,
            reason=stated,
        )
    ]


def withdraw(state: Policy, *, reason: str, by: UUID, at: datetime) -> PolicyWithdrawn:
    """Raises Conflict for a policy that was withdrawn already."""
    if state.rules is None:
        raise Conflict("The policy was withdrawn already")
    return PolicyWithdrawn(**next_event(state, by=by, at=at), reason=multiline_text(reason, name="reason", maximum=MAX_REASON))


def evolve(policy: Policy | None, event: Event) -> Policy | None:
    match event:
        case PolicySet():
            return Policy(
                id=event.originator_id,
                version=event.originator_version,
                scope=event.scope,
                target_id=event.target_id,
                dataset_id=event.dataset_id,
                rules=event.rules,
                set_by=event.by,
                set_at=event.at,
            )
        case _ if policy is None:
            return None
        case PolicyWithdrawn():
            return msgspec.structs.replace(policy, version=event.originator_version, rules=None, set_by=event.by, set_at=event.at)
        case _:
            return msgspec.structs.replace(policy, version=event.originator_version)
