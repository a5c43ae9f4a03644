"""Lets stored results follow the policies in force once a policy was changed. It runs in the background, and in rebuilds.

Results that arrive later follow the policies from the start, see `projections.results.fold`.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
import psycopg
from psycopg.sql import SQL

from domain.classification import Verdict
from domain.derivation import Answer, derive
from domain.model import OutputKind
from domain.policy import PolicyRules, PolicyScope, policies_of
from domain.values import model_id

ROWS_PER_BATCH: Final = 2000  # the projector waits while one batch is written

Parameters = dict[str, Any]
Key = tuple[str, ...]


class Walk(NamedTuple):
    """An order of results that an index gives: of those where `condition` holds, by the columns `key`. Of these, `wanted` ones follow."""

    condition: str
    key: Sequence[str]
    wanted: str = "true"

    def beyond(self, sign: str, name: str) -> str:
        """The condition that a result lies `sign` the key whose parts are the parameters `name0`, `name1`, ..."""
        parts = (f"%({name}{index})s::{'timestamptz' if one == 'created_at' else 'uuid'}" for index, one in enumerate(self.key))
        return f"({', '.join(self.key)}) {sign} ({', '.join(parts)})"


BY_ID: Final = ("id",)
BY_TIME: Final = ("created_at", "id")
EVERYTHING: Final = Walk("true", BY_ID)
WALKS: Final[dict[PolicyScope, Sequence[Walk]]] = {
    PolicyScope.JOB: (
        Walk("classification_id = %(target)s and not hidden", BY_TIME),
        Walk("dataset_id = %(dataset)s and hidden", BY_TIME, "classification_id = %(target)s"),
    ),
    PolicyScope.DATASET: (
        Walk("dataset_id = %(target)s and not hidden", BY_TIME),
        Walk("dataset_id = %(target)s and hidden", BY_TIME),
    ),
    PolicyScope.MODEL: (EVERYTHING._replace(wanted="model_name = (select m.name from models m where m.id = %(target)s)"),),
}
"""The hidden results come last, so that one that becomes hidden meanwhile is not missed."""

PENDING: Final = """select p.id, p.scope, p.target_id, p.dataset_id, p.position, a.reached::text
  from policies p left join policy_applications a on a.id = p.id and a.position = p.position
  where a.applied_at is null order by p.position limit 1"""
BEGIN: Final = """insert into policy_applications as a (id, position, reached) values (%(id)s, %(position)s, %(reached)s::jsonb)
  on conflict (id) do update set position = excluded.position, reached = excluded.reached, applied_at = null
  where a.position <> excluded.position"""
UNTIL: Final = "select {texts} from results r where {condition} and {after} order by {key} offset {skip} limit 1"
ROWS: Final = """select row_to_json((select r from (select id, classification_id, dataset_id, model_name, model_version, label, confidence,
    verdict, original, scores, value) r))::text
  from results where {condition} and {wanted} and {after} and {until}"""
RULES: Final = "select id, rules::text from policies where id = any(%s) and rules is not null"
KINDS: Final = """select m.name, (v ->> 'number')::integer, coalesce(v ->> 'kind', %s)
  from models m cross join jsonb_array_elements(m.versions) v where m.name = any(%s)"""
LOCK: Final = "select from checkpoint where projection = 'main' for update"
CHANGE: Final = """update results r set label = n.label, confidence = n.confidence, verdict = n.verdict, original = n.original
  from json_to_recordset(%s::json) as n (id uuid, label text, confidence double precision, verdict text, original jsonb)
  where r.id = n.id"""
ADVANCE: Final = """update policy_applications a set reached = %(reached)s::jsonb, applied_at = case when %(done)s then now() end
  where a.id = %(id)s and a.position = %(position)s and a.applied_at is null and a.reached = %(before)s::jsonb
    and exists (select from policies p where p.id = a.id and p.position = a.position)"""
NEWEST: Final = "select coalesce(max(position), 0) from policies"
APPLIED: Final = """insert into policy_applications as a (id, position, reached, applied_at)
  select id, position, %(reached)s::jsonb, now() from policies where position <= %(until)s
  on conflict (id) do update set position = excluded.position, reached = excluded.reached, applied_at = excluded.applied_at
  where a.position <> excluded.position or a.applied_at is null"""


class Reached(msgspec.Struct, frozen=True):
    """How far a policy was applied: up to the result with `key` in the order of its walk number `walk`."""

    walk: int = 0
    key: tuple[str, ...] = ()


class Pending(NamedTuple):
    """A policy that some results may not follow yet."""

    id: UUID
    scope: PolicyScope
    target: UUID
    dataset: UUID | None
    position: int
    reached: Reached


class StoredResult(msgspec.Struct, frozen=True):
    """What a policy needs of a row of `results`. `original` is what the model said where that is not the answer in force.

    Ids are texts, which are compared faster.
    """

    id: str
    classification_id: str
    dataset_id: str
    model_name: str
    model_version: int
    label: str
    confidence: float
    verdict: Verdict
    original: Answer | None
    scores: dict[str, float]
    value: float | None

    @property
    def source(self) -> "Source":
        return self.classification_id, self.dataset_id, self.model_name


class ChangedResult(msgspec.Struct, frozen=True):
    id: str
    label: str
    confidence: float
    verdict: Verdict
    original: Answer | None


Source = tuple[str, str, str]
"""The job, the dataset and the name of the model, which have policies."""

DECODER: Final = msgspec.json.Decoder(list[StoredResult])
RULES_DECODER: Final = msgspec.json.Decoder(PolicyRules)
REACHED_DECODER: Final = msgspec.json.Decoder(Reached)


class PolicyApplication:
    """Derives stored results again, in batches, over a connection in autocommit mode to the read models. Blocks. Raises psycopg.Error.

    A kill at any point loses at most one batch, which is done again. Several applications at once are harmless, but useless. Each batch
    holds the lock of the checkpoint while it is written, so that it and the projector never wait for rows of each other.
    """

    def __init__(
        self, connection: psycopg.Connection, *, rows_per_batch: int = ROWS_PER_BATCH, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        self._connection, self._rows_per_batch, self._stopped = connection, rows_per_batch, stopped
        self._kinds: dict[tuple[str, int], OutputKind] = {}

    def run(self) -> int:
        """Apply all policies that were changed, the earliest change first. Returns the number of results that got another answer."""
        changed = 0
        while not self._stopped() and (pending := self._pending()) is not None:
            changed += self._apply(pending)
        return changed

    def run_over_everything(self) -> int:
        """As `run`, in one pass over all results, for read models that nothing else writes to."""
        if self._pending() is None:
            return 0
        (newest,) = self._execute(NEWEST).fetchone() or (0,)
        changed = 0
        key: Key = ()
        while True:
            until = self._until(EVERYTHING, key, {})
            changes = self._changes(self._rows(EVERYTHING, key, until, {}))
            self._change(changes)
            changed += len(changes)
            if until is None:
                break
            key = until
        self._execute(APPLIED, {"reached": _json(Reached(1)), "until": newest})
        return changed

    def is_done(self) -> bool:
        """Whether all results follow the policies."""
        return self._pending() is None

    def _pending(self) -> Pending | None:
        row = self._execute(PENDING).fetchone()
        if row is None:
            return None
        found, scope, target, dataset, position, reached = row
        return Pending(found, PolicyScope(scope), target, dataset, position, REACHED_DECODER.decode(reached) if reached else Reached())

    def _apply(self, pending: Pending) -> int:
        """Until all results follow the policy, it was changed again, or this process stops."""
        self._execute(BEGIN, {"id": pending.id, "position": pending.position, "reached": _json(Reached())})
        walks, reached, changed = WALKS[pending.scope], pending.reached, 0
        target = {"target": pending.target, "dataset": pending.dataset}
        while not self._stopped() and reached.walk < len(walks):
            walk = walks[reached.walk]
            until = self._until(walk, reached.key, target)
            changes = self._changes(self._rows(walk, reached.key, until, target))
            following = Reached(reached.walk + 1) if until is None else Reached(reached.walk, until)
            if not self._write(changes, pending, before=reached, after=following, done=following.walk == len(walks)):
                break
            changed += len(changes)
            reached = following
        return changed

    # ---- one batch ----
    def _until(self, walk: Walk, key: Key, target: Parameters) -> Key | None:
        """The key of the last result of the batch that follows `key`; None for the last batch."""
        clauses = {"texts": ", ".join(f"r.{one}::text" for one in walk.key), "key": ", ".join(f"r.{one}" for one in walk.key)}
        clauses["skip"] = str(self._rows_per_batch - 1)  # a parameter would hide from the planner that these are few rows
        return self._execute(UNTIL, target | _parts("after", key), **clauses, **_bounds(walk, key)).fetchone()

    def _rows(self, walk: Walk, key: Key, until: Key | None, target: Parameters) -> list[StoredResult]:
        clauses = {"wanted": walk.wanted, "until": "true" if until is None else walk.beyond("<=", "until")}
        parameters = target | _parts("after", key) | _parts("until", until or ())
        found = self._execute(ROWS, parameters, **clauses, **_bounds(walk, key)).fetchall()
        return DECODER.decode(f"[{','.join(row for (row,) in found)}]")

    def _changes(self, rows: Sequence[StoredResult]) -> list[ChangedResult]:
        """The rows that get another answer. The policies are read after the rows: a later one derives these rows again."""
        rules = self._rules({row.source for row in rows})
        self._learn_kinds({(row.model_name, row.model_version) for row in rows})
        return [changed for row in rows if (changed := self._changed(row, rules.get(row.source))) is not None]

    def _changed(self, row: StoredResult, rules: PolicyRules | None) -> ChangedResult | None:
        shown = Answer(row.label, row.confidence, row.verdict)
        said = row.original or shown
        answer = said
        if rules is not None:
            kind = self._kinds.get((row.model_name, row.model_version), OutputKind.LOGITS)
            answer = derive(said, kind=kind, scores=row.scores, value=row.value, rules=rules)
        original = None if answer == said else said
        if answer == shown and original == row.original:
            return None
        return ChangedResult(row.id, answer.label, answer.confidence, answer.verdict, original)

    def _rules(self, sources: Collection[Source]) -> dict[Source, PolicyRules]:
        """The rules in force for the results of each source that has any."""
        policies = {(job, dataset, model): policies_of(UUID(job), UUID(dataset), model_id(model)) for job, dataset, model in sources}
        found = self._execute(RULES, ([one for ids in policies.values() for one in ids],)).fetchall()
        rules = {one: RULES_DECODER.decode(text) for one, text in found}
        in_force = {source: next((rules[one] for one in ids if one in rules), None) for source, ids in policies.items()}
        return {source: found for source, found in in_force.items() if found is not None}

    def _learn_kinds(self, versions: set[tuple[str, int]]) -> None:
        if unknown := {name for name, number in versions if (name, number) not in self._kinds}:
            found = self._execute(KINDS, (OutputKind.LOGITS.value, list(unknown))).fetchall()
            self._kinds.update(((name, number), OutputKind(kind)) for name, number, kind in found)

    def _write(self, changes: Sequence[ChangedResult], pending: Pending, *, before: Reached, after: Reached, done: bool) -> bool:
        """Whether the batch was written. It was not if the policy was changed, or if another process or schema took over."""
        advance = {"id": pending.id, "position": pending.position, "before": _json(before), "reached": _json(after), "done": done}
        with self._connection.transaction():
            self._execute(LOCK)
            if self._execute(ADVANCE, advance).rowcount == 0:
                return False
            self._change(changes)
        return True

    def _change(self, changes: Sequence[ChangedResult]) -> None:
        if changes:
            self._execute(CHANGE, (_json(changes),))

    def _execute(self, query: str, parameters: Any = (), **clauses: str) -> psycopg.Cursor[Any]:
        return self._connection.execute(SQL(query).format(**{name: SQL(clause) for name, clause in clauses.items()}), parameters)


def _bounds(walk: Walk, key: Key) -> dict[str, str]:
    return {"condition": walk.condition, "after": walk.beyond(">", "after") if key else "true"}


def _parts(name: str, key: Key) -> Parameters:
    return {f"{name}{index}": part for index, part in enumerate(key)}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
