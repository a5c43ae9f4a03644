"""What a policy would change: the newest results that would follow it, with their present answers and those under its rules."""

from collections import Counter
from typing import Final
from uuid import UUID

import msgspec

from application.services import QueryDatabase
from domain.access import Actor
from domain.classification import Verdict
from domain.derivation import Answer, derive
from domain.model import OutputKind
from domain.policy import PolicyRules, PolicyScope
from projections.access import subject_of

MAX_RESULTS: Final = 5000  # are read and derived while a person waits
MAX_EXAMINED: Final = 100_000  # newest results, the same number of each dataset, among which those of a model are looked for

FOLLOWING: Final = """select r.label, r.confidence, r.verdict, r.original, r.scores, r.value,
    coalesce((select v ->> 'kind' from models m, jsonb_array_elements(m.versions) v
      where m.name = r.model_name and (v ->> 'number')::integer = r.model_version), 'logits') as kind
  from results r join visible v on v.dataset = r.dataset_id and v.subject = %(subject)s where not r.hidden and """
UNLESS: Final = "not exists (select from policies p where p.rules is not null and p.scope = '{}' and p.target_id = r.{})"
UNLESS_OF_JOB = UNLESS.format("job", "classification_id")
NEWEST: Final = " order by r.created_at desc, r.id desc limit %(maximum)s"
EXAMINED: Final = """select r.id, r.model_name from visible v cross join lateral (
      select r.id, r.model_name from results r where r.dataset_id = v.dataset and not r.hidden
      order by r.created_at desc, r.id desc limit %(of_each)s
    ) r where v.subject = %(subject)s"""
OF_MODEL: Final = f"""r.id in (select x.id from ({EXAMINED}) x
    where x.model_name = (select m.name from models m where m.id = %(target)s)) and """  # noqa: S608 - constants
WINDOW: Final = """with part as (
    select greatest(1, %(examined)s / greatest(1, count(*))) as of_each from visible v where v.subject = %(subject)s
  )
  select of_each, exists (select from visible v cross join lateral (
      select from results r where r.dataset_id = v.dataset and not r.hidden
      order by r.created_at desc, r.id desc offset (select of_each from part) limit 1
    ) older where v.subject = %(subject)s) as is_partial from part"""
QUERIES: Final = {
    PolicyScope.JOB: FOLLOWING + "r.classification_id = %(target)s" + NEWEST,
    PolicyScope.DATASET: FOLLOWING + "r.dataset_id = %(target)s and " + UNLESS_OF_JOB + NEWEST,
    PolicyScope.MODEL: FOLLOWING + OF_MODEL + UNLESS_OF_JOB + " and " + UNLESS.format("dataset", "dataset_id") + NEWEST,
}
"""Results for which a policy of a nearer scope is in force would not follow this one."""


class PreviewedResult(msgspec.Struct, frozen=True):
    label: str
    confidence: float
    verdict: Verdict
    original: Answer | None
    scores: dict[str, float]
    value: float | None
    kind: OutputKind


class Window(msgspec.Struct, frozen=True):
    """The newest results of each dataset that are examined. `is_partial`: a dataset has older ones too."""

    of_each: int
    is_partial: bool


class Following(msgspec.Struct, frozen=True):
    results: list[PreviewedResult]
    of_each_dataset: int | None


class AnswerCount(msgspec.Struct, frozen=True):
    label: str
    verdict: Verdict
    count: int


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """The newest `results` that would follow the rules; all of them if `complete`. `changed` would get another label or verdict.

    Those of a model were looked for among so many newest results `of_each_dataset`; None if no older ones exist, and for other scopes.
    """

    results: int
    complete: bool
    of_each_dataset: int | None
    changed: int
    before: list[AnswerCount]
    after: list[AnswerCount]


async def following(db: QueryDatabase, actor: Actor, scope: PolicyScope, target: UUID) -> Following:
    """The newest visible results that would follow the policy: one more than `MAX_RESULTS` if there are more."""
    about = {"subject": subject_of(actor), "target": target, "maximum": MAX_RESULTS + 1}
    if scope is not PolicyScope.MODEL:
        return Following(await db.rows(QUERIES[scope], about, into=PreviewedResult), None)
    (window,) = await db.rows(WINDOW, {"subject": about["subject"], "examined": MAX_EXAMINED}, into=Window)
    found = await db.rows(QUERIES[scope], about | {"of_each": window.of_each}, into=PreviewedResult)
    return Following(found, window.of_each if window.is_partial else None)


def preview(found: Following, rules: PolicyRules) -> Preview:
    shown = found.results[:MAX_RESULTS]
    before = [(one.label, one.verdict) for one in shown]
    derived = [derive(_said(one), kind=one.kind, scores=one.scores, value=one.value, rules=rules) for one in shown]
    after = [(answer.label, answer.verdict) for answer in derived]
    changed = sum(earlier != later for earlier, later in zip(before, after, strict=True))
    return Preview(
        results=len(shown),
        complete=len(found.results) <= MAX_RESULTS and found.of_each_dataset is None,
        of_each_dataset=found.of_each_dataset,
        changed=changed,
        before=_counts(before),
        after=_counts(after),
    )


def _said(row: PreviewedResult) -> Answer:
    return row.original or Answer(row.label, row.confidence, row.verdict)


def _counts(answers: list[tuple[str, Verdict]]) -> list[AnswerCount]:
    return [AnswerCount(label, verdict, count) for (label, verdict), count in sorted(Counter(answers).items())]
