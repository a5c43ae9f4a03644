-- The read models. The procedure ops.create_read_models makes the same tables for a rebuild.
-- `make schema` writes this file from infrastructure/postgres/migrations. Do not edit it; rows that migrations insert are not shown.

create schema read;

-- All events, without their content: for live events and audit trails.
create table read.activity (
  position bigint not null,       -- Position of the event.
  at       timestamptz not null,  -- Time of the event.
  type     text not null,         -- Type of the event.
  stream   uuid not null,         -- Stream of the event.
  actor    uuid not null,         -- User, service or part of the system that caused the event.
  dataset  uuid,                  -- Dataset of the event; null if it has none. Refers to datasets.
  subjects uuid[] not null,       -- Ids of everything that the event touches, its stream first.
  primary key ("position")
);
create index activity_about on read.activity using gin (subjects);
create index activity_of_account on read.activity using btree ((subjects[cardinality(subjects)]), "position") where ((dataset is null) or (type = any (array['DatasetShared'::text, 'DatasetShareWithdrawn'::text, 'DatasetTransferred'::text])));
create index activity_of_actor on read.activity using btree (actor, "position") where (type <> 'ChunkJudged'::text);
create index activity_of_dataset on read.activity using btree (dataset, "position") where (dataset is not null);

-- Keys of programs: of service accounts, and of users. Names are in the log only.
create table read.api_keys (
  id          uuid not null,
  version     integer not null,  -- Version of the stream.
  owner_id    uuid not null,     -- Service account or user.
  owner_kind  text not null,     -- service or user.
  scopes      text[] not null,   -- What the key allows.
  dataset_ids uuid[],            -- Datasets that the key reaches; null for all of its owner.
  issued_by   uuid not null,     -- Refers to users.
  issued_at   timestamptz not null,
  expires_at  timestamptz not null,
  revoked_at  timestamptz,       -- When it was revoked; null for a key that was not.
  primary key (id)
);
create index api_keys_newest on read.api_keys using btree (issued_at, id);
create index api_keys_of_owner on read.api_keys using btree (owner_id, issued_at, id);
create trigger access_added after insert on read.api_keys referencing new table as changed for each statement execute function ops.follow_access();
create trigger access_changed after update on read.api_keys referencing new table as changed for each statement execute function ops.follow_access();
create trigger access_removed after delete on read.api_keys referencing old table as changed for each statement execute function ops.follow_access();

-- The position up to which the read models show the log. One row.
create table read.checkpoint (
  projection  text not null,                                               -- Always main.
  position    bigint not null,                                             -- Position of the last event that was applied.
  cluster     text not null,                                               -- Kafka cluster in which next_offset counts; empty if none is known.
  next_offset bigint not null,                                             -- Offset of the next record in the topic bioscope.events.
  generation  bigint not null,                                             -- Rises when another process than the projector changes rows.
  hash        bytea not null default sha256('\x62696f73636f7065'::bytea),  -- Hash of the event at this position, as the log has it.
  primary key (projection)
) with (fillfactor=10);

-- Jobs and their progress.
create table read.classifications (
  id             uuid not null,
  version        integer not null,                      -- Version of the stream.
  dataset_id     uuid not null,                         -- Dataset that the job covers, or that holds its image. Refers to datasets.
  image_id       uuid,                                  -- The only image of the job; null for a whole dataset. Refers to images.
  model_id       uuid not null,                         -- Refers to models.
  model_name     text not null,
  model_version  integer not null,                      -- Number of the model version.
  model_sha256   text not null,
  threshold      double precision not null,             -- Confidence below which a result is to be reviewed.
  created_by     uuid not null,                         -- Refers to users.
  created_at     timestamptz not null,
  updated_at     timestamptz not null,
  status         text not null,                         -- pending, running, completed, failed or cancelled.
  planned        boolean not null,                      -- All parts of the plan are recorded.
  images         integer not null,                      -- Images in the plan.
  chunks         integer not null,                      -- Chunks in the plan.
  judged         integer not null,                      -- Chunks that have results.
  succeeded      integer not null,                      -- Images with a result.
  failed         integer not null,                      -- Images with a failure.
  reason         text,                                  -- Why the job failed.
  deleted        boolean not null,
  position       bigint not null,                       -- Position of the request.
  planes         jsonb,                                 -- Planes and channels that the caller chose: {z, c, t}; null if the model chooses.
  selected       uuid[],                                -- Images of the dataset that the caller listed; null if there is no list. Refers to images.
  filter         jsonb,                                 -- What holds for the images that the job covers; null if nothing was asked.
  path           text,                                  -- Pattern for the relative path of the images; null if nothing was asked.
  external       boolean not null default false,        -- A program outside of the system classifies.
  priority       text not null default 'normal'::text,  -- low, normal or high: the order among the jobs of a person.
  deadline       timestamptz,                           -- Time at which the job ends; null if it has none.
  top_k          integer,                               -- Scores that results show; null for all.
  fresh          boolean not null default false,        -- No earlier result is reused.
  retry_of       uuid,                                  -- Job whose failed images this one classifies again. Refers to classifications.
  started_at     timestamptz,                           -- Time of the first part of the plan.
  last_result_at timestamptz,                           -- Time of the newest results.
  primary key (id)
) with (fillfactor=70);
create index classifications_newest on read.classifications using btree (dataset_id, created_at, id) where (not deleted);
create index classifications_newest_of_all on read.classifications using btree (created_at, id) where (not deleted);
create index classifications_of_image on read.classifications using btree (image_id) where (image_id is not null);
create index classifications_open on read.classifications using btree ("position") where ((status = any (array['pending'::text, 'running'::text])) and (not deleted));

