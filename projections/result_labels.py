"""All labels that apply to results of models whose labels can apply together, under the policies in force."""

from collections.abc import Sequence
from typing import Final, Protocol
from uuid import UUID

import msgspec

from application.services import QueryDatabase
from domain.derivation import Answer, applying_labels
from domain.policy import PolicyRules, policies_of
from domain.values import model_id


class Found(Protocol):
    """A result with all its scores, which was read with the access of an actor."""

    @property
    def classification_id(self) -> UUID: ...
    @property
    def dataset_id(self) -> UUID: ...
    @property
    def model_name(self) -> str: ...
    @property
    def model_version(self) -> int: ...
    @property
    def scores(self) -> dict[str, float]: ...
    @property
    def answer(self) -> Answer: ...


class LabelThreshold(msgspec.Struct, frozen=True):
    """That of a model version whose labels can apply together."""

    name: str
    number: int
    label_threshold: float


class Rules(msgspec.Struct, frozen=True):
    id: UUID
    rules: PolicyRules


WITH_SEVERAL_LABELS: Final = """select m.name, (v ->> 'number')::integer as number, (v ->> 'label_threshold')::float8 as label_threshold
  from models m cross join jsonb_array_elements(m.versions) v
  where m.name in (select model_name from page) and v ->> 'label_threshold' is not null"""
"""Part of a query whose results are the table `page`."""
IN_FORCE: Final = "select id, rules from policies where id = any(%(ids)s) and rules is not null"


async def labels_of(db: QueryDatabase, results: Sequence[Found], versions: Sequence[LabelThreshold]) -> list[tuple[str, ...]]:
    """Of each result all labels that apply, the highest score first; its label alone where labels exclude each other.

    `versions` are those of WITH_SEVERAL_LABELS.
    """
    thresholds = {(one.name, one.number): one.label_threshold for one in versions}
    ids = list({each for one in results if _version(one) in thresholds for each in _policies(one)})
    rules = {one.id: one.rules for one in await db.rows(IN_FORCE, {"ids": ids}, into=Rules)} if ids else {}
    return [
        applying_labels(
            one.answer,
            scores=one.scores,
            label_threshold=thresholds.get(_version(one)),
            rules=next((rules[each] for each in _policies(one) if each in rules), None),
        )
        for one in results
    ]


def _version(one: Found) -> tuple[str, int]:
    return one.model_name, one.model_version


def _policies(one: Found) -> tuple[UUID, ...]:
    return policies_of(one.classification_id, one.dataset_id, model_id(one.model_name))
