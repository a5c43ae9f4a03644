-- Oldest release: 0.1.0
-- All that is derived from the log and may be lost, and what the processes keep to themselves meanwhile.

-- Results by dataset and minute, so that a day's figures cost the same however many there are. Kept in the statement that changes
-- results, in whole millionths: sums that forgive any order, and a rebuild finds the same.
create function ops.tally() returns trigger language plpgsql as $$
declare
  added  constant text := 'select dataset_id, created_at, confidence, 1 as way from added where not hidden';
  gone   constant text := 'select dataset_id, created_at, confidence, -1 as way from gone where not hidden';
begin
  execute format(
    'insert into %I.tallies as t (dataset_id, minute, count, micros)
      select dataset_id, date_bin(''1 minute'', created_at, ''2000-01-01 00:00Z''), sum(way), sum(way * round(confidence * 1000000)::bigint)
      from (%s) changed group by 1, 2
      on conflict (dataset_id, minute) do update set count = t.count + excluded.count, micros = t.micros + excluded.micros',
    tg_table_schema,
    case tg_op when 'INSERT' then added when 'DELETE' then gone else added || ' union all ' || gone end
  );
  return null;
end $$;
revoke execute on function ops.tally from public;

-- One procedure makes the read models, in the schema that it is given: a migration calls it, and every rebuild.
create procedure ops.create_read_models(target text) language plpgsql as $$
begin
  execute format('create schema %I', target);
  perform set_config('search_path', target, true);

  -- How far the read models are. `generation` moves when somebody but the projector changes them.
  create table checkpoint (
    projection  text   primary key,
    position    bigint not null,
    cluster     text   not null,                       -- the Kafka cluster in which next_offset counts
    next_offset bigint not null,
    generation  bigint not null
  ) with (fillfactor = 10);
  insert into checkpoint values ('main', 0, '', 0, (extract(epoch from clock_timestamp()) * 1000)::bigint);

  create table users (
    id            uuid primary key,
    version       integer not null,
    email         text not null,
    username      text not null,
    first_name    text not null,
    last_name     text not null,
    role          text not null,
    status        text not null,
    institution   text,
    department    text,
    phone         text,
    registered_at timestamptz not null,
    deleted       boolean not null,
    erased        boolean not null
  );
  create index users_listed on users (registered_at, id) where not deleted;

  create table sessions (
    id         uuid primary key,
    user_id    uuid not null,
    started_at timestamptz not null,
    revoked    boolean not null
  );

  create table datasets (
    id          uuid primary key,
    version     integer not null,
    name        text not null,
    description text,
    owner_id    uuid not null,
    created_at  timestamptz not null,
    deleted     boolean not null
  );

  -- Who may see what. Administrators have one row a dataset, under a subject that they share.
  create table dataset_access (
    subject uuid not null,
    dataset uuid not null,
    role    text not null,
    primary key (subject, dataset)
  );
  create index dataset_access_of on dataset_access (dataset);
  create view visible as
    select a.subject, a.dataset, a.role from dataset_access a join datasets d on d.id = a.dataset where not d.deleted;

  create table images (
    id              uuid primary key,
    version         integer not null,
    dataset_id      uuid not null,
    device_id       uuid,
    filename        text not null collate "C",
    sha256          text not null,
    size            bigint not null,
    media_type      text not null,
    width           integer not null,
    height          integer not null,
    bands           integer,
    dtype           text,
    pages           integer,
    axes            text,
    pixel_size_um   double precision,
    uploaded_by     uuid not null,
    uploaded_at     timestamptz not null,
    analyzed        boolean not null,
    accepted        boolean not null,
    rejected        text,
    rejected_detail text,
    deleted         boolean not null,
    position        bigint not null                    -- of its upload: a job covers what was there when it was asked for
  ) with (fillfactor = 85);
  create index images_newest_of_all on images (uploaded_at, id) where not deleted;
  create index images_newest on images (dataset_id, uploaded_at, id) where not deleted;
  create index images_named on images (dataset_id, filename, id) where not deleted;
  create index images_planned on images (dataset_id, position) where not deleted and rejected is null;
  create index images_of_blob on images using hash (sha256) where not deleted;
  create index images_of_device on images (device_id, uploaded_at, id) where not deleted and device_id is not null;

  create table devices (
    id               uuid primary key,
    version          integer not null,
    name             text not null,
    hostname         text not null,
    location         text,
    firmware_version text,
    registered_at    timestamptz not null,
    online           boolean not null,
    last_seen        timestamptz,
    removed          boolean not null
  );

  create table models (
    id          uuid primary key,
    version     integer not null,
    name        text not null,
    description text not null,
    versions    jsonb not null,
    aliases     jsonb not null,
    created_at  timestamptz not null,
    retired     boolean not null
  );

  create table classifications (
    id            uuid primary key,
    version       integer not null,
    dataset_id    uuid not null,
    image_id      uuid,
    model_id      uuid not null,
    model_name    text not null,
    model_version integer not null,
    model_sha256  text not null,
    threshold     double precision not null,
    created_by    uuid not null,
    created_at    timestamptz not null,
    updated_at    timestamptz not null,
    status        text not null,
    planned       boolean not null,
    images        integer not null,
    chunks        integer not null,
    judged        integer not null,                    -- chunks
    succeeded     integer not null,                    -- images
    failed        integer not null,                    -- images
    reason        text,
    deleted       boolean not null,
    position      bigint not null
  ) with (fillfactor = 70);
  create index classifications_newest on classifications (dataset_id, created_at, id) where not deleted;
  create index classifications_of_image on classifications (image_id) where image_id is not null;
  create index classifications_open on classifications (position) where status in ('pending', 'running') and not deleted;

  -- What somebody has to do: chunks to classify, images to inspect. Done work has no row.
  create table work (
    id         uuid primary key,
    kind       text not null,
    job        uuid,
    number     integer,
    dataset_id uuid not null,
    images     jsonb not null,
    position   bigint not null
  );
  create index work_of_job on work (job, number) where job is not null;
  create index work_to_inspect on work (position) where kind = 'inspect';

  create table results (
    id                uuid primary key,
    classification_id uuid not null,
    image_id          uuid not null,
    dataset_id        uuid not null,
    label             text not null,
    confidence        double precision not null,
    verdict           text not null,
    model_name        text not null,
    model_version     integer not null,
    scores            jsonb not null,
    created_at        timestamptz not null,
    hidden            boolean not null                 -- its job or its image was deleted
  );
  create index results_newest on results (dataset_id, created_at, id) include (confidence) where not hidden;
  create index results_of_job on results (classification_id, created_at, id) where not hidden;
  create index results_of_image on results (image_id, created_at, id) where not hidden;

  create table tallies (
    dataset_id uuid        not null,
    minute     timestamptz not null,
    count      bigint      not null,
    micros     bigint      not null,                   -- sum of confidence, in millionths
    primary key (dataset_id, minute)
  ) with (fillfactor = 70);
  create trigger tally_added after insert on results referencing new table as added for each statement execute function ops.tally();
  create trigger tally_changed after update on results
    referencing old table as gone new table as added for each statement execute function ops.tally();
  create trigger tally_gone after delete on results referencing old table as gone for each statement execute function ops.tally();

  create table failures (
    id                uuid primary key,
    classification_id uuid not null,
    image_id          uuid not null,
    dataset_id        uuid not null,
    reason            text not null,
    detail            text not null,
    created_at        timestamptz not null
  );
  create index failures_of_job on failures (classification_id, created_at, id);

  -- Every event by what it touches: an image's trail finds the chunk that judged it.
  create table activity (
    position bigint primary key,
    at       timestamptz not null,
    type     text not null,
    stream   uuid not null,
    actor    uuid not null,
    dataset  uuid,
    subjects uuid[] not null
  );
  create index activity_about on activity using gin (subjects);

  -- Events that could not be applied, and those that wait behind them.
  create table dead_letters (
    position bigint primary key,
    stream   uuid not null,
    type     text not null,
    reason   text not null,
    at       timestamptz not null default now()
  );
  create table parked (
    position bigint primary key,
    stream   uuid not null
  );

  execute format('grant usage on schema %I to bioscope_app', target);
  execute format('grant select, insert, update, delete on all tables in schema %I to bioscope_app', target);
