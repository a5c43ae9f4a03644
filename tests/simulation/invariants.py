"""The invariants of a simulated system that came to rest, checked in the log, the read models, Kafka and the blobs, and against a model."""

from collections import Counter, defaultdict
from typing import Any
from uuid import UUID

import msgspec
from faust.types import TP

from application.history.hash_chain import START, chained
from application.jobs.topics import EVENTS
from application.ports import RecordedEvent
from domain.classification import (
    ChunkJudged,
    ClassificationCancelled,
    ClassificationCompleted,
    ClassificationDeleted,
    ClassificationFailed,
    ClassificationPlanned,
    ClassificationRequested,
    ImageResult,
    JobStatus,
)
from domain.dataset import DatasetCreated, DatasetDeleted, DatasetDescribed, DatasetShared, DatasetShareWithdrawn
from domain.device import DeviceRegistered, DeviceRemoved
from domain.events import Event
from domain.image import ImageAccepted, ImageDeleted, ImageRejected, ImageUploaded
from domain.model import ModelVersionAdded
from domain.user import UserDeleted, UserErased, UserProfileChanged, UserRegistered
from domain.values import canonical, result_id
from infrastructure.audit.record_rules import RecordAudit
from infrastructure.eventstore.event_store import RecorderEventStore
from projections.engine.checkpoints import Checkpoint
from projections.engine.projector import Projector
from projections.process.composition import LogDecoder
from tests.simulation.clients import Journal
from tests.simulation.processes import seen
from tests.simulation.world import ROOT, World
from tests.twins.read_models import MemoryDatabase, MemoryModels

OPEN = {JobStatus.PENDING, JobStatus.RUNNING}
ENDS = {
    ClassificationCancelled: JobStatus.CANCELLED,
    ClassificationCompleted: JobStatus.COMPLETED,
    ClassificationFailed: JobStatus.FAILED,
}


def lags(world: World) -> bool:
    return world.database.token.checkpoint.position < (world.recorder.max_notification_id() or 0)


def at_rest(world: World) -> bool:
    """Nothing is left to be done by anybody."""
    database, head = world.database, world.recorder.max_notification_id() or 0
    if lags(world) or database.letters or database.parked or world.published.checkpoint.position != head:
        return False
    if any(job.status in OPEN and not job.deleted for job in database.tables["classifications"].values()):
        return False
    homes = database.tables["datasets"]
    return not any(work.job is None and not homes[work.dataset_id].deleted for work in database.tables["work"].values())


def check_invariants(world: World, journal: Journal, *, rested: bool) -> None:
    log = RecorderEventStore(world.recorder, ROOT)
    recorded = world.recorder.select_recorded(0, 10**9)
    events = [log.decode(one) for one in recorded]
    if not rested:
        world.breaks(f"R13 it does not come to rest: {_unrest(world)}")
    _log(world, recorded)
    _rules(world, log, recorded)
    _promises(world, journal, recorded)
    model = Model(events)
    model.compare(world, rested=rested)
    _chunks(world, model)
    if rested:
        _kafka(world, len(recorded))
        _read_models(world, log, recorded)
        _blobs(world, model)


def _unrest(world: World) -> str:
    database = world.database
    jobs = [f"{job.id} {job.status}" for job in database.tables["classifications"].values() if job.status in OPEN and not job.deleted]
    return (
        f"head {world.recorder.max_notification_id()}, read models {database.token.checkpoint.position},"
        f" kafka {world.published.checkpoint.position},"
        f" letters {sorted(database.letters)}, parked {sorted(database.parked)}, jobs {jobs}, work {len(database.tables['work'])},"
        f" releases {list(database.releases.values())}"
    )


# ---- the log -----------------------------------------------------------------------------------------------------------------------
def _log(world: World, recorded: list[RecordedEvent]) -> None:
    versions: defaultdict[UUID, list[int]] = defaultdict(list)
    commands: defaultdict[str, list[int]] = defaultdict(list)
    digest = START
    for place, one in enumerate(recorded, 1):
        versions[one.stream].append(one.version)
        commands[msgspec.json.decode(one.meta)["command_id"]].append(one.position)
        if one.position != place or one.hash != chained(digest, msgspec.structs.replace(one, hash=b"")).hash:
            world.breaks(f"R5 the chain of the log does not hold at {place}")
        digest = one.hash
    for stream, found in versions.items():
        if found != list(range(1, len(found) + 1)):
            world.breaks(f"R7 stream {stream} has the versions {found}")
    for command, positions in commands.items():
        wanted = world.recorder.asked.get(UUID(command))
        if positions != list(range(positions[0], positions[0] + len(positions))) or (wanted is not None and len(positions) not in wanted):
            world.breaks(f"R2 command {command} stands at {positions}, and asked for {wanted} events")


