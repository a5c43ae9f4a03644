-- Oldest release: 0.1.0
-- The rules of the record hold where a process that misbehaves cannot skip them: who may append which events, and that what a worker
-- says of an image or a chunk was asked of it. The rules on content are those of `domain/classification.py` and `domain/image.py`.

-- ---- who may append what ------------------------------------------------------------------------------------------------------------
-- A role that is not listed has the rights of a role that it is a member of.
create table ops.writers (
  role    text    primary key,
  topics  text[]  not null,                            -- types of events; '*' stands for all
  actor   uuid,                                        -- the only one in whose name it may append; null: anyone
  keeps   boolean not null                             -- may change claims and secrets
);
insert into ops.writers (role, topics, actor, keeps) values
  ('bioscope_app', '{*}', null, true),
  ('bioscope_api', '{
    UserRegistered,UserRoleChanged,UserStatusChanged,UserProfileChanged,PasswordChanged,UserDeleted,
    SessionStarted,SessionRevoked,RefreshReuseDetected,
    DatasetCreated,DatasetDescribed,DatasetShared,DatasetShareWithdrawn,DatasetDeleted,
    ImageUploaded,ImageDescribed,ImageDeleted,
    DeviceRegistered,DeviceDescribed,DeviceCameOnline,DeviceWentOffline,DeviceRemoved,
    ClassificationRequested,ClassificationPlanned,ClassificationCancelled,ClassificationDeleted}', null, true),
  ('bioscope_relay', '{}', null, false),
  ('bioscope_projector', '{
    ClassificationPlanned,ClassificationCompleted,ClassificationFailed,ClassificationCancelled,ChunkJudged,ImageRejected}',
    '0e642782-2a58-598c-8ee0-dac037d89654', false),
  ('bioscope_inference', '{ChunkJudged,ImageAccepted,ImageRejected}', '864089a8-1c77-50e5-9353-7a6b878835ca', false);
revoke all on ops.writers from public;

-- ---- planned work -------------------------------------------------------------------------------------------------------------------
-- The chunks of open jobs that nobody has judged yet. Derived from the log by es.append, in the transaction of each event.
create table ops.open_chunks (
  job           uuid    not null,
  number        integer not null,
  dataset_id    uuid    not null,
  model_name    text    not null,
  model_version integer not null,
  model_sha256  text    not null,
  images        uuid[]  not null,
  sha256        text[]  not null,                      -- of each image
  primary key (job, number)
);
revoke all on ops.open_chunks from public;

-- FIPS 180-4, for names of at most some hundred bytes: Postgres has no SHA-1 of its own.
create function ops.sha1(message bytea) returns bytea language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
declare
  mask   constant bigint := 4294967295;
  padded bytea := message || '\x80'::bytea
    || decode(repeat('00', (119 - octet_length(message) % 64) % 64), 'hex') || int8send(octet_length(message) * 8::bigint);
  h0 bigint := 1732584193; h1 bigint := 4023233417; h2 bigint := 2562383102; h3 bigint := 271733878; h4 bigint := 3285377520;
  a bigint; b bigint; c bigint; d bigint; e bigint; f bigint; k bigint; x bigint;
  w bigint[];
