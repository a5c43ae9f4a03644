"""The images that a job covers, in SQL: those of its dataset, of its list, or those that match its filter."""

from typing import Any, Final

import msgspec

from domain.classification import Classification, ImageFilter

COUNTED: Final = (
    "i.dataset_id = %(dataset)s and not i.deleted and i.rejected is null and i.position > %(after)s and i.position <= %(until)s"
)
LISTED: Final = "i.id = any(%(selected)s)"
UNANSWERED: Final = """i.id in (
      select f.image_id from failures f where f.classification_id = %(retry_of)s
      union select (planned ->> 'id')::uuid from work w cross join jsonb_array_elements(w.images) planned where w.job = %(retry_of)s)"""
NEWEST_RESULT: Final = """left join lateral (
    select r.id, r.label, r.verdict from results r
    where r.image_id = i.id and r.model_name = %(model_name)s and not r.hidden and r.position <= %(until)s
    order by r.position desc limit 1
  ) newest on true"""
CONDITIONS: Final = {
    "uploaded_from": "i.uploaded_at >= %(uploaded_from)s",
    "uploaded_before": "i.uploaded_at < %(uploaded_before)s",
    "device_id": "i.device_id = %(device_id)s",
    "label": "newest.label = %(label)s",
    "verdict": "newest.verdict = %(verdict)s",
    "without_result": "newest.id is null",
    "path": "coalesce(i.path, i.filename) ilike %(path)s",
}
OF_RESULTS: Final = {"label", "verdict", "without_result"}


def query(job: Classification) -> str:
    """A query for one ImagePage. It looks at `maximum` images, and so takes about as long when few or none of them match."""
    asked = parameters(job)
    matches = " and ".join(condition for name, condition in CONDITIONS.items() if asked[name]) or "true"
    within = " and ".join([COUNTED, *([LISTED] if job.selected else []), *([UNANSWERED] if job.retry_of else [])])
    newest = NEWEST_RESULT if any(asked[name] for name in OF_RESULTS) else ""
    return f"""select coalesce(json_agg(json_build_object('id', i.id, 'sha256', i.sha256) order by i.position)
      filter (where i.place <= %(maximum)s and {matches}), '[]') as images,
    coalesce(max(i.position) filter (where i.place <= %(maximum)s), %(after)s) as last,
    least(count(*), %(maximum)s) as seen, count(*) > %(maximum)s as more
  from (
    select i.*, row_number() over (order by i.position) as place from (
      select i.id, i.sha256, i.position, i.uploaded_at, i.device_id, i.filename, i.path from images i
      where {within} order by i.position limit %(maximum)s + 1
    ) i
  ) i {newest}"""  # noqa: S608 - constants


def parameters(job: Classification) -> dict[str, Any]:
    """What the job asks of images. None or False where nothing is asked."""
    asked = msgspec.structs.asdict(job.filter or ImageFilter())
    path = None if job.path is None else _like(job.path)
    about = {"dataset": job.dataset_id, "model_name": job.model_name, "selected": list(job.selected), "retry_of": job.retry_of}
    return {**asked, **about, "path": path}


def _like(pattern: str) -> str:
    """The `like` pattern for one in which * stands for any characters and ? for one."""
    literal = pattern.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
    return literal.replace("*", "%").replace("?", "_")
