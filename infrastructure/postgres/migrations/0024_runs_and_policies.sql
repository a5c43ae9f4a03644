-- Oldest release: 0.2.0
-- Runs over lists and filters, policies, external classifiers, statistics.

update ops.writers set topics = topics || '{PolicySet,PolicyWithdrawn}' where role = 'bioscope_api';

-- ---- external classifiers ------------------------------------------------------------------------------------------------------------
update ops.writers set topics = topics || '{ModelVersionAdded}' where role = 'bioscope_api';

alter table ops.open_chunks add column labels text[];
alter table ops.open_chunks add column threshold double precision;
comment on column ops.open_chunks.labels is 'Labels of the version that an external job runs; null for other jobs.';
comment on column ops.open_chunks.threshold is 'Confidence below which a result of an external job needs review; null for other jobs.';

-- As `domain.model.external_labels`.
create function ops.external_labels(model uuid, number text, sha256 text) returns text[] language sql stable
set search_path = pg_catalog, pg_temp as $$
  select coalesce(max(array(select json_array_elements_text(v.version -> 'labels'))), '{}')
    from (select ops.as_json(e.state) -> 'version' as version from es.stream_events(model, 0) e where e.topic = 'ModelVersionAdded') v
    where v.version ->> 'kind' = 'external' and v.version ->> 'number' = number and v.version ->> 'sha256' = sha256
$$;

-- The first rule that an external version breaks, which a person adds; null where it is in order. The rules are those of
-- `domain/declaration.py` and `domain/model.py`. `actor` is that of the command.
create function ops.check_declaration(stream uuid, state bytea, actor text) returns text language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
  event    json := ops.as_json(state);
  version  json := event -> 'version';
  digest   text := encode(sha256(convert_to(version ->> 'record', 'UTF8')), 'hex');
  model    es.streams;
  versions bigint;
begin
  select * into model from es.streams s where s.stream = check_declaration.stream;
  versions := (select count(*) from es.stream_events(model.stream, 0) e where e.topic = 'ModelVersionAdded');
  return case
    when version ->> 'kind' is distinct from 'external' or event ->> 'check_id' is not null
      then 'a version with a file is added only when its check has passed'
    when (event ->> 'by') is distinct from actor then 'the version is not added for the person who declares it'
    when version ->> 'package' <> '' or version ->> 'size' <> '0' then 'an external version has no file'
    when (version ->> 'sha256', version ->> 'digest') is distinct from (digest, digest) then 'the digest is not that of the declaration'
    when (version ->> 'record')::jsonb is distinct from jsonb_build_object('kind', 'external', 'weights', 'unknown',
        'name', event -> 'name', 'description', event -> 'description', 'labels', version -> 'labels',
        'label_texts', version -> 'label_texts', 'review_below', version -> 'review_below')
      or version ->> 'release' <> '' then 'the version differs from its declaration'
    when ops.check_version(version) is not null then ops.check_version(version)
    when ops.model_stream(event ->> 'name') is distinct from stream then 'the name is not that of the model'
    when es.stream_holds(model, '{ModelRetired}') then 'the model is retired'
    when (version ->> 'number') is distinct from (versions + 1)::text then 'the number is not the next one'
  end;
end $$;
revoke execute on function ops.external_labels, ops.check_declaration from public;

-- As in migration 0018, with the labels and the threshold of external jobs.
create or replace function ops.open_plan(of_job uuid, plan json) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  request json;
  size    integer := ops.chunk_size(json_array_length(plan -> 'images'));
  labels  text[];
begin
  select ops.as_json(e.state) into request from es.streams s, es.event_at(s.first) e
    where s.stream = of_job and e.topic = 'ClassificationRequested';
  if request is null then
    return;
  end if;
  if request ->> 'external' = 'true' then
    labels := ops.external_labels((request ->> 'model_id')::uuid, request ->> 'model_version', request ->> 'model_sha256');
  end if;
  insert into ops.open_chunks (job, number, dataset_id, model_name, model_version, model_sha256, images, sha256, labels, threshold)
    select of_job, (plan ->> 'first_chunk')::integer + (one.place - 1) / size, (request ->> 'dataset_id')::uuid, request ->> 'model_name',
      (request ->> 'model_version')::integer, request ->> 'model_sha256',
      array_agg((one.image ->> 'id')::uuid order by one.place), array_agg(one.image ->> 'sha256' order by one.place),
      labels, case when labels is not null then (request ->> 'threshold')::float8 end
    from json_array_elements(plan -> 'images') with ordinality as one (image, place)
    group by (one.place - 1) / size
    on conflict do nothing;
end $$;

