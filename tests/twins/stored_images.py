"""The in-memory twin of the stored images, over the read models in memory."""

from domain.classification import ChunkJudged


class MemoryStoredImages:
    """Behaves like `projections.stored_images.PostgresStoredImages`."""

    def __init__(self, database, *, page_size=200):
        self._database, self._page_size = database, page_size

    def are_complete(self, position):
        return self._database.token.checkpoint.position >= position and not self._database.letters and not self._database.parked

    def count(self, dataset):
        return len(self._stored(dataset))

    def pages(self, dataset):
        stored = self._stored(dataset)
        for start in range(0, len(stored), self._page_size):
            yield stored[start : start + self._page_size]

    def chunks_of(self, image):
        chunks = [row for row in self._table("activity") if row.type == ChunkJudged.__name__ and image in row.subjects]
        return sorted(row.position for row in chunks if not self._database.tables["classifications"][row.subjects[1]].deleted)

    def _stored(self, dataset):
        found = [row for row in self._table("images") if self._is_stored(row) and dataset in {None, row.dataset_id}]
        return [row.id for row in sorted(found, key=lambda row: (row.uploaded_at, row.id))]

    def _is_stored(self, row):
        is_inspected = row.accepted or row.rejected is not None
        return is_inspected and not row.deleted and not self._database.tables["datasets"][row.dataset_id].deleted

    def _table(self, name):
        return self._database.tables[name].values()