-- Grants on datasets. All administrators share one subject, with one row for each dataset.
create table read.dataset_access (
  subject uuid not null,  -- User or team that has the grant, or the subject of administrators. Refers to users.
  dataset uuid not null,  -- Refers to datasets.
  role    text not null,  -- Grant: viewer, analyst, editor or owner.
  primary key (subject, dataset)
);
create index dataset_access_of on read.dataset_access using btree (dataset);
create trigger access_added after insert on read.dataset_access referencing new table as changed for each statement execute function ops.follow_access();
create trigger access_changed after update on read.dataset_access referencing new table as changed for each statement execute function ops.follow_access();
create trigger access_removed after delete on read.dataset_access referencing old table as changed for each statement execute function ops.follow_access();

-- Datasets. Their images and results have their grants.
create table read.datasets (
  id          uuid not null,
  version     integer not null,  -- Version of the stream.
  name        text not null,
  description text,
  owner_id    uuid not null,     -- Owner. Refers to users.
  created_at  timestamptz not null,
  deleted     boolean not null,
  primary key (id)
);
create index datasets_newest on read.datasets using btree (created_at, id) where (not deleted);

-- Events that could not be applied.
create table read.dead_letters (
  position bigint not null,                     -- Position of the event.
  stream   uuid not null,                       -- Stream of the event.
  type     text not null,                       -- Type of the event.
  reason   text not null,                       -- Error of the last attempt, without private data.
  at       timestamptz not null default now(),  -- Time of the last attempt.
  primary key ("position")
);

-- Microscopes and cameras.
create table read.devices (
  id               uuid not null,
  version          integer not null,  -- Version of the stream.
  name             text not null,
  hostname         text not null,
  location         text,
  firmware_version text,
  registered_at    timestamptz not null,
  online           boolean not null,
  last_seen        timestamptz,       -- Time when the device last came online. Later heartbeats: ops.devices_seen.
  removed          boolean not null,
  primary key (id)
);

-- What each subject may do with datasets: the highest of its own grant and those of its teams. Triggers write it.
create table read.effective_access (
  subject uuid not null,  -- User or team, the subject of administrators, or an API key that is limited to datasets.
  dataset uuid not null,  -- Refers to datasets.
  role    text not null,  -- Grant: viewer, analyst, editor or owner.
  primary key (subject, dataset)
);

-- Images for which a job has no result.
create table read.failures (
  id                uuid not null,
  classification_id uuid not null,  -- Refers to classifications.
  image_id          uuid not null,  -- Refers to images.
  dataset_id        uuid not null,  -- Refers to datasets.
  reason            text not null,  -- Code of the reason.
  detail            text not null,  -- The reason in a sentence.
  created_at        timestamptz not null,
  primary key (id)
);
create index failures_of_job on read.failures using btree (classification_id, created_at, id);

-- The fold version by which each table was filled.
create table read.folds (
  name    text not null,     -- Name of the table.
  version integer not null,  -- Its fold version.
  primary key (name)
);

