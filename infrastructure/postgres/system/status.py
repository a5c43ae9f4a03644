"""The status of the whole system for readiness and metrics, read from Postgres in one query."""

import msgspec

from application.jobs.work_queue import EXTERNAL_WORKERS
from application.services import QueryDatabase
from infrastructure.postgres.advisory_locks import AdvisoryLock, held

MAX_WAITS = 20  # models with images that wait for an external classifier


class Counter(msgspec.Struct, frozen=True):
    name: str
    label: str
    value: int


class DeclaredProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A running process as it declared itself.

    `paused` is the reason why it reads no further, or empty. `lacks` are written event types that it does not understand, at most 3.
    """

    kind: str
    process: str
    release: str
    paused: str
    lacks: tuple[str, ...]


class ExternalWait(msgspec.Struct, frozen=True, kw_only=True):
    """Images of one model that wait for its external classifier. `silence` is in seconds: since the last answer, or since they wait."""

    model: str
    images: int
    silence: float


class SystemStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Positions: the log's `head`, the last `published` event, and the last `projected` one. Ages are in seconds, 0 if nothing waits.

    `fits`: the log contains the event at the position of the read models. `long_streams` counts streams with more than 1,000 events,
    except jobs. `external_jobs` are open jobs of external classifiers, `bridges` the processes that reach these. `mail_problem` is why no
    mail can be sent, for `mail_waiting` seconds; empty if all is well. `mails_refused` counts mails that were refused for good.
    """

    head: int
    published: int
    projected: int
    fits: bool
    unpublished_age: float
    unprojected_age: float
    dead_letters: int
    parked: int
    task_age: float
    workers: int
    scheduling: bool
    long_streams: int
    counters: tuple[Counter, ...]
    processes: tuple[DeclaredProcess, ...] = ()
    bridges: int = 0
    external_jobs: int = 0
    external_waits: tuple[ExternalWait, ...] = ()
    mail_problem: str = ""
    mail_waiting: float = 0.0
    mails_refused: int = 0

    @property
    def unpublished(self) -> int:
        """The number of events that Kafka does not have: all of them if the relay's checkpoint is beyond the log."""
        return self.head - self.published if self.is_published_in_log else self.head

    @property
    def is_published_in_log(self) -> bool:
        return self.published <= self.head


LIVE_WORKERS = """(select count(*) from ops.workers w where w.lane = '{lane}'
      and w.seen_at between now() - interval '10 s' and now() + interval '10 s')"""
STATUS_QUERY = f"""select h.position as head, r.position as published, c.position as projected,
    c.hash is not distinct from ops.log_hash(c.position) as fits,
    coalesce((select extract(epoch from clock_timestamp() - e.recorded_at) from es.event_at(r.position + 1) e), 0) as unpublished_age,
    coalesce((select extract(epoch from clock_timestamp() - e.recorded_at) from es.event_at(c.position + 1) e), 0) as unprojected_age,
    (select count(*) from dead_letters) as dead_letters,
    (select count(*) from parked) as parked,
    coalesce((select extract(epoch from clock_timestamp() - min(l.released_at)) from ops.releases l where not l.given_up), 0) as task_age,
    {LIVE_WORKERS.format(lane="bulk")} as workers,
    {LIVE_WORKERS.format(lane=EXTERNAL_WORKERS)} as bridges,
    (select count(*) from classifications c where c.status in ('pending', 'running') and not c.deleted and c.external) as external_jobs,
    coalesce((select json_agg(x) from (
      select w.model_name as model, w.images,
        extract(epoch from clock_timestamp() - greatest(w.waiting_since, w.answered_at)) as silence
      from ops.external_waits w order by silence desc limit {MAX_WAITS}) x), '[]') as external_waits,
    {held(AdvisoryLock.SCHEDULER)} as scheduling,
    m.problem as mail_problem,
    coalesce(extract(epoch from clock_timestamp() - m.problem_since), 0) as mail_waiting,
    (select count(*) from ops.mail_failures f where f.next_attempt_at is null) as mails_refused,
    (select count(*) from es.events e
      where e.originator_version = 1001 and not starts_with(e.topic, 'Classification')) as long_streams,  -- the index of migration 0015
    coalesce((select json_agg(k) from (select name, label, value from ops.counters) k), '[]') as counters,
    coalesce((select json_agg(p) from (
      select k.kind, k.process, k.release, k.paused, array(
        select w.topic || ' version ' || w.schema_version from ops.written_types w where not exists (
          select from unnest(k.types, k.versions) known (topic, newest) where known.topic = w.topic and known.newest >= w.schema_version)
        order by 1 limit 3) as lacks
      from ops.capabilities k where ops.is_live(k.seen_at) order by k.paused = '', k.kind, k.process limit 20) p), '[]') as processes
  from es.head h, ops.relay r, checkpoint c, ops.mail_checkpoint m where c.projection = 'main'"""  # noqa: S608 - constants


async def system_status(reads: QueryDatabase) -> SystemStatus:
    """Read the status. Raises Unavailable."""
    return (await reads.rows(STATUS_QUERY, {}, into=SystemStatus))[0]
