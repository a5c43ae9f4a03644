-- Oldest release: 0.2.0
-- One procedure defines all read models. It replaces a chain of procedures, each of which called the one before and changed its tables.
-- Columns have the order of the live tables. Later migrations replace the whole procedure, and change the live tables to match.

drop procedure ops.create_read_models, ops.create_read_models_without_folds, ops.create_read_models_without_activity_by_dataset,
  ops.create_read_models_of_one_role, ops.create_first_read_models, ops.index_newest, ops.add_image_paths, ops.add_image_warnings,
  ops.add_checkpoint_hash, ops.grant_to_processes, ops.index_activity, ops.add_folds;

create procedure ops.create_read_models(target text) language plpgsql as $$
begin
  execute format('create schema %I', target);
  perform set_config('search_path', target, true);

  -- ---- the engine ------------------------------------------------------------------------------------------------------------------
  create table checkpoint (
    projection  text   primary key,
    position    bigint not null,
    cluster     text   not null,
    next_offset bigint not null,
    generation  bigint not null,
    hash        bytea  not null default sha256('bioscope')
  ) with (fillfactor = 10);
  insert into checkpoint values ('main', 0, '', 0, (extract(epoch from clock_timestamp()) * 1000)::bigint);
  comment on table checkpoint is 'The position up to which the read models show the log. One row.';
  comment on column checkpoint.projection is 'Always main.';
  comment on column checkpoint.position is 'Position of the last event that was applied.';
  comment on column checkpoint.cluster is 'Kafka cluster in which next_offset counts; empty if none is known.';
  comment on column checkpoint.next_offset is 'Offset of the next record in the topic bioscope.events.';
  comment on column checkpoint.generation is 'Rises when another process than the projector changes rows.';
  comment on column checkpoint.hash is 'Hash of the event at this position, as the log has it.';

  create table folds (
    name    text    primary key,
    version integer not null
  );
  comment on table folds is 'The fold version by which each table was filled.';
  comment on column folds.name is 'Name of the table.';
  comment on column folds.version is 'Its fold version.';

  create table dead_letters (
    position bigint      primary key,
    stream   uuid        not null,
    type     text        not null,
    reason   text        not null,
    at       timestamptz not null default now()
  );
  comment on table dead_letters is 'Events that could not be applied.';
  comment on column dead_letters.position is 'Position of the event.';
  comment on column dead_letters.stream is 'Stream of the event.';
  comment on column dead_letters.type is 'Type of the event.';
  comment on column dead_letters.reason is 'Error of the last attempt, without private data.';
  comment on column dead_letters.at is 'Time of the last attempt.';

  create table parked (
    position bigint primary key,
    stream   uuid   not null
  );
  comment on table parked is 'Events that wait until a dead letter is resolved.';
  comment on column parked.position is 'Position of the event.';
  comment on column parked.stream is 'Stream of the event.';

  -- ---- accounts --------------------------------------------------------------------------------------------------------------------
  create table users (
    id            uuid        primary key,
    version       integer     not null,
    email         text        not null,
    username      text        not null,
    first_name    text        not null,
    last_name     text        not null,
    role          text        not null,
    status        text        not null,
    institution   text,
    department    text,
    phone         text,
    registered_at timestamptz not null,
    deleted       boolean     not null,
    erased        boolean     not null
  );
  create index users_listed on users (registered_at, id) where not deleted;
  comment on table users is 'Accounts of people.';
  comment on column users.version is 'Version of the stream.';
  comment on column users.email is 'E-mail address for signing in.';
  comment on column users.role is 'viewer, analyst, researcher or admin.';
  comment on column users.status is 'active, inactive, suspended or pending.';
  comment on column users.deleted is 'The account is closed.';
  comment on column users.erased is 'The data key was destroyed; private fields read [erased].';

  -- ---- datasets --------------------------------------------------------------------------------------------------------------------
  create table datasets (
    id          uuid        primary key,
    version     integer     not null,
    name        text        not null,
    description text,
    owner_id    uuid        not null,
    created_at  timestamptz not null,
    deleted     boolean     not null
  );
  create index datasets_newest on datasets (created_at, id) where not deleted;
  comment on table datasets is 'Datasets. Their images and results have their grants.';
  comment on column datasets.version is 'Version of the stream.';
  comment on column datasets.owner_id is 'Owner. Refers to users.';

  create table dataset_access (
    subject uuid not null,
    dataset uuid not null,
    role    text not null,
    primary key (subject, dataset)
  );
  create index dataset_access_of on dataset_access (dataset);
  comment on table dataset_access is 'Grants on datasets. All administrators share one subject, with one row for each dataset.';
  comment on column dataset_access.subject is 'User who has the grant, or the subject of administrators. Refers to users.';
  comment on column dataset_access.dataset is 'Refers to datasets.';
  comment on column dataset_access.role is 'Grant: viewer, analyst, editor or owner.';

  create view visible as
    select a.subject, a.dataset, a.role from dataset_access a join datasets d on d.id = a.dataset where not d.deleted;
  comment on view visible is 'Grants on datasets that are not deleted. Every query of users joins it.';

  -- ---- images and devices ----------------------------------------------------------------------------------------------------------
  create table images (
    id              uuid        primary key,
    version         integer     not null,
    dataset_id      uuid        not null,
    device_id       uuid,
    filename        text        not null collate "C",
    sha256          text        not null,
    size            bigint      not null,
    media_type      text        not null,
    width           integer     not null,
    height          integer     not null,
    bands           integer,
    dtype           text,
    pages           integer,
    axes            text,
    pixel_size_um   double precision,
    uploaded_by     uuid        not null,
    uploaded_at     timestamptz not null,
    analyzed        boolean     not null,
    accepted        boolean     not null,
    rejected        text,
    rejected_detail text,
    deleted         boolean     not null,
    position        bigint      not null,
    path            text,
    reader          integer,
    warnings        jsonb       not null default '[]'
  ) with (fillfactor = 85);
  create index images_newest_of_all on images (uploaded_at, id) where not deleted;
  create index images_newest on images (dataset_id, uploaded_at, id) where not deleted;
  create index images_named on images (dataset_id, filename, id) where not deleted;
  create index images_planned on images (dataset_id, position) where not deleted and rejected is null;
  create index images_of_blob on images using hash (sha256) where not deleted;
  create index images_of_device on images (device_id, uploaded_at, id) where not deleted and device_id is not null;
  comment on table images is 'Uploaded images.';
  comment on column images.version is 'Version of the stream.';
  comment on column images.dataset_id is 'Refers to datasets.';
  comment on column images.device_id is 'Device that took the image. Refers to devices.';
  comment on column images.filename is 'File name without folders, in Unicode NFC.';
  comment on column images.sha256 is 'SHA-256 of the file in hexadecimal; names the blob.';
  comment on column images.size is 'Bytes of the file.';
  comment on column images.width is 'Pixels; as the file header claims, until the image is accepted.';
  comment on column images.height is 'Pixels; as the file header claims, until the image is accepted.';
  comment on column images.bands is 'Bands of a pixel; null before the inspection.';
  comment on column images.dtype is 'Number format of a band, such as uint16; null before the inspection.';
  comment on column images.pages is 'Pages in the main chain of the file; null before the inspection.';
  comment on column images.axes is 'Axes from slowest to fastest, such as YXS; null before the inspection.';
  comment on column images.pixel_size_um is 'Edge of a pixel in micrometres; null if the file does not state it.';
  comment on column images.uploaded_by is 'Refers to users.';
  comment on column images.analyzed is 'A model was run on the image, or a user marked it so.';
  comment on column images.accepted is 'The whole file was decoded.';
  comment on column images.rejected is 'Code of the reason for a rejection; null if there was none.';
  comment on column images.rejected_detail is 'The reason in a sentence.';
  comment on column images.position is 'Position of the upload. A job covers the images before its own position.';
  comment on column images.path is 'Path below the uploaded folder; null if none was sent.';
  comment on column images.reader is 'Reader version that decoded the file; null before the inspection.';
  comment on column images.warnings is 'List of {code, detail}: what in the file was ignored, assumed or converted.';

  create table devices (
    id               uuid        primary key,
    version          integer     not null,
    name             text        not null,
    hostname         text        not null,
    location         text,
    firmware_version text,
    registered_at    timestamptz not null,
    online           boolean     not null,
    last_seen        timestamptz,
    removed          boolean     not null
  );
  comment on table devices is 'Microscopes and cameras.';
  comment on column devices.version is 'Version of the stream.';
  comment on column devices.last_seen is 'Time when the device last came online. Later heartbeats: ops.devices_seen.';

  -- ---- models and jobs -------------------------------------------------------------------------------------------------------------
  create table models (
    id          uuid        primary key,
    version     integer     not null,
    name        text        not null,
    description text        not null,
    versions    jsonb       not null,
    aliases     jsonb       not null,
    created_at  timestamptz not null,
    retired     boolean     not null
  );
  comment on table models is 'Models and their versions.';
  comment on column models.version is 'Version of the stream.';
  comment on column models.versions is 'List of {number, sha256, size, labels, review_below, added_at}.';
  comment on column models.aliases is 'Number of a version by alias, such as production.';
  comment on column models.retired is 'The model accepts no new jobs.';

  create table classifications (
    id            uuid             primary key,
    version       integer          not null,
    dataset_id    uuid             not null,
    image_id      uuid,
    model_id      uuid             not null,
    model_name    text             not null,
    model_version integer          not null,
    model_sha256  text             not null,
    threshold     double precision not null,
    created_by    uuid             not null,
    created_at    timestamptz      not null,
    updated_at    timestamptz      not null,
    status        text             not null,
    planned       boolean          not null,
    images        integer          not null,
    chunks        integer          not null,
    judged        integer          not null,
    succeeded     integer          not null,
    failed        integer          not null,
    reason        text,
    deleted       boolean          not null,
    position      bigint           not null
  ) with (fillfactor = 70);
  create index classifications_newest_of_all on classifications (created_at, id) where not deleted;
  create index classifications_newest on classifications (dataset_id, created_at, id) where not deleted;
  create index classifications_of_image on classifications (image_id) where image_id is not null;
  create index classifications_open on classifications (position) where status in ('pending', 'running') and not deleted;
  comment on table classifications is 'Jobs and their progress.';
  comment on column classifications.version is 'Version of the stream.';
  comment on column classifications.dataset_id is 'Dataset that the job covers, or that holds its image. Refers to datasets.';
  comment on column classifications.image_id is 'The only image of the job; null for a whole dataset. Refers to images.';
  comment on column classifications.model_id is 'Refers to models.';
  comment on column classifications.model_version is 'Number of the model version.';
  comment on column classifications.threshold is 'Confidence below which a result is to be reviewed.';
  comment on column classifications.created_by is 'Refers to users.';
  comment on column classifications.status is 'pending, running, completed, failed or cancelled.';
  comment on column classifications.planned is 'All parts of the plan are recorded.';
  comment on column classifications.images is 'Images in the plan.';
  comment on column classifications.chunks is 'Chunks in the plan.';
  comment on column classifications.judged is 'Chunks that have results.';
  comment on column classifications.succeeded is 'Images with a result.';
  comment on column classifications.failed is 'Images with a failure.';
  comment on column classifications.reason is 'Why the job failed.';
  comment on column classifications.position is 'Position of the request.';

  create table work (
    id         uuid    primary key,
    kind       text    not null,
    job        uuid,
    number     integer,
    dataset_id uuid    not null,
    images     jsonb   not null,
    position   bigint  not null
  );
  create index work_of_job on work (job, number) where job is not null;
  create index work_to_inspect on work (position) where kind = 'inspect';
  comment on table work is 'Work items: chunks to classify and images to inspect. The row is deleted when the work is done.';
  comment on column work.id is 'Id of the chunk or of the image.';
  comment on column work.kind is 'classify or inspect.';
  comment on column work.job is 'Job of a chunk. Refers to classifications.';
  comment on column work.number is 'Number of a chunk in its job.';
  comment on column work.dataset_id is 'Refers to datasets.';
  comment on column work.images is 'List of {id, sha256}.';
  comment on column work.position is 'Position of the plan or of the upload.';

  create table failures (
    id                uuid        primary key,
    classification_id uuid        not null,
    image_id          uuid        not null,
    dataset_id        uuid        not null,
    reason            text        not null,
    detail            text        not null,
    created_at        timestamptz not null
  );
  create index failures_of_job on failures (classification_id, created_at, id);
  comment on table failures is 'Images for which a job has no result.';
  comment on column failures.classification_id is 'Refers to classifications.';
  comment on column failures.image_id is 'Refers to images.';
  comment on column failures.dataset_id is 'Refers to datasets.';
  comment on column failures.reason is 'Code of the reason.';
  comment on column failures.detail is 'The reason in a sentence.';

  -- ---- results ---------------------------------------------------------------------------------------------------------------------
  create table results (
    id                uuid             primary key,
    classification_id uuid             not null,
    image_id          uuid             not null,
    dataset_id        uuid             not null,
    label             text             not null,
    confidence        double precision not null,
    verdict           text             not null,
    model_name        text             not null,
    model_version     integer          not null,
    scores            jsonb            not null,
    created_at        timestamptz      not null,
    hidden            boolean          not null,
    warnings          jsonb            not null default '[]'
  );
  create index results_newest on results (dataset_id, created_at, id) include (confidence) where not hidden;
  create index results_of_job on results (classification_id, created_at, id) where not hidden;
  create index results_of_image on results (image_id, created_at, id) where not hidden;
  comment on table results is 'Results: one for each image of a job.';
  comment on column results.classification_id is 'Refers to classifications.';
  comment on column results.image_id is 'Refers to images.';
  comment on column results.dataset_id is 'Refers to datasets.';
  comment on column results.label is 'Label with the highest score.';
  comment on column results.confidence is 'Score of the label, 0 to 1.';
  comment on column results.verdict is 'clear, needs_review or out_of_domain.';
  comment on column results.scores is 'Score of each label; they add up to 1.';
  comment on column results.hidden is 'The job or the image was deleted.';
  comment on column results.warnings is 'Warnings of the image when it was classified.';

  create table tallies (
    dataset_id uuid        not null,
    minute     timestamptz not null,
    count      bigint      not null,
    micros     bigint      not null,
    primary key (dataset_id, minute)
  ) with (fillfactor = 70);
  create trigger tally_added after insert on results referencing new table as added for each statement execute function ops.tally();
  create trigger tally_changed after update on results
    referencing old table as gone new table as added for each statement execute function ops.tally();
  create trigger tally_gone after delete on results referencing old table as gone for each statement execute function ops.tally();
  comment on table tallies is 'Results of each dataset and minute. Triggers on results write it.';
  comment on column tallies.dataset_id is 'Refers to datasets.';
  comment on column tallies.count is 'Results that are not hidden.';
  comment on column tallies.micros is 'Sum of their confidence, in millionths.';

  create table outdated_results (
    id       uuid    primary key,
    image_id uuid    not null,
    reader   integer not null
  );
  comment on table outdated_results is 'Results that were computed from other pixels than a newer reader gives.';
  comment on column outdated_results.id is 'Id of the result. Refers to results.';
  comment on column outdated_results.image_id is 'Refers to images.';
  comment on column outdated_results.reader is 'Reader version that gives other pixels.';

  -- ---- activity --------------------------------------------------------------------------------------------------------------------
  create table activity (
    position bigint      primary key,
    at       timestamptz not null,
    type     text        not null,
    stream   uuid        not null,
    actor    uuid        not null,
    dataset  uuid,
    subjects uuid[]      not null
  );
  create index activity_about on activity using gin (subjects);
  create index activity_of_dataset on activity (dataset, position) where dataset is not null;
  create index activity_of_account on activity ((subjects[cardinality(subjects)]), position)
    where dataset is null or type = any (array['DatasetShared', 'DatasetShareWithdrawn']);
  comment on table activity is 'All events, without their content: for live events and audit trails.';
  comment on column activity.position is 'Position of the event.';
  comment on column activity.at is 'Time of the event.';
  comment on column activity.type is 'Type of the event.';
  comment on column activity.stream is 'Stream of the event.';
  comment on column activity.actor is 'User, service or part of the system that caused the event.';
  comment on column activity.dataset is 'Dataset of the event; null if it has none. Refers to datasets.';
  comment on column activity.subjects is 'Ids of everything that the event touches, its stream first.';

  -- ---- rights ----------------------------------------------------------------------------------------------------------------------
  execute format('grant usage on schema %I to bioscope_app, bioscope_api, bioscope_relay, bioscope_projector, bioscope_inference', target);
  execute format('grant select, insert, update, delete on all tables in schema %I to bioscope_app, bioscope_projector', target);
  execute format('grant select on all tables in schema %I to bioscope_api', target);
  grant select on checkpoint to bioscope_relay, bioscope_inference;
  grant select on models to bioscope_inference;
end $$;
revoke execute on procedure ops.create_read_models from public;

-- ---- the live read models -----------------------------------------------------------------------------------------------------------
-- No query reads the table of sessions. A projector of an earlier release finds another generation at its next write, and pauses because
-- its fold versions differ.
update read.checkpoint set generation = generation + 1 where projection = 'main';
drop table read.sessions;
delete from read.folds where name = 'sessions';

-- The live tables get the comments of new ones.
call ops.create_read_models('read_commented');
do $$
declare
  one record;
begin
  for one in
    select case when a.attname is not null then 'column' when c.relkind = 'v' then 'view' else 'table' end as kind,
        format('read.%I', c.relname) || coalesce('.' || quote_ident(a.attname), '') as name, d.description
      from pg_description d
      join pg_class c on c.oid = d.objoid and d.classoid = 'pg_class'::regclass
      left join pg_attribute a on a.attrelid = c.oid and a.attnum = d.objsubid and d.objsubid > 0
      where c.relnamespace = 'read_commented'::regnamespace
  loop
    execute format('comment on %s %s is %L', one.kind, one.name, one.description);
  end loop;
end $$;
drop schema read_commented cascade;
