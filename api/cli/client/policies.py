"""Policies as the API knows them: read and changed for the command line, and printed."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import msgspec

from api.cli.client import registry
from api.cli.client.api_client import Client
from api.cli.client.lookups import dataset_id
from api.cli.output import Column, out, print_fields, print_message, print_table
from api.cli.shapes import AnswerCount, Policy, PolicyChange, PolicyPreview, Rules
from domain.policy import PolicyRules, PolicyScope
from domain.values import is_id, printable

POLICIES: Final = "/api/policies"
PAGE_SIZE: Final = 200
NONE: Final = "-"


# ---- reading and changing ----------------------------------------------------------------------------------------------------------
def target_id(client: Client, scope: PolicyScope, target: str) -> UUID:
    """The id itself, or that of the model or dataset with this name. Raises NothingNamed."""
    if is_id(target):
        return UUID(target)
    if scope is PolicyScope.MODEL:
        return registry.read_model(client, target).id
    if scope is PolicyScope.DATASET:
        return UUID(dataset_id(client, target))
    raise registry.NothingNamed(f"{printable(target)!r} is not the id of a job: see `bioscope jobs list`")


def read_policies(client: Client, *, dataset: UUID | None, withdrawn: bool) -> list[Policy]:
    """The newest change first, page by page. Raises RequestRefused."""
    query: dict[str, Any] = {"withdrawn": withdrawn, "page_size": PAGE_SIZE} | ({"dataset_id": str(dataset)} if dataset else {})
    found: list[Policy] = []
    while True:
        answer = client.call("GET", POLICIES, params=query)
        found += msgspec.convert(answer.json(), list[Policy])
        if "x-next-cursor" not in answer.headers:
            return found
        query["cursor"] = answer.headers["x-next-cursor"]


def model_names(client: Client) -> dict[UUID, str]:
    """Names of all models, by their ids. Raises RequestRefused."""
    return {model.id: model.name for model in registry.read_models(client, retired=True)}


def read_policy(client: Client, scope: PolicyScope, target: UUID, *, as_of: str | None) -> Policy:
    """Raises RequestRefused."""
    return msgspec.convert(client.get(_path(scope, target), **_as_of(as_of)), Policy)


def read_history(client: Client, scope: PolicyScope, target: UUID, *, as_of: str | None) -> list[PolicyChange]:
    """All changes, oldest first, page by page. Raises RequestRefused."""
    changes: list[PolicyChange] = []
    after: str | None = "0"
    while after is not None:
        query = {"after": after, "limit": PAGE_SIZE} | _as_of(as_of)
        answer = client.call("GET", f"{_path(scope, target)}/history", params=query)
        changes += msgspec.convert(answer.json(), list[PolicyChange])
        after = answer.headers.get("x-next-cursor")
    return changes


def set_policy(client: Client, scope: PolicyScope, target: UUID, rules: PolicyRules, reason: str) -> bool:
    """False if the policy has these rules already. Raises RequestRefused."""
    answer = client.call("PUT", _path(scope, target), json={"rules": msgspec.to_builtins(rules), "reason": reason})
    return "x-event-position" in answer.headers


def preview(client: Client, scope: PolicyScope, target: UUID, rules: PolicyRules) -> PolicyPreview:
    """Raises RequestRefused."""
    return msgspec.convert(client.post(f"{_path(scope, target)}/preview", {"rules": msgspec.to_builtins(rules)}), PolicyPreview)


def withdraw(client: Client, scope: PolicyScope, target: UUID, reason: str) -> None:
    """Raises RequestRefused."""
    client.call("DELETE", _path(scope, target), json={"reason": reason})


def _path(scope: PolicyScope, target: UUID) -> str:
    return f"{POLICIES}/{scope.value}/{target}"


def _as_of(moment: str | None) -> dict[str, str]:
    return {} if moment is None else {"as_of": moment}


# ---- printing ----------------------------------------------------------------------------------------------------------------------
def print_policies(policies: Sequence[Policy], names: Mapping[UUID, str]) -> None:
    """`names` are those of models; other targets are shown by their ids."""
    if not policies:
        print_message("There is no policy.", console=out)
        return
    columns = [Column("scope"), Column("of"), Column("set (UTC)"), Column("by"), Column("applied"), Column("rules", wraps=True)]
    print_table(columns, [_row(one, names) for one in policies])


def _row(policy: Policy, names: Mapping[UUID, str]) -> Sequence[str]:
    applied = "yes" if policy.applied_at else "not yet"
    target = names.get(policy.target_id, str(policy.target_id))
    return policy.scope.value, target, f"{policy.set_at:%Y-%m-%d %H:%M}", _setter(policy), applied, words(policy.rules)


def print_policy(policy: Policy, *, as_of: str | None) -> None:
    applied = f"{policy.applied_at:%Y-%m-%d %H:%M:%S} UTC" if policy.applied_at else "not yet: some results follow the earlier rules"
    fields = [
        ("policy of", f"{policy.scope.value} {policy.target_id}"),
        ("rules", words(policy.rules)),
        ("set", f"{policy.set_at:%Y-%m-%d %H:%M:%S} UTC by {_setter(policy)}"),
    ]
    print_fields(fields if as_of else [*fields, ("applied", applied)])


def print_history(changes: Sequence[PolicyChange]) -> None:
    if not changes:
        print_message("No policy has been set.", console=out)
        return
    print_table(
        [Column("when (UTC)"), Column("who"), Column("rules", wraps=True), Column("reason", wraps=True)],
        [(f"{one.at:%Y-%m-%d %H:%M:%S}", one.by_username or str(one.by), words(one.rules), one.reason) for one in changes],
    )


def print_preview(found: PolicyPreview) -> None:
    counted = f"all {found.results:,}" if found.complete else f"the newest {found.results:,}"
    print_message(f"{found.changed:,} of {counted} results would get another label or verdict.", console=out)
    if found.of_each_dataset is not None:
        print_message(f"Only the newest {found.of_each_dataset:,} results of each dataset were looked through.", console=out)
    before, after = _by_answer(found.before), _by_answer(found.after)
    answers = sorted({*before, *after})
    columns = [Column("label"), Column("verdict"), Column("now", right=True), Column("then", right=True)]
    print_table(columns, [(*answer, f"{before[answer]:,}", f"{after[answer]:,}") for answer in answers])


def words(rules: Rules | None) -> str:
    """The rules in words."""
    return "withdrawn" if rules is None else "; ".join(_words(rules))


def _words(rules: Rules) -> Iterator[str]:
    if rules.review_below is not None:
        yield f"review below {rules.review_below:.10g}"
    yield from (f"review {label} below {number:.10g}" for label, number in sorted(rules.review_below_for.items()))
    yield from (f"{label} from {number:.10g}" for label, number in sorted(rules.label_at.items()))
    if rules.applies_at is not None:
        yield f"labels apply from {rules.applies_at:.10g}"
    yield from (f"{label} applies from {number:.10g}" for label, number in sorted(rules.applies_at_for.items()))
    if rules.review_outside is not None:
        yield "review outside of {:.10g} to {:.10g}".format(*rules.review_outside)


def _setter(policy: Policy) -> str:
    return policy.set_by_username or "a deleted account"


def _by_answer(counts: Sequence[AnswerCount]) -> Counter[tuple[str, str]]:
    return Counter({(one.label, one.verdict.value): one.count for one in counts})
