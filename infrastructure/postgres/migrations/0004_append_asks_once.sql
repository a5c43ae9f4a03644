-- es.append as in 0001, but what most batches do not need is asked once for all: whether any command is known (or comes twice), and
-- whether all streams are new and each is one command's. Only otherwise is it asked for each.
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
  any_known boolean;
  all_new   boolean;
begin
  select h.position, h.hash into head from es.head h for update;
  last := head.position;
  chain := head.hash;
  stamp := clock_timestamp();
  micros := es.framed(int8send((extract(epoch from stamp) * 1000000)::bigint));
  perform set_config('es.appending', 'on', true);
  select null::bigint as position, null::bytea as digest, null::uuid as subject into known;
  any_known := exists (select from es.commands k where k.id = any (k_id))
    or cardinality(k_id) > (select count(distinct id) from unnest(k_id) as given (id));
  all_new := not exists (select from es.events v where v.originator_id = any (e_stream))
    and (select count(distinct stream) = count(distinct (command, stream)) from unnest(e_cmd, e_stream) as given (command, stream));

  for i in 1 .. cardinality(k_id) loop
    verdict := 'appended';
    why := null;
    if any_known then
      select k.position, k.digest, k.subject into known from es.commands k where k.id = k_id[i];
      if found then
        verdict := case when known.digest is distinct from k_digest[i] then 'reused' else 'replayed' end;
      end if;
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
        newest := 0;
        if not all_new then
          select coalesce(max(v.originator_version), 0) into newest from es.events v where v.originator_id = e_stream[until];
        end if;
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
      end loop;
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
