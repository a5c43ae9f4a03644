-- Oldest release: 0.1.0
-- Releases side by side: which events each running process understands, which types and versions are written at all, and by which
-- versions of the folds the read models were made.

-- ---- what the running processes understand --------------------------------------------------------------------------------------------
create table ops.capabilities (
  id       uuid        primary key,                    -- drawn by the process and readable by no role: nobody else can change the row
  role     name        not null,                       -- that declared it
  kind     text        not null,                       -- api, projector, inference
  process  text        not null,                       -- host and process id
  release  text        not null,
  types    text[]      not null,                       -- of events, each up to a schema version
  versions integer[]   not null,
  paused   text        not null,                       -- why it reads no further; empty while it does
  seen_at  timestamptz not null                        -- by the database's clock
) with (fillfactor = 50);
revoke all on ops.capabilities from public;

-- A process counts as running for 30 s after it was last seen.
create function ops.is_live(seen_at timestamptz) returns boolean language sql stable
  return seen_at between clock_timestamp() - interval '30 s' and clock_timestamp() + interval '30 s';

-- What is declared is bounded: a role has at most 64 rows, the newest, each of at most 500 types. A row is written at most once a second.
create function ops.declare_capabilities(
  of_id uuid, of_kind text, of_process text, of_release text, of_types text[], of_versions integer[], of_paused text
) returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  if cardinality(of_types) > 500 or cardinality(of_types) is distinct from cardinality(of_versions)
    or octet_length(of_types::text) > 65536 then
    raise exception 'a process can declare at most 500 types of events, each with a version' using errcode = 'BS003';
  end if;
  update ops.capabilities c
    set types = of_types, versions = of_versions, paused = left(of_paused, 500), seen_at = clock_timestamp()
    where c.id = of_id and c.role = session_user and not c.seen_at between clock_timestamp() - interval '1 s' and clock_timestamp();
  if found or exists (select from ops.capabilities c where c.id = of_id) then
    return;
  end if;
  perform pg_advisory_xact_lock(hashtext('ops.capabilities'));
  delete from ops.capabilities c where not ops.is_live(c.seen_at);
  delete from ops.capabilities c where c.id in (
    select o.id from ops.capabilities o where o.role = session_user order by o.seen_at desc offset 63);
  insert into ops.capabilities (id, role, kind, process, release, types, versions, paused, seen_at)
    values (of_id, session_user, left(of_kind, 20), left(of_process, 100), left(of_release, 40), of_types, of_versions,
      left(of_paused, 500), clock_timestamp())
    on conflict do nothing;
end $$;

create function ops.withdraw_capabilities(of_id uuid) returns void
language sql security definer set search_path = pg_catalog, pg_temp
  begin atomic
    delete from ops.capabilities c where c.id = of_id and c.role = session_user;
  end;

-- ---- what is written ----------------------------------------------------------------------------------------------------------------
-- Types and schema versions that are written: once here, always here. So a declaration can delay what is new and stop nothing else.
create table ops.written_types (
  topic          text        not null,
  schema_version integer     not null,
  since          timestamptz not null default clock_timestamp(),
  primary key (topic, schema_version)
);
revoke all on ops.written_types from public;
insert into ops.written_types (topic, schema_version)
  select unnest('{
    ChunkJudged,ClassificationCancelled,ClassificationCompleted,ClassificationDeleted,ClassificationFailed,ClassificationPlanned,
    ClassificationRequested,DatasetCreated,DatasetDeleted,DatasetDescribed,DatasetShareWithdrawn,DatasetShared,DeviceCameOnline,
    DeviceDescribed,DeviceRegistered,DeviceRemoved,DeviceWentOffline,ImageAccepted,ImageDeleted,ImageDescribed,ImageReinspected,
    ImageRejected,ImageUploaded,ModelAliasMoved,ModelRetired,ModelVersionAdded,PasswordChanged,PasswordRehashed,RefreshReuseDetected,
    SessionRevoked,SessionStarted,UserDeleted,UserErased,UserProfileChanged,UserRegistered,UserRoleChanged,UserStatusChanged}'::text[]), 1
  union all values ('DeviceDescribed', 2), ('DeviceRegistered', 2);

-- Whether an event of this type and version may be appended: null, or a running process that does not understand it.
-- Only a role that may append the type begins to write it; es.append refuses it to the others.
create function ops.begin_to_write(of_topic text, of_version integer) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  writer   ops.writers := ops.writer();
  lacking  text;
begin
  if exists (select from ops.written_types w where w.topic = of_topic and w.schema_version = of_version)
    or not (of_topic = any (writer.topics) or '*' = any (writer.topics)) or length(of_topic) > 100 or of_version not between 1 and 1000 then
    return null;
  end if;
  select format('%s %s (release %s)', c.kind, c.process, c.release) into lacking from ops.capabilities c
    where ops.is_live(c.seen_at) and not exists (
      select from unnest(c.types, c.versions) known (topic, newest) where known.topic = of_topic and known.newest >= of_version)
    order by c.seen_at desc limit 1;
  if lacking is null then
    insert into ops.written_types (topic, schema_version) values (of_topic, of_version) on conflict do nothing;
  end if;
  return lacking;
end $$;

revoke execute on function ops.is_live, ops.declare_capabilities, ops.withdraw_capabilities, ops.begin_to_write from public;
grant execute on function ops.is_live to bioscope_api, bioscope_app;
grant execute on function ops.declare_capabilities, ops.withdraw_capabilities, ops.begin_to_write
  to bioscope_api, bioscope_projector, bioscope_inference, bioscope_app;
grant select (role, kind, process, release, types, versions, paused, seen_at) on ops.capabilities to bioscope_api, bioscope_app;
grant select on ops.written_types to bioscope_api, bioscope_projector, bioscope_inference, bioscope_app;

-- ---- by which versions of the folds the read models were made -----------------------------------------------------------------------
create procedure ops.add_folds(target text) language plpgsql as $$
begin
  execute format('create table %I.folds (name text primary key, version integer not null)', target);
  execute format('grant select, insert, update, delete on %I.folds to bioscope_app, bioscope_projector', target);
  execute format('grant select on %I.folds to bioscope_api', target);
end $$;
revoke execute on procedure ops.add_folds from public;

alter procedure ops.create_read_models rename to create_read_models_without_folds;
create procedure ops.create_read_models(target text) language plpgsql as $$
begin
  call ops.create_read_models_without_folds(target);
  call ops.add_folds(target);
end $$;
revoke execute on procedure ops.create_read_models from public;

call ops.add_folds('read');
-- Earlier releases had no versions: what they made counts as version 1 of each. Where nothing was applied yet, who begins writes its own.
insert into read.folds (name, version)
  select unnest('{users,sessions,datasets,dataset_access,images,devices,models,classifications,failures,work,results,outdated_results,
    activity}'::text[]), 1
  from read.checkpoint where projection = 'main' and position > 0;
