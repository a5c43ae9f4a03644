-- Oldest release: 0.1.0
-- The trail of access: who was refused, and who read what. It has a hash chain of its own, beside that of the log, since a flood of refused requests
-- must not slow down commands. Addresses are in a table of their own, so that they can be removed; the chain covers salted digests of them.

create table ops.access_log (
  position    bigint      primary key,
  recorded_at timestamptz not null,
  at          timestamptz not null,
  kind        text        not null check (kind <> '' and octet_length(kind) <= 32),
  outcome     text        not null check (outcome in ('allowed', 'refused', 'throttled')),
  actor_id    uuid,
  actor_kind  text        not null check (octet_length(actor_kind) <= 32),
  key_id      uuid,
  noun        text        not null check (octet_length(noun) <= 32),
  object_id   uuid,
  dataset_id  uuid,
  route       text        not null check (octet_length(route) <= 256),
  request_id  text        not null check (octet_length(request_id) <= 64),
  count       integer     not null check (count >= 1),
  address     bytea       not null,
  hash        bytea       not null
);
create index access_log_times on ops.access_log (recorded_at, position);
create index access_log_actors on ops.access_log (actor_id, position) where actor_id is not null;
create index access_log_keys on ops.access_log (key_id, position) where key_id is not null;
create index access_log_objects on ops.access_log (object_id, position) where object_id is not null;
create index access_log_datasets on ops.access_log (dataset_id, position) where dataset_id is not null;
comment on table ops.access_log is 'The trail of access: refused requests, downloads, uses of keys, and reads by administrators.';
comment on column ops.access_log.position is 'Position: 1, 2, 3, and so on. The oldest records are removed after a while.';
comment on column ops.access_log.recorded_at is 'Time of the append, by the clock of the database.';
comment on column ops.access_log.at is 'Time of the request.';
comment on column ops.access_log.kind is 'Such as download or forbidden.';
comment on column ops.access_log.outcome is 'allowed, refused or throttled.';
comment on column ops.access_log.actor_id is 'Account, service or registration; null if it is not known.';
comment on column ops.access_log.actor_kind is 'user, service, pending or anonymous.';
comment on column ops.access_log.key_id is 'API key of the request; null without one. Refers to read.api_keys.';
comment on column ops.access_log.noun is 'Noun of the object, such as image; empty without an object.';
comment on column ops.access_log.object_id is 'What was read or asked for, which need not exist; null for a list.';
comment on column ops.access_log.dataset_id is 'Dataset of the object, where the request named it. Refers to read.datasets.';
comment on column ops.access_log.route is 'Method and template of the route, without the values of its parameters.';
comment on column ops.access_log.request_id is 'Id of the request; empty for a record of several.';
comment on column ops.access_log.count is 'Number of requests that the record stands for.';
comment on column ops.access_log.address is 'SHA-256 over the salt and the address of the client.';
comment on column ops.access_log.hash is 'SHA-256 over the previous hash and all columns.';

create table ops.access_addresses (
  position bigint primary key,
  salt     bytea  not null,
  address  text   not null check (octet_length(address) <= 64),
  person   uuid
);
create index access_addresses_persons on ops.access_addresses (person) where person is not null;
comment on table ops.access_addresses is 'Addresses of clients, apart from the trail of access, so that they can be erased.';
comment on column ops.access_addresses.position is 'Refers to ops.access_log.';
comment on column ops.access_addresses.salt is 'Random bytes of the digest in ops.access_log.';
comment on column ops.access_addresses.address is 'Address of the client.';
comment on column ops.access_addresses.person is 'Account with which the address is erased: of the actor, or the one that a sign-in named.';

create table ops.access_head (
  one             boolean primary key default true check (one),
  position        bigint  not null,
  hash            bytea   not null,
  anchor_position bigint  not null,
  anchor_hash     bytea   not null
) with (fillfactor = 10);
insert into ops.access_head (position, hash, anchor_position, anchor_hash)
  values (0, sha256('bioscope access'), 0, sha256('bioscope access'));
comment on table ops.access_head is 'Both ends of the trail of access. One row.';
comment on column ops.access_head.one is 'Always true.';
comment on column ops.access_head.position is 'Position of the newest record.';
comment on column ops.access_head.hash is 'Its hash.';
comment on column ops.access_head.anchor_position is 'Position of the last record that was removed; 0 if none was.';
comment on column ops.access_head.anchor_hash is 'Its hash, from which the chain goes on.';

create table ops.access_heads (
  position  bigint      primary key,
  hash      text        not null,
  signed_at timestamptz not null,
  signature text        not null,
  key_id    text        not null
);
create index access_heads_times on ops.access_heads (signed_at);
comment on table ops.access_heads is 'Signed heads of the trail of access.';
comment on column ops.access_heads.hash is 'Hash of the record at this position, in hexadecimal.';
comment on column ops.access_heads.signature is 'Ed25519 signature.';
comment on column ops.access_heads.key_id is 'Id of the signing key.';

create table ops.access_writers (
  writer     uuid        primary key,
  batch      bigint      not null,
  written_at timestamptz not null
);
comment on table ops.access_writers is 'The last batch of each process that appends to the trail of access.';
comment on column ops.access_writers.writer is 'Random, known to the process alone.';
comment on column ops.access_writers.batch is 'Number of its last batch, so that a repeated batch is appended once.';

create function ops.refuse_access_change() returns trigger language plpgsql as $$
begin
  if tg_op in ('INSERT', 'DELETE') and current_setting('ops.access_change', true) = 'on' then
    return null;
  end if;
  raise exception 'the trail of access is append-only: % is refused', tg_op using errcode = 'insufficient_privilege';
end $$;
create trigger append_only before insert or update or delete or truncate on ops.access_log
  for each statement execute function ops.refuse_access_change();