-- ---- rules of the log ----------------------------------------------------------------------------------------------------------------
-- As in migration 0010, with the rules of external jobs and of repeated results. Results that a model computed say what computed them.
create or replace function ops.check_judgement(stream uuid, version integer, state bytea, out why text, out job uuid, out number integer)
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  judged   record;
  chunk    ops.open_chunks;
  labels   text[];
  named    uuid[];
  foreign_sha256 boolean;
  wrong_label    boolean;
  wrong_score    boolean;
  wrong_verdict  boolean;
  more           boolean;                              -- than an external classifier gives
  repeated       boolean;
  computed       boolean;
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
  if chunk.labels is not null and judged.provenance is not null and judged.provenance ->> 'runtime' is distinct from 'external' then
    why := 'the results are not those of an external classifier';
    return;
  end if;

  labels := array(select json_array_elements_text(judged.labels));
  select array_agg(r.image_id),
      bool_or(planned.id is null),
      bool_or(not coalesce(r.label = any (labels)
        and cardinality(n.scores) = case when chunk.labels is null then cardinality(labels) else 0 end, false)),
      bool_or(not coalesce(
        translate(r.confidence::text, '0123456789eE+-.', '') = '' and translate(r.scores::text, '0123456789eE+-., ', '') = '[]'
        and r.confidence::text::float8 between 0 and 1 and 0 <= all (n.scores) and 1 >= all (n.scores), false)),
      bool_or(r.verdict is distinct from case when translate(r.confidence::text, '0123456789eE+-.', '') <> '' then ''
        when r.confidence::text::float8 < chunk.threshold then 'needs_review' else 'clear' end),
      bool_or(r.value is not null or r.reused is not null),
      bool_or(r.reused is not null), bool_or(r.reused is null)
    into named, foreign_sha256, wrong_label, wrong_score, wrong_verdict, more, repeated, computed
    from json_to_recordset(judged.results)
      as r (image_id uuid, sha256 text, label text, confidence json, scores json, verdict text, value json, reused json)
    cross join lateral (select translate(r.scores::text, '[]', '{}')::float8[] offset 0) as n (scores)
    left join (select distinct p.id, p.sha256 from unnest(chunk.images, chunk.sha256) as p (id, sha256)) planned
      on planned.id = r.image_id and planned.sha256 = r.sha256;
  named := coalesce(named, '{}') || array(select (f ->> 'image_id')::uuid from json_array_elements(judged.failures) f);
  why := case
    when not named <@ chunk.images then 'an image is not in the chunk'
    when cardinality(named) <> (select count(distinct n) from unnest(named) n) then 'an image is answered for twice'
    when foreign_sha256 then 'the sha256 of an image is not the planned one'
    when computed and judged.provenance is null then 'nothing says what computed the results'
    when chunk.labels is not null and more is not null and labels is distinct from chunk.labels
      then 'the labels are not those of the version'
    when wrong_label then 'a result does not fit the labels'
    when wrong_score then 'a score is not a number between 0 and 1'
    when repeated and judged.provenance is not null then 'a repeated result names what computed it'
    when repeated and (ops.writer()).role = 'bioscope_inference' then 'only the scheduler repeats earlier results'
    when chunk.labels is not null and more then 'an external classifier gives a label and a confidence'
    when chunk.labels is not null and wrong_verdict then 'a verdict does not follow from the threshold'
  end;
end $$;


-- As `domain.user.User.acts_as`: whether an account is active, and a researcher or an administrator.
create function ops.may_add_models(account uuid) returns boolean language sql stable set search_path = pg_catalog, pg_temp as $$
  select coalesce(
    (array_agg(k.state ->> 'role' order by k.version desc) filter (where k.topic in ('UserRegistered', 'UserRoleChanged')))[1]
      in ('researcher', 'admin')
    and (array_agg(k.state ->> 'status' order by k.version desc) filter (where k.topic in ('UserRegistered', 'UserStatusChanged')))[1]
      = 'active'
    and not bool_or(k.topic in ('UserDeleted', 'UserErased')), false)
  from (select e.topic, e.originator_version as version, ops.as_json(e.state) as state from es.stream_events(account, 0) e) as k;
$$;

-- The first rule of its shape that a version breaks; null where it is in order. That it is what the package says is not known here.
create function ops.check_version(version json) returns text language sql immutable set search_path = pg_catalog, pg_temp as $$
  select case
    when (version ->> 'digest' ~ '^[0-9a-f]{64}$') is not true then 'the digest is no SHA-256 in hexadecimal'
    when (version ->> 'sha256' ~ '^[0-9a-f]{64}$') is not true then 'the sha256 of the weights is none'
    when json_typeof(version -> 'labels') is distinct from 'array'
      or (select count(*) between 1 and 300 and count(*) = count(distinct l.label) and bool_and(l.label <> '')
        from json_array_elements_text(version -> 'labels') as l (label)) is not true
      then 'the labels are missing, too many, empty or double'
    when (version ->> 'record' is json object) is not true then 'the record is no manifest'
  end;
$$;

-- As in migration 0023, with the rights of the person who uploaded the package, and the shape of the version.
-- The first rule that an answer to a check breaks; null where it is in order. `streams`, `topics` and `states` are those of the same
-- command.
create or replace function ops.check_model_answer(
  stream uuid, version integer, topic text, state bytea, streams uuid[], topics text[], states bytea[]
) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  event    json := ops.as_json(state);
  "check"  uuid;
  asked    record;
  model    es.streams;
  versions bigint;                                     -- of the model before the command