-- Uploaded images.
create table read.images (
  id              uuid not null,
  version         integer not null,                    -- Version of the stream.
  dataset_id      uuid not null,                       -- Refers to datasets.
  device_id       uuid,                                -- Device that took the image. Refers to devices.
  filename        text collate "C" not null,           -- File name without folders, in Unicode NFC.
  sha256          text not null,                       -- SHA-256 of the file in hexadecimal; names the blob.
  size            bigint not null,                     -- Bytes of the file.
  media_type      text not null,
  width           integer not null,                    -- Pixels; as the file header claims, until the image is accepted.
  height          integer not null,                    -- Pixels; as the file header claims, until the image is accepted.
  bands           integer,                             -- Bands of a pixel; null before the inspection.
  dtype           text,                                -- Number format of a band, such as uint16; null before the inspection.
  pages           integer,                             -- Pages in the main chain of the file; null before the inspection.
  axes            text,                                -- Axes from slowest to fastest, such as YXS; null before the inspection.
  pixel_size_um   double precision,                    -- Edge of a pixel in micrometres; null if the file does not state it.
  uploaded_by     uuid not null,                       -- Refers to users.
  uploaded_at     timestamptz not null,
  analyzed        boolean not null,                    -- A model was run on the image, or a user marked it so.
  accepted        boolean not null,                    -- The whole file was decoded.
  rejected        text,                                -- Code of the reason for a rejection; null if there was none.
  rejected_detail text,                                -- The reason in a sentence.
  deleted         boolean not null,
  position        bigint not null,                     -- Position of the upload. A job covers the images before its own position.
  path            text,                                -- Path below the uploaded folder; null if none was sent.
  reader          integer,                             -- Reader version that decoded the file; null before the inspection.
  warnings        jsonb not null default '[]'::jsonb,  -- List of {code, detail}: what in the file was ignored, assumed or converted.
  primary key (id)
) with (fillfactor=85);
create index images_named on read.images using btree (dataset_id, filename, id) where (not deleted);
create index images_newest on read.images using btree (dataset_id, uploaded_at, id) where (not deleted);
create index images_newest_of_all on read.images using btree (uploaded_at, id) where (not deleted);
create index images_of_blob on read.images using hash (sha256) where (not deleted);
create index images_of_device on read.images using btree (device_id, uploaded_at, id) where ((not deleted) and (device_id is not null));
create index images_planned on read.images using btree (dataset_id, "position") where ((not deleted) and (rejected is null));

-- Invitations to create an account.
create table read.invitations (
  id         uuid not null,
  version    integer not null,      -- Version of the stream.
  email      text,                  -- Address of the person; null once the invitation was accepted or withdrawn.
  role       text not null,         -- Role of the account: viewer, analyst, researcher or admin.
  invited_by uuid not null,         -- Refers to users.
  invited_at timestamptz not null,
  sent_at    timestamptz not null,  -- When it was last sent.
  status     text not null,         -- open, accepted or withdrawn.
  user_id    uuid,                  -- Account that was created; null before. Refers to users.
  primary key (id)
);
create index invitations_newest on read.invitations using btree (invited_at, id);

-- Checks of uploaded model packages, and of versions again.
create table read.model_checks (
  id           uuid not null,
  version      integer not null,  -- Version of the stream.
  status       text not null,     -- pending, passed or failed.
  requested_by uuid not null,     -- Refers to users.
  requested_at timestamptz not null,
  filename     text,              -- Name of the uploaded file; null for a test of a known version.
  sha256       text not null,     -- SHA-256 of the package in hexadecimal; names the blob.
  size         bigint,            -- Bytes of the package; null for a test of a known version.
  model_id     uuid,              -- Model to which the package belongs, once that is known. Refers to models.
  model_name   text,
  number       integer,           -- Number of the version.
  answered_at  timestamptz,       -- Time of the answer; null while the check is pending.
  report       jsonb,             -- What the check measured; null unless it passed.
  code         text,              -- Code of the reason why it failed.
  detail       text,              -- The reason in a sentence.
  file         text,              -- File of the package that is at fault; null if that is not one file.
  field        text,              -- Field of the file that is at fault.
  primary key (id)
);
create index model_checks_newest on read.model_checks using btree (requested_at, id);
create index model_checks_of on read.model_checks using btree (requested_by, requested_at, id);

-- Models and their versions.
create table read.models (
  id             uuid not null,
  version        integer not null,  -- Version of the stream.
  name           text not null,
  description    text not null,
  versions       jsonb not null,    -- List of {number, sha256, size, labels, review_below, added_at, added_by, digest, package, kind, label_texts, release, unit, description, checks}.
  aliases        jsonb not null,    -- Number of a version by alias, such as production.
  created_at     timestamptz not null,
  retired        boolean not null,  -- The model accepts no new jobs.
  promoters      uuid[],            -- Users who may move its aliases and retire it; null if there are none. Refers to users.
  promoter_teams uuid[],            -- Teams whose members may do so; null if there are none. Refers to teams.
  primary key (id)
);

