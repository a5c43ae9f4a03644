"""A laboratory at work, in words: what its people do, through the real use cases, and how the read models follow."""

from datetime import datetime, timedelta
from uuid import UUID, uuid4

from application import classifications, datasets, images
from domain import classification, image, model, user
from domain.access import Actor, Role
from domain.classification import ImageFailure, ImageResult, Verdict
from domain.values import model_id, system_actor
from projections.checkpoints import Checkpoint
from tests.given import NOW, command

SYSTEM = Actor(id=system_actor("tests"), kind="system")
LABELS = ("round", "flat")


class Laboratory:
    def __init__(self, log, projector):
        self.log, self.projector = log, projector
        self.now = NOW

    # ---- what people do ----
    def user(self, role=Role.RESEARCHER, name="ada"):
        member = uuid4()
        event = user.register(
            member, email=f"{name}@example.org", username=name, first_name=name, last_name="Lab", role=role, by=member, at=self.now
        )
        self.log.append(self.command(), event)
        return Actor(id=member, role=role)

    def dataset(self, owner, name="cells"):
        return datasets.create(name=name, description="from the microscope", command=self.command(owner), log=self.log).id

    def share(self, owner, dataset, other, grant):
        datasets.share(dataset, user_id=other.id, grant=grant, command=self.command(owner), log=self.log)

    def image(self, owner, dataset, filename="cell.png", *, device=None, sha256=None):
        return images.upload(
            dataset_id=dataset,
            device_id=device,
            filename=filename,
            sha256=sha256 or uuid4().hex * 2,
            size=1000,
            media_type="image/png",
            width=96,
            height=96,
            command=self.command(owner),
            log=self.log,
        ).id

    def reject(self, image_id, reason="damaged_image"):
        self.change(image_id, image, lambda it: image.reject(it, reason=reason, detail="It is torn.", by=SYSTEM.id, at=self.now))

    def accept(self, image_id):
        about = {"width": 96, "height": 96, "bands": 3, "dtype": "uint8", "pages": 1, "axes": "YXC", "pixel_size_um": None}
        self.change(image_id, image, lambda it: image.accept(it, **about, by=SYSTEM.id, at=self.now))

    def model(self, name="shapes"):
        version = model.Version(number=1, sha256="ab" * 32, size=10, labels=LABELS, review_below=0.6, record="{}")
        self.log.append(
            self.command(), *model.add_version(model_id(name), None, name=name, description="", version=version, by=SYSTEM.id, at=self.now)
        )
        return name

    def job(self, owner, *, dataset=None, image=None, model="shapes"):
        return classifications.run(
            dataset_id=dataset,
            image_id=image,
            model_name=model,
            threshold=None,
            known_models=[model],
            command=self.command(owner),
            log=self.log,
        ).id

    def plan(self, job, images, *, more=False):
        state = self.log.load(job, classification.evolve)
        self.log.append(self.command(), *classification.plan(state, images, more=more, by=SYSTEM.id, at=self.now))

    def judge(self, job, number, results=(), failures=(), *, confidence=0.9):
        """A chunk's answer: `results` and `failures` are image ids."""
        seen = tuple(
            ImageResult(
                image_id=one, sha256="ab" * 32, label="round", confidence=confidence, verdict=Verdict.CLEAR, scores=(confidence, 1 - confidence)
            )
            for one in results
        )
        failed = tuple(ImageFailure(image_id=one, reason="damaged_image", detail="It is torn.") for one in failures)
        state = self.log.load(job, classification.evolve)
        event = classification.judge(state, number, labels=LABELS, results=seen, failures=failed, provenance=None, by=SYSTEM.id, at=self.now)
        self.log.append(self.command(), event)

    # ---- how it is told ----
    def command(self, by=SYSTEM):
        return command(by, at=self.now)

    def change(self, stream: UUID, noun, decide):
        events = decide(self.log.load(stream, noun.evolve))
        self.log.append(self.command(), *(events if isinstance(events, list) else [events]))

    def later(self, **passed):
        self.now = self.now + timedelta(**passed)

    def at(self, moment: datetime):
        self.now = moment

    def follow(self, batch=500):
        """Bring the read models to the head of the log, `batch` events a transaction."""
        at = self.projector.checkpoint().position
        while events := self.log.read(at, batch):
            at = events[-1].position
            self.projector.apply(events, Checkpoint(at))
        return at
