"""References to blobs: the files of images and models that are in use, and packages whose check is awaited."""

from collections.abc import Iterable

import psycopg

from application.blob_gc import MAX_LAG, BlobReferences
from domain.errors import Unavailable

# The event after the checkpoint is the oldest one that the read models lack.
IS_CURRENT = """select c.position >= h.position
    or coalesce((select e.recorded_at > clock_timestamp() - %s::interval from es.event_at(c.position + 1) e), false)
  from checkpoint c, es.head h where c.projection = 'main'"""
# A version that came with an earlier release has no package, an external one no file. The package of a check that failed is in use no more.
# An image of an unknown dataset is in use: the event that created the dataset may be a dead letter.
REFERENCED = """select i.sha256 from images i left join datasets d on d.id = i.dataset_id
    where not i.deleted and d.deleted is not true and i.sha256 = any(%(names)s)
  union
  select coalesce(one ->> 'package', one ->> 'sha256') from models m, jsonb_array_elements(m.versions) one
    where coalesce(one ->> 'package', one ->> 'sha256') = any(%(names)s) and one ->> 'kind' is distinct from 'external'
  union
  select sha256 from model_checks where status = 'pending' and sha256 = any(%(names)s)"""
# No read model shows a discarded event, but commands fold the log and may still use its file.
REFERENCED_BY_DISCARDED = """select distinct match[1] from es.events d,
    es.event_at((convert_from(d.state, 'UTF8')::json ->> 'position')::bigint) e,
    regexp_matches(encode(e.state, 'escape'), '[0-9a-f]{64}', 'g') match
  where d.topic = 'DeadLetterDiscarded' and match[1] = any(%(names)s)"""
REFERENCED_BY_WAITING = """select distinct match[1] from (select position from dead_letters union select position from parked) w,
    es.event_at(w.position) e, regexp_matches(encode(e.state, 'escape'), '[0-9a-f]{64}', 'g') match
  where match[1] = any(%(names)s)"""


def blobs_in_use(connection: psycopg.Connection, names: Iterable[str]) -> BlobReferences:
    """Those of the blobs `names` that an image, a model version, a pending check or an unapplied event refers to. Blocks.

    Raises Unavailable while the read models lag far behind the log, since blobs that they do not know may be in use.
    """
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read")
        row = connection.execute(IS_CURRENT, (MAX_LAG,)).fetchone()
        if row is None or not row[0]:
            raise Unavailable("The read models are more than a day behind the log; no blobs are swept")
        parameters = {"names": list(names)}
        referenced, discarded, waiting = (
            {name for (name,) in connection.execute(query, parameters)}
            for query in (REFERENCED, REFERENCED_BY_DISCARDED, REFERENCED_BY_WAITING)
        )
        return BlobReferences(referenced | discarded, waiting)