-- Results that were computed from other pixels than a newer reader gives.
create table read.outdated_results (
  id       uuid not null,     -- Id of the result. Refers to results.
  image_id uuid not null,     -- Refers to images.
  reader   integer not null,  -- Reader version that gives other pixels.
  primary key (id)
);

-- Events that wait until a dead letter is resolved.
create table read.parked (
  position bigint not null,  -- Position of the event.
  stream   uuid not null,    -- Stream of the event.
  primary key ("position")
);

-- Policies: the rules by which labels and verdicts follow from scores.
create table read.policies (
  id         uuid not null,
  version    integer not null,  -- Version of the stream.
  scope      text not null,     -- job, dataset or model.
  target_id  uuid not null,     -- Id of the job, dataset or model.
  dataset_id uuid,              -- Dataset of the job, or the dataset itself; null for a model. Refers to datasets.
  rules      jsonb,             -- The rules; null for a policy that was withdrawn.
  set_by     uuid not null,     -- Refers to users.
  set_at     timestamptz not null,
  position   bigint not null,   -- Position of the last change.
  primary key (id)
);

-- How far the results follow the last change of each policy.
create table read.policy_applications (
  id         uuid not null,    -- Refers to policies.
  position   bigint not null,  -- Position of the change.
  reached    jsonb not null,   -- The last result that was derived again.
  applied_at timestamptz,      -- When all results followed the change; null while they are derived again.
  primary key (id)
);

-- Registrations whose address is not verified yet.
create table read.registrations (
  id           uuid not null,
  requested_at timestamptz not null,
  primary key (id)
);
create index registrations_oldest on read.registrations using btree (requested_at, id);

-- Results: one for each image of a job.
create table read.results (
  id                uuid not null,
  classification_id uuid not null,                       -- Refers to classifications.
  image_id          uuid not null,                       -- Refers to images.
  dataset_id        uuid not null,                       -- Refers to datasets.
  label             text not null,                       -- Label that applies best, or the name of a measured quantity.
  confidence        double precision not null,           -- Score of the label, 0 to 1; 0 for a measured quantity.
  verdict           text not null,                       -- clear, needs_review or out_of_domain.
  model_name        text not null,
  model_version     integer not null,
  scores            jsonb not null,                      -- Score of each label, 0 to 1.
  created_at        timestamptz not null,
  hidden            boolean not null,                    -- The job or the image was deleted.
  warnings          jsonb not null default '[]'::jsonb,  -- Warnings of the image when it was classified.
  value             double precision,                    -- Number that a regression gave; null for labels.
  position          bigint not null default 0,           -- Position of the event.
  sha256            text not null default ''::text,      -- SHA-256 of the image in hexadecimal.
  device_id         uuid,                                -- Device that took the image. Refers to devices.
  reused            uuid,                                -- Earlier result that this one repeats; null if the model was run. Refers to results.
  original          jsonb,                               -- What the model said: {label, confidence, verdict}; null while no policy changed it.
  primary key (id)
);
create index results_hidden on read.results using btree (dataset_id, created_at, id) where hidden;
create index results_newest on read.results using btree (dataset_id, created_at, id) include (image_id, confidence, model_name, model_version, "position") where (not hidden);
create index results_of_image on read.results using btree (image_id, model_name, "position") include (hidden);
create index results_of_job on read.results using btree (classification_id, created_at, id) include (dataset_id, confidence) where (not hidden);
create index results_of_label on read.results using btree (dataset_id, label, created_at, id) where (not hidden);
create index results_of_model on read.results using btree (dataset_id, model_name, model_version) where (not hidden);
create index results_of_verdict on read.results using btree (dataset_id, verdict, created_at, id) where ((not hidden) and (verdict <> 'clear'::text));
create trigger tally_added after insert on read.results referencing new table as changed for each statement execute function ops.count_results('1');
create trigger tally_counted after update on read.results referencing new table as changed for each statement execute function ops.count_results('1');
create trigger tally_removed after delete on read.results referencing old table as changed for each statement execute function ops.count_results('-1');
create trigger tally_uncounted after update on read.results referencing old table as changed for each statement execute function ops.count_results('-1');

