"""Which stored files are in use: those of images and of models."""

from collections.abc import Iterable

import psycopg

from domain.errors import Unavailable

CERTAIN = """select position >= (select position from es.head) and not exists (select from dead_letters) and not exists (select from parked)
  from checkpoint where projection = 'main'"""
USED = """select i.sha256 from images i join datasets d on d.id = i.dataset_id and not d.deleted
    where not i.deleted and i.sha256 = any(%(names)s)
  union
  select one ->> 'sha256' from models m, jsonb_array_elements(m.versions) one where one ->> 'sha256' = any(%(names)s)"""


def used(connection: psycopg.Connection, names: Iterable[str]) -> set[str]:
    """Those of the sha256s that an image refers to, or any version of a model. Blocks.

    Raises Unavailable while the read models lag behind the log, or an event waits that could not be applied: what they do not know
    then may be in use all the same.
    """
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read")
        row = connection.execute(CERTAIN).fetchone()
        if row is None or not row[0]:
            raise Unavailable("The read models do not hold all that was logged; nothing is swept now")
        return {name for (name,) in connection.execute(USED, {"names": list(names)})}