begin
  if topic = 'ModelAliasMoved' then
    return case
      when event ->> 'alias' is distinct from 'candidate' then 'a worker may only move the alias candidate'
      when event ->> 'reason' is not null then 'a worker gives no reason for an alias'
      when not exists (select from unnest(streams, topics, states) as n (stream, topic, state) where n.topic = 'ModelVersionAdded'
        and n.stream = check_model_answer.stream and ops.as_json(n.state) #>> '{version,number}' = event ->> 'number'
        and ops.as_json(n.state) ->> 'by' = event ->> 'by')
        then 'a worker may only move the alias to a version that it adds, for the same person'
    end;
  end if;
  "check" := case when topic = 'ModelVersionAdded' then (event ->> 'check_id')::uuid else stream end;
  select s.version, e.topic, ops.as_json(e.state) as state into asked
    from es.streams s cross join lateral es.event_at(s.first) e where s.stream = "check";
  select * into model from es.streams s
    where s.stream = case when topic = 'ModelVersionAdded' then check_model_answer.stream else (event ->> 'model_id')::uuid end;
  versions := (select count(*) from es.stream_events(model.stream, 0) e where e.topic = 'ModelVersionAdded');
  return case
    when asked.topic is null or asked.topic not in ('ModelPackageUploaded', 'ModelTestRequested') then 'nobody asked for the check'
    when asked.version <> 1 then 'the check has an answer already'
    when topic <> 'ModelVersionAdded' and version <> 2 then 'the check has an answer already'
    when (topic = 'ModelCheckFailed' or (topic = 'ModelCheckPassed' and asked.topic = 'ModelTestRequested'))
      and (asked.state ->> 'model_id', asked.state ->> 'number') is distinct from (event ->> 'model_id', event ->> 'number')
      then 'the check was of another version'
    when topic = 'ModelCheckPassed' and ops.model_stream(event ->> 'model_name') is distinct from (event ->> 'model_id')::uuid
      then 'the name is not that of the model'
    when topic = 'ModelCheckPassed' and ((event ->> 'number')::integer between 1 and versions) is not true
      and not exists (select from unnest(streams, topics, states) with ordinality as n (stream, topic, state, place)
        where n.topic = 'ModelVersionAdded' and n.stream = (event ->> 'model_id')::uuid
          and ops.as_json(n.state) #>> '{version,number}' = event ->> 'number' and n.place < array_position(streams, "check"))
      then 'the model has no such version'
    when topic = 'ModelVersionAdded' and asked.topic <> 'ModelPackageUploaded' then 'nobody uploaded the package'
    when topic = 'ModelVersionAdded' and (event ->> 'by') is distinct from (asked.state ->> 'by')
      then 'the version is not added for the person who uploaded it'
    when topic = 'ModelVersionAdded' and (event #>> '{version,package}') is distinct from (asked.state ->> 'sha256')
      then 'the package is not the uploaded one'
    when topic = 'ModelVersionAdded' and not ops.may_add_models((event ->> 'by')::uuid) then 'the person who uploaded it may add no models'
    when topic = 'ModelVersionAdded' and ops.check_version(event -> 'version') is not null then ops.check_version(event -> 'version')
    when topic = 'ModelVersionAdded' and ops.model_stream(event ->> 'name') is distinct from stream then 'the name is not that of the model'
    when topic = 'ModelVersionAdded' and es.stream_holds(model, '{ModelRetired}') then 'the model is retired'
    when topic = 'ModelVersionAdded' and (event #>> '{version,number}') is distinct from (versions + 1)::text
      then 'the number is not the next one'
    when topic = 'ModelVersionAdded' and not exists (select from unnest(streams, topics) as n (stream, topic)
      where n.stream = "check" and n.topic = 'ModelCheckPassed') then 'a version is added only when its check has passed'
    when topic = 'ModelVersionAdded' and cardinality(array_positions(topics, 'ModelVersionAdded')) > 1 then 'a check adds one version'
  end;
end $$;
revoke execute on function ops.check_version, ops.may_add_models from public;

-- As in migration 0023.
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
  together  boolean := cardinality(k_id) > 1 and not e_topic && '{ClassificationPlanned,ImageAccepted,ImageRejected,ModelCheckPassed,ModelCheckFailed,ModelVersionAdded}';
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
      elsif e_topic[j] = 'ModelVersionAdded' and writer.role = 'bioscope_api' then
        why := ops.check_declaration(e_stream[j], e_state[j], ops.as_json(k_meta[i]) #>> '{actor,id}');
        if why is not null then
          verdict := 'refused';
        end if;
      elsif e_topic[j] = 'ModelVersionAdded' and writer.role = 'bioscope_inference'
        and ops.as_json(e_state[j]) #>> '{version,kind}' = 'external' then
        verdict := 'refused';
        why := 'no package is an external classifier';
      elsif e_topic[j] in ('ModelCheckPassed', 'ModelCheckFailed')
        or (writer.role = 'bioscope_inference' and e_topic[j] in ('ModelVersionAdded', 'ModelAliasMoved')) then
        why := ops.check_model_answer(e_stream[j], e_version[j], e_topic[j], e_state[j], e_stream[e : until - 1], e_topic[e : until - 1],
          e_state[e : until - 1]);
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

-- ---- external answers ----------------------------------------------------------------------------------------------------------------
create table ops.external_answers (
  job           uuid             not null,
  image_id      uuid             not null,
  number        integer          not null,
  model_name    text             not null,
  attempts      integer          not null default 0,
  first_sent_at timestamptz,
  sent_at       timestamptz,
  answered_at   timestamptz,
  label         text,
  confidence    double precision,
  done          boolean          not null default false,
  primary key (job, image_id)
);
create index external_answers_chunk on ops.external_answers (job, number);
create index external_answers_waiting on ops.external_answers (model_name, first_sent_at) where answered_at is null and not done;
comment on table ops.external_answers is
  'Images that external classifiers were sent or will be sent, with the first answer to each, until their job has ended.';
comment on column ops.external_answers.job is 'Refers to read.classifications.';
comment on column ops.external_answers.image_id is 'Refers to read.images.';
comment on column ops.external_answers.number is 'The chunk of the job.';
comment on column ops.external_answers.attempts is 'How often the image was sent.';
comment on column ops.external_answers.sent_at is 'When it was sent last.';
comment on column ops.external_answers.confidence is 'From 0 to 1.';
comment on column ops.external_answers.done is 'The chunk is recorded: nothing waits for an answer.';

create table ops.external_models (
  model_name  text        primary key,
  answered_at timestamptz not null
);
comment on table ops.external_models is 'When the external classifier of each model answered last.';

create view ops.external_waits as
  select w.model_name, w.images, w.waiting_since, m.answered_at
  from (
    select model_name, count(*) as images, min(first_sent_at) as waiting_since from ops.external_answers a
    where answered_at is null and not done and first_sent_at is not null
      and exists (select from ops.open_chunks o where o.job = a.job and o.number = a.number)
    group by model_name
  ) w left join ops.external_models m using (model_name);
comment on view ops.external_waits is
  'Models whose external classifier has images of open jobs to answer: since when the oldest of them waits, and the last answer to any image.';

revoke all on ops.external_answers, ops.external_models, ops.external_waits from public;
grant select, insert, update, delete on ops.external_answers to bioscope_inference, bioscope_app;
grant select, insert, update on ops.external_models to bioscope_inference, bioscope_app;
grant select on ops.external_waits to bioscope_api, bioscope_app;

-- ---- the read models ----------------------------------------------------------------------------------------------------------------
-- As in migration 0023, with the new tables and columns.
create or replace procedure ops.create_read_models(target text) language plpgsql as $$
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
    retired     boolean     not null,
    promoters   uuid[]
  );
  comment on table models is 'Models and their versions.';
  comment on column models.version is 'Version of the stream.';
  comment on column models.versions is 'List of {number, sha256, size, labels, review_below, added_at, added_by, digest, package, kind, label_texts, release, unit, description, checks}.';
  comment on column models.aliases is 'Number of a version by alias, such as production.';
  comment on column models.retired is 'The model accepts no new jobs.';
  comment on column models.promoters is 'Users who may move its aliases and retire it; null if there are none. Refers to users.';

  create table model_checks (
    id           uuid        primary key,
    version      integer     not null,
    status       text        not null,
    requested_by uuid        not null,
    requested_at timestamptz not null,
    filename     text,
    sha256       text        not null,
    size         bigint,
    model_id     uuid,
    model_name   text,
    number       integer,
    answered_at  timestamptz,
    report       jsonb,
    code         text,
    detail       text,
    file         text,
    field        text
  );
  create index model_checks_newest on model_checks (requested_at, id);
  create index model_checks_of on model_checks (requested_by, requested_at, id);
  comment on table model_checks is 'Checks of uploaded model packages, and of versions again.';
  comment on column model_checks.version is 'Version of the stream.';
  comment on column model_checks.status is 'pending, passed or failed.';
  comment on column model_checks.requested_by is 'Refers to users.';
  comment on column model_checks.filename is 'Name of the uploaded file; null for a test of a known version.';
  comment on column model_checks.sha256 is 'SHA-256 of the package in hexadecimal; names the blob.';
  comment on column model_checks.size is 'Bytes of the package; null for a test of a known version.';
  comment on column model_checks.model_id is 'Model to which the package belongs, once that is known. Refers to models.';
  comment on column model_checks.number is 'Number of the version.';
  comment on column model_checks.answered_at is 'Time of the answer; null while the check is pending.';
  comment on column model_checks.report is 'What the check measured; null unless it passed.';
  comment on column model_checks.code is 'Code of the reason why it failed.';
  comment on column model_checks.detail is 'The reason in a sentence.';
  comment on column model_checks.file is 'File of the package that is at fault; null if that is not one file.';
  comment on column model_checks.field is 'Field of the file that is at fault.';

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
    position      bigint           not null,
    planes        jsonb,
    selected      uuid[],
    filter        jsonb,
    path          text,
    external      boolean          not null default false,
    priority      text             not null default 'normal',
    deadline      timestamptz,
    top_k         integer,
    fresh         boolean          not null default false,
    retry_of      uuid,
    started_at    timestamptz,
    last_result_at timestamptz
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
  comment on column classifications.planes is 'Planes and channels that the caller chose: {z, c, t}; null if the model chooses.';
  comment on column classifications.selected is 'Images of the dataset that the caller listed; null if there is no list. Refers to images.';
  comment on column classifications.filter is 'What holds for the images that the job covers; null if nothing was asked.';
  comment on column classifications.path is 'Pattern for the relative path of the images; null if nothing was asked.';
  comment on column classifications.external is 'A program outside of the system classifies.';
  comment on column classifications.priority is 'low, normal or high: the order among the jobs of a person.';
  comment on column classifications.deadline is 'Time at which the job ends; null if it has none.';
  comment on column classifications.top_k is 'Scores that results show; null for all.';
  comment on column classifications.fresh is 'No earlier result is reused.';
  comment on column classifications.retry_of is 'Job whose failed images this one classifies again. Refers to classifications.';
  comment on column classifications.started_at is 'Time of the first part of the plan.';
  comment on column classifications.last_result_at is 'Time of the newest results.';

  create table work (
    id         uuid    primary key,
    kind       text    not null,
    job        uuid,
    number     integer,
    dataset_id uuid,
    images     jsonb   not null,
    position   bigint  not null
  );
  create index work_of_job on work (job, number) where job is not null;
  create index work_to_inspect on work (position) where kind = 'inspect';
  create index work_to_check on work (position) where kind = 'check';
  comment on table work is 'Work items: chunks to classify, images to inspect and models to check. The row is deleted when the work is done.';
  comment on column work.id is 'Id of the chunk, the image or the check.';
  comment on column work.kind is 'classify, inspect or check.';
  comment on column work.job is 'Job of a chunk. Refers to classifications.';
  comment on column work.number is 'Number of a chunk in its job.';
  comment on column work.dataset_id is 'Null for a check. Refers to datasets.';
  comment on column work.images is 'List of {id, sha256}.';
  comment on column work.position is 'Position of the plan, the upload or the request.';

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
    warnings          jsonb            not null default '[]',
    value             double precision,
    position          bigint           not null default 0,
    sha256            text             not null default '',
    device_id         uuid,
    reused            uuid,
    original          jsonb
  );
  create index results_newest on results (dataset_id, created_at, id)
    include (image_id, confidence, model_name, model_version, position) where not hidden;
  create index results_of_label on results (dataset_id, label, created_at, id) where not hidden;
  create index results_of_verdict on results (dataset_id, verdict, created_at, id) where not hidden and verdict <> 'clear';
  create index results_of_model on results (dataset_id, model_name, model_version) where not hidden;
  create index results_of_job on results (classification_id, created_at, id) include (dataset_id, confidence) where not hidden;
  create index results_of_image on results (image_id, model_name, position) include (hidden);
  comment on table results is 'Results: one for each image of a job.';
  comment on column results.classification_id is 'Refers to classifications.';
  comment on column results.image_id is 'Refers to images.';
  comment on column results.dataset_id is 'Refers to datasets.';
  comment on column results.label is 'Label that applies best, or the name of a measured quantity.';
  comment on column results.confidence is 'Score of the label, 0 to 1; 0 for a measured quantity.';
  comment on column results.verdict is 'clear, needs_review or out_of_domain.';
  comment on column results.scores is 'Score of each label, 0 to 1.';
  comment on column results.hidden is 'The job or the image was deleted.';
  comment on column results.warnings is 'Warnings of the image when it was classified.';
  comment on column results.value is 'Number that a regression gave; null for labels.';
  comment on column results.position is 'Position of the event.';
  comment on column results.sha256 is 'SHA-256 of the image in hexadecimal.';
  comment on column results.device_id is 'Device that took the image. Refers to devices.';
  comment on column results.reused is 'Earlier result that this one repeats; null if the model was run. Refers to results.';
  comment on column results.original is 'What the model said: {label, confidence, verdict}; null while no policy changed it.';

  -- ---- policies -------------------------------------------------------------------------------------------------------------------
  create table policies (
    id         uuid        primary key,
    version    integer     not null,
    scope      text        not null,
    target_id  uuid        not null,
    dataset_id uuid,
    rules      jsonb,
    set_by     uuid        not null,
    set_at     timestamptz not null,
    position   bigint      not null
  );
  comment on table policies is 'Policies: the rules by which labels and verdicts follow from scores.';
  comment on column policies.version is 'Version of the stream.';
  comment on column policies.scope is 'job, dataset or model.';
  comment on column policies.target_id is 'Id of the job, dataset or model.';
  comment on column policies.dataset_id is 'Dataset of the job, or the dataset itself; null for a model. Refers to datasets.';
  comment on column policies.rules is 'The rules; null for a policy that was withdrawn.';
  comment on column policies.set_by is 'Refers to users.';
  comment on column policies.position is 'Position of the last change.';

  create table policy_applications (
    id         uuid   primary key,
    position   bigint not null,
    reached    jsonb  not null,
    applied_at timestamptz
  );
  comment on table policy_applications is 'How far the results follow the last change of each policy.';
  comment on column policy_applications.id is 'Refers to policies.';
  comment on column policy_applications.position is 'Position of the change.';
  comment on column policy_applications.reached is 'The last result that was derived again.';
  comment on column policy_applications.applied_at is 'When all results followed the change; null while they are derived again.';

  create index results_hidden on results (dataset_id, created_at, id) where hidden;  -- policies change hidden results too

  -- ---- statistics -----------------------------------------------------------------------------------------------------------------

  create table tallies (
    dataset_id uuid        not null,
    minute     timestamptz not null,
    count      bigint      not null,
    micros     bigint      not null,
    measured   bigint      not null default 0,
    primary key (dataset_id, minute)
  ) with (fillfactor = 70);
  comment on table tallies is 'Results of each dataset and minute. Triggers on results write it.';
  comment on column tallies.dataset_id is 'Refers to datasets.';
  comment on column tallies.count is 'Results that are not hidden and repeat no earlier one.';
  comment on column tallies.micros is 'Sum of their confidence, in millionths.';
  comment on column tallies.measured is 'How many of them are numbers, which have no confidence.';

  create table statistics (
    dataset_id    uuid      not null,
    day           date      not null,
    model_name    text      not null,
    model_version integer   not null,
    device_id     uuid      not null,
    label         text      not null,
    verdict       text      not null,
    count         bigint    not null,
    micros        bigint    not null,
    measured      bigint    not null,
    total         numeric   not null,
    bins          bigint[]  not null,
    primary key (dataset_id, day, model_name, model_version, device_id, label, verdict)
  ) with (fillfactor = 50);
  create index statistics_of_day on statistics (day);
  create trigger tally_added after insert on results
    referencing new table as changed for each statement execute function ops.count_results('1');
  create trigger tally_counted after update on results
    referencing new table as changed for each statement execute function ops.count_results('1');
  create trigger tally_uncounted after update on results
    referencing old table as changed for each statement execute function ops.count_results('-1');
  create trigger tally_removed after delete on results
    referencing old table as changed for each statement execute function ops.count_results('-1');
  comment on table statistics is 'Results of each day, by all that they can be grouped by. Triggers on results write it.';
  comment on column statistics.dataset_id is 'Refers to datasets.';
  comment on column statistics.day is 'Day of the results, in UTC.';
  comment on column statistics.model_version is 'Number of the model version.';
  comment on column statistics.device_id is 'Device of the image when it was classified; all zeros if it names none. Refers to devices.';
  comment on column statistics.label is 'Label in force, or the name of a measured quantity.';
  comment on column statistics.verdict is 'Verdict in force: clear, needs_review or out_of_domain.';
  comment on column statistics.count is 'Results that are not hidden and repeat no earlier one.';
  comment on column statistics.micros is 'Sum of their confidence, in millionths.';
  comment on column statistics.measured is 'How many of them are numbers, which have no confidence.';
  comment on column statistics.total is 'Sum of these numbers.';
  comment on column statistics.bins is 'How many of the others have a confidence from 0 to 0.05, from 0.05 to 0.1, and so on: 20 bins.';

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

-- ---- the live read models: jobs -----------------------------------------------------------------------------------------------------
alter table read.classifications add column selected uuid[];
alter table read.classifications add column filter jsonb;
alter table read.classifications add column path text;
alter table read.classifications add column external boolean not null default false;
alter table read.classifications add column priority text not null default 'normal';
alter table read.classifications add column deadline timestamptz;
alter table read.classifications add column top_k integer;
alter table read.classifications add column fresh boolean not null default false;
alter table read.classifications add column retry_of uuid;
alter table read.classifications add column started_at timestamptz;
alter table read.classifications add column last_result_at timestamptz;
comment on column read.classifications.selected is 'Images of the dataset that the caller listed; null if there is no list. Refers to images.';
comment on column read.classifications.filter is 'What holds for the images that the job covers; null if nothing was asked.';
comment on column read.classifications.path is 'Pattern for the relative path of the images; null if nothing was asked.';
comment on column read.classifications.external is 'A program outside of the system classifies.';
comment on column read.classifications.priority is 'low, normal or high: the order among the jobs of a person.';
comment on column read.classifications.deadline is 'Time at which the job ends; null if it has none.';
comment on column read.classifications.top_k is 'Scores that results show; null for all.';
comment on column read.classifications.fresh is 'No earlier result is reused.';
comment on column read.classifications.retry_of is 'Job whose failed images this one classifies again. Refers to classifications.';
comment on column read.classifications.started_at is 'Time of the first part of the plan.';
comment on column read.classifications.last_result_at is 'Time of the newest results.';

-- ---- the live read models: results --------------------------------------------------------------------------------------------------
-- Rows of earlier releases have no position and no sha256 of the image until `bioscope migrate` has rebuilt the read models.
alter table read.results add column position bigint not null default 0;
alter table read.results add column sha256 text not null default '';
alter table read.results add column device_id uuid;
alter table read.results add column reused uuid;
alter table read.results add column original jsonb;
comment on column read.results.position is 'Position of the event.';
comment on column read.results.sha256 is 'SHA-256 of the image in hexadecimal.';
comment on column read.results.device_id is 'Device that took the image. Refers to devices.';
comment on column read.results.reused is 'Earlier result that this one repeats; null if the model was run. Refers to results.';
comment on column read.results.original is 'What the model said: {label, confidence, verdict}; null while no policy changed it.';

-- ---- the live read models: policies -------------------------------------------------------------------------------------------------
create table read.policies (
  id         uuid        primary key,
  version    integer     not null,
  scope      text        not null,
  target_id  uuid        not null,
  dataset_id uuid,
  rules      jsonb,
  set_by     uuid        not null,
  set_at     timestamptz not null,
  position   bigint      not null
);
comment on table read.policies is 'Policies: the rules by which labels and verdicts follow from scores.';
comment on column read.policies.version is 'Version of the stream.';
comment on column read.policies.scope is 'job, dataset or model.';
comment on column read.policies.target_id is 'Id of the job, dataset or model.';
comment on column read.policies.dataset_id is 'Dataset of the job, or the dataset itself; null for a model. Refers to datasets.';
comment on column read.policies.rules is 'The rules; null for a policy that was withdrawn.';
comment on column read.policies.set_by is 'Refers to users.';
comment on column read.policies.position is 'Position of the last change.';

create table read.policy_applications (
  id         uuid   primary key,
  position   bigint not null,
  reached    jsonb  not null,
  applied_at timestamptz
);
comment on table read.policy_applications is 'How far the results follow the last change of each policy.';
comment on column read.policy_applications.id is 'Refers to policies.';
comment on column read.policy_applications.position is 'Position of the change.';
comment on column read.policy_applications.reached is 'The last result that was derived again.';
comment on column read.policy_applications.applied_at is 'When all results followed the change; null while they are derived again.';

grant select, insert, update, delete on read.policies, read.policy_applications to bioscope_app, bioscope_projector;
grant select on read.policies, read.policy_applications to bioscope_api;

-- ---- the live read models: statistics -----------------------------------------------------------------------------------------------
-- In place of `ops.tally`, which stays for the results of earlier releases until they are rebuilt.
-- The argument is 1 for rows that are added, -1 for rows that are taken away. Results that repeat an earlier one do not count. Postgres
-- keeps the plans of these statements, since they name no schema: planning them each time would take longer than a single row does.
-- The search path leads to the results' own schema, where the projector works in any case.
create function ops.count_results() returns trigger language plpgsql as $$
declare
  way  constant integer := tg_argv[0];
  path constant text    := current_setting('search_path');
begin
  if current_schema() is distinct from tg_table_schema then
    perform set_config('search_path', quote_ident(tg_table_schema), true);
  end if;
  insert into tallies as t (dataset_id, minute, count, micros, measured)
    select dataset_id, date_bin('1 minute', created_at, '2000-01-01 00:00Z'), way * count(*),
      way * sum(round(confidence * 1000000)::bigint), way * count(value)
    from changed where not hidden and reused is null group by 1, 2
    on conflict (dataset_id, minute) do update
      set count = t.count + excluded.count, micros = t.micros + excluded.micros, measured = t.measured + excluded.measured;
  with counted as materialized (
    select dataset_id, (created_at at time zone 'UTC')::date as day, model_name, model_version,
      coalesce(device_id, '00000000-0000-0000-0000-000000000000') as device_id, label, verdict, value,
      round(confidence * 1000000)::bigint as micros,
      case when value is null then least(round(confidence * 1000000)::bigint / 50000, 19) end as bin
    from changed where not hidden and reused is null
  )
  insert into statistics as s (dataset_id, day, model_name, model_version, device_id, label, verdict, count, micros, measured, total, bins)
    select dataset_id, day, model_name, model_version, device_id, label, verdict, way * count(*), way * sum(micros), way * count(value),
      trim_scale(way * coalesce(sum(value::numeric), 0)), array[
        way * count(*) filter (where bin = 0), way * count(*) filter (where bin = 1), way * count(*) filter (where bin = 2),
        way * count(*) filter (where bin = 3), way * count(*) filter (where bin = 4), way * count(*) filter (where bin = 5),
        way * count(*) filter (where bin = 6), way * count(*) filter (where bin = 7), way * count(*) filter (where bin = 8),
        way * count(*) filter (where bin = 9), way * count(*) filter (where bin = 10), way * count(*) filter (where bin = 11),
        way * count(*) filter (where bin = 12), way * count(*) filter (where bin = 13), way * count(*) filter (where bin = 14),
        way * count(*) filter (where bin = 15), way * count(*) filter (where bin = 16), way * count(*) filter (where bin = 17),
        way * count(*) filter (where bin = 18), way * count(*) filter (where bin = 19)
      ]
    from counted group by 1, 2, 3, 4, 5, 6, 7
    on conflict (dataset_id, day, model_name, model_version, device_id, label, verdict) do update
      set count = s.count + excluded.count, micros = s.micros + excluded.micros, measured = s.measured + excluded.measured,
        total = trim_scale(s.total + excluded.total), bins = array[
          s.bins[1] + excluded.bins[1], s.bins[2] + excluded.bins[2], s.bins[3] + excluded.bins[3], s.bins[4] + excluded.bins[4],
          s.bins[5] + excluded.bins[5], s.bins[6] + excluded.bins[6], s.bins[7] + excluded.bins[7], s.bins[8] + excluded.bins[8],
          s.bins[9] + excluded.bins[9], s.bins[10] + excluded.bins[10], s.bins[11] + excluded.bins[11], s.bins[12] + excluded.bins[12],
          s.bins[13] + excluded.bins[13], s.bins[14] + excluded.bins[14], s.bins[15] + excluded.bins[15], s.bins[16] + excluded.bins[16],
          s.bins[17] + excluded.bins[17], s.bins[18] + excluded.bins[18], s.bins[19] + excluded.bins[19], s.bins[20] + excluded.bins[20]
        ];
  if current_setting('search_path') <> path then
    perform set_config('search_path', path, true);
  end if;
  return null;
end $$;

create table read.statistics (
  dataset_id    uuid      not null,
  day           date      not null,
  model_name    text      not null,
  model_version integer   not null,
  device_id     uuid      not null,
  label         text      not null,
  verdict       text      not null,
  count         bigint    not null,
  micros        bigint    not null,
  measured      bigint    not null,
  total         numeric   not null,
  bins          bigint[]  not null,
  primary key (dataset_id, day, model_name, model_version, device_id, label, verdict)
) with (fillfactor = 50);
create index statistics_of_day on read.statistics (day);
comment on table read.statistics is 'Results of each day, by all that they can be grouped by. Triggers on results write it.';
comment on column read.statistics.dataset_id is 'Refers to datasets.';
comment on column read.statistics.day is 'Day of the results, in UTC.';
comment on column read.statistics.model_version is 'Number of the model version.';
comment on column read.statistics.device_id is 'Device of the image when it was classified; all zeros if it names none. Refers to devices.';
comment on column read.statistics.label is 'Label in force, or the name of a measured quantity.';
comment on column read.statistics.verdict is 'Verdict in force: clear, needs_review or out_of_domain.';
comment on column read.statistics.count is 'Results that are not hidden and repeat no earlier one.';
comment on column read.statistics.micros is 'Sum of their confidence, in millionths.';
comment on column read.statistics.measured is 'How many of them are numbers, which have no confidence.';
comment on column read.statistics.total is 'Sum of these numbers.';
comment on column read.statistics.bins is 'How many of the others have a confidence from 0 to 0.05, from 0.05 to 0.1, and so on: 20 bins.';
grant select, insert, update, delete on read.statistics to bioscope_app, bioscope_projector;
grant select on read.statistics to bioscope_api;
comment on column read.tallies.count is 'Results that are not hidden and repeat no earlier one.';
revoke execute on function ops.count_results from public;

-- ---- the live read models: indexes and triggers of results ------------------------------------------------------------------------------
-- The fold of results has changed, so `bioscope migrate` replaces the table. Until then, an earlier release goes on with the indexes and
-- the triggers that it knows. Building others here would stop it for as long as that takes.
do $$
begin
  if not exists (select from read.results) then
    drop index read.results_newest, read.results_of_job, read.results_of_image;
    create index results_newest on read.results (dataset_id, created_at, id)
      include (image_id, confidence, model_name, model_version, position) where not hidden;
    create index results_of_label on read.results (dataset_id, label, created_at, id) where not hidden;
    create index results_of_verdict on read.results (dataset_id, verdict, created_at, id) where not hidden and verdict <> 'clear';
    create index results_of_model on read.results (dataset_id, model_name, model_version) where not hidden;
    create index results_of_job on read.results (classification_id, created_at, id) include (dataset_id, confidence) where not hidden;
    create index results_of_image on read.results (image_id, model_name, position) include (hidden);
    create index results_hidden on read.results (dataset_id, created_at, id) where hidden;  -- policies change hidden results too
    drop trigger tally_added on read.results;
    drop trigger tally_changed on read.results;
    drop trigger tally_gone on read.results;
    create trigger tally_added after insert on read.results
      referencing new table as changed for each statement execute function ops.count_results('1');
    create trigger tally_counted after update on read.results
      referencing new table as changed for each statement execute function ops.count_results('1');
    create trigger tally_uncounted after update on read.results
      referencing old table as changed for each statement execute function ops.count_results('-1');
    create trigger tally_removed after delete on read.results
      referencing old table as changed for each statement execute function ops.count_results('-1');
  end if;
end $$;
