"""The images that wait for external classifiers, and the answers that came, in Postgres."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from application.jobs.external_answers import Arrival, ArrivedAnswer, ExpectedImage, ImageKey

EXPECTED: Final = """image_id, attempts, extract(epoch from clock_timestamp() - sent_at)::float8, label, confidence,
    extract(epoch from clock_timestamp() - answered_at)::float8"""
EXPECT: Final = f"""insert into ops.external_answers (job, image_id, number, model_name)
    select %s, image_id, %s, %s from unnest(%s::uuid[]) image_id
    on conflict (job, image_id) do update set number = excluded.number returning job, {EXPECTED}"""  # noqa: S608 - constants
MARK_SENT: Final = """update ops.external_answers a
    set attempts = k.attempt, sent_at = clock_timestamp(), first_sent_at = coalesce(first_sent_at, clock_timestamp())
    from unnest(%s::uuid[], %s::uuid[], %s::integer[]) as k (job, image_id, attempt)
    where a.job = k.job and a.image_id = k.image_id and a.attempts < k.attempt returning true"""
TAKE: Final = """with arrived as (
    select * from unnest(%(jobs)s::uuid[], %(images)s::uuid[], %(labels)s::text[], %(confidences)s::float8[])
      as x (job, image_id, label, confidence)
  ), taken as (
    update ops.external_answers a set label = x.label, confidence = x.confidence, answered_at = clock_timestamp()
      from arrived x where a.job = x.job and a.image_id = x.image_id and a.answered_at is null and not a.done
      returning a.job, a.image_id
  ), answered as (
    insert into ops.external_models (model_name, answered_at)
      select name, clock_timestamp() from unnest(%(models)s::text[]) name order by name
      on conflict (model_name) do update set answered_at = excluded.answered_at
  )
  select x.job, x.image_id, case when t.job is not null then 'taken' when a.job is not null then 'duplicate' else 'unexpected' end
    from arrived x left join taken t on t.job = x.job and t.image_id = x.image_id
    left join ops.external_answers a on a.job = x.job and a.image_id = x.image_id"""
ANSWERED: Final = f"""select a.job, a.{EXPECTED} from ops.external_answers a
    join unnest(%s::uuid[], %s::uuid[]) as k (job, image_id) using (job, image_id) where a.answered_at is not null"""  # noqa: S608 - constants
LAST_ANSWERS: Final = """select model_name, extract(epoch from clock_timestamp() - answered_at)::float8
    from ops.external_models where model_name = any(%s)"""
FINISH: Final = "update ops.external_answers set done = true where job = %s and number = %s returning true"
JOBS: Final = "select distinct job from ops.external_answers"
FORGET: Final = "delete from ops.external_answers where job = any(%s) returning true"


class PostgresExternalAnswers:
    """Implements `ExternalAnswers`. `rows` runs a statement, like that of `PostgresRecorder`."""

    def __init__(self, rows: Callable[..., list[tuple[Any, ...]]]) -> None:
        self._rows = rows

    def expect(self, job: UUID, number: int, model_name: str, images: Collection[UUID]) -> list[ExpectedImage]:
        return [_expected(row) for row in self._rows(EXPECT, job, number, model_name, list(images))]

    def mark_sent(self, attempts: Mapping[ImageKey, int]) -> None:
        self._rows(MARK_SENT, *_columns(attempts), list(attempts.values()))

    def take(self, answers: Sequence[ArrivedAnswer], *, model_names: Collection[str]) -> dict[ImageKey, Arrival]:
        jobs, images = _columns([one.key for one in answers])
        arrived = {
            "jobs": jobs,
            "images": images,
            "labels": [one.label for one in answers],
            "confidences": [one.confidence for one in answers],
            "models": list(model_names),
        }
        return {ImageKey(job, image): Arrival(arrival) for job, image, arrival in self._rows(TAKE, named=arrived)}

    def answered(self, keys: Collection[ImageKey]) -> list[ExpectedImage]:
        return [_expected(row) for row in self._rows(ANSWERED, *_columns(keys))]

    def last_answers(self, model_names: Collection[str]) -> Mapping[str, float]:
        return dict(self._rows(LAST_ANSWERS, list(model_names)))

    def finish(self, job: UUID, number: int) -> None:
        self._rows(FINISH, job, number)

    def jobs(self) -> set[UUID]:
        return {job for (job,) in self._rows(JOBS)}

    def forget(self, jobs: Collection[UUID]) -> None:
        self._rows(FORGET, list(jobs))


def _columns(keys: Collection[ImageKey]) -> tuple[list[UUID], list[UUID]]:
    return [key.job for key in keys], [key.image for key in keys]


def _expected(row: Sequence[Any]) -> ExpectedImage:
    job, image, *known = row
    return ExpectedImage(ImageKey(job, image), *known)