def _rules(world: World, log: RecorderEventStore, recorded: list[RecordedEvent]) -> None:
    """What was said of chunks and images was asked."""
    audit = RecordAudit(log)
    for one in recorded:
        if (violation := audit.violation_of(one)) is not None:
            world.breaks(f"R3 {one.type} at {one.position}: {violation}")


def _promises(world: World, journal: Journal, recorded: list[RecordedEvent]) -> None:
    winners: dict[tuple[UUID, int], UUID] = {}
    for promise in journal.promises:
        done = promise.done
        if not done.position:
            continue
        there = recorded[done.position - 1] if done.position <= len(recorded) else None
        if there is None or (there.stream, there.version) != (done.id, done.version):
            world.breaks(f"R1 {promise.kind} was promised {done}, the log has {there and (there.stream, there.version)}")
        if promise.expected is not None and done.version <= promise.expected:
            world.breaks(f"R7 {promise.kind} with If-Match {promise.expected} became version {done.version}")
        if promise.expected is not None and done.version != promise.expected + 1:
            world.breaks(f"R7 {promise.kind} with If-Match {promise.expected} was let through at version {done.version - 1}")
        if winners.setdefault((done.id, done.version), promise.command) != promise.command:
            world.breaks(f"R7 two commands were both promised version {done.version} of {done.id}")


