"""A policy: how labels and verdicts follow from the stored scores of a job, a dataset or a model. Scores never change."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID, uuid5

import msgspec

from domain.errors import Conflict
from domain.events import Event, PrivateText, State, event_meta, next_event
from domain.values import NAMESPACE, text

MAX_REASON = 1000


class PolicyScope(StrEnum):
    """What a policy applies to. That of a job precedes that of a dataset, and that of a dataset precedes that of a model."""

    JOB = "job"
    DATASET = "dataset"
    MODEL = "model"


class PolicyRules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Thresholds from 0 to 1; None leaves them to the model version.

    A confidence below `review_below` needs review; `review_below_for` replaces it for some labels. A label of `label_at` is chosen as soon
    as its score reaches the number.
    """

    review_below: float | None = None
    review_below_for: dict[str, float] = {}
    label_at: dict[str, float] = {}


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


def set_policy(
    state: Policy | None, *, scope: PolicyScope, target: UUID, dataset: UUID | None, rules: PolicyRules, reason: str, by: UUID, at: datetime
) -> list[PolicySet]:
    """No event if the policy has these rules already. Raises Invalid."""
    if state is not None and state.rules == rules:
        return []
    version = state.version + 1 if state else 1
    return [
        PolicySet(
            **event_meta(policy_id(scope, target), version, by=by, at=at),
            scope=scope,
            target_id=target,
            dataset_id=dataset,
            rules=rules,
            reason=text(reason, name="reason", maximum=MAX_REASON),
        )
    ]


def withdraw(state: Policy, *, reason: str, by: UUID, at: datetime) -> PolicyWithdrawn:
    """Raises Conflict for a policy that was withdrawn already."""
    if state.rules is None:
        raise Conflict("The policy was withdrawn already")
    return PolicyWithdrawn(**next_event(state, by=by, at=at), reason=text(reason, name="reason", maximum=MAX_REASON))


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