begin
  for block in 0 .. octet_length(padded) / 64 - 1 loop
    for i in 0 .. 15 loop
      w[i] := (get_byte(padded, block * 64 + i * 4)::bigint << 24) | (get_byte(padded, block * 64 + i * 4 + 1) << 16)
        | (get_byte(padded, block * 64 + i * 4 + 2) << 8) | get_byte(padded, block * 64 + i * 4 + 3);
    end loop;
    for i in 16 .. 79 loop
      x := w[i - 3] # w[i - 8] # w[i - 14] # w[i - 16];
      w[i] := ((x << 1) | (x >> 31)) & mask;
    end loop;
    a := h0; b := h1; c := h2; d := h3; e := h4;
    for i in 0 .. 79 loop
      if i < 20 then
        f := (b & c) | ((~b & mask) & d); k := 1518500249;
      elsif i < 40 then
        f := b # c # d; k := 1859775393;
      elsif i < 60 then
        f := (b & c) | (b & d) | (c & d); k := 2400959708;
      else
        f := b # c # d; k := 3395469782;
      end if;
      x := ((((a << 5) | (a >> 27)) & mask) + f + e + k + w[i]) & mask;
      e := d; d := c; c := ((b << 30) | (b >> 2)) & mask; b := a; a := x;
    end loop;
    h0 := (h0 + a) & mask; h1 := (h1 + b) & mask; h2 := (h2 + c) & mask; h3 := (h3 + d) & mask; h4 := (h4 + e) & mask;
  end loop;
  return substr(int8send(h0), 5) || substr(int8send(h1), 5) || substr(int8send(h2), 5) || substr(int8send(h3), 5) || substr(int8send(h4), 5);
end $$;

-- The stream of a chunk: a UUID of version 5 (RFC 9562), named by the job and the number.
create function ops.chunk_stream(job uuid, number integer) returns uuid language plpgsql immutable strict parallel safe
set search_path = pg_catalog, pg_temp as $$
declare
  name bytea := substr(ops.sha1(uuid_send(job) || convert_to('chunk/' || number, 'UTF8')), 1, 16);
begin
  name := set_byte(name, 6, (get_byte(name, 6) & 15) | 80);
  name := set_byte(name, 8, (get_byte(name, 8) & 63) | 128);
  return encode(name, 'hex')::uuid;
end $$;

-- The images of one chunk of a part of a plan have the indexes from `index * size` on, `size` of them.
create function ops.chunk_size(images integer) returns integer language sql immutable strict parallel safe
  return least(64, greatest(8, (images + 7) / 8));

create function ops.as_json(state bytea) returns json language sql immutable strict parallel safe
  return convert_from(state, 'UTF8')::json;

create function ops.open_plan(of_job uuid, plan json) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  request json;
  size    integer := ops.chunk_size(json_array_length(plan -> 'images'));
begin
  select ops.as_json(e.state) into request from es.events e
    where e.originator_id = of_job and e.originator_version = 1 and e.topic = 'ClassificationRequested';
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

-- Fill ops.open_chunks from the log: for a log that was written by an earlier release, or restored.
create procedure ops.fill_open_chunks() language plpgsql set search_path = pg_catalog, pg_temp as $$
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
  delete from ops.open_chunks c where exists (select from es.events e where e.originator_id = ops.chunk_stream(c.job, c.number));
end $$;

call ops.fill_open_chunks();

-- ---- rules --------------------------------------------------------------------------------------------------------------------------
-- The first rule that a ChunkJudged breaks (null where it is in order), and the chunk that it names.
create function ops.check_judgement(stream uuid, version integer, state bytea, out why text, out job uuid, out number integer)
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  judged   record;
  chunk    ops.open_chunks;
  labels   text[];
  named    uuid[];
  foreign_sha256 boolean;
  wrong_label    boolean;
  wrong_score    boolean;
