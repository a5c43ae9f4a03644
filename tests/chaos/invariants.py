"""The invariants of a system that recovered from faults, checked in the log, the read models, the blobs and the hash chain."""

import time
from collections import Counter, defaultdict
from typing import NamedTuple

import msgspec
import psycopg

from domain.classification import MAX_CHUNK_IMAGES
from domain.errors import DomainError
from domain.values import result_id
from infrastructure.container import blobs, verify_log
from projections.process.rebuilds import rebuild
from tests.system.conftest import event_log

ENDING = {"ClassificationCompleted", "ClassificationFailed", "ClassificationCancelled", "ClassificationDeleted"}
PAGE = 2000


class InvariantReport(NamedTuple):
    """`broken` names each invariant that does not hold; empty is what is wanted."""

    events: int
    jobs: int
    results: int
    broken: list[str]


def settle(settings, *, within=60.0):
    """Wait until all is done and shown: jobs ended, images inspected, read models at the head.

    Seconds it took; None when that is not reached.
    """
    began = time.monotonic()
    with psycopg.connect(settings.postgres_owner_url, autocommit=True) as connection:
        while time.monotonic() - began < within:
            (open_jobs, behind, uninspected) = connection.execute(
                "select (select count(*) from read.classifications where status in ('pending', 'running') and not deleted),"
                " (select h.position from es.head h) - (select position from read.checkpoint),"
                " (select count(*) from read.work w join read.datasets d on d.id = w.dataset_id and not d.deleted where w.kind = 'inspect')"
            ).fetchone()
            if not (open_jobs or behind or uninspected):
                return time.monotonic() - began
            time.sleep(0.1)
    return None


def check_invariants(settings, journal):
    """Every invariant, looked at on the running system."""
    log = event_log(settings)
    try:
        events = _all(log)
        jobs, results, broken = _of_events(events, log)
        broken += (
            _commands(events)
            + _one_answer_for_the_same_bytes(events, log)
            + _blobs(settings, events, log)
            + _promises(events, journal)
            + _read_models(settings, results)
            + journal.unexpected
        )
        chain = verify_log(settings, log)
        if chain.problem is not None:
            broken.append(chain.problem)
    finally:
        log.close()
    differing = rebuild(settings, check=True).differing
    broken += [f"live and rebuilt differ: {name}" for name in differing]
    return InvariantReport(len(events), jobs, len(results), broken)


def _all(log):
    events, position = [], 0
    while batch := log.read(position, PAGE):
        events += batch
        position = batch[-1].position
    return events


def _of_events(events, log):
    broken = []
    if [one.position for one in events] != list(range(1, len(events) + 1)):
        broken.append("positions are not 1..n")
    versions = defaultdict(list)
    for one in events:
        versions[one.stream].append(one.version)
    broken += [f"stream {stream} has versions {found}" for stream, found in versions.items() if found != list(range(1, len(found) + 1))]
    planned, seen, ended = defaultdict(Counter), defaultdict(Counter), set()
    for one in events:
        match one.type:
            case "ClassificationRequested":
                planned[one.stream].update()
            case "ClassificationPlanned":
                planned[one.stream].update(image.id for image in log.decode(one).images)
            case "ChunkJudged":
                event = log.decode(one)
                found = [*(result.image_id for result in event.results), *(failure.image_id for failure in event.failures)]
                if len(found) > MAX_CHUNK_IMAGES or one.version != 1:
                    broken.append(f"chunk {one.stream} has {len(found)} answers, version {one.version}")
                seen[event.job_id].update(found)
            case kind if kind in ENDING:
                ended.add(one.stream)
    broken += [f"job {job} never ended" for job in planned if job not in ended]
    for job, images in planned.items():
        if max(seen[job].values(), default=0) > 1:
            broken.append(f"job {job} has an image answered twice")
        if job in ended and set(seen[job]) != set(images) and not _cut_short(events, job):
            broken.append(f"job {job} planned {len(images)} images and answered {len(seen[job])}")
    results = {result_id(job, image) for job, images in seen.items() for image in images}
    return len(planned), results, broken


def _one_answer_for_the_same_bytes(events, log):
    """A result that was computed from other bytes says something else than those from the right ones."""
    answers = defaultdict(Counter)
    for one in events:
        if one.type == "ChunkJudged":
            event = log.decode(one)
            for result in event.results:
                answers[result.sha256, event.model_name, event.model_version][result.label, result.scores] += 1
    return [
        f"images {sha256} have {len(found)} different answers of one model" for (sha256, *_), found in answers.items() if len(found) > 1
    ]


def _commands(events):
    """All of a command or nothing of it, and once: its events stand side by side."""
    positions = defaultdict(list)
    for one in events:
        positions[msgspec.json.decode(one.meta)["command_id"]].append(one.position)
    return [f"command {command} stands at {found}" for command, found in positions.items() if found[-1] - found[0] != len(found) - 1]


def _blobs(settings, events, log):
    store, broken = blobs(settings), []
    for sha256 in sorted({log.decode(one).sha256 for one in events if one.type == "ImageUploaded"}):
        try:
            store.read(sha256)
        except DomainError as error:
            broken.append(f"blob {sha256}: {error}")
    return broken


def _cut_short(events, job):
    return any(one.stream == job and one.type in {"ClassificationFailed", "ClassificationCancelled"} for one in events)


def _promises(events, journal):
    known = {}
    for one in events:
        known.setdefault(one.stream, []).append(one.position)
    return [
        f"{promise.kind} {promise.id} was acknowledged at {promise.position} and is not there"
        for promise in journal.acknowledged
        if promise.id not in known or (promise.position and promise.position not in known[promise.id])
    ]


def _read_models(settings, results):
    with psycopg.connect(settings.postgres_owner_url, autocommit=True) as connection:
        shown = {row[0] for row in connection.execute("select id from read.results union select id from read.failures")}
        letters = connection.execute("select count(*) from read.dead_letters").fetchone()[0]
    broken = [] if shown == results else [f"the read model shows {len(shown)} answers, the log holds {len(results)}"]
    return [*broken, *([f"{letters} dead letters"] if letters else [])]
