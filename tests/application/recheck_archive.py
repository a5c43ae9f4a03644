"""Images in memory that an earlier reader inspected and a model classified, and a pixel reader whose answers a test sets."""

from uuid import uuid4

import msgspec

from application.recheck.image_recheck import ImageRecheck
from application.recheck.pixel_reader import DecodedImage, Prediction
from domain import classification, dataset, image, model
from domain.classification import ImageResult, PlannedImage, Verdict
from domain.errors import NotFound
from domain.image import Inspection
from domain.values import model_id
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.security.keys import RootKey
from projections.engine.checkpoints import Checkpoint
from projections.engine.projector import Projector
from projections.process.composition import LogDecoder
from tests.given import LATER, NOW, actor, command, provenance
from tests.twins.blobs import MemoryBlobs
from tests.twins.event_store import MemoryRecorder
from tests.twins.read_models import MemoryDatabase, MemoryModels
from tests.twins.stored_images import MemoryStoredImages

ROOT = RootKey(bytes(32))
SYSTEM = actor(None, kind="system")
LABELS = ("round", "flat")
OLD = Inspection(width=8, height=6, bands=3, dtype="uint8", pages=1, axes="YXS", pixel_size_um=None, reader=1, warnings=())
NEW = msgspec.structs.replace(OLD, reader=2)


class ScriptedReader:
    """`decoded`, `predicted`: the answer for the bytes of a file; an exception is raised. A model's record is its digest of today."""

    version = 2

    def __init__(self):
        self.decoded, self.predicted, self.models_missing = {}, {}, set()
        self.looked_at = 0

    def decode(self, data):
        self.looked_at += 1
        return self._answer(self.decoded.get(data, NEW))

    def preprocessing(self, record):
        return record

    def classify(self, data, version, planes):
        if version.number in self.models_missing:
            raise NotFound("There is no such file")
        return self._answer(self.predicted.get(data, 0.9))

    def _answer(self, scripted):
        match scripted:
            case Exception():
                raise scripted
            case Inspection():
                return DecodedImage(inspection=scripted, thumbnail=f"small {scripted.width}".encode(), preview=b"large")
            case float():
                label = LABELS[0] if scripted >= 0.5 else LABELS[1]
                return Prediction(label=label, confidence=max(scripted, 1 - scripted), scores=(scripted, 1 - scripted))
            case _:
                return scripted


class Archive:
    """Model versions 1 and 2 have the preprocessing `digest 1` and `digest 2` today."""

    def __init__(self):
        self.log, self.blobs, self.reader = RecorderEventStore(MemoryRecorder(ROOT), ROOT), MemoryBlobs(), ScriptedReader()
        self.database = MemoryDatabase()
        self.stored = MemoryStoredImages(self.database, page_size=3)
        self.cells = uuid4()
        self.append(dataset.create(self.cells, name="cells", description=None, by=SYSTEM.id, at=NOW))
        for number in (1, 2):
            version = model.Version(number=0, sha256=f"{number:064x}", size=1, labels=LABELS, review_below=0.5, record=f"digest {number}")
            known = self.log.load(model_id("shapes"), model.evolve)
            about = {"name": "shapes", "description": "", "version": version, "by": SYSTEM.id, "at": NOW}
            self.append(*model.add_version(model_id("shapes"), known, **about))

    # ---- what happened before ----
    def uploaded(self, data):
        about = {"filename": "cell.tif", "size": len(data), "media_type": "image/tiff", "width": 8, "height": 6}
        event = image.upload(uuid4(), dataset=self.cells, device=None, sha256=self.blobs.keep(data), **about, by=SYSTEM.id, at=NOW)
        self.append(event)
        return event.originator_id

    def accepted(self, data, found=OLD):
        image_id = self.uploaded(data)
        self.append(*image.accept(self.state(image_id), found, by=SYSTEM.id, at=NOW))
        return image_id

    def rejected(self, data):
        image_id = self.uploaded(data)
        self.append(*image.reject(self.state(image_id), reason="unsupported_layout", detail="Save it.", by=SYSTEM.id, at=NOW))
        return image_id

    def delete(self, image_id):
        self.append(image.delete(self.state(image_id), by=SYSTEM.id, at=NOW))

    def delete_job(self, job):
        self.append(classification.delete(self.log.load(job, classification.evolve), by=SYSTEM.id, at=NOW))

    def result(self, image_id, score=0.9, *, version=1, preprocessing="an earlier one", planes=None):
        """A job over one image, and its result; the job's id."""
        sha256 = self.state(image_id).sha256
        about = {
            "model_id": model_id("shapes"),
            "model_name": "shapes",
            "model_version": version,
            "model_sha256": f"{version:064x}",
            "threshold": 0.5,
            "planes": planes,
        }
        planned = PlannedImage(image_id, sha256)
        asked = classification.request(uuid4(), dataset=self.cells, image=planned, **about, by=SYSTEM.id, at=NOW)
        self.append(*asked)
        job = self.log.load(asked[0].originator_id, classification.evolve)
        seen = {"label": "round", "confidence": score, "verdict": Verdict.CLEAR, "scores": (score, 1 - score)}
        answer = {"labels": LABELS, "results": (ImageResult(image_id=image_id, sha256=sha256, **seen),), "failures": ()}
        by = provenance(job.model_sha256, preprocessing=preprocessing)
        self.append(classification.record_chunk(job, 0, plan=asked[-1], **answer, provenance=by, by=SYSTEM.id, at=NOW))
        return job.id

    def lose(self, image_id):
        del self.blobs.kept[self.state(image_id).sha256]

    def damage(self, image_id):
        self.blobs.kept[self.state(image_id).sha256] = b"something else"

    # ---- the recheck, and what became of it ----
    def recheck(self, *, dry_run=False):
        """What was found, by image."""
        self.follow(self.database)
        recheck = self.a_recheck(dry_run=dry_run)
        found = [recheck.check(one) for page in self.stored.pages(None) for one in page]
        self.follow(self.database)
        return {one.image: one for one in found if one is not None}

    def a_recheck(self, **how):
        about = {"images": self.stored, "reader": self.reader, "actor": SYSTEM, "now": lambda: LATER}
        return ImageRecheck(log=self.log, blobs=self.blobs, **about, **how)

    def follow(self, database, *, batch=500):
        projector = Projector(lambda: MemoryModels(database), LogDecoder(self.log))
        at = database.token.checkpoint.position
        while events := self.log.read(at, batch):
            at = events[-1].position
            projector.apply(events, Checkpoint(at))
        projector.close()

    def rows(self):
        return self.database.tables

    def state(self, image_id):
        return self.log.load(image_id, image.evolve)

    def outdated(self):
        return set(self.rows()["outdated_results"])

    def append(self, *events):
        self.log.append(command(SYSTEM), *events)
