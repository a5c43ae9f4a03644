"""Fills a log with the events of a busy laboratory: accepted images, and jobs over whole datasets with their results."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import UUID, uuid4

from application.ports import Command
from domain import classification, dataset, image, user
from domain.access import Actor, Role
from domain.classification import ImageResult, PlannedImage, Provenance, Verdict, chunks_of
from domain.events import Event
from domain.values import system_actor
from infrastructure.eventstore.event_store import RecorderEventStore

ACTOR = Actor(id=system_actor("benchmark"), kind="system")
LABELS = ("basophil", "eosinophil", "erythroblast", "ig", "lymphocyte", "monocyte", "neutrophil", "platelet")
SCORES = (0.93, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01)
PROVENANCE = Provenance(
    model_sha256="0" * 64, preprocessing="0" * 64, runtime="onnxruntime 1.30.0", provider="CPUExecutionProvider",
    decoder="reader 2, libjpeg_turbo 3.1.4, libpng 1.6.53", cpu="x86_64", worker="bench", seconds=0.1,
)  # fmt: skip
WRITERS = 64
FOUND = image.Inspection(width=360, height=363, bands=3, dtype="uint8", pages=1, axes="YXS", pixel_size_um=None, reader=2, warnings=())


def fill(log: RecorderEventStore, *, images: int, jobs: int = 1) -> UUID:
    """Upload `images` images into one dataset and classify all of them `jobs` times. Returns the owner of the dataset."""
    owner, place = uuid4(), uuid4()
    now = datetime.now(UTC)
    append(
        log,
        user.register(
            owner, email=f"{owner}@example.org", username=str(owner)[:20], first_name="A", last_name="B", role=Role.ADMIN, by=owner, at=now
        ),
    )
    append(log, dataset.create(place, name="bench", description=None, by=owner, at=now))
    names = [uuid4() for _ in range(images)]
    with ThreadPoolExecutor(WRITERS) as threads:
        list(threads.map(lambda one: append(log, *uploaded(one, place, owner)), names))
        for _ in range(jobs):
            list(threads.map(lambda one: append(log, one), judged(log, names, place, owner)))
    return owner


def append(log: RecorderEventStore, *events: Event) -> None:
    log.append(Command(id=uuid4(), actor=ACTOR, at=events[0].at), *events)


def uploaded(one: UUID, place: UUID, owner: UUID) -> list[Event]:
    now = datetime.now(UTC)
    about = {"sha256": one.hex * 2, "size": 16_000, "media_type": "image/jpeg", "width": 360, "height": 363}
    first = image.upload(one, dataset=place, device=None, filename=f"{one}.jpg", **about, by=owner, at=now)  # type: ignore[arg-type]
    state = image.evolve(None, first)
    assert state is not None
    return [first, *image.accept(state, FOUND, by=ACTOR.id, at=now)]


def judged(log: RecorderEventStore, names: Sequence[UUID], place: UUID, owner: UUID) -> Iterator[Event]:
    """Append a job and its plan. Yields the results of its chunks."""
    now = datetime.now(UTC)
    covered = [PlannedImage(one, one.hex * 2) for one in names]
    about = {"model_id": place, "model_name": "pbc8", "model_version": 1, "model_sha256": PROVENANCE.model_sha256, "threshold": 0.5}
    requested = classification.request(uuid4(), dataset=place, image=None, **about, by=owner, at=now)  # type: ignore[arg-type]
    state = classification.evolve(None, requested[0])
    assert state is not None
    plan = classification.plan(state, covered, by=ACTOR.id, at=now)
    append(log, *requested, *plan)
    number = 0
    for event in plan:
        for chunk in chunks_of(event.images):  # type: ignore[attr-defined]
            results = tuple(
                ImageResult(image_id=one.id, sha256=one.sha256, label=LABELS[0], confidence=0.93, verdict=Verdict.CLEAR, scores=SCORES)
                for one in chunk
            )
            yield classification.record_chunk(
                state, number, plan=event, labels=LABELS, results=results, failures=(), provenance=PROVENANCE, by=ACTOR.id, at=now
            )
            number += 1