begin
  select * into judged from json_to_record(ops.as_json(state)) as x (
    job_id uuid, number integer, dataset_id uuid, model_name text, model_version integer, labels json, results json, failures json,
    provenance json);
  job := judged.job_id;
  number := judged.number;
  select * into chunk from ops.open_chunks c where c.job = judged.job_id and c.number = judged.number;
  if chunk.job is null then
    why := 'the chunk was not planned, or its job has ended';
    return;
  end if;
  if stream is distinct from ops.chunk_stream(job, number) or version <> 1 then
    why := 'the event is not in the stream of its chunk';
    return;
  end if;
  if (chunk.dataset_id, chunk.model_name, chunk.model_version)
    is distinct from (judged.dataset_id, judged.model_name, judged.model_version) then
    why := 'the dataset or the model is not that of the job';
    return;
  end if;
  if judged.provenance is not null and judged.provenance ->> 'model_sha256' is distinct from chunk.model_sha256 then
    why := 'the sha256 of the model is not that of the job';
    return;
  end if;

  labels := array(select json_array_elements_text(judged.labels));
  select array_agg(r.image_id),
      bool_or(planned.id is null),
      bool_or(not coalesce(r.label = any (labels) and cardinality(n.scores) = cardinality(labels), false)),
      bool_or(not coalesce(
        translate(r.confidence::text, '0123456789eE+-.', '') = '' and translate(r.scores::text, '0123456789eE+-., ', '') = '[]'
        and r.confidence::text::float8 between 0 and 1 and 0 <= all (n.scores) and 1 >= all (n.scores), false))
    into named, foreign_sha256, wrong_label, wrong_score
    from json_to_recordset(judged.results) as r (image_id uuid, sha256 text, label text, confidence json, scores json)
    cross join lateral (select translate(r.scores::text, '[]', '{}')::float8[] offset 0) as n (scores)
    left join (select distinct p.id, p.sha256 from unnest(chunk.images, chunk.sha256) as p (id, sha256)) planned
      on planned.id = r.image_id and planned.sha256 = r.sha256;
  named := coalesce(named, '{}') || array(select (f ->> 'image_id')::uuid from json_array_elements(judged.failures) f);
  why := case
    when not named <@ chunk.images then 'an image is not in the chunk'
    when cardinality(named) <> (select count(distinct n) from unnest(named) n) then 'an image is answered for twice'
    when foreign_sha256 then 'the sha256 of an image is not the planned one'
    when wrong_label then 'a result does not fit the labels'
    when wrong_score then 'a score is not a number between 0 and 1'
  end;
end $$;

-- The first rule that an ImageAccepted or ImageRejected breaks; null where it is in order. `upload` is that of the same command.
create function ops.check_inspection(stream uuid, state bytea, upload bytea) returns text language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
  topics   text[];
  uploaded text;
begin
  if upload is not null then
    uploaded := ops.as_json(upload) ->> 'sha256';
  else
    select array_agg(e.topic), min(ops.as_json(e.state) ->> 'sha256') filter (where e.topic = 'ImageUploaded') into topics, uploaded
      from es.events e where e.originator_id = stream;
  end if;
  return case
    when uploaded is null then 'the image was not uploaded'
    when 'ImageDeleted' = any (topics) then 'the image was deleted'
    when topics && '{ImageAccepted,ImageRejected,ImageReinspected}' then 'the image was inspected before'
    when ops.as_json(state) ->> 'sha256' <> uploaded then 'the inspected sha256 is not the uploaded one'
  end;
end $$;

-- The rights of the role that is signed in. Whoever may call es.append and is neither listed nor a member of a listed role has those of
-- bioscope_app: the owner gave them.
create function ops.writer() returns ops.writers language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  found_one ops.writers;
begin
  select * into found_one from ops.writers w where w.role = session_user;
  if found_one.role is null then
    select w.* into found_one from ops.writers w left join pg_roles r on r.rolname = w.role
      where w.role = 'bioscope_app' or pg_has_role(session_user, r.oid, 'member')
      order by w.role = 'bioscope_app' and (r.oid is null or not pg_has_role(session_user, r.oid, 'member')),
        w.role = 'bioscope_app' desc, cardinality(w.topics) desc
      limit 1;
  end if;
  return found_one;
end $$;