# ---- a model of what is read -------------------------------------------------------------------------------------------------------
class Model:
    """What the events of the log add up to, told in the plainest way, by nothing of the production code."""

    def __init__(self, events: list[Event]) -> None:
        self.names: dict[UUID, str] = {}
        self.grants: set[tuple[UUID, UUID]] = set()
        self.gone: set[UUID] = set()
        self.images: dict[UUID, ImageUploaded] = {}
        self.inspected: set[UUID] = set()
        self.requested: dict[UUID, ClassificationRequested] = {}
        self.phases: dict[UUID, JobStatus] = {}
        self.planned: defaultdict[UUID, list[UUID]] = defaultdict(list)
        self.answered: defaultdict[UUID, list[UUID]] = defaultdict(list)
        self.labels: dict[UUID, str] = {}
        self.results: dict[UUID, tuple[ChunkJudged, ImageResult]] = {}
        self.addresses: dict[UUID, tuple[str, str]] = {}
        self.hosts: dict[UUID, str] = {}
        self.weights: set[str] = set()
        self.chunks: Counter[tuple[UUID, int]] = Counter()
        self.too_late: list[str] = []
        self.repeats = self.expired = 0
        self.untrue: list[str] = []
        for event in events:
            self._is_in_time(event)
            self._hear(event)

    def _is_in_time(self, event: Event) -> None:
        """Nothing is asked of what was deleted before, and no worker answers to a job that had ended."""
        match event:
            case ImageUploaded() | ClassificationRequested() if not self.gone.isdisjoint(
                {event.dataset_id, getattr(event, "image_id", None)}
            ):
                self.too_late.append(f"{type(event).__name__} {event.originator_id}")
            case ChunkJudged() if event.provenance is not None:
                if self.phases.get(event.job_id) not in OPEN or event.job_id in self.gone:
                    self.too_late.append(f"ChunkJudged {event.originator_id}")
            case _:
                pass

    def _hear(self, event: Event) -> None:
        match event:
            case DatasetCreated():
                self.names[event.originator_id] = event.name
                self.grants.add((event.owner_id, event.originator_id))
            case DatasetDescribed():
                self.names[event.originator_id] = event.name if isinstance(event.name, str) else self.names[event.originator_id]
            case DatasetShared():
                self.grants.add((event.user_id, event.originator_id))
            case DatasetShareWithdrawn():
                self.grants.discard((event.user_id, event.originator_id))
            case DatasetDeleted() | ImageDeleted() | ClassificationDeleted():
                self.gone.add(event.originator_id)
            case ImageUploaded():
                self.images[event.originator_id] = event
            case ImageAccepted() | ImageRejected():
                self.inspected.add(event.originator_id)
            case ClassificationRequested():
                self.requested[event.originator_id] = event
                self.phases[event.originator_id] = JobStatus.PENDING
            case ClassificationPlanned():
                self.phases[event.originator_id] = JobStatus.RUNNING
                self.planned[event.originator_id] += [one.id for one in event.images]
            case ClassificationCancelled() | ClassificationCompleted() | ClassificationFailed():
                self.phases[event.originator_id] = ENDS[type(event)]
                self.expired += isinstance(event, ClassificationFailed) and event.reason.startswith("The deadline")
            case ChunkJudged():
                self.chunks[event.job_id, event.number] += 1
                self.answered[event.job_id] += [*(one.image_id for one in event.results), *(one.image_id for one in event.failures)]
                self.labels |= {result_id(event.job_id, one.image_id): one.label for one in event.results}
                self._repeated(event)
                self.results |= {result_id(event.job_id, one.image_id): (event, one) for one in event.results}
            case UserRegistered():
                self.addresses[event.originator_id] = canonical(event.email), canonical(event.username)
            case UserProfileChanged():
                if isinstance(event.email, str) and event.originator_id in self.addresses:
                    self.addresses[event.originator_id] = canonical(event.email), self.addresses[event.originator_id][1]
            case UserDeleted() | UserErased():
                self.addresses.pop(event.originator_id, None)
            case DeviceRegistered():
                self.hosts[event.originator_id] = canonical(event.hostname)
            case DeviceRemoved():
                self.hosts.pop(event.originator_id, None)
            case ModelVersionAdded():
                self.weights.add(event.version.file)

    def _repeated(self, event: ChunkJudged) -> None:
        """A repeated result is that of an earlier job, of the same file and version, and was no repeated one itself."""
        for result in event.results:
            if result.reused is None:
                continue
            self.repeats += 1
            judged, first = self.results.get(result.reused, (None, None))
            if judged is None or first is None or first.reused is not None or judged.job_id == event.job_id or event.provenance is not None:
                self.untrue.append(f"{event.originator_id} repeats {result.reused}")
            elif (first.sha256, first.scores, judged.model_version) != (result.sha256, result.scores, event.model_version):
                self.untrue.append(f"{event.originator_id} is not {result.reused}")
            elif self.requested[event.job_id].fresh:
                self.untrue.append(f"{event.originator_id} was to be fresh")

    def compare(self, world: World, *, rested: bool) -> None:
        for names in (Counter(email for email, _ in self.addresses.values()), Counter(self.hosts.values())):
            twice = [name for name, count in names.items() if count > 1 and name != "[erased]"]
            if twice:
                world.breaks(f"R8 {twice} belong to two")
        if self.too_late:
            world.breaks(f"a guard let through: {self.too_late}")
        world.counted["repeated results"] += self.repeats
        world.counted["deadlines passed"] += self.expired
        if self.untrue:
            world.breaks(f"R22 results are repeated that are not there: {self.untrue[:3]}")
        if not rested:
            return
        tables = world.database.tables
        shown = {row.id: row.name for row in tables["datasets"].values()}
        self._equal(world, "names of datasets", shown, self.names)
        self._equal(world, "deleted", self._deleted(tables), self.gone)
        self._equal(world, "images", set(tables["images"]), set(self.images))
        self._equal(world, "phases", {row.id: row.status for row in tables["classifications"].values()}, self.phases)
        self._equal(world, "labels", {row.id: row.label for row in tables["results"].values()}, self.labels)
        hidden = {row.id for row in tables["results"].values() if row.classification_id in self.gone or row.image_id in self.gone}
        self._equal(world, "hidden results", {row.id for row in tables["results"].values() if row.hidden}, hidden)
        people = {(row.subject, row.dataset) for row in tables["dataset_access"].values()}
        self._equal(world, "grants", {place for place in people if place in self.grants}, self.grants)

    @staticmethod
    def _deleted(tables: dict[str, dict[Any, Any]]) -> set[UUID]:
        return {row.id for name in ("datasets", "images", "classifications") for row in tables[name].values() if row.deleted}

    @staticmethod
    def _equal(world: World, what: str, shown: Any, wanted: Any) -> None:
        if shown != wanted:
            differing = shown ^ wanted if isinstance(shown, set) else set(shown.items()) ^ set(wanted.items())
            world.breaks(f"R4 {what} differ from the model: {list(differing)[:4]}")


