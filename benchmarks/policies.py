"""A change of a policy over a million results, applied in the background while other events are projected."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from uuid import UUID, uuid4

import psycopg

from benchmarks.filled_log import LABELS, append, uploaded
from benchmarks.measure import Row, database, one, percentile
from domain import policy
from domain.policy import PolicyRules, PolicyScope, policy_id
from infrastructure.embedded.postgres.server import Postgres
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.postgres.profiles import POLICIES
from infrastructure.security.keys import RootKey
from projections.engine import postgres_store
from projections.engine.checkpoints import Checkpoint
from projections.policy_application import PolicyApplication
from projections.process.composition import projector_over

RESULTS = 1_000_000
FILL = """insert into read.results (id, classification_id, image_id, dataset_id, label, confidence, verdict, model_name, model_version,
    scores, created_at, hidden, position, sha256)
  select gen_random_uuid(), %(job)s, gen_random_uuid(), %(dataset)s, %(label)s, c, 'clear', 'pbc8', 1,
    (select jsonb_object_agg(l, case when l = %(label)s then c else (1 - c) / 7 end) from unnest(%(labels)s::text[]) l),
    now() - n * interval '1 second', false, 1, encode(sha256(n::text::bytea), 'hex')
  from (select n, (500 + n %% 500) / 1000.0::float8 as c from generate_series(%(first)s, %(last)s) n) of_number"""
IMAGE_SECONDS = 0.05  # between two images that are uploaded meanwhile


def rows() -> Iterator[Row]:
    with database() as server:
        root = RootKey(bytes(32))
        log = RecorderEventStore(PostgresRecorder(server.app_url, root), root)
        job, dataset = uuid4(), uuid4()
        fill(server, job, dataset)
        for count, scope, target, below in ((100_000, PolicyScope.DATASET, dataset, 0.55), (600_000, PolicyScope.JOB, job, 0.85)):
            before = in_review(server)
            seconds, delays = changed(server, log, scope, target, PolicyRules(review_below=below))
            assert in_review(server) - before == count
            yield Row(name=f"policy that changes {count:,} of 1,000,000 results", value=seconds, unit="s", goal=60, at_least=False)
            yield Row(
                name=f"from append to read models while a policy changes {count:,} results, p99",
                value=percentile(delays, 0.99) * 1000,
                unit="ms",
                goal=500,
                at_least=False,
            )
        log.close()


def fill(server: Postgres, job: UUID, dataset: UUID) -> None:
    with psycopg.connect(server.owner_url, autocommit=True) as owner:
        for first in range(1, RESULTS + 1, 100_000):
            about = {"job": job, "dataset": dataset, "label": LABELS[0], "labels": list(LABELS)}
            owner.execute(FILL, about | {"first": first, "last": first + 99_999})
        owner.execute("vacuum analyze read.results")


def in_review(server: Postgres) -> int:
    return int(str(one(server.owner_url, "select count(*) from read.results where verdict = 'needs_review'")))


def changed(server: Postgres, log: RecorderEventStore, scope: PolicyScope, target: UUID, rules: PolicyRules) -> tuple[float, list[float]]:
    """The seconds until all results follow the rules, and the delays of images that are uploaded meanwhile."""
    by, state = uuid4(), log.load(policy_id(scope, target), policy.evolve)
    about = {"scope": scope, "target": target, "dataset": None, "rules": rules, "reason": "benchmark", "by": by}
    with closing(projector_over(server.app_url, log)) as projector, postgres_store.connect(server.app_url, profile=POLICIES) as connection:

        def follow() -> None:
            at = projector.checkpoint().position
            while events := log.read(at, 500):
                at = events[-1].position
                projector.apply(events, Checkpoint(at))

        append(log, *policy.set_policy(state, **about, at=datetime.now(UTC)))  # type: ignore[arg-type]
        follow()
        with uploading(log, follow, target) as delays:
            began = time.perf_counter()
            PolicyApplication(connection).run()
            seconds = time.perf_counter() - began
    return seconds, delays


@contextmanager
def uploading(log: RecorderEventStore, follow: Callable[[], None], dataset: UUID) -> Iterator[list[float]]:
    """Images are uploaded and projected during the block. Gives the seconds of each."""
    delays: list[float] = []
    done = threading.Event()

    def upload() -> None:
        while not done.wait(IMAGE_SECONDS):
            append(log, *uploaded(uuid4(), dataset, dataset))
            began = time.perf_counter()
            follow()
            delays.append(time.perf_counter() - began)

    thread = threading.Thread(target=upload)
    thread.start()
    yield delays
    done.set()
    thread.join()
