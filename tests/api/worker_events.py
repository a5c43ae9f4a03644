"""Events that processes other than the API append: model versions, inspections, plans and results."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

import msgspec

from application import model_checks
from application.jobs.chunk_results import JobPlans
from application.ports import Command
from domain import classification, image, model, model_check
from domain.access import Actor, Role
from domain.classification import EXTERNAL_RUNTIME, ImageFailure, ImageResult, PlannedImage, Verdict
from domain.values import model_id, system_actor
from tests.given import provenance
from tests.rigs.scenario import REPORT

SYSTEM = Actor(id=system_actor("tests"), kind="system")
SHA256 = "ab" * 32
LABELS = ("round", "flat")


class WorkerEvents:
    """Appends events, and waits until the read models show them."""

    def __init__(self, api):
        self.log, self.read_position = api.services.log, api.services.read_position

    async def model(self, name="shapes", *, description="", sha256=SHA256, alias=None, **fields):
        """A further version; `fields` are those of Version."""
        about = {"size": 10, "labels": LABELS, "review_below": 0.6, "record": "{}"} | fields
        version = model.Version(number=1, sha256=sha256, **about)
        known = self.log.load(model_id(name), model.evolve)
        about = {"name": name, "description": description, "version": version, "alias": alias, "by": SYSTEM.id, "at": now()}
        await self._append(model.add_version(model_id(name), known, **about))

    async def uploaded_model(self, name, user_id, *, description="", package=SHA256, passes=True, labels=LABELS, weights="ef" * 32):
        """Somebody uploads a package; a worker adds its version as the candidate, or refuses it. Returns the id of the check."""
        check = uuid4()
        uploaded = model_check.upload(check, filename="cells.zip", sha256=package, size=10, by=user_id, at=now())
        await self._append([uploaded], by=Actor(id=user_id))
        if passes:
            texts = {"round": "without edges"}
            version = model.Version(
                number=1, sha256=weights, size=10, labels=labels, review_below=0.6, record="{}", digest="cd" * 32, package=package,
                kind=model.OutputKind.SOFTMAX, label_texts=texts, release="2.0.0",
            )  # fmt: skip
            found = model_checks.CheckedModel(name, description, version, REPORT)
            recorded = model_checks.record_passed(check, found, command=Command(id=uuid4(), actor=SYSTEM, at=now()), log=self.log)
        else:
            refusal = model_checks.PackageRefusal("labels", "A label occurs twice", file="rdf.yaml")
            recorded = model_checks.record_failed(check, refusal, None, command=Command(id=uuid4(), actor=SYSTEM, at=now()), log=self.log)
        assert recorded
        assert await self.read_position.wait(self.log.head(), 5)
        return check

    async def failed_test(self, name, user_id):
        """Somebody asks for a test of version 1, which a worker finds to answer wrongly."""
        asked = Command(id=uuid4(), actor=Actor(id=user_id, role=Role.RESEARCHER), at=now())
        check = model_checks.request_test(name=name, number=1, command=asked, log=self.log).id
        refusal = model_checks.PackageRefusal("model_refused", "The test output differs")
        command = Command(id=uuid4(), actor=SYSTEM, at=now())
        assert model_checks.record_failed(check, refusal, REPORT.environment, command=command, log=self.log)
        await self._shown()

    async def pass_check(self, check, name, *, weights=SHA256):
        """The package of a check is a version of that model."""
        found = {"labels": LABELS, "review_below": 0.6, "record": "{}", "digest": weights}
        package = model_checks.requested(UUID(check), log=self.log).sha256
        version = model.Version(number=1, sha256=weights, size=10, **found, package=package)
        checked = model_checks.CheckedModel(name, "", version, REPORT)
        assert model_checks.record_passed(UUID(check), checked, command=self._command(), log=self.log)
        await self._shown()

    async def refuse_check(self, check, environment=None):
        why = model_checks.PackageRefusal("manifest_field", "must be a number", "rdf.yaml", "inputs[0].axes[2].size")
        assert model_checks.record_failed(UUID(check), why, environment, command=self._command(), log=self.log)
        await self._shown()

    def _command(self):
        return Command(id=uuid4(), actor=SYSTEM, at=now())

    async def _shown(self):
        assert await self.read_position.wait(self.log.head(), 5)

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
        answer = {"labels": tuple(scores), "results": results, "failures": (), "by": SYSTEM.id, "at": at or now()}
        answer |= {"plan": chunk.plan, "provenance": provenance(chunk.job.model_sha256)}
        await self._change(job, classification, lambda it: classification.record_chunk(it, 0, **answer))

    async def answer_externally(self, job, image, label, confidence):
        """The answer of an external classifier for the only image of a job."""
        chunk = JobPlans(self.log).chunk(UUID(job), 0)
        verdict = Verdict.CLEAR if confidence >= chunk.job.threshold else Verdict.NEEDS_REVIEW
        about = {"sha256": chunk.images[0].sha256, "label": label, "confidence": confidence, "verdict": verdict, "scores": ()}
        origin = provenance(chunk.job.model_sha256, runtime=EXTERNAL_RUNTIME, worker="bridge")
        answer = {"labels": LABELS, "results": (ImageResult(image_id=UUID(image), **about),), "failures": (), "provenance": origin}
        answer |= {"plan": chunk.plan, "by": SYSTEM.id, "at": now()}
        await self._change(job, classification, lambda it: classification.record_chunk(it, 0, **answer))

    async def judge(self, job, results=(), failures=(), *, number=0, confidence=0.9, at=None):
        """A chunk's answer: `results` and `failures` are image ids."""
        chunk = JobPlans(self.log).chunk(UUID(job), number)
        planned = {str(image.id): image.sha256 for image in chunk.images}
        about = {"label": "round", "confidence": confidence, "verdict": Verdict.CLEAR, "scores": (confidence, 1 - confidence)}
        observed = tuple(ImageResult(image_id=UUID(one), sha256=planned[one], **about) for one in results)
        failed = tuple(ImageFailure(image_id=UUID(one), reason="damaged_image", detail="It is torn.") for one in failures)
        answer = {"labels": LABELS, "results": observed, "failures": failed, "by": SYSTEM.id, "at": at or now()}
        answer |= {"plan": chunk.plan, "provenance": provenance(chunk.job.model_sha256)}
        await self._change(job, classification, lambda it: classification.record_chunk(it, number, **answer))

    async def complete(self, job, *, succeeded, failed=0):
        body = {"succeeded": succeeded, "failed": failed, "by": SYSTEM.id}
        await self._change(job, classification, lambda it: classification.complete(it, **body, at=now()))

    async def _change(self, stream, noun, decide):
        events = decide(self.log.load(UUID(stream), noun.evolve))
        await self._append(events if isinstance(events, list) else [events])

    async def _append(self, events, *, by=SYSTEM):
        appended = self.log.append(Command(id=uuid4(), actor=by, at=now()), *events)
        assert await self.read_position.wait(appended.position, 5)


def inspection(*, dtype="uint8", reader):
    about = {"width": 64, "height": 48, "bands": 3, "pages": 1, "axes": "YXS", "pixel_size_um": 0.25, "warnings": ()}
    return image.Inspection(dtype=dtype, reader=reader, **about)


def now():
    return datetime.now(UTC)
