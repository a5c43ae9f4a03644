-- Oldest release: 0.1.0
-- The truth: one gapless, totally ordered, hash-chained log, and what must stand beside it and never in it.
create schema es;

create table es.events (
  notification_id    bigint      primary key,          -- position: 1, 2, 3, ...
  originator_id      uuid        not null,             -- stream
  originator_version integer     not null check (originator_version >= 1),
  topic              text        not null,             -- type
  schema_version     integer     not null check (schema_version >= 1),
  state              bytea       not null check (octet_length(state) <= 262144),
  meta               bytea       not null,
  event_id           uuid        not null unique,
  recorded_at        timestamptz not null,
  hash               bytea       not null,
  unique (originator_id, originator_version)
);
alter table es.events alter column state set storage main;

create table es.head (
  one      boolean primary key default true check (one),
  position bigint  not null,
  hash     bytea   not null
) with (fillfactor = 10);
insert into es.head (position, hash) values (0, sha256('bioscope'));

-- Command ids: idempotency, and the answer to a lost COMMIT.
create table es.commands (
  id          uuid        primary key,
  digest      bytea,                                   -- HMAC of the request's payload; null where none was given
  subject     uuid,                                    -- the stream that it made
  position    bigint      not null,                    -- of its last event
  recorded_at timestamptz not null
);

-- Names that one stream at a time may hold, as HMACs.
create table es.claims (
  scope  text  not null,
  digest bytea not null,
  stream uuid  not null,
  primary key (scope, digest)
);
create index claims_stream on es.claims (stream);

-- What must be forgettable: password hashes, wrapped data keys.
create table es.secrets (
  kind  text  not null,
  owner uuid  not null,
  value bytea not null,
  primary key (kind, owner)
);

create table es.refresh_tokens (
  digest      bytea       primary key,                 -- sha256 of the token
  session_id  uuid        not null,
  user_id     uuid        not null,
  issued_at   timestamptz not null,
  expires_at  timestamptz not null,
  absolute_at timestamptz not null,
  used_at     timestamptz
);
create index refresh_tokens_session on es.refresh_tokens (session_id);
create index refresh_tokens_user on es.refresh_tokens (user_id);

create function es.refuse() returns trigger language plpgsql as $$
begin
  if tg_op = 'INSERT' and current_setting('es.appending', true) = 'on' then
    return null;
  end if;
  raise exception 'the log is append-only: % is refused', tg_op using errcode = 'insufficient_privilege';
end $$;
create trigger append_only before insert or update or delete or truncate on es.events
  for each statement execute function es.refuse();

create function es.framed(part bytea) returns bytea language sql immutable strict parallel safe
  return int4send(octet_length(part)) || part;

-- Append a batch of commands, each whole or not at all, and say of each how it went:
-- 'appended', 'replayed' (the id is known: its first answer), 'reused' (the id is known with another digest),
-- 'conflict' (a stream has moved on), 'missing' or 'closed' (a guard), 'taken' (a claim; detail names the scope).
-- The arrays of each group run in parallel; *_cmd holds the 1-based index into k_id and ascends.
create function es.append(
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

-- One token, one child: whoever marks it first may issue the next.
create function es.use_refresh_token(token_digest bytea, at timestamptz) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  update es.refresh_tokens t set used_at = at where t.digest = token_digest and t.used_at is null and t.expires_at > at;
  return found;
end $$;

do $$ begin
  if not exists (select from pg_roles where rolname = 'bioscope_app') then
    create role bioscope_app login;
  end if;
end $$;
revoke all on schema public from public;
revoke execute on all functions in schema es from public;
grant usage on schema es to bioscope_app;
grant select on es.events, es.head, es.commands, es.claims, es.secrets, es.refresh_tokens to bioscope_app;
grant insert, delete on es.refresh_tokens to bioscope_app;
grant execute on function es.append, es.use_refresh_token, es.framed to bioscope_app;