create trigger append_only before insert or update or delete or truncate on ops.access_addresses
  for each statement execute function ops.refuse_access_change();

-- Append a batch of records, all or none. The arrays run in parallel. A batch that was appended before changes nothing.
-- The address of a person without a data key is not stored: the person was erased. The key is locked, so that an erasure either waits or was seen.
create function ops.append_access(
  w_writer uuid, w_batch bigint, r_at timestamptz[], r_kind text[], r_outcome text[], r_actor uuid[], r_actor_kind text[], r_key uuid[],
  r_noun text[], r_object uuid[], r_dataset uuid[], r_route text[], r_request text[], r_count integer[], r_address text[], r_person uuid[]
) returns bigint language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  head    record;
  last    bigint;
  chain   bytea;
  stamp   timestamptz;
  salt    bytea;
  covered bytea;
  persons uuid[];
begin
  select h.position, h.hash into head from ops.access_head h for update;
  insert into ops.access_writers as w (writer, batch, written_at) values (w_writer, w_batch, now())
    on conflict (writer) do update set batch = excluded.batch, written_at = excluded.written_at where w.batch < excluded.batch;
  if not found then
    return head.position;
  end if;
  select coalesce(array_agg(owner), '{}') into persons from (
    select s.owner from es.secrets s where s.kind = 'key' and s.owner = any (r_person) order by s.owner for key share) known;
  last := head.position;
  chain := head.hash;
  stamp := clock_timestamp();
  perform set_config('ops.access_change', 'on', true);
  for i in 1 .. cardinality(r_kind) loop
    last := last + 1;
    salt := uuid_send(gen_random_uuid());
    covered := sha256(salt || convert_to(r_address[i], 'UTF8'));
    chain := sha256(chain || es.framed(int8send(last)) || es.framed(int8send((extract(epoch from stamp) * 1000000)::bigint))
      || es.framed(int8send((extract(epoch from r_at[i]) * 1000000)::bigint)) || es.framed(convert_to(r_kind[i], 'UTF8'))
      || es.framed(convert_to(r_outcome[i], 'UTF8')) || es.framed(coalesce(uuid_send(r_actor[i]), ''))
      || es.framed(convert_to(r_actor_kind[i], 'UTF8')) || es.framed(coalesce(uuid_send(r_key[i]), ''))
      || es.framed(convert_to(r_noun[i], 'UTF8')) || es.framed(coalesce(uuid_send(r_object[i]), ''))
      || es.framed(coalesce(uuid_send(r_dataset[i]), '')) || es.framed(convert_to(r_route[i], 'UTF8'))
      || es.framed(convert_to(r_request[i], 'UTF8')) || es.framed(int4send(r_count[i])) || es.framed(covered));
    insert into ops.access_log values (last, stamp, r_at[i], r_kind[i], r_outcome[i], r_actor[i], r_actor_kind[i], r_key[i], r_noun[i],
      r_object[i], r_dataset[i], r_route[i], r_request[i], r_count[i], covered, chain);
    if r_person[i] is null or r_person[i] = any (persons) then
      insert into ops.access_addresses values (last, salt, r_address[i], r_person[i]);
    end if;
  end loop;
  perform set_config('ops.access_change', '', true);
  update ops.access_head set position = last, hash = chain;
  return last;
end $$;

-- Remove the oldest range of records that are older than some days. It ends at a signed head, from whose hash the chain goes on.
create function ops.prune_access_log(days integer, out removed bigint, out more boolean)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  head   record;
  cutoff timestamptz := now() - make_interval(days => greatest(days, 1));
  ends   bigint;
begin
  select * into head from ops.access_head h for update;
  select coalesce(max(s.position) filter (where s.position <= head.anchor_position + 10000), min(s.position)) into ends
    from ops.access_heads s join ops.access_log l on l.position = s.position and encode(l.hash, 'hex') = s.hash
    where s.position > head.anchor_position and s.signed_at < cutoff and l.recorded_at < cutoff;
  removed := 0;
  more := ends is not null;
  if more then
    perform set_config('ops.access_change', 'on', true);
    update ops.access_head set anchor_position = ends, anchor_hash = (select l.hash from ops.access_log l where l.position = ends);
    delete from ops.access_addresses a where a.position in (
      select o.position from ops.access_addresses o where o.position <= ends for update skip locked);  -- an erasure removes those
    delete from ops.access_log l where l.position <= ends;
    get diagnostics removed = row_count;
    delete from ops.access_heads s where s.position < ends;
    perform set_config('ops.access_change', '', true);
  else
    delete from ops.access_writers w where w.written_at < now() - interval '1 day';
  end if;
end $$;

-- A person's addresses are erased in the transaction that destroys the person's data key.
create function ops.erase_addresses() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform set_config('ops.access_change', 'on', true);
  delete from ops.access_addresses a where a.person = old.owner;
  perform set_config('ops.access_change', '', true);
  return null;
end $$;
create trigger erase_addresses after delete on es.secrets
  for each row when (old.kind = 'key') execute function ops.erase_addresses();

revoke all on ops.access_log, ops.access_addresses, ops.access_head, ops.access_heads, ops.access_writers from public;
revoke execute on function ops.append_access, ops.prune_access_log, ops.erase_addresses, ops.refuse_access_change from public;
grant select on ops.access_log, ops.access_addresses, ops.access_head, ops.access_heads to bioscope_api, bioscope_app;
grant execute on function ops.append_access to bioscope_api, bioscope_app;
grant select on ops.access_log, ops.access_head, ops.access_heads to bioscope_relay;
grant insert on ops.access_heads to bioscope_relay, bioscope_app;
grant execute on function ops.prune_access_log to bioscope_projector, bioscope_app;
