-- Oldest release: 0.2.0
-- The log is partitioned by ranges of positions, and what a stream has come to stands in a table of its own. The rows that are here stay where
-- they are: their table becomes the first partition. It is read once, to see that all of them belong there, and once to fill es.streams.
-- Nothing is appended meanwhile.

create function es.partition_size() returns bigint language sql immutable parallel safe return 16777216;

-- 'events_0001' holds the positions from es.partition_size() on, as many as that.
create function es.partition_number(at bigint) returns bigint language sql immutable parallel safe return at / es.partition_size();
create function es.partition_name(number bigint) returns text language sql immutable parallel safe
  return 'events_' || lpad(number::text, greatest(4, length(number::text)), '0');

-- A statement that names a partition: also es.append writes through es.events alone.
create function es.refuse_directly() returns trigger language plpgsql as $$
begin
  raise exception 'the log is append-only: % of a partition is refused', tg_op using errcode = 'insufficient_privilege';
end $$;

create procedure es.protect_partition(name text) language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  execute format('create trigger append_only before insert or update or delete or truncate on es.%I
    for each statement execute function es.refuse_directly()', name);
end $$;

-- ---- the table that is here becomes the first partition ------------------------------------------------------------------------------
select from es.head for update;
lock table es.events in access exclusive mode;

do $$
declare
  first  text;
  beyond bigint;                                       -- its first position that does not belong there
  was    name;
  one    record;
begin
  select es.partition_name(es.partition_number(h.position)), (es.partition_number(h.position) + 1) * es.partition_size()
    into first, beyond from es.head h;
  drop trigger append_only on es.events;
  -- Ids are random, each private field is bound to its own, and the chain covers them: nobody looks an event up by its id.
  alter table es.events drop constraint events_event_id_key;
  execute format('alter table es.events rename to %I', first);
  for one in select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid where i.indrelid = format('es.%I', first)::regclass loop
    execute format('alter index es.%I rename to %I', one.relname, first || substr(one.relname, length('events') + 1));
  end loop;

  execute format('create table es.events (like es.%I including defaults including constraints including storage)
    partition by range (notification_id)', first);
  alter table es.events add primary key (notification_id);
  create index events_administrators on es.events (originator_id, notification_id)
    where topic in ('UserRegistered', 'UserRoleChanged') and position('"role":"admin"'::bytea in state) > 0;
  create index events_long_streams on es.events (originator_id)
    where originator_version = 1001 and not starts_with(topic, 'Classification');
  create trigger append_only before insert or update or delete or truncate on es.events
    for each statement execute function es.refuse();

  -- Who could read it reads the whole, and no partition by itself.
  for one in select case x.grantee when 0 then 'public' else x.grantee::regrole::text end as grantee, x.privilege_type
    from pg_class c, aclexplode(c.relacl) x where c.oid = format('es.%I', first)::regclass and x.grantee <> c.relowner
  loop
    execute format('grant %s on es.events to %s', one.privilege_type, one.grantee);
    execute format('revoke %s on es.%I from %s', one.privilege_type, first, one.grantee);
  end loop;

  execute format('alter table es.events attach partition es.%I for values from (minvalue) to (%s)', first, beyond);
  call es.protect_partition(first);
end $$;

-- ---- partitions that are still to come -----------------------------------------------------------------------------------------------
-- Attaching lets everybody read and write meanwhile.
create procedure es.add_partition(number bigint) language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  name text := es.partition_name(number);
begin
  execute format('create table es.%I (like es.events including defaults including constraints including storage)', name);
  execute format('alter table es.%I add unique (originator_id, originator_version)', name);
  execute format('alter table es.events attach partition es.%I for values from (%s) to (%s)',
    name, number * es.partition_size(), (number + 1) * es.partition_size());
  call es.protect_partition(name);
end $$;

-- Make what is missing of the partitions for all positions up to this one.
create procedure es.prepare_partitions(upto bigint) language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  newest bigint := es.partition_number(upto);
begin
  while to_regclass(format('es.%I', es.partition_name(newest))) is null loop
    newest := newest - 1;
    if newest < 0 then
      raise exception 'es.events has no partition';
    end if;
  end loop;
  for number in newest + 1 .. es.partition_number(upto) loop
    call es.add_partition(number);
  end loop;
end $$;

-- The same ahead of need: where somebody else is changing the table, not now.
create procedure es.prepare_partitions_unless_locked(upto bigint) language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  lock table es.events in share update exclusive mode nowait;
  call es.prepare_partitions(upto);
exception when lock_not_available then
  null;
end $$;

-- ---- streams ---------------------------------------------------------------------------------------------------------------------
-- What each stream has come to. Derived from the log by es.append, in the transaction of each event: versions are checked here, since no
-- index can span partitions, and a reader of a stream knows in which partitions it lies.
create table es.streams (
  first   bigint  not null,                            -- the position of its first event
  newest  bigint  not null,                            -- and of its newest
  stream  uuid    not null,
  version integer not null                             -- of its newest event
) with (fillfactor = 90);

-- For a log that was written by an earlier release, or restored.
create procedure es.fill_streams() language plpgsql set search_path = pg_catalog, pg_temp set work_mem = '64MB' as $$
begin
  perform from es.head for update;                     -- nothing is appended meanwhile
  delete from es.streams;
  insert into es.streams (first, newest, stream, version)
    select min(e.notification_id), max(e.notification_id), e.originator_id, max(e.originator_version) from es.events e group by e.originator_id;
end $$;
call es.fill_streams();
alter table es.streams add primary key (stream);
revoke all on es.streams from public;
grant select on es.streams to bioscope_app, bioscope_api, bioscope_relay, bioscope_projector, bioscope_inference;

-- The plan of each of the three is the same for all positions, and looks at the partitions that matter alone: a plan for each call would cost
-- more than the call.
create function es.event_at(at bigint) returns setof es.events language plpgsql stable rows 1
set plan_cache_mode = force_generic_plan as $$
begin
  return query select e.* from es.events e where e.notification_id = at;
end $$;

-- Of one stream, in their order, later than a version.
create function es.stream_events(of_stream uuid, after integer) returns setof es.events language plpgsql stable rows 10
set plan_cache_mode = force_generic_plan as $$
declare
  known es.streams;
begin
  select * into known from es.streams s where s.stream = of_stream;
  return query select e.* from es.events e
    where e.originator_id = of_stream and e.originator_version > after and e.notification_id between known.first and known.newest
    order by e.originator_version;
end $$;

-- Whether an event of one of these types is in a stream. It reads no data, and begins at the end, where those are that close a stream. The
-- bounds of versions make the index of streams the cheapest way for the planner, however few streams there are.
create function es.stream_holds(known es.streams, topics text[]) returns boolean language plpgsql stable
set plan_cache_mode = force_generic_plan as $$
begin
  return exists (select from (
      select e.topic from es.events e
        where e.originator_id = known.stream and e.originator_version between 1 and known.version
          and e.notification_id between known.first and known.newest
        order by e.originator_version desc
    ) v where v.topic = any (topics));
end $$;

revoke execute on function es.event_at, es.stream_events, es.stream_holds, es.partition_size, es.partition_number, es.partition_name,
  es.refuse_directly from public;
revoke execute on procedure es.add_partition, es.prepare_partitions, es.prepare_partitions_unless_locked, es.protect_partition, es.fill_streams
  from public;
grant execute on function es.event_at, es.stream_events to bioscope_app, bioscope_api, bioscope_relay, bioscope_projector, bioscope_inference;

-- ---- readers of single events and streams look where they lie -------------------------------------------------------------------------
create or replace function ops.log_hash(at bigint) returns bytea language sql stable as $$
  select case when at = 0 then sha256('bioscope') else (select e.hash from es.event_at(at) e) end
$$;

create or replace function ops.open_plan(of_job uuid, plan json) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  request json;
  size    integer := ops.chunk_size(json_array_length(plan -> 'images'));
begin
  select ops.as_json(e.state) into request from es.streams s, es.event_at(s.first) e
    where s.stream = of_job and e.topic = 'ClassificationRequested';
  if request is null then
    return;
  end if;
  insert into ops.open_chunks (job, number, dataset_id, model_name, model_version, model_sha256, images, sha256)
    select of_job, (plan ->> 'first_chunk')::integer + (one.place - 1) / size, (request ->> 'dataset_id')::uuid, request ->> 'model_name',
      (request ->> 'model_version')::integer, request ->> 'model_sha256',
      array_agg((one.image ->> 'id')::uuid order by one.place), array_agg(one.image ->> 'sha256' order by one.place)
    from json_array_elements(plan -> 'images') with ordinality as one (image, place)
    group by (one.place - 1) / size
    on conflict do nothing;
end $$;

create or replace procedure ops.fill_open_chunks() language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  part record;
begin
  perform from es.head for update;                     -- nothing is appended meanwhile
  delete from ops.open_chunks;
  for part in
    select p.originator_id as job, p.state from es.events p where p.topic = 'ClassificationPlanned' and not exists (
      select from es.events x where x.originator_id = p.originator_id
        and x.topic in ('ClassificationCancelled', 'ClassificationCompleted', 'ClassificationFailed', 'ClassificationDeleted'))
  loop
    perform ops.open_plan(part.job, ops.as_json(part.state));
  end loop;
  delete from ops.open_chunks c where exists (select from es.streams s where s.stream = ops.chunk_stream(c.job, c.number));
end $$;

create or replace function ops.check_inspection(stream uuid, state bytea, upload bytea) returns text language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
  topics   text[];
  uploaded text;
begin
  if upload is not null then
    uploaded := ops.as_json(upload) ->> 'sha256';
  else
    select array_agg(e.topic), min(ops.as_json(e.state) ->> 'sha256') filter (where e.topic = 'ImageUploaded') into topics, uploaded
      from es.stream_events(stream, 0) e;
  end if;
  return case
    when uploaded is null then 'the image was not uploaded'
    when 'ImageDeleted' = any (topics) then 'the image was deleted'
    when topics && '{ImageAccepted,ImageRejected,ImageReinspected}' then 'the image was inspected before'
    when ops.as_json(state) ->> 'sha256' <> uploaded then 'the inspected sha256 is not the uploaded one'
  end;
end $$;

-- ---- appending -----------------------------------------------------------------------------------------------------------------------
-- es.append says so by this value. A call of the function as it was, which waited for this migration, says 'on': it is refused with an error
-- after which the process calls again.
create or replace function es.refuse() returns trigger language plpgsql as $$
begin
  if tg_op = 'INSERT' and current_setting('es.appending', true) = 'with streams' then
    return null;
  end if;
  if tg_op = 'INSERT' and current_setting('es.appending', true) = 'on' then
    raise exception 'the log was partitioned meanwhile' using errcode = 'serialization_failure';
  end if;
  raise exception 'the log is append-only: % is refused', tg_op using errcode = 'insufficient_privilege';
end $$;

-- As in migrations 0010 and 0016; versions are compared with es.streams, and partitions are made half of one ahead of need.
create or replace function es.append(
  k_id uuid[], k_digest bytea[], k_subject uuid[], k_meta bytea[],
  e_cmd int[], e_stream uuid[], e_version int[], e_topic text[], e_schema int[], e_state bytea[], e_id uuid[],
  g_cmd int[], g_stream uuid[], g_version int[], g_closers text[],
  c_cmd int[], c_scope text[], c_digest bytea[], c_stream uuid[], c_claimed bool[],
  s_cmd int[], s_kind text[], s_owner uuid[], s_value bytea[]
) returns table (outcome text, "position" bigint, subject uuid, detail text)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  head      record;
  known     record;
  last      bigint;
  chain     bytea;
  stamp     timestamptz;
  micros    bytea;
  e         int := 1;
  g         int := 1;
  c         int := 1;
  s         int := 1;
  until     int;
  verdict   text;
  why       text;
  newest    int;
  stream    es.streams;
  -- Events of several commands are written in one statement, unless something reads them before.
  together  boolean := cardinality(k_id) > 1 and not e_topic && '{ClassificationPlanned,ImageAccepted,ImageRejected}';
  positions bigint[];                                  -- of the events that are to be written so, and their hashes
  hashes    bytea[];
  holder    uuid;
  writer    ops.writers := ops.writer();
  checked   record;
  jobs      uuid[];
  numbers   integer[];
begin
  select h.position, h.hash into head from es.head h for update;
  last := head.position;
  chain := head.hash;
  stamp := clock_timestamp();
  micros := es.framed(int8send((extract(epoch from stamp) * 1000000)::bigint));
  perform set_config('es.appending', 'with streams', true);
  if to_regclass('es.' || es.partition_name(es.partition_number(last + cardinality(e_cmd)))) is null then
    call es.prepare_partitions(last + cardinality(e_cmd));
  end if;
  if together then                                     -- whole, since `unnest` goes by places
    positions := array_fill(null::bigint, array[cardinality(e_cmd)]);
    hashes := array_fill(null::bytea, array[cardinality(e_cmd)]);
  end if;

  for i in 1 .. cardinality(k_id) loop
    verdict := 'appended';
    why := null;
    select k.position, k.digest, k.subject into known from es.commands k where k.id = k_id[i];
    if found then
      verdict := case when known.digest is distinct from k_digest[i] then 'reused' else 'replayed' end;
    end if;

    while g <= cardinality(g_cmd) and g_cmd[g] = i loop
      if verdict = 'appended' then
        select * into stream from es.streams v where v.stream = g_stream[g];
        if stream.version is null then
          verdict := 'missing';
          why := g_stream[g]::text;
        elsif g_version[g] is not null and stream.version <> g_version[g] then
          verdict := 'conflict';
        elsif g_closers[g] <> '' and (
          es.stream_holds(stream, string_to_array(g_closers[g], ','))
        or together and stream.newest > head.position and exists (
          select from unnest(e_stream, e_topic, positions) as n (stream, topic, position)
            where n.stream = g_stream[g] and n.topic = any (string_to_array(g_closers[g], ',')) and n.position is not null
        )) then
          verdict := 'closed';
          why := g_stream[g]::text;
        end if;
      end if;
      g := g + 1;
    end loop;

    until := e;
    while until <= cardinality(e_cmd) and e_cmd[until] = i loop
      if verdict = 'appended' and (until = e or e_stream[until] <> e_stream[until - 1]) then
        select v.version into newest from es.streams v where v.stream = e_stream[until];
        if coalesce(newest, 0) <> e_version[until] - 1 then
          verdict := 'conflict';
        end if;
      end if;
      until := until + 1;
    end loop;

    if verdict = 'appended' then
      for j in c .. cardinality(c_cmd) loop
        exit when c_cmd[j] <> i;
        select l.stream into holder from es.claims l where l.scope = c_scope[j] and l.digest = c_digest[j];
        if c_claimed[j] and found and holder <> c_stream[j] then
          verdict := 'taken';
          why := c_scope[j];
        end if;
      end loop;
    end if;

    if verdict = 'appended' and not writer.keeps and (
      (c <= cardinality(c_cmd) and c_cmd[c] = i) or (s <= cardinality(s_cmd) and s_cmd[s] = i)
    ) then
      verdict := 'refused';
      why := format('%s may not change claims or secrets', writer.role);
    end if;
    if verdict = 'appended' and writer.actor is not null
      and (ops.as_json(k_meta[i]) #>> '{actor,id}')::uuid is distinct from writer.actor then
      verdict := 'refused';
      why := format('%s may not act for others', writer.role);
    end if;
    jobs := '{}';
    numbers := '{}';
    for j in e .. until - 1 loop
      exit when verdict <> 'appended';
      if not (e_topic[j] = any (writer.topics) or '*' = any (writer.topics)) then
        verdict := 'refused';
        why := format('%s may not append %s', writer.role, e_topic[j]);
      elsif e_topic[j] in ('ChunkJudged', 'ImageAccepted', 'ImageRejected') and e_schema[j] <> 1 then
        verdict := 'refused';
        why := format('%s has no schema version %s', e_topic[j], e_schema[j]);
      elsif e_topic[j] = 'ChunkJudged' then
        select * into checked from ops.check_judgement(e_stream[j], e_version[j], e_state[j]);
        jobs := jobs || checked.job;
        numbers := numbers || checked.number;
        if checked.why is not null then
          verdict := 'refused';
          why := checked.why;
        end if;
      elsif e_topic[j] in ('ImageAccepted', 'ImageRejected') then
        why := ops.check_inspection(e_stream[j], e_state[j],
          case when j > e and e_stream[j - 1] = e_stream[j] and e_topic[j - 1] = 'ImageUploaded' then e_state[j - 1] end);
        if why is not null then
          verdict := 'refused';
        end if;
      end if;
    end loop;

    while c <= cardinality(c_cmd) and c_cmd[c] = i loop
      if verdict = 'appended' and c_claimed[c] then
        insert into es.claims (scope, digest, stream) values (c_scope[c], c_digest[c], c_stream[c]) on conflict do nothing;
      elsif verdict = 'appended' and c_digest[c] is null then
        delete from es.claims l where l.stream = c_stream[c];
      elsif verdict = 'appended' then
        delete from es.claims l where l.scope = c_scope[c] and l.digest = c_digest[c] and l.stream = c_stream[c];
      end if;
      c := c + 1;
    end loop;

    while s <= cardinality(s_cmd) and s_cmd[s] = i loop
      if verdict = 'appended' and s_value[s] is null then
        delete from es.secrets x where x.kind = s_kind[s] and x.owner = s_owner[s];
      elsif verdict = 'appended' then
        insert into es.secrets (kind, owner, value) values (s_kind[s], s_owner[s], s_value[s])
          on conflict (kind, owner) do update set value = excluded.value;
      end if;
      s := s + 1;
    end loop;

    if verdict = 'appended' then
      for j in e .. until - 1 loop
        last := last + 1;
        chain := sha256(chain || es.framed(int8send(last)) || es.framed(uuid_send(e_stream[j])) || es.framed(int4send(e_version[j]))
          || es.framed(convert_to(e_topic[j], 'UTF8')) || es.framed(int4send(e_schema[j])) || es.framed(e_state[j])
          || es.framed(k_meta[i]) || es.framed(uuid_send(e_id[j])) || micros);
        if together then
          positions[j] := last;
          hashes[j] := chain;
        else
          insert into es.events (notification_id, originator_id, originator_version, topic, schema_version, state, meta, event_id, recorded_at, hash)
            values (last, e_stream[j], e_version[j], e_topic[j], e_schema[j], e_state[j], k_meta[i], e_id[j], stamp, chain);
        end if;
        if e_version[j] = 1 then
          insert into es.streams (stream, version, first, newest) values (e_stream[j], 1, last, last);
        elsif j = until - 1 or e_stream[j + 1] <> e_stream[j] then
          update es.streams v set version = e_version[j], newest = last where v.stream = e_stream[j];
        end if;
        if e_topic[j] = 'ClassificationPlanned' then
          perform ops.open_plan(e_stream[j], ops.as_json(e_state[j]));
        elsif e_topic[j] in ('ClassificationCancelled', 'ClassificationCompleted', 'ClassificationFailed', 'ClassificationDeleted') then
          delete from ops.open_chunks o where o.job = e_stream[j];
        end if;
      end loop;
      if cardinality(jobs) > 0 then
        delete from ops.open_chunks o using unnest(jobs, numbers) as judged (job, number)
          where o.job = judged.job and o.number = judged.number;
      end if;
      insert into es.commands (id, digest, subject, position, recorded_at) values (k_id[i], k_digest[i], k_subject[i], last, stamp);
      outcome := verdict;
      position := last;
      subject := k_subject[i];
    else
      outcome := verdict;
      position := known.position;
      subject := known.subject;
    end if;
    e := until;
    detail := why;
    return next;
  end loop;

  if together then
    insert into es.events (notification_id, originator_id, originator_version, topic, schema_version, state, meta, event_id, recorded_at, hash)
      select n.position, n.stream, n.version, n.topic, n.schema, n.state, k_meta[n.cmd], n.id, stamp, n.hash
        from unnest(positions, e_cmd, e_stream, e_version, e_topic, e_schema, e_state, e_id, hashes)
          as n (position, cmd, stream, version, topic, schema, state, id, hash)
        where n.position is not null;
  end if;
  if last > head.position then
    update es.head h set position = last, hash = chain;
    if current_setting('bioscope.wakes', true) is distinct from 'after_commit' then
      perform pg_notify('bioscope_appended', last::text);
    end if;
    if to_regclass('es.' || es.partition_name(es.partition_number(last + es.partition_size() / 2))) is null then
      call es.prepare_partitions_unless_locked(last + es.partition_size() / 2);
    end if;
  end if;
  perform set_config('es.appending', '', true);
end $$;
