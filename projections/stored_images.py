"""Stored images for the system itself. These queries do not check access and see all datasets."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import psycopg

from domain.classification import ChunkJudged
from infrastructure.postgres.errors import database_unavailable

PAGE_SIZE: Final = 200

COMPLETE = """select position >= %(position)s and not exists (select from dead_letters) and not exists (select from parked)
  from checkpoint where projection = 'main'"""
STORED = """from images i join datasets d on d.id = i.dataset_id and not d.deleted
  where not i.deleted and (i.accepted or i.rejected is not null) and (%(dataset)s::uuid is null or i.dataset_id = %(dataset)s::uuid)"""
COUNT = f"select count(*) {STORED}"
PAGE = f"""select i.uploaded_at, i.id {STORED} and (i.uploaded_at, i.id) > (%(at)s, %(after)s)
  order by i.uploaded_at, i.id limit %(maximum)s"""
CHUNKS = f"""select a.position from activity a join classifications c on c.id = a.subjects[2] and not c.deleted
  where a.subjects @> array[%(image)s::uuid] and a.type = '{ChunkJudged.__name__}' order by a.position"""  # noqa: S608 - constants


class PostgresStoredImages:
    """Implements `application.recheck.image_recheck.StoredImages` with a connection to the read models."""

    def __init__(self, connection: psycopg.Connection, *, page_size: int = PAGE_SIZE) -> None:
        self._connection, self._page_size = connection, page_size

    def are_complete(self, position: int) -> bool:
        return any(complete for (complete,) in self._rows(COMPLETE, position=position))

    def count(self, dataset: UUID | None) -> int:
        return sum(count for (count,) in self._rows(COUNT, dataset=dataset))

    def pages(self, dataset: UUID | None) -> Iterator[Sequence[UUID]]:
        at, after = datetime.min.replace(tzinfo=UTC), UUID(int=0)
        while page := self._rows(PAGE, dataset=dataset, at=at, after=after, maximum=self._page_size):
            yield [image for _, image in page]
            at, after = page[-1]

    def chunks_of(self, image: UUID) -> Sequence[int]:
        return [position for (position,) in self._rows(CHUNKS, image=image)]

    def _rows(self, query: str, **parameters: object) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query.encode(), parameters).fetchall()
        except psycopg.OperationalError:
            raise database_unavailable() from None
