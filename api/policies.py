"""Policy routes: rules by which labels and verdicts follow from stored scores, their effect, and which were in force when."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import Meta

from api.events import After
from api.middleware.authentication import for_services
from api.request import PageSize, RequestContext, from_row
from application import policies
from application.history.as_of import position_of
from application.policies import PolicyChange as RecordedChange
from application.policies import StoredAnswer
from domain.access import Scope
from domain.classification import Verdict
from domain.derivation import Answer
from domain.policy import Policy as PolicyState
from domain.policy import PolicyRules, PolicyScope
from projections import models, policy_preview, results, users
from projections import policies as read_model

Threshold = Annotated[float, Meta(ge=0, le=1)]
Least = Annotated[float, Meta(gt=0, le=1)]


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What decides on labels and verdicts. The model and its job decide on what is left out."""

    review_below: Threshold | None = None
    review_below_for: dict[str, Threshold] = {}
    label_at: dict[str, Least] = {}
    applies_at: Least | None = None
    applies_at_for: dict[str, Least] = {}
    review_outside: tuple[float, float] | None = None

    @property
    def checked(self) -> PolicyRules:
        return PolicyRules(**msgspec.structs.asdict(self))


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The rules for the results of a job, a dataset or a model. `rules` is null for a policy that was withdrawn."""

    scope: PolicyScope
    target_id: UUID
    dataset_id: UUID | None
    rules: Rules | None
    set_by: UUID
    set_by_username: str | None
    set_at: datetime
    applied_at: datetime | None


class PolicyChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a policy."""

    position: int
    at: datetime
    by: UUID
    by_username: str | None
    rules: Rules | None
    reason: str


class SetPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The new rules, and why."""

    rules: Rules
    reason: str


class PreviewPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rules to try."""

    rules: Rules


class AnswerCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many results have a label and a verdict."""

    label: str
    verdict: Verdict
    count: int


class PolicyPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What rules would change."""

    results: int
    complete: bool
    of_each_dataset: int | None
    changed: int
    before: list[AnswerCount]
    after: list[AnswerCount]


class WithdrawPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why the policy is withdrawn."""

    reason: str


class ResultAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A label with its confidence and verdict."""

    label: str
    confidence: float
    verdict: Verdict


class ResultPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a result, what its model said, and the policy that makes the difference."""

    answer: ResultAnswer
    original: ResultAnswer
    policy: Policy | None


class Policies(Controller):
    path = "/api/policies"
    tags = ("policies",)

    @get("/", operation_id="policiesListed", summary="List policies")
    async def list_policies(
        self,
        context: NamedDependency[RequestContext],
        policy_scope: Annotated[PolicyScope | None, QueryParameter(name="scope")] = None,
        dataset_id: FromQuery[UUID | None] = None,
        withdrawn: FromQuery[bool] = False,  # noqa: FBT002 - a query parameter
        page_size: PageSize = 200,
        cursor: FromQuery[str | None] = None,
    ) -> Response[list[Policy]]:
        """The policies of models, and those of all datasets that you may see and of their jobs, the newest change first."""
        page = await context.read(
            read_model.listed, scope=policy_scope, dataset_id=dataset_id, withdrawn=withdrawn, size=page_size, cursor=cursor
        )
        usernames = await context.read(users.usernames, {one.set_by for one in page.items})
        return context.page(page, lambda row: _view(row, usernames))

    @get("/{policy_scope:str}/{target_id:uuid}", operation_id="policiesOne", summary="Read a policy")
    async def get_policy(
        self,
        context: NamedDependency[RequestContext],
        policy_scope: FromPath[PolicyScope],
        target_id: FromPath[UUID],
        as_of: FromQuery[str | None] = None,
    ) -> Response[Policy]:
        """The policy of a job, a dataset or a model. With `as_of`, the one that was in force then, read from the log.

        `applied_at` is when all results followed the rules. While it is null, lists may show some results under the earlier rules.
        """
        if as_of is None:
            row = await context.read(read_model.get, policy_scope, target_id)
            return context.versioned(await _named(context, row), version=row.version)
        until = await context.read_log(position_of, as_of)
        found = await context.read_log(policies.policy_at, policy_scope, target_id, until=until, actor=context.actor)
        return context.versioned(await _named(context, found), version=found.version)

    @get("/{policy_scope:str}/{target_id:uuid}/history", operation_id="policiesHistory", summary="List changes of a policy")
    async def list_changes(
        self,
        context: NamedDependency[RequestContext],
        policy_scope: FromPath[PolicyScope],
        target_id: FromPath[UUID],
        after: After = 0,
        limit: PageSize = 200,
        as_of: FromQuery[str | None] = None,
    ) -> Response[list[PolicyChange]]:
        """All changes of a policy with their reasons, oldest first, from the log. With `as_of` up to then: the last one was in force.

        If there is more, `X-Next-Cursor` is the next `after`.
        """
        until = None if as_of is None else await context.read_log(position_of, as_of)
        found = await context.read_log(
            policies.history, policy_scope, target_id, after=after, until=until, maximum=limit + 1, actor=context.actor
        )
        usernames = await context.read(users.usernames, {change.by for change in found})
        headers = {"X-Next-Cursor": str(found[limit - 1].position)} if len(found) > limit else {}
        return Response([_change(one, usernames) for one in found[:limit]], headers=headers)

    @put("/{policy_scope:str}/{target_id:uuid}", operation_id="policiesSet", summary="Set a policy")
    async def set_policy(
        self,
        context: NamedDependency[RequestContext],
        policy_scope: FromPath[PolicyScope],
        target_id: FromPath[UUID],
        data: JSONBody[SetPolicy],
    ) -> Response[Policy]:
        """Let labels and verdicts follow rules, of new results at once and of stored ones in the background: see `applied_at`.

        The model does not run again, and what it said stays readable. The policy of a job precedes that of its dataset, which precedes
        that of the model; only one is in force. For a job or a dataset, needs the role researcher and the grant editor. For a model, an
        administrator or a promoter of it. Equal rules change nothing.
        """
        known = await context.read(lambda db, _: models.listed(db, retired=True))
        result = await context.execute(
            policies.set_policy,
            policy_scope,
            target_id,
            rules=data.rules.checked,
            reason=data.reason,
            known_models=[model.name for model in known],
            expected=context.expected_version,
        )
        return context.changed(await _named(context, await context.read(read_model.get, policy_scope, target_id)), result)

    @post("/{policy_scope:str}/{target_id:uuid}/preview", operation_id="policiesPreview", status_code=200, summary="Preview a policy")
    async def preview_policy(
        self,
        context: NamedDependency[RequestContext],
        policy_scope: FromPath[PolicyScope],
        target_id: FromPath[UUID],
        data: JSONBody[PreviewPolicy],
    ) -> PolicyPreview:
        """What rules would change, without setting them: the answers of the newest results now, and under these rules.

        Counts at most 5,000 results that you may read; `complete` says whether there are no more. Those of a model are looked for among
        the newest 100,000 results, the same number `of_each_dataset`. Results that follow the policy of a
        nearer scope are not counted. Needs the same rights as setting the policy.
        """
        known = await context.read(lambda db, _: models.listed(db, retired=True))
        names, rules = [model.name for model in known], data.rules.checked
        await context.read_log(policies.check, policy_scope, target_id, rules=rules, known_models=names, actor=context.actor)
        found = await context.read(policy_preview.following, policy_scope, target_id)
        return from_row(await asyncio.to_thread(policy_preview.preview, found, rules), PolicyPreview)

    @delete("/{policy_scope:str}/{target_id:uuid}", operation_id="policiesWithdraw", status_code=204, summary="Withdraw a policy")
    async def withdraw(
        self,
        context: NamedDependency[RequestContext],
        policy_scope: FromPath[PolicyScope],
        target_id: FromPath[UUID],
        data: JSONBody[WithdrawPolicy],
    ) -> Response[None]:
        """Let results follow the policy of the next scope, or their model. Needs the same rights as setting it."""
        return context.no_content(
            await context.execute(policies.withdraw, policy_scope, target_id, reason=data.reason, expected=context.expected_version)
        )


class PoliciesOfResults(Controller):
    path = "/api/classification-results"
    tags = ("policies",)
    opt = for_services(Scope.RESULTS_READ)

    @get("/{result_id:uuid}/policy", operation_id="policiesOfResult", summary="Read the policy of a result")
    async def get_policy_of_result(
        self, context: NamedDependency[RequestContext], result_id: FromPath[UUID], as_of: FromQuery[str | None] = None
    ) -> ResultPolicy:
        """The policy in force for a result, now or at a time, with the answer under it and what the model said. Read from the log."""
        row = await context.read(results.get, result_id)
        until = await context.read_log(position_of, as_of)
        answer, found = await answer_at(context, row, until)
        policy = None if found is None else await _named(context, found)
        return ResultPolicy(answer=_shown(answer), original=_shown(row.said), policy=policy)


async def answer_at(context: RequestContext, row: results.ReadResult, until: int) -> tuple[Answer, PolicyState | None]:
    """The answer of a result under the policies at position `until`, and the policy in force. Raises NotFound."""
    return await context.read_log(policies.answer_at, _stored(row), until=until)


async def labels_under(context: RequestContext, row: results.ReadResult, answer: Answer, policy: PolicyState | None) -> tuple[str, ...]:
    """All labels that apply where `answer_at` gave this answer and policy."""
    return await context.read_log(policies.labels_under, _stored(row), answer, policy)


def _stored(row: results.ReadResult) -> StoredAnswer:
    return StoredAnswer(
        job=row.classification_id,
        dataset=row.dataset_id,
        model_name=row.model_name,
        model_version=row.model_version,
        position=row.position,
        answer=row.said,
        scores=row.all_scores,
        value=row.value,
    )


async def _named(context: RequestContext, row: read_model.ReadPolicy | PolicyState) -> Policy:
    return _view(row, await context.read(users.usernames, {row.set_by}))


def _view(row: read_model.ReadPolicy | PolicyState, usernames: Mapping[UUID, str]) -> Policy:
    """A state from the log does not know when results followed it."""
    return from_row(
        row,
        Policy,
        rules=_rules(row.rules),
        set_by_username=usernames.get(row.set_by),
        applied_at=row.applied_at if isinstance(row, read_model.ReadPolicy) else None,
    )


def _change(change: RecordedChange, usernames: Mapping[UUID, str]) -> PolicyChange:
    return from_row(change, PolicyChange, rules=_rules(change.rules), by_username=usernames.get(change.by))


def _rules(rules: PolicyRules | None) -> Rules | None:
    return None if rules is None else from_row(rules, Rules)


def _shown(answer: Answer) -> ResultAnswer:
    return from_row(answer, ResultAnswer)
