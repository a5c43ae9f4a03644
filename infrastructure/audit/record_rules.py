"""Rules between events: results, inspections and versions belong to what was asked for, and nothing is recorded twice."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeVar
from uuid import UUID

from cachetools import LRUCache

from application.jobs.chunk_results import JobPlans
from application.ports import EventStore, RecordedEvent
from domain import classification, declaration, image, model, model_check, user
from domain.access import Role
from domain.classification import ChunkJudged, Classification
from domain.errors import UpgradeNeeded
from domain.events import Event, State
from domain.image import Image, ImageAccepted, ImageReinspected, ImageRejected
from domain.model import ModelVersionAdded
from domain.model_check import ModelCheckFailed, ModelCheckPassed
from domain.registry import NOUN_OF, is_known
from infrastructure.eventstore.codec import Undecodable, without_opening

S = TypeVar("S", bound=State)
MAX_REMEMBERED_IMAGES: Final = 10_000
MAX_REMEMBERED_VERSIONS: Final = 64
CHECKED: Final = frozenset(kind.__name__ for kind in (ChunkJudged, ModelVersionAdded, ModelCheckPassed, ModelCheckFailed))
"""Types with rules, beside those of images."""


class RecordAudit:
    """Checks the events of a log in order, without keys. Its memory is bounded; anything else is read from the log."""

    def __init__(self, log: EventStore) -> None:
        self._log, self._plans = log, JobPlans(log)
        self._images: OrderedDict[UUID, Image | None] = OrderedDict()
        self._labels: LRUCache[tuple[UUID, int, str], tuple[str, ...]] = LRUCache(MAX_REMEMBERED_VERSIONS)
        self.unchecked = 0

    def violation_of(self, recorded: RecordedEvent) -> str | None:
        """The rule that an event breaks, as a text; None if it breaks none. Raises Unavailable.

        Events of a newer release, and events that depend on them, are not checked; `unchecked` counts them.
        """
        if not is_known(recorded.type, recorded.schema_version):
            self.unchecked += 1
            return None
        if recorded.type not in CHECKED and NOUN_OF[recorded.type] != "image":
            return None
        try:
            return self._of(without_opening(recorded), recorded.position)
        except UpgradeNeeded:
            self.unchecked += 1
            return None
        except Undecodable:
            return "the event cannot be read"

    def _of(self, event: Event, position: int) -> str | None:
        match event:
            case ChunkJudged():
                return self._of_judgement(event)
            case ModelCheckPassed() | ModelCheckFailed():
                check = self._before(event.originator_id, position, model_check.evolve)
                named = self._before(event.model_id, position, model.evolve) if event.model_id else None
                return model_check.violation_of(event, check, named.numbers if named else ())
            case ModelVersionAdded():
                return self._of_addition(event, position)
            case _:
                return self._of_image(event)

    def _of_addition(self, added: ModelVersionAdded, position: int) -> str | None:
        """The violation by a version that a user added. One that came with a release has no rules."""
        if added.check_id is not None:
            check = self._before(added.check_id, position, model_check.evolve)
            violation = model_check.violation_of_addition(check, package=added.version.package, by=added.by)
            violation = violation or self._of_author(added, position)
        elif added.version.is_external:
            violation = declaration.violation_of(added)
        else:
            return None
        return violation or model.violation_of(added, self._before(added.originator_id, position, model.evolve))

    def _of_author(self, added: ModelVersionAdded, position: int) -> str | None:
        author = self._before(added.by, position, user.evolve)
        return None if author and author.acts_as(Role.RESEARCHER) else "the person who uploaded it may add no models"

    def _before(self, stream: UUID, position: int, evolve: Callable[[S | None, Event], S | None]) -> S | None:
        """A stream as it was before the event at `position`."""
        state: S | None = None
        for recorded in self._log.history(stream):
            if recorded.position < position:
                state = evolve(state, without_opening(recorded))
        return state

    def _of_judgement(self, judged: ChunkJudged) -> str | None:
        """The violation by a chunk's results. Of two results for one chunk, at least one is not in the chunk's stream."""
        chunk = self._plans.chunk(judged.job_id, judged.number)
        labels = self._labels_of(chunk.job) if chunk is not None and chunk.job.external else None
        job, plan = (chunk.job, chunk.plan) if chunk is not None else (None, None)
        return classification.violation_of(judged, job=job, plan=plan, labels=labels, needs_provenance=False)

    def _labels_of(self, job: Classification) -> tuple[str, ...]:
        """The labels of the external version that a job runs; empty if it does not exist."""
        version = (job.model_id, job.model_version, job.model_sha256)
        if version not in self._labels:
            known = self._log.load(job.model_id, model.evolve)
            self._labels[version] = model.external_labels(known, job.model_version, job.model_sha256)
        return self._labels[version]

    def _of_image(self, event: Event) -> str | None:
        before = self._image_before(event)
        self._remember(event.originator_id, image.evolve(before, event))
        match event:
            case ImageAccepted() | ImageRejected():
                return image.violation_of(event, before)
            case ImageReinspected() if before is None or before.deleted or not before.inspected:
                return "the image was not inspected before"
            case _:
                return None

    def _image_before(self, event: Event) -> Image | None:
        stream, version = event.originator_id, event.originator_version
        remembered = self._images.get(stream)
        if version == 1 or (remembered is not None and remembered.version == version - 1):
            return remembered
        state: Image | None = None
        for recorded in self._log.history(stream):
            if recorded.version < version:
                state = image.evolve(state, without_opening(recorded))
        return state

    def _remember(self, stream: UUID, state: Image | None) -> None:
        self._images[stream] = state
        self._images.move_to_end(stream)
        if len(self._images) > MAX_REMEMBERED_IMAGES:
            self._images.popitem(last=False)