end $$;
revoke execute on procedure ops.create_read_models from public;

call ops.create_read_models('read');
select set_config('search_path', 'public', true);

-- Move the checkpoint of the read models in the search path, or raise BS001: somebody else has moved it.
create function ops.advance(was bigint, was_generation bigint, becomes bigint, at_cluster text, at_offset bigint, generations integer)
returns void language plpgsql as $$
begin
  update checkpoint
    set position = becomes, cluster = coalesce(at_cluster, cluster), next_offset = coalesce(at_offset, next_offset),
        generation = generation + generations
    where projection = 'main' and position = was and generation = was_generation;
  if not found then
    raise exception 'the checkpoint was moved by somebody else' using errcode = 'BS001';
  end if;
  if current_schema() = 'read' then
    perform pg_notify('bioscope_projected', becomes::text);
  end if;
end $$;
revoke execute on function ops.advance from public;

-- What was given out to workers. Not derived from the log, and no loss: it is given out again.
create table ops.releases (
  id          uuid primary key,                        -- of the work
  attempts    integer not null,
  released_at timestamptz not null,
  given_up    boolean not null default false
);

create table ops.workers (
  id      text primary key,
  seen_at timestamptz not null,
  slots   integer not null,
  lane    text not null
);

create table ops.counters (
  name  text not null,
  label text not null,
  value bigint not null,
  primary key (name, label)
);

grant usage on schema ops to bioscope_app;
grant execute on function ops.advance to bioscope_app;
grant select on ops.migrations to bioscope_app;
grant select, insert, update, delete on ops.releases, ops.workers, ops.counters to bioscope_app;