def _chunks(world: World, model: Model) -> None:
    """R3, R16: one answer for each image of a job, whatever came twice; and no other answers."""
    for place, count in model.chunks.items():
        if count > 1:
            world.breaks(f"R3 chunk {place} was judged {count} times")
    for job, planned in model.planned.items():
        answered = model.answered[job]
        if len(set(answered)) != len(answered) or len(set(planned)) != len(planned):
            world.breaks(f"R3 job {job} planned {len(planned)} images and answered {len(answered)}, some of them twice")
        if not set(answered) <= set(planned):
            world.breaks(f"R3 job {job} answered for images that it did not plan")
        listed = model.requested[job].images
        if listed and not set(planned) <= set(listed):
            world.breaks(f"R23 job {job} covers images that are not in its list")
        missing = set(planned) - set(answered) - model.gone
        if model.phases[job] is JobStatus.COMPLETED and missing:
            world.breaks(f"R3 job {job} is completed without answers for {len(missing)} images")
    for image in model.images.values():
        for job in model.planned:
            said = model.labels.get(result_id(job, image.originator_id))
            data = world.blobs.ever.get(image.sha256)
            if said is not None and data is not None and seen(data).label != said:
                world.breaks(f"R3 image {image.originator_id} is called {said}, and is {seen(data).label}")


# ---- what is derived ---------------------------------------------------------------------------------------------------------------
def _kafka(world: World, head: int) -> None:
    """R5: whoever reads the topic and the store up to its beginning has read everything."""
    positions = [record.about[0] for record in world.broker.partitions[TP(EVENTS, 0)] if record.about]
    if positions and set(positions) != set(range(min(positions), head + 1)):
        world.breaks(f"R5 the topic holds {len(set(positions))} positions from {min(positions)} on; the log ends at {head}")
    if positions and positions[0] > world.database.token.checkpoint.position + 1:
        world.breaks("R5 the topic begins behind what the read models have")


def _read_models(world: World, log: RecorderEventStore, recorded: list[RecordedEvent]) -> None:
    """R4, R19: what was followed live is what a fold from the beginning gives, however the log is cut."""
    if set(world.database.tables["activity"]) != set(range(1, len(recorded) + 1)):
        world.breaks("R5 some events never reached the read models")
    again = MemoryDatabase()
    projector = Projector(lambda: MemoryModels(again), LogDecoder(log))
    at = 0
    while at < len(recorded):
        batch = recorded[at : at + world.chance.choice([1, 7, 50, 500])]
        projector.apply(batch, Checkpoint(at + len(batch)))
        at += len(batch)
    for name, rows in world.database.tables.items():
        if rows != again.tables[name]:
            differing = [key for key in rows.keys() | again.tables[name].keys() if rows.get(key) != again.tables[name].get(key)]
            world.breaks(f"R4 {name} is not what a rebuild gives: {differing[:3]}")


def _blobs(world: World, model: Model) -> None:
    """R12: every image and every model that can be asked for has its bytes."""
    for image in model.images.values():
        if image.originator_id not in model.gone and image.dataset_id not in model.gone and image.sha256 not in world.blobs.kept:
            world.breaks(f"R12 the bytes of image {image.originator_id} are gone")
    for sha256 in model.weights - set(world.blobs.kept):
        world.breaks(f"R12 the weights {sha256} are gone")


def told(world: World) -> dict[str, Any]:
    """What happened, without what chance alone made of it (keys, and all that is sealed with them): the same for the same seed."""
    log = RecorderEventStore(world.recorder, ROOT)
    return {
        "events": [(one.position, one.stream, one.version, one.type, log.decode(one)) for one in world.recorder.select_recorded(0, 10**9)],
        "tables": world.database.tables,
        "told": world.told,
        "passed": world.clock.passed,
    }