-- Accounts of programs.
create table read.service_accounts (
  id         uuid not null,
  version    integer not null,  -- Version of the stream.
  name       text not null,
  created_by uuid not null,     -- Refers to users.
  created_at timestamptz not null,
  deleted    boolean not null,
  primary key (id)
);
create index service_accounts_listed on read.service_accounts using btree (created_at, id) where (not deleted);

-- Results of each day, by all that they can be grouped by. Triggers on results write it.
create table read.statistics (
  dataset_id    uuid not null,      -- Refers to datasets.
  day           date not null,      -- Day of the results, in UTC.
  model_name    text not null,
  model_version integer not null,   -- Number of the model version.
  device_id     uuid not null,      -- Device of the image when it was classified; all zeros if it names none. Refers to devices.
  label         text not null,      -- Label in force, or the name of a measured quantity.
  verdict       text not null,      -- Verdict in force: clear, needs_review or out_of_domain.
  count         bigint not null,    -- Results that are not hidden and repeat no earlier one.
  micros        bigint not null,    -- Sum of their confidence, in millionths.
  measured      bigint not null,    -- How many of them are numbers, which have no confidence.
  total         numeric not null,   -- Sum of these numbers.
  bins          bigint[] not null,  -- How many of the others have a confidence from 0 to 0.05, from 0.05 to 0.1, and so on: 20 bins.
  primary key (dataset_id, day, model_name, model_version, device_id, label, verdict)
) with (fillfactor=50);
create index statistics_of_day on read.statistics using btree (day);

-- Results of each dataset and minute. Triggers on results write it.
create table read.tallies (
  dataset_id uuid not null,              -- Refers to datasets.
  minute     timestamptz not null,
  count      bigint not null,            -- Results that are not hidden and repeat no earlier one.
  micros     bigint not null,            -- Sum of their confidence, in millionths.
  measured   bigint not null default 0,  -- How many of them are numbers, which have no confidence.
  primary key (dataset_id, minute)
) with (fillfactor=70);

-- Members of teams.
create table read.team_members (
  team   uuid not null,  -- Refers to teams.
  member uuid not null,  -- Refers to users.
  primary key (team, member)
);
create index team_members_of on read.team_members using btree (member);
create trigger access_added after insert on read.team_members referencing new table as changed for each statement execute function ops.follow_access();
create trigger access_changed after update on read.team_members referencing new table as changed for each statement execute function ops.follow_access();
create trigger access_removed after delete on read.team_members referencing old table as changed for each statement execute function ops.follow_access();

-- Teams.
create table read.teams (
  id         uuid not null,
  version    integer not null,  -- Version of the stream.
  name       text not null,
  owner_id   uuid not null,     -- User who manages the team. Refers to users.
  created_at timestamptz not null,
  deleted    boolean not null,
  primary key (id)
);
create index teams_listed on read.teams using btree (created_at, id) where (not deleted);
create trigger access_added after insert on read.teams referencing new table as changed for each statement execute function ops.follow_access();
create trigger access_changed after update on read.teams referencing new table as changed for each statement execute function ops.follow_access();
create trigger access_removed after delete on read.teams referencing old table as changed for each statement execute function ops.follow_access();

-- Accounts of people.
create table read.users (
  id            uuid not null,
  version       integer not null,  -- Version of the stream.
  email         text not null,     -- E-mail address for signing in.
  username      text not null,
  first_name    text not null,
  last_name     text not null,
  role          text not null,     -- viewer, analyst, researcher or admin.
  status        text not null,     -- active, inactive, suspended or pending.
  institution   text,
  department    text,
  phone         text,
  registered_at timestamptz not null,
  deleted       boolean not null,  -- The account is closed.
  erased        boolean not null,  -- The data key was destroyed; private fields read [erased].
  primary key (id)
);
create index users_listed on read.users using btree (registered_at, id) where (not deleted);

-- Work items: chunks to classify, images to inspect and models to check. The row is deleted when the work is done.
create table read.work (
  id         uuid not null,    -- Id of the chunk, the image or the check.
  kind       text not null,    -- classify, inspect or check.
  job        uuid,             -- Job of a chunk. Refers to classifications.
  number     integer,          -- Number of a chunk in its job.
  dataset_id uuid,             -- Null for a check. Refers to datasets.
  images     jsonb not null,   -- List of {id, sha256}.
  position   bigint not null,  -- Position of the plan, the upload or the request.
  primary key (id)
);
create index work_of_job on read.work using btree (job, number) where (job is not null);
create index work_to_check on read.work using btree ("position") where (kind = 'check'::text);
create index work_to_inspect on read.work using btree ("position") where (kind = 'inspect'::text);

