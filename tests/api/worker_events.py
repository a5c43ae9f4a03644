"""Events that processes other than the API append: model versions, inspections, plans and results."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

import msgspec

from application.jobs.chunk_results import JobPlans
from application.ports import Command
from domain import classification, image, model
from domain.access import Actor
from domain.classification import ImageFailure, ImageResult, PlannedImage, Verdict
from domain.values import model_id, system_actor

SYSTEM = Actor(id=system_actor("tests"), kind="system")
SHA256 = "ab" * 32
LABELS = ("round", "flat")


class WorkerEvents:
    """Appends events, and waits until the read models show them."""

    def __init__(self, api):
        self.log, self.read_position = api.services.log, api.services.read_position

    async def model(self, name="shapes", *, sha256=SHA256, alias=None, **fields):
        """A further version; `fields` are those of Version."""
        about = {"size": 10, "labels": LABELS, "review_below": 0.6, "record": "{}"} | fields
        version = model.Version(number=1, sha256=sha256, **about)
        known = self.log.load(model_id(name), model.evolve)
        about = {"name": name, "description": "", "version": version, "alias": alias, "by": SYSTEM.id, "at": now()}
        await self._append(model.add_version(model_id(name), known, **about))

    async def accept(self, image_id, *, dtype="uint8", reader=2, **changes):
        about = msgspec.structs.asdict(inspection(dtype=dtype, reader=reader)) | changes
        await self._change(image_id, image, lambda it: image.accept(it, image.Inspection(**about), by=SYSTEM.id, at=now()))

    async def reinspect(self, image_id, *, reader, outdated=()):
        """A newer reader finds the same."""
        found = inspection(reader=reader)
        await self._change(image_id, image, lambda it: image.reinspect(it, found, outdated=outdated, by=SYSTEM.id, at=now()))

    async def reject(self, image_id):
        await self._change(
            image_id, image, lambda it: image.reject(it, reason="decode_failed", detail="It is torn.", by=SYSTEM.id, at=now())
        )

    async def plan(self, job, covered):
        planned = [PlannedImage(UUID(one), SHA256) for one in covered]
        await self._change(job, classification, lambda it: classification.plan(it, planned, more=False, by=SYSTEM.id, at=now()))

    async def measure(self, job, image, value, *, at=None):
        """The number that a regression gave for the only image of a job."""
        await self.answer(job, image, scores={"viability": value / 100}, at=at, label="viability", confidence=0.0, value=value)

    async def answer(self, job, image, *, scores, at=None, verdict=Verdict.CLEAR, **found):
        """The result for the only image of a job: its fields are those of ImageResult."""
        chunk = JobPlans(self.log).chunk(UUID(job), 0)
        about = {"sha256": chunk.images[0].sha256, "verdict": verdict, "scores": tuple(scores.values())}
        results = (ImageResult(image_id=UUID(image), **about, **found),)
        answer = {"labels": tuple(scores), "results": results, "failures": (), "provenance": None, "by": SYSTEM.id, "at": at or now()}
        await self._change(job, classification, lambda it: classification.record_chunk(it, 0, plan=chunk.plan, **answer))

    async def judge(self, job, results=(), failures=(), *, confidence=0.9, at=None):
        """A chunk's answer: `results` and `failures` are image ids."""
        chunk = JobPlans(self.log).chunk(UUID(job), 0)
        planned = {str(image.id): image.sha256 for image in chunk.images}
        about = {"label": "round", "confidence": confidence, "verdict": Verdict.CLEAR, "scores": (confidence, 1 - confidence)}
        observed = tuple(ImageResult(image_id=UUID(one), sha256=planned[one], **about) for one in results)
        failed = tuple(ImageFailure(image_id=UUID(one), reason="damaged_image", detail="It is torn.") for one in failures)
        answer = {"labels": LABELS, "results": observed, "failures": failed, "provenance": None, "by": SYSTEM.id, "at": at or now()}
        await self._change(job, classification, lambda it: classification.record_chunk(it, 0, plan=chunk.plan, **answer))

    async def complete(self, job, *, succeeded, failed=0):
        body = {"succeeded": succeeded, "failed": failed, "by": SYSTEM.id}
        await self._change(job, classification, lambda it: classification.complete(it, **body, at=now()))

    async def _change(self, stream, noun, decide):
        events = decide(self.log.load(UUID(stream), noun.evolve))
        await self._append(events if isinstance(events, list) else [events])

    async def _append(self, events):
        appended = self.log.append(Command(id=uuid4(), actor=SYSTEM, at=now()), *events)
        assert await self.read_position.wait(appended.position, 5)


def inspection(*, dtype="uint8", reader):
    about = {"width": 64, "height": 48, "bands": 3, "pages": 1, "axes": "YXS", "pixel_size_um": 0.25, "warnings": ()}
    return image.Inspection(dtype=dtype, reader=reader, **about)


def now():
    return datetime.now(UTC)