-- As in migration 0001, with one outcome more: 'refused' (a rule; detail says which).
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
  perform set_config('es.appending', 'on', true);

  for i in 1 .. cardinality(k_id) loop
    verdict := 'appended';
    why := null;
    select k.position, k.digest, k.subject into known from es.commands k where k.id = k_id[i];
    if found then
      verdict := case when known.digest is distinct from k_digest[i] then 'reused' else 'replayed' end;
    end if;

    while g <= cardinality(g_cmd) and g_cmd[g] = i loop
      if verdict = 'appended' then
        select max(v.originator_version) into newest from es.events v where v.originator_id = g_stream[g];
        if newest is null then
          verdict := 'missing';
          why := g_stream[g]::text;
        elsif g_version[g] is not null and newest <> g_version[g] then
          verdict := 'conflict';
        elsif g_closers[g] <> '' and exists (
          select from es.events v where v.originator_id = g_stream[g] and v.topic = any (string_to_array(g_closers[g], ','))
        ) then
          verdict := 'closed';
          why := g_stream[g]::text;
        end if;
      end if;
      g := g + 1;
    end loop;

    until := e;
    while until <= cardinality(e_cmd) and e_cmd[until] = i loop
      if verdict = 'appended' and (until = e or e_stream[until] <> e_stream[until - 1]) then
        select coalesce(max(v.originator_version), 0) into newest from es.events v where v.originator_id = e_stream[until];
        if newest <> e_version[until] - 1 then
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
        insert into es.events (notification_id, originator_id, originator_version, topic, schema_version, state, meta, event_id, recorded_at, hash)
          values (last, e_stream[j], e_version[j], e_topic[j], e_schema[j], e_state[j], k_meta[i], e_id[j], stamp, chain);
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

  if last > head.position then
    update es.head h set position = last, hash = chain;
    perform pg_notify('bioscope_appended', last::text);
  end if;
  perform set_config('es.appending', '', true);
end $$;


-- ---- one role a process -------------------------------------------------------------------------------------------------------------
do $$
declare
  name text;
begin
  foreach name in array '{bioscope_api,bioscope_relay,bioscope_projector,bioscope_inference}'::text[] loop
    if not exists (select from pg_roles where rolname = name) then
      execute format('create role %I login', name);
    end if;
  end loop;
end $$;

create procedure ops.grant_to_processes(target text) language plpgsql as $$
begin
  execute format('grant usage on schema %I to bioscope_api, bioscope_relay, bioscope_projector, bioscope_inference', target);
  execute format('grant select on all tables in schema %I to bioscope_api', target);
  execute format('grant select on %I.checkpoint to bioscope_relay', target);
  execute format('grant select, insert, update, delete on all tables in schema %I to bioscope_projector', target);
  execute format('grant select on %1$I.checkpoint, %1$I.models to bioscope_inference', target);
end $$;
revoke execute on procedure ops.grant_to_processes from public;

alter procedure ops.create_read_models rename to create_read_models_of_one_role;
create procedure ops.create_read_models(target text) language plpgsql as $$
begin
  call ops.create_read_models_of_one_role(target);
  call ops.grant_to_processes(target);
end $$;
revoke execute on procedure ops.create_read_models from public;
call ops.grant_to_processes('read');

revoke execute on all functions in schema ops from public;
revoke execute on all procedures in schema ops from public;
grant usage on schema es, ops to bioscope_api, bioscope_relay, bioscope_projector, bioscope_inference;
grant select on ops.migrations, ops.writers, es.events, es.head to bioscope_api, bioscope_relay, bioscope_projector, bioscope_inference;
grant select on ops.writers to bioscope_app;
grant execute on function es.append to bioscope_api, bioscope_projector, bioscope_inference;

grant select on es.commands, es.claims, es.secrets, es.refresh_tokens, ops.relay, ops.heads, ops.releases, ops.workers, ops.counters
  to bioscope_api;
grant insert, delete on es.refresh_tokens to bioscope_api;
grant execute on function es.use_refresh_token to bioscope_api;

grant select, update on ops.relay to bioscope_relay;
grant select, insert on ops.heads to bioscope_relay;

grant select on es.secrets to bioscope_projector;
grant execute on function ops.advance to bioscope_projector;
grant execute on function ops.log_hash to bioscope_api, bioscope_projector;
grant select, insert, update, delete on ops.releases, ops.counters to bioscope_projector;
grant select on ops.workers to bioscope_projector;

grant select, insert, update, delete on ops.workers to bioscope_inference;
grant select (id), update (held_at) on ops.releases to bioscope_inference;