-- Effective grants on datasets that are not deleted. Every query of users joins it.
create view read.visible as
 SELECT a.subject,
    a.dataset,
    a.role
   FROM (read.effective_access a
     JOIN read.datasets d ON ((d.id = a.dataset)))
  WHERE (NOT d.deleted);

grant usage on schema read to bioscope_api, bioscope_app, bioscope_inference, bioscope_projector, bioscope_relay;
grant delete, insert, select, update on table read.activity to bioscope_app, bioscope_projector;
grant select on table read.activity to bioscope_api;
grant delete, insert, select, update on table read.api_keys to bioscope_app, bioscope_projector;
grant select on table read.api_keys to bioscope_api;
grant delete, insert, select, update on table read.checkpoint to bioscope_app, bioscope_projector;
grant select on table read.checkpoint to bioscope_api, bioscope_inference, bioscope_relay;
grant delete, insert, select, update on table read.classifications to bioscope_app, bioscope_projector;
grant select on table read.classifications to bioscope_api;
grant delete, insert, select, update on table read.dataset_access to bioscope_app, bioscope_projector;
grant select on table read.dataset_access to bioscope_api;
grant delete, insert, select, update on table read.datasets to bioscope_app, bioscope_projector;
grant select on table read.datasets to bioscope_api;
grant delete, insert, select, update on table read.dead_letters to bioscope_app, bioscope_projector;
grant select on table read.dead_letters to bioscope_api;
grant delete, insert, select, update on table read.devices to bioscope_app, bioscope_projector;
grant select on table read.devices to bioscope_api;
grant delete, insert, select, update on table read.effective_access to bioscope_app, bioscope_projector;
grant select on table read.effective_access to bioscope_api;
grant delete, insert, select, update on table read.failures to bioscope_app, bioscope_projector;
grant select on table read.failures to bioscope_api;
grant delete, insert, select, update on table read.folds to bioscope_app, bioscope_projector;
grant select on table read.folds to bioscope_api;
grant delete, insert, select, update on table read.images to bioscope_app, bioscope_projector;
grant select on table read.images to bioscope_api;
grant delete, insert, select, update on table read.invitations to bioscope_app, bioscope_projector;
grant select on table read.invitations to bioscope_api;
grant delete, insert, select, update on table read.model_checks to bioscope_app, bioscope_projector;
grant select on table read.model_checks to bioscope_api;
grant delete, insert, select, update on table read.models to bioscope_app, bioscope_projector;
grant select on table read.models to bioscope_api, bioscope_inference;
grant delete, insert, select, update on table read.outdated_results to bioscope_app, bioscope_projector;
grant select on table read.outdated_results to bioscope_api;
grant delete, insert, select, update on table read.parked to bioscope_app, bioscope_projector;
grant select on table read.parked to bioscope_api;
grant delete, insert, select, update on table read.policies to bioscope_app, bioscope_projector;
grant select on table read.policies to bioscope_api;
grant delete, insert, select, update on table read.policy_applications to bioscope_app, bioscope_projector;
grant select on table read.policy_applications to bioscope_api;
grant delete, insert, select, update on table read.registrations to bioscope_app, bioscope_projector;
grant select on table read.registrations to bioscope_api;
grant delete, insert, select, update on table read.results to bioscope_app, bioscope_projector;
grant select on table read.results to bioscope_api;
grant delete, insert, select, update on table read.service_accounts to bioscope_app, bioscope_projector;
grant select on table read.service_accounts to bioscope_api;
grant delete, insert, select, update on table read.statistics to bioscope_app, bioscope_projector;
grant select on table read.statistics to bioscope_api;
grant delete, insert, select, update on table read.tallies to bioscope_app, bioscope_projector;
grant select on table read.tallies to bioscope_api;
grant delete, insert, select, update on table read.team_members to bioscope_app, bioscope_projector;
grant select on table read.team_members to bioscope_api;
grant delete, insert, select, update on table read.teams to bioscope_app, bioscope_projector;
grant select on table read.teams to bioscope_api;
grant delete, insert, select, update on table read.users to bioscope_app, bioscope_projector;
grant select on table read.users to bioscope_api;
grant delete, insert, select, update on table read.visible to bioscope_app, bioscope_projector;
grant select on table read.visible to bioscope_api;
grant delete, insert, select, update on table read.work to bioscope_app, bioscope_projector;
grant select on table read.work to bioscope_api;
